//! `levada topics`: looking at the embedded topics, filling them, emptying them.

mod produce;
mod read;
#[cfg(test)]
mod tests;

use std::io::{BufWriter, Write, stdout};
use std::path::Path;

use clap::{Args, Subcommand};
use levada_connectors::codec::timestamp;
use levada_connectors::log::{Log, TopicConfig, TopicInfo};
use levada_types::parse_duration_ms;
use serde_json::json;

use super::failure::Failure;

/// Looks at the embedded topics, fills and deletes them
#[derive(Clone, Debug, Args)]
pub struct Topics {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Shows all topics: partitions, records, size
    List {
        /// As JSON, with every partition
        #[arg(long)]
        json: bool,
    },
    /// Creates a topic
    Create {
        /// Its name
        topic: String,
        /// How many partitions it has, for good
        #[arg(long, default_value_t = 1)]
        partitions: u32,
        /// Delete the oldest records of a partition while it has more bytes than this
        #[arg(long, value_name = "BYTES")]
        retain_bytes: Option<u64>,
        /// Delete records so long after they were written, for instance `7d`
        #[arg(long, value_name = "DURATION")]
        retain: Option<String>,
    },
    /// Appends JSON lines to a topic, which is created if there is none
    Produce(produce::Produce),
    /// Writes a topic's records to standard output, one a line, exactly as stored
    Export(read::Export),
    /// Shows the newest records, and with --follow those to come
    Tail(read::Tail),
    /// Deletes topics with all their records; none of them if one is not there
    Delete {
        /// Their names
        #[arg(required = true, value_name = "TOPIC")]
        topics: Vec<String>,
    },
    /// Reads every byte of a topic and checks every checksum
    Verify {
        /// Its name; all topics if none is given
        topic: Option<String>,
    },
}

impl Topics {
    /// Runs the command on the topics in `data_dir`.
    ///
    /// # Errors
    /// Whatever stopped it, with the name of the topic.
    pub fn run(self, data_dir: &Path) -> Result<(), Failure> {
        let mut out = BufWriter::with_capacity(256 << 10, stdout().lock());
        let result = self.execute(data_dir, &mut out).and_then(|()| Ok(out.flush()?));
        Failure::unless_reader_left(result)
    }

    /// As [`Topics::run`], writing to `out`.
    fn execute(self, data_dir: &Path, out: &mut dyn Write) -> Result<(), Failure> {
        let log = Log::open(data_dir)?;
        match self.command {
            Command::List { json } => list(&log, json, out),
            Command::Create { topic, partitions, retain_bytes, retain } => {
                let retain_ms = match retain.as_deref().map(parse_duration_ms) {
                    None => None,
                    Some(Ok(ms)) => u64::try_from(ms).ok(),
                    Some(Err(reason)) => {
                        return Err(Failure::Other(format!("create topic {topic}: --retain: {reason}")));
                    }
                };
                let config = TopicConfig { partitions, retain_bytes, retain_ms, ..TopicConfig::default() };
                log.create_topic(&topic, config)?;
                Ok(writeln!(out, "created {topic} with {}", count(u64::from(partitions), "partition"))?)
            }
            Command::Produce(produce) => produce.execute(&log, out),
            Command::Export(export) => export.execute(&log, out),
            Command::Tail(tail) => tail.execute(&log, out),
            Command::Delete { topics } => {
                topics.iter().try_for_each(|topic| log.topic(topic).map(drop))?;
                for topic in &topics {
                    log.delete_topic(topic)?;
                    writeln!(out, "deleted {topic}")?;
                }
                Ok(())
            }
            Command::Verify { topic } => {
                let topics = match topic {
                    Some(topic) => vec![topic],
                    None => log.topics()?.into_iter().map(|topic| topic.name).collect(),
                };
                verify(&log, &topics, out)
            }
        }
    }
}

fn list(log: &Log, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let topics = log.topics()?;
    if !log.root().exists() {
        eprintln!("there is no folder {}; the first topic that is made there makes it", log.root().display());
    }
    if json {
        let topics: Vec<_> = topics.iter().map(topic_json).collect();
        return Ok(writeln!(out, "{:#}", json!(topics))?);
    }
    if topics.is_empty() {
        return Ok(writeln!(out, "There are no topics in {}.", log.root().display())?);
    }
    let mut rows = vec![["TOPIC", "PARTITIONS", "RECORDS", "SIZE", "CREATED"].map(str::to_owned)];
    for topic in &topics {
        rows.push([
            topic.name.clone(),
            topic.partitions.len().to_string(),
            records(topic).to_string(),
            size(topic.partitions.iter().map(|partition| partition.bytes).sum()),
            instant(topic.created_ms),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [0, 1, 2, 3].map(width);
    for [name, partitions, records, size, created] in &rows {
        let [a, b, c, d] = widths;
        writeln!(out, "{name:a$}  {partitions:>b$}  {records:>c$}  {size:>d$}  {created}")?;
    }
    Ok(())
}

fn topic_json(topic: &TopicInfo) -> serde_json::Value {
    let partitions: Vec<_> = topic
        .partitions
        .iter()
        .map(|p| {
            json!({ "partition": p.partition, "first": p.first, "next": p.next, "bytes": p.bytes,
                    "segments": p.segments })
        })
        .collect();
    json!({
        "name": topic.name,
        "created": instant(topic.created_ms),
        "records": records(topic),
        "bytes": topic.partitions.iter().map(|partition| partition.bytes).sum::<u64>(),
        "retain_bytes": topic.config.retain_bytes,
        "retain_ms": topic.config.retain_ms,
        "partitions": partitions,
    })
}

fn verify(log: &Log, topics: &[String], out: &mut dyn Write) -> Result<(), Failure> {
    let mut damaged = 0;
    for name in topics {
        let topic = log.topic(name)?;
        for partition in 0..topic.partitions() {
            match topic.verify(partition) {
                Ok(bounds) => {
                    let records = count(bounds.next - bounds.first, "record");
                    writeln!(
                        out,
                        "{name} partition {partition}: sound, {records} from offset {}",
                        bounds.first
                    )?;
                }
                Err(error) => {
                    damaged += 1;
                    writeln!(out, "{name} partition {partition}: {error}")?;
                }
            }
        }
    }
    match damaged {
        0 => Ok(()),
        n => Err(Failure::Other(format!("verify: {} not sound", count(n, "partition")))),
    }
}

fn records(topic: &TopicInfo) -> u64 {
    topic.partitions.iter().map(|partition| partition.next - partition.first).sum()
}

fn instant(ms: i64) -> String {
    let mut text = Vec::new();
    timestamp::write(ms - ms.rem_euclid(1000), &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// A number of bytes as people say it: `1.5 MiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}
