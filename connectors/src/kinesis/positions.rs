//! Where a lane's records stand in the stream, written down before the job sees them.
//!
//! A job knows a record by its offset, a number of 64 bits; Kinesis knows it by its shard and a sequence number of up
//! to 186 bits, and what comes next of several shards nobody tells. So a lane counts its records, and keeps in a topic
//! of the state folder which ones it counted, in which order:
//!
//! ```text
//!  STATE/positions/SOURCE/LANE/    a record, JSON:
//!    from, end        the offsets that it tells of
//!    parts            shard, first and last sequence number: read again, these records merged are those offsets'
//!    at               of every shard: what was read last, or that it is done
//!    history_until    while it is not read to its end: arrived later is no history
//!    ends_history     whether the history ended here
//!
//!  offset  ┌ 24 bits ──┬ 40 bits ─────────┐
//!          │ beginning │ number           │    beginning: how often the job began afresh in this folder
//!          └───────────┴──────────────────┘
//! ```
//!
//! A run that goes on reads these again, in the same order, and is then where the last one was. What the stream itself
//! does not keep any more is trimmed here too.

use std::collections::BTreeMap;
use std::path::PathBuf;

use levada_types::ConnectorError;
use serde::{Deserialize, Serialize};

use super::lanes::KeyRange;
use super::shards::Sequence;
use crate::log::{Log, LogError, RecordIn, Start, Topic, TopicConfig, Writer, WriterOptions};

/// Bits of an offset that hold the number.
const NUMBER_BITS: u32 = 40;
/// A segment is trimmed whole.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Bytes read at a time.
const READ_BYTES: usize = 4 << 20;
/// After so many entries it is looked whether some can be trimmed.
const TRIM_EVERY: u32 = 1024;

/// How far a lane is in a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The last record that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Sequence>,
    /// Where nothing was read: begin with what arrived then, in milliseconds; without it, with the first one held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// All that had arrived before this was read; 0 if that is not known.
    pub reached_ms: u64,
    /// Whether it was read to its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

/// Some consecutive records of a shard, from one to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub shard: String,
    pub first: Sequence,
    pub last: Sequence,
}

/// What a lane is: which keys of which stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LaneOf {
    /// When the stream was made, in milliseconds: one that was made anew is another.
    pub created_ms: u64,
    #[serde(with = "decimal")]
    pub keys: KeyRange,
}

/// An entry; it tells all that is needed to go on behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub from: u64,
    pub end: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    pub lane: LaneOf,
    pub at: BTreeMap<String, Place>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_until: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends_history: bool,
}

/// Hash keys as texts: JSON's numbers are too short.
mod decimal {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::KeyRange;

    pub(super) fn serialize<S: Serializer>(range: &KeyRange, to: S) -> Result<S::Ok, S::Error> {
        [range.first.to_string(), range.last.to_string()].serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<KeyRange, D::Error> {
        let [first, last] = <[String; 2]>::deserialize(from)?;
        let key = |text: String| text.parse().map_err(D::Error::custom);
        Ok(KeyRange { first: key(first)?, last: key(last)? })
    }
}

/// The offset that a lane's numbering begins with.
fn beginning(generation: u64) -> u64 {
    generation << NUMBER_BITS
}

fn generation(offset: u64) -> u64 {
    offset >> NUMBER_BITS
}

/// The positions of one source.
#[derive(Clone, Debug)]
pub(super) struct Positions {
    folder: PathBuf,
    source: String,
}

impl Positions {
    /// Those of `source` in a job's state folder.
    pub fn new(state: &std::path::Path, source: &str) -> Positions {
        Positions { folder: state.join("positions"), source: source.into() }
    }

    fn topic(&self) -> Result<Option<Topic>, ConnectorError> {
        match Log::open(&self.folder)?.topic(&self.source) {
            Ok(topic) => Ok(Some(topic)),
            Err(LogError::NoSuchTopic { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// How many lanes there are, if a job has begun.
    pub fn lanes(&self) -> Result<Option<u32>, ConnectorError> {
        Ok(self.topic()?.map(|topic| topic.partitions()))
    }

    /// Writes down how a lane of so many begins; durable on return. Gives the first offset.
    pub fn begin(&self, lane: u32, lanes: u32, entry: Entry) -> Result<u64, ConnectorError> {
        let log = Log::open(&self.folder)?;
        if let Some(before) = self.lanes()?.filter(|before| *before != lanes) {
            return Err(ConnectorError::configuration(format!(
                "begin source {} with {lanes} lanes: the positions in {} are of {before}, and savepoints need them; say \
                 `lanes = {before}`",
                self.source,
                self.folder.display()
            )));
        }
        let config =
            TopicConfig { partitions: lanes, segment_bytes: SEGMENT_BYTES, ..TopicConfig::default() };
        let topic = log.ensure_topic(&self.source, config)?;
        let last = self.entries(&topic, lane)?.into_iter().map(|entry| generation(entry.from)).max();
        let offset = beginning(last.map_or(0, |last| last + 1));
        let writer = topic.writer(lane, WriterOptions::default())?;
        let entry = Entry { from: offset, end: offset, ..entry };
        append(&writer, &entry)?;
        Ok(offset)
    }

    fn entries(&self, topic: &Topic, lane: u32) -> Result<Vec<Entry>, ConnectorError> {
        let mut reader = topic.reader(lane, Start::Beginning)?;
        let mut entries = Vec::new();
        loop {
            let fetched = reader.read(usize::MAX, READ_BYTES)?;
            if fetched.is_empty() {
                return Ok(entries);
            }
            for record in &fetched {
                let entry = serde_json::from_slice(record.value).map_err(|error| {
                    ConnectorError::damage(format!(
                        "understand entry {} of the positions of source {} in {}: {error}",
                        record.offset,
                        self.source,
                        self.folder.display()
                    ))
                })?;
                entries.push(entry);
            }
        }
    }

    /// What was written down from `offset` on.
    pub fn open(&self, lane: u32, offset: u64) -> Result<Opened, ConnectorError> {
        let missing = |why: &str| {
            ConnectorError::configuration(format!(
                "go on with source {}: {} does not tell where record {offset} of lane {lane} stands{why}",
                self.source,
                self.folder.display()
            ))
        };
        let topic = self.topic()?.ok_or_else(|| missing(""))?;
        let writer = topic.writer(lane, WriterOptions::default())?;
        if let Some(cut) = writer.recovery() {
            tracing::warn!(source = self.source, lane, ?cut, "a torn tail of the positions was cut off");
        }
        let mut entries = self.entries(&topic, lane)?;
        entries.retain(|entry| generation(entry.from) == generation(offset));
        if entries.first().is_none_or(|first| first.from > offset) {
            return Err(missing(" any more: the stream keeps its records no longer"));
        }
        let last = entries.last().filter(|last| last.end >= offset).cloned().ok_or_else(|| missing(""))?;
        entries.retain(|entry| entry.end > offset || entry.ends_history && entry.end == offset);
        let again = entries;
        Ok(Opened { scribe: Scribe { topic, writer, lane, written: 0 }, again, last })
    }
}

/// What stands there of a lane.
pub(super) struct Opened {
    /// Who writes on.
    pub scribe: Scribe,
    /// What is to be read again, the first of it perhaps only in part.
    pub again: Vec<Entry>,
    /// The last entry.
    pub last: Entry,
}

/// Writes a lane's positions down.
pub(super) struct Scribe {
    topic: Topic,
    writer: Writer,
    lane: u32,
    written: u32,
}

impl Scribe {
    /// Writes an entry; durable on return. What tells of records that arrived before `kept_since_ms` is trimmed now
    /// and then.
    pub fn write(&mut self, entry: &Entry, kept_since_ms: u64) -> Result<(), ConnectorError> {
        append(&self.writer, entry)?;
        self.written += 1;
        if self.written >= TRIM_EVERY {
            self.written = 0;
            // At least as late as the records.
            let reader = self.topic.reader(self.lane, Start::Time(kept_since_ms as i64))?;
            self.writer.trim(reader.position())?;
        }
        Ok(())
    }
}

fn append(writer: &Writer, entry: &Entry) -> Result<(), ConnectorError> {
    let value = serde_json::to_vec(entry)
        .map_err(|error| ConnectorError::outage(format!("write a position down: {error}")))?;
    let record =
        RecordIn { timestamp_ms: super::client::now_ms() as i64, value: &value, ..RecordIn::default() };
    writer.append_durable(&[record])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(from: u64, end: u64) -> Entry {
        let place = Place { after: Some(Sequence(end.to_string())), reached_ms: end, ..Place::default() };
        Entry {
            from,
            end,
            parts: vec![Part {
                shard: "shard".into(),
                first: Sequence(from.to_string()),
                last: Sequence(end.to_string()),
            }],
            lane: LaneOf { created_ms: 1, keys: KeyRange::ALL },
            at: [("shard".to_string(), place)].into(),
            history_until: Some(9),
            ends_history: false,
        }
    }

    #[test]
    fn what_was_written_down_is_found_again_by_any_offset() {
        let folder = tempfile::tempdir().unwrap();
        let positions = Positions::new(folder.path(), "in");
        assert_eq!(positions.lanes().unwrap(), None);
        assert_eq!(positions.begin(1, 2, Entry { parts: Vec::new(), ..entry(0, 0) }).unwrap(), 0);
        assert_eq!(positions.lanes().unwrap(), Some(2));
        let Opened { mut scribe, again, last } = positions.open(1, 0).unwrap();
        assert_eq!((again, last.parts), (Vec::new(), Vec::new()));
        for (from, end) in [(0, 10), (10, 25), (25, 25)] {
            let ends_history = from == end;
            scribe.write(&Entry { ends_history, ..entry(from, end) }, 0).unwrap();
        }
        drop(scribe);
        let tail = |offset| {
            let again = positions.open(1, offset).unwrap().again;
            again.iter().map(|entry| (entry.from, entry.end, entry.ends_history)).collect::<Vec<_>>()
        };
        assert_eq!(tail(0), [(0, 10, false), (10, 25, false), (25, 25, true)]);
        assert_eq!(tail(9), [(0, 10, false), (10, 25, false), (25, 25, true)]);
        assert_eq!(tail(10), [(10, 25, false), (25, 25, true)]);
        assert_eq!(tail(25), [(25, 25, true)]);
        let error = positions.open(1, 26).err().unwrap().to_string();
        assert!(error.contains("does not tell where record 26 of lane 1 stands"), "{error}");

        // A run that begins afresh has offsets of its own, and the ones before stay what they were.
        let second = positions.begin(1, 2, Entry { parts: Vec::new(), ..entry(0, 0) }).unwrap();
        assert_eq!(second, 1 << 40);
        assert_eq!(tail(second), []);
        assert_eq!(tail(10), [(10, 25, false), (25, 25, true)]);
        let mut scribe = positions.open(1, 25).unwrap().scribe;
        scribe.write(&entry(25, 30), 0).unwrap();
        drop(scribe);
        assert_eq!(tail(27), [(25, 30, false)]);
        assert_eq!(tail(second), []);
    }

    #[test]
    fn another_number_of_lanes_is_refused_rather_than_to_forget() {
        let folder = tempfile::tempdir().unwrap();
        let positions = Positions::new(folder.path(), "in");
        positions.begin(0, 2, entry(0, 0)).unwrap();
        let error = positions.begin(0, 3, entry(0, 0)).unwrap_err().to_string();
        assert!(error.contains("are of 2, and savepoints need them; say `lanes = 2`"), "{error}");
        assert_eq!(positions.lanes().unwrap(), Some(2));
    }
}
