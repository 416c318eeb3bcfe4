//! `levada topics export` and `levada topics tail`: records out of a topic.

use std::io::{self, Write};
use std::sync::mpsc;

use clap::Args;
use levada_connectors::codec::json::pick;
use levada_connectors::codec::timestamp;
use levada_connectors::log::{Log, RecordRef, Start, Topic};
use levada_connectors::topic::published;
use serde_json::{Map, Value};

use crate::cli::failure::Failure;

/// How much is read at once.
const BLOCK_RECORDS: usize = 8192;
const BLOCK_BYTES: usize = 8 << 20;

/// Writes a topic's records to standard output, one a line, exactly as stored
#[derive(Clone, Debug, Args)]
pub(super) struct Export {
    /// Its name
    topic: String,
    /// Begin each partition with the record of this offset
    #[arg(long, value_name = "OFFSET")]
    from: Option<u64>,
    /// Stop after so many records
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Only this partition; otherwise one partition after the other
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Each record in a JSON object that also says where it stood, its time, key and epoch
    #[arg(long)]
    with_position: bool,
}

impl Export {
    pub(super) fn execute(&self, log: &Log, out: &mut dyn Write) -> Result<(), Failure> {
        let topic = log.topic(&self.topic)?;
        let mut left = self.limit.unwrap_or(u64::MAX);
        let (mut beyond, mut ends) = (true, Vec::new());
        for partition in partitions(&topic, self.partition) {
            // What is appended meanwhile is left for the next time, so that an export ends.
            let end = topic.bounds(partition)?.next;
            let mut reader = match self.from {
                None => topic.reader(partition, Start::Beginning)?,
                Some(from) if from < end => topic.reader(partition, Start::Offset(from))?,
                Some(_) => {
                    ends.push(format!("{end} of partition {partition}"));
                    continue;
                }
            };
            beyond = false;
            while left > 0 && reader.position() < end {
                let wanted = left.min(end - reader.position()).min(BLOCK_RECORDS as u64) as usize;
                let fetched = reader.read(wanted, BLOCK_BYTES)?;
                if fetched.is_empty() {
                    break;
                }
                left -= fetched.len() as u64;
                for record in &fetched {
                    line(partition, &record, self.with_position, out)?;
                }
            }
        }
        if let (Some(from), true) = (self.from, beyond) {
            let (topic, ends) = (&self.topic, ends.join(", "));
            eprintln!("nothing is exported from offset {from} on: {topic} ends before offset {ends}");
        }
        Ok(())
    }
}

/// Shows the newest records, and with --follow those to come
#[derive(Clone, Debug, Args)]
pub(super) struct Tail {
    /// Its name
    topic: String,
    /// How many of the newest records to show of each partition
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 10)]
    lines: u64,
    /// Then show records as they come, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only this partition
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Each record in a JSON object that also says where it stood, its time, key and epoch
    #[arg(long)]
    with_position: bool,
}

impl Tail {
    pub(super) fn execute(&self, log: &Log, out: &mut dyn Write) -> Result<(), Failure> {
        let topic = log.topic(&self.topic)?;
        let (wake, woken) = mpsc::channel();
        let mut readers = Vec::new();
        let mut subscriptions = Vec::new();
        for partition in partitions(&topic, self.partition) {
            let bounds = topic.bounds(partition)?;
            let start = bounds.next.saturating_sub(self.lines).max(bounds.first);
            let reader = topic.reader(partition, Start::Offset(start))?;
            if self.follow {
                let wake = wake.clone();
                subscriptions.push(reader.subscribe(move || {
                    let _ = wake.send(());
                })?);
            }
            readers.push((partition, reader));
        }
        loop {
            let mut quiet = true;
            for (partition, reader) in &mut readers {
                let fetched = reader.read(BLOCK_RECORDS, BLOCK_BYTES)?;
                quiet &= fetched.is_empty();
                for record in &fetched {
                    line(*partition, &record, self.with_position, out)?;
                }
            }
            if !quiet {
                continue;
            }
            out.flush()?;
            if !self.follow || woken.recv().is_err() {
                return Ok(());
            }
            // Many appends, one look.
            while woken.try_recv().is_ok() {}
        }
    }
}

fn partitions(topic: &Topic, only: Option<u32>) -> Vec<u32> {
    only.map_or_else(|| (0..topic.partitions()).collect(), |partition| vec![partition])
}

fn line(partition: u32, record: &RecordRef<'_>, with_position: bool, out: &mut dyn Write) -> io::Result<()> {
    if !with_position {
        out.write_all(record.value)?;
        return out.write_all(b"\n");
    }
    // A dead letter has no time of its own.
    let time = (record.timestamp_ms > i64::MIN).then(|| {
        let mut time = Vec::new();
        timestamp::write(record.timestamp_ms, &mut time);
        String::from_utf8_lossy(&time).into_owned()
    });
    let mut fields = Map::new();
    fields.insert("partition".into(), partition.into());
    fields.insert("offset".into(), record.offset.into());
    fields.insert("time".into(), time.into());
    fields.insert("key".into(), record.key.map_or(Value::Null, |key| String::from_utf8_lossy(key).into()));
    if let Some((epoch, position)) = published(record) {
        fields.insert("epoch".into(), epoch.into());
        fields.insert("position".into(), position.into());
    }
    let json = pick(record.value, []).is_ok();
    if !json {
        fields.insert("text".into(), String::from_utf8_lossy(record.value).into());
    }
    let mut text = Value::Object(fields).to_string();
    if json {
        // As stored, not as some parser would write it again.
        text.truncate(text.len() - 1);
        out.write_all(text.as_bytes())?;
        out.write_all(b",\"value\":")?;
        out.write_all(record.value)?;
        text = "}".to_owned();
    }
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")
}
