//! `levada bench`: what levada costs on this machine, as JSON.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::print;
#[cfg(feature = "kafka")]
use crate::bench::kafka;
use crate::bench::{BenchError, checkpoint, correlate, formats, ingest, latency, micro, score, window};
use crate::generate::setting::Difficulty;

/// Measure what levada costs on this machine
#[derive(Clone, Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// A whole job (file, one-minute windows, file) beside nothing but the decoding of its input
    Window {
        /// How many events; 10,000 of them are a second of event time
        #[arg(long, default_value_t = 12_000_000)]
        events: u64,
        /// How many users they are about
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
        keys: u64,
        /// Worker threads, to compare with one
        #[arg(long, default_value_t = 2)]
        workers: usize,
        /// How many times; medians are reported
        #[arg(long, default_value_t = 5)]
        repeat: usize,
    },
    /// One part of `window`, in this process
    #[command(hide = true)]
    WindowPart(window::PartOptions),
    /// From a record's append to the visible row, while a job runs live
    Latency {
        /// Which job runs
        #[arg(long, value_enum, default_value = "select")]
        job: latency::Job,
        /// Records a second
        #[arg(long, default_value_t = 100_000)]
        rate: u64,
        /// For how long, with a first second that is not counted
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..))]
        seconds: u64,
        /// Worker threads
        #[arg(long, default_value_t = 2)]
        workers: usize,
        /// With a journal, as `levada run --state` has it
        #[arg(long)]
        journal: bool,
    },
    /// Checkpoints of much state: what they take from throughput and latency, and how fast a killed job is back
    Checkpoint {
        /// How many users the state holds
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
        keys: u64,
        /// Records of the history that is read at full speed: enough for some checkpoints
        #[arg(long, default_value_t = 48_000_000)]
        events: u64,
        /// Records a second, live
        #[arg(long, default_value_t = 50_000)]
        rate: u64,
        /// For how long, live
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(3..))]
        seconds: u64,
        /// How far apart checkpoints are
        #[arg(long, default_value = "5s")]
        interval: String,
        /// Worker threads
        #[arg(long, default_value_t = 1)]
        workers: usize,
        /// How many times the history is read with and without; medians are reported
        #[arg(long, default_value_t = 3)]
        repeat: usize,
    },
    /// The platform job live: from the record that completes a moment to the visible row of what it decided
    Correlate {
        /// Which of the simulator's streams
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How hard a one
        #[arg(long, value_enum, default_value = "hard")]
        difficulty: Difficulty,
        /// How many events, the first second of which is not counted
        #[arg(long, default_value_t = 600_000, value_parser = clap::value_parser!(u64).range(100..))]
        events: u64,
        /// Events a second
        #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
        rate: u64,
        /// How long a live epoch lasts
        #[arg(long, default_value = "2ms")]
        epoch: String,
        /// Worker threads
        #[arg(long, default_value_t = 1)]
        workers: usize,
    },
    /// Events over HTTP: from a request to its answer, which comes once they are durable
    Ingest {
        /// Connections that send at once
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4000))]
        connections: u16,
        /// Events a request
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        batch: u16,
        /// For how long
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// A job over Apache Kafka, whose brokers run already (scripts/kafka_brokers.py starts some)
    #[cfg(feature = "kafka")]
    #[command(subcommand)]
    Kafka(Kafka),
    /// One part of `kafka`, in this process
    #[cfg(feature = "kafka")]
    #[command(hide = true)]
    KafkaPart(kafka::PartOptions),
    /// A model: sequences one at a time, and eight at a time
    Score {
        /// The model's manifest
        #[arg(long, default_value = "models/flights/disruption.json")]
        model: PathBuf,
        /// How many sequences, in each way
        #[arg(long, default_value_t = 400)]
        sequences: usize,
    },
    /// Decoding, format by format
    Formats {
        /// How many events
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
        events: u64,
        /// How many times; medians are reported
        #[arg(long, default_value_t = 5)]
        repeat: usize,
    },
    /// Reading, decoding, routing, windows and the log, one by one
    Micro {
        /// How many events
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
        /// How many users they are about
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
        keys: u64,
        /// How many times; medians are reported
        #[arg(long, default_value_t = 5)]
        repeat: usize,
    },
}

#[cfg(feature = "kafka")]
#[derive(Clone, Debug, Subcommand)]
enum Kafka {
    /// CPU: a topic, one-minute windows, a file, beside nothing but consuming and decoding the topic
    Cost {
        /// Some of the brokers, host:port,host:port
        #[arg(long, value_name = "BROKERS")]
        brokers: String,
        /// How many events; 10,000 of them are a second of event time
        #[arg(long, default_value_t = 5_000_000)]
        events: u64,
        /// How many users they are about
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
        keys: u64,
        /// How many partitions the topic has
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
        partitions: u32,
        /// Worker threads of the job
        #[arg(long, default_value_t = 1)]
        workers: usize,
        /// How many times; medians are reported
        #[arg(long, default_value_t = 5)]
        repeat: usize,
    },
    /// Latency: from a record that is sent to the row that a reader of committed records sees
    Latency {
        /// Some of the brokers, host:port,host:port
        #[arg(long, value_name = "BROKERS")]
        brokers: String,
        /// Records a second
        #[arg(long, default_value_t = 10_000)]
        rate: u64,
        /// For how long, each way
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
        seconds: u64,
        /// How far apart checkpoints are
        #[arg(long, default_value = "10s")]
        checkpoint: String,
        /// Worker threads of the job
        #[arg(long, default_value_t = 1)]
        workers: usize,
        /// Measure with the job's journal in a topic, too
        #[arg(long)]
        journal: bool,
    },
    /// Memory: a job that has a backlog to read, and one that has a tenth of it
    Memory {
        /// Some of the brokers, host:port,host:port
        #[arg(long, value_name = "BROKERS")]
        brokers: String,
        /// How many records wait
        #[arg(long, default_value_t = 10_000_000)]
        events: u64,
        /// How many users they are about
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
        keys: u64,
        /// How many partitions the topic has
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
        partitions: u32,
        /// Worker threads of the job
        #[arg(long, default_value_t = 1)]
        workers: usize,
    },
}

#[cfg(feature = "kafka")]
impl Kafka {
    fn run(self) -> ExitCode {
        match self {
            Kafka::Cost { brokers, events, keys, partitions, workers, repeat } => {
                told(kafka::cost::run(&kafka::cost::Options {
                    brokers,
                    events,
                    keys,
                    partitions,
                    workers,
                    repeat,
                }))
            }
            Kafka::Latency { brokers, rate, seconds, checkpoint, workers, journal } => {
                told(kafka::latency::run(&kafka::latency::Options {
                    brokers,
                    rate,
                    seconds,
                    checkpoint,
                    workers,
                    journal,
                }))
            }
            Kafka::Memory { brokers, events, keys, partitions, workers } => {
                told(kafka::memory::run(&kafka::memory::Options {
                    brokers,
                    events,
                    keys,
                    partitions,
                    workers,
                }))
            }
        }
    }
}

impl Bench {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Window { events, keys, workers, repeat } => {
                told(window::run(&window::Options { events, keys, workers, repeat }))
            }
            Command::WindowPart(options) => told(window::measure(&options)),
            Command::Latency { job, rate, seconds, workers, journal } => {
                told(latency::run(&latency::Options { job, rate, seconds, workers, journal }))
            }
            Command::Checkpoint { keys, events, rate, seconds, interval, workers, repeat } => {
                let options = checkpoint::Options { keys, events, rate, seconds, interval, workers, repeat };
                told(checkpoint::run(&options))
            }
            Command::Correlate { seed, difficulty, events, rate, epoch, workers } => {
                told(correlate::run(&correlate::Options { seed, difficulty, events, rate, epoch, workers }))
            }
            Command::Ingest { connections, batch, seconds } => told(ingest::run(&ingest::Options {
                connections: usize::from(connections),
                batch: usize::from(batch),
                seconds,
            })),
            #[cfg(feature = "kafka")]
            Command::Kafka(measurement) => measurement.run(),
            #[cfg(feature = "kafka")]
            Command::KafkaPart(options) => told(kafka::measure(&options)),
            Command::Score { model, sequences } => told(score::run(&model, &score::Options { sequences })),
            Command::Formats { events, repeat } => told(formats::run(&formats::Options { events, repeat })),
            Command::Micro { events, keys, repeat } => {
                told(micro::run(&micro::Options { events, keys, repeat }))
            }
        }
    }
}

fn told(report: Result<impl Serialize, BenchError>) -> ExitCode {
    let text = report.and_then(|report| {
        serde_json::to_string_pretty(&report).map_err(|error| BenchError::Other(error.to_string()))
    });
    match text {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
