//! `levada topics produce`: JSON lines into a topic.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use levada_connectors::file::Lines;
use levada_connectors::log::{Log, LogError, RecordIn, TopicConfig, WriterOptions};
use levada_connectors::topic::{MarkFields, Marks};

use super::count;
use crate::cli::failure::Failure;

/// Appends JSON lines to a topic, which is created if there is none
#[derive(Clone, Debug, Args)]
pub(super) struct Produce {
    /// Its name
    topic: String,
    /// The file: plain, .gz or .zst; `-` for standard input
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// The field that is a record's key; records of one key stay in one partition
    #[arg(long, value_name = "FIELD")]
    key: Option<String>,
    /// The field that is a record's time (RFC 3339 or milliseconds); the time of producing if none is given
    #[arg(long, value_name = "FIELD")]
    time: Option<String>,
    /// How many partitions to create the topic with
    #[arg(long, value_name = "N")]
    partitions: Option<u32>,
    /// How many records to append at once; 1 makes each line of a pipe visible as it comes
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// Begin with this line of the file, counted from 1: to go on where a bad line stopped it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from_line: u64,
    /// Produce lines that are no JSON object, or lack the key or time, without what they lack
    #[arg(long)]
    keep_bad: bool,
}

impl Produce {
    pub(super) fn execute(&self, log: &Log, out: &mut dyn Write) -> Result<(), Failure> {
        let mut lines = match self.file == Path::new("-") {
            true => Lines::live(Box::new(std::io::stdin())),
            false => Lines::open(&self.file)?,
        };
        let config = TopicConfig { partitions: self.partitions.unwrap_or(1), ..TopicConfig::default() };
        let is_new = matches!(log.topic(&self.topic), Err(LogError::NoSuchTopic { .. }));
        let topic = log.ensure_topic(&self.topic, config)?;
        if let Some(partitions) = self.partitions
            && partitions != topic.partitions()
        {
            let has = topic.partitions();
            return Err(Failure::Other(format!(
                "produce to topic {0} with {partitions} partitions: it has {has}; leave --partitions out, or \
                 `levada topics delete {0}` first",
                self.topic
            )));
        }
        let writer = topic.writers(WriterOptions::default())?;
        let marks = MarkFields { key: self.key.clone(), time: self.time.clone() };
        let (mut produced, mut bad, mut time) = (0u64, 0u64, 0);
        let mut last_line = 0;
        loop {
            let mut records = lines
                .next(self.batch as usize)
                .map_err(|error| Failure::Other(format!("read {}: {error}", self.file.display())))?;
            if records.is_empty() {
                break;
            }
            last_line = records.offsets.last().copied().unwrap_or(last_line);
            let skipped = records.offsets.partition_point(|line| *line < self.from_line);
            records.offsets.drain(..skipped);
            records.spans.drain(..skipped);
            if records.is_empty() {
                continue;
            }
            let mut keys = Vec::with_capacity(records.len());
            let mut times = Vec::with_capacity(records.len());
            let mut stopped = None;
            for i in 0..records.len() {
                let Marks { key, time_ms, wrong } = marks.of(records.value(i));
                let at = if self.time.is_none() { Some(now_ms()) } else { time_ms };
                if let Some(reason) = wrong {
                    if !self.keep_bad {
                        stopped = Some((records.offsets.get(i).copied().unwrap_or_default(), reason));
                        break;
                    }
                    bad += 1;
                }
                // A record without a time has that of the one before it.
                time = at.unwrap_or(time);
                keys.push(key);
                times.push(time);
            }
            let batch: Vec<RecordIn<'_>> = keys
                .iter()
                .zip(&times)
                .enumerate()
                .map(|(i, (key, time))| RecordIn {
                    timestamp_ms: *time,
                    key: key.as_deref(),
                    value: records.value(i),
                    ..RecordIn::default()
                })
                .collect();
            writer.append(&batch)?;
            produced += batch.len() as u64;
            let Some((line, reason)) = stopped else { continue };
            writer.sync()?;
            if produced == 0 && is_new {
                drop(writer);
                log.delete_topic(&self.topic)?;
            }
            return Err(Failure::Other(self.stopped_at(line, &reason, produced)));
        }
        writer.sync()?;
        if self.from_line > 1 && produced == 0 {
            if is_new {
                drop(writer);
                log.delete_topic(&self.topic)?;
            }
            let (line, file) = (self.from_line, self.file.display());
            let reason = format!("produce from line {line} of {file}: it ends with line {last_line}");
            return Err(Failure::Other(reason));
        }
        let what = if self.key.is_none() && self.time.is_none() { "no JSON" } else { "without key or time" };
        let without = if bad > 0 { format!(", {bad} of them {what}") } else { String::new() };
        Ok(writeln!(out, "produced {} to {}{without}", count(produced, "record"), self.topic)?)
    }

    /// What to say of a bad line.
    fn stopped_at(&self, line: u64, reason: &str, produced: u64) -> String {
        let so_far = match produced {
            0 if self.from_line == 1 => "nothing was produced".to_string(),
            0 => format!("nothing was produced: once it is mended, go on with --from-line {line}"),
            _ => format!(
                "the lines before it were produced ({}): once it is mended, go on with --from-line {line}",
                count(produced, "record")
            ),
        };
        let file = self.file.display();
        format!(
            "produce line {line} of {file}: {reason}; {so_far} (with --keep-bad such lines are produced too, and a \
             job sets them aside with the reason)"
        )
    }
}

/// The clock: what a record that names no time of its own was produced at.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
