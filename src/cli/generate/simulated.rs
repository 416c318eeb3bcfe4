//! What the simulations with labels have in common on the command line.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use levada_types::ConnectorError;
use levada_types::time::parse_duration_ms;

use super::Failure;
use crate::generate::Destination;
use crate::generate::setting::{Difficulty, Length, Setting};
use crate::generate::topics::{self, Record, Topic};

#[derive(Clone, Debug, Args)]
pub(super) struct Simulated {
    /// Which of the many possible streams
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many events; labels are not counted [default: 100000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    events: Option<u64>,
    /// For how long, in event time, instead: 8h, 7d
    #[arg(long, value_name = "TIME", value_parser = parse_duration_ms, conflicts_with = "events")]
    duration: Option<i64>,
    /// How hard it is to find what the labels tell; what follows changes one thing of it
    #[arg(long, value_enum, default_value_t = Difficulty::Normal)]
    difficulty: Difficulty,
    /// Events a second of event time
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// How much of it is noise, from 0 to 1
    #[arg(long, value_name = "SHARE")]
    noise: Option<f64>,
    /// How many of the things to be found go on at once, on average
    #[arg(long, value_name = "N")]
    overlap: Option<f64>,
    /// How many partitions the topics of events get
    #[arg(long, value_name = "N", default_value_t = 1)]
    partitions: u32,
    /// The folder to write them to, a file for each topic, rather than the topics
    #[arg(long, value_name = "DIR", conflicts_with = "partitions")]
    pub(super) out: Option<PathBuf>,
}

impl Simulated {
    /// Makes the stream and brings it where it is wanted; says what came of it.
    pub(super) fn run<S: Iterator<Item = Record>>(
        &self,
        to: &Destination,
        topics: &[Topic],
        stream: impl FnOnce(&Setting) -> Result<S, ConnectorError>,
        said: &mut dyn Write,
    ) -> Result<(), Failure> {
        let length = match self.duration {
            Some(ms) => Length::Time(ms.unsigned_abs()),
            None => Length::Events(self.events.unwrap_or(100_000)),
        };
        let (seed, difficulty) = (self.seed, self.difficulty);
        let (rate, noise, overlap) = (self.rate, self.noise, self.overlap);
        let records = stream(&Setting { seed, length, difficulty, rate, noise, overlap })?;
        let counts = match &self.out {
            Some(folder) => topics::write(folder, topics, records)
                .map_err(|error| Failure::Other(format!("write to {}: {error}", folder.display())))?,
            None => topics::fill(to, topics, self.partitions, records)?,
        };
        for (topic, count) in counts {
            writeln!(said, "{topic}: {count} records")?;
        }
        Ok(())
    }
}
