//! levada's engine: a job's plan becomes a timely dataflow of sources, operators and sinks.
//!
//! ```text
//!   plan ── what a job is, validated, free of TOML and of timely
//!   engine ── turns a plan into a dataflow: epochs, exchange, watermarks, back pressure
//!   host ── gives one operator its epochs in canonical order; free of timely
//!   operators ── plain structs behind one trait, a file each
//!   expressions ── SQL over record batches
//! ```
//!
//! Every operator is a deterministic function of its state, an epoch's rows and the watermark. No
//! code here reads the clock but `engine::clock`.

mod cells;
pub mod changes;
pub mod engine;
mod exact;
pub mod expressions;
#[cfg(test)]
pub mod harness;
mod held;
pub mod host;
mod keyed;
pub mod late;
pub mod metrics;
pub mod operator;
pub mod operators;
pub mod order;
pub mod plan;
mod rows;

pub use operator::{EpochInput, InputOrder, Operator, OperatorError, Outputs};
pub use operators::Step;
pub use plan::{ColumnSet, PlanContext, PlannedStep, Problem, StepSpec};
