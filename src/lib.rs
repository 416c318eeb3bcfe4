//! levada: a real-time decision engine. Here the crates meet; the binary is a thin shell around this.
//!
//! ```text
//!   cli ── the commands: check, graph, schema, …
//!   job ── a job file becomes a plan, or a report of everything that is wrong with it
//!   reference ── a page of each thing that may stand in a job file, made from the code
//!   alerts ── what fires in a job, and what somebody does about it
//!   graph ── a plan drawn: SVG, DOT, Mermaid
//!   telemetry ── progress, log lines, Prometheus
//!   gateway ── topics over HTTP, resumable, and a page that shows them
//!   bench ── what it all costs on the machine that it runs on
//!   generate ── the recorded flights as topics, and made-up events to measure with
//! ```

pub mod alerts;
pub mod bench;
pub mod cli;
pub mod gateway;
pub mod generate;
pub mod graph;
pub mod job;
pub mod reference;
pub mod telemetry;
