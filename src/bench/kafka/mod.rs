//! What a job over Apache Kafka costs: CPU beside nothing but consuming and decoding, memory with a backlog, and
//! latency from a producer's record to the row that a reader of committed records sees.
//!
//! The brokers run already, on this machine or another; what they cost is not counted, but on one machine they share
//! its cores. Topics are made for the measurement and deleted after it.

pub mod cost;
pub mod latency;
pub mod memory;
mod part;
mod raw;

use levada_connectors::kafka::{Properties, delete_topic};
use levada_types::ConnectorError;

pub use part::{PartOptions, measure};

use super::BenchError;
use crate::generate::{Destination, bench};

/// A topic that is made for a measurement and deleted with it.
struct Topic {
    brokers: String,
    name: String,
}

impl Topic {
    /// A name that no other measurement has.
    fn named(brokers: &str, what: &str) -> Topic {
        Topic { brokers: brokers.into(), name: format!("levada-bench-{}-{what}", std::process::id()) }
    }

    /// Fills it with the events that every measurement is made on.
    fn fill(&self, partitions: u32, events: u64, keys: u64) -> Result<(), BenchError> {
        let to = Destination::Kafka { brokers: self.brokers.clone(), properties: Properties::default() };
        Ok(bench::fill(&to, &self.name, partitions, 1, events, keys)?)
    }

    fn delete(&self) -> Result<bool, ConnectorError> {
        delete_topic(&self.brokers, &Properties::default(), &self.name)
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        if let Err(error) = self.delete() {
            eprintln!("failed to delete what was measured on: {error}");
        }
    }
}
