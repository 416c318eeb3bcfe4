//! What a sink remembers that sends to where nothing can be looked up: in two topics of the embedded log, what was
//! acknowledged and what could not be sent.
//!
//! ```text
//!  JOB.SINK.delivered     a record whenever something was done with; its headers `epoch` and `position` are the place
//!                         of the last row before which, itself included, all is done with; the newest 16 MiB are kept
//!  JOB.SINK.undelivered   what was set aside, with the reason
//! ```

use std::path::PathBuf;

use levada_types::{ConnectorError, Existing, Output};

use crate::log::{Log, RecordIn, TopicConfig, Writer, WriterOptions};
use crate::published::{EPOCH_HEADER, POSITION_HEADER, marker};
use crate::topic::{LogSink, LogSinkConfig};

/// What was delivered is needed only to go on behind it, so the newest of it is enough.
const DELIVERED_SEGMENT_BYTES: u64 = 4 << 20;
const DELIVERED_RETAIN_BYTES: u64 = 16 << 20;

/// A place among the rows of a job: the epoch, and the row's place in it.
pub(crate) type Place = (u64, u64);

/// The topics' names.
pub(crate) fn names(job: &str, sink: &str) -> [String; 2] {
    [format!("{job}.{sink}.delivered"), format!("{job}.{sink}.undelivered")]
}

/// The two topics of a sink, not opened yet.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    data_dir: PathBuf,
    names: [String; 2],
    existing: Existing,
    /// As a run looks after them.
    topics: [LogSink; 2],
}

/// The two topics, and what they tell.
pub(crate) struct Remembered {
    pub delivered: Writer,
    pub undelivered: Writer,
    /// Tells one beginning from another: part of every key by which a repetition is known.
    pub generation: i64,
    /// What earlier runs have done with.
    pub done: Option<Place>,
}

impl Kept {
    /// The topics of sink `sink` of `job`, in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>, job: &str, sink: &str, existing: Existing) -> Kept {
        let (data_dir, names) = (data_dir.into(), names(job, sink));
        let topics = names.clone().map(|topic| {
            LogSink::new(&data_dir, LogSinkConfig { topic, ..LogSinkConfig::default() }, existing)
        });
        Kept { data_dir, names, existing, topics }
    }

    /// What was sent cannot be taken back, but what is kept of it can be deleted.
    pub fn outputs(&self) -> Vec<&dyn Output> {
        self.topics.iter().flat_map(levada_types::SinkFactory::outputs).collect()
    }

    /// Opens both; `place` is that of the checkpoint from which the run goes on, `target` for people.
    ///
    /// # Errors
    /// When an earlier run has written them and this one begins afresh, or they cannot be opened.
    pub fn open(&self, target: &str, place: Option<&[u8]>) -> Result<Remembered, ConnectorError> {
        let log = Log::open(&self.data_dir)?;
        let kept = TopicConfig {
            segment_bytes: DELIVERED_SEGMENT_BYTES,
            retain_bytes: Some(DELIVERED_RETAIN_BYTES),
            ..TopicConfig::default()
        };
        let [name, undelivered] = &self.names;
        let delivered = log.ensure_topic(name, kept)?;
        let undelivered = log.ensure_topic(undelivered, TopicConfig::default())?;
        let last = delivered.last_record(0)?;
        if last.is_some() && self.existing == Existing::Refuse {
            return Err(ConnectorError::configuration(format!(
                "send to {target}: topic {name} says that an earlier run did; go on with --append, or delete it first \
                 with `levada topics delete {name} --data {}`",
                self.data_dir.display()
            )));
        }
        let noted = last.and_then(|last| {
            let header = |name: &str| last.headers.iter().find(|(known, _)| known == name);
            marker(|name| header(name).map(|(_, value)| value.as_ref()))
        });
        // What begins afresh has other keys than what was sent before.
        let (generation, done) = match (self.existing, place) {
            (_, Some(place)) => {
                let (generation, kept) = read_place(place).ok_or_else(|| {
                    ConnectorError::configuration(format!(
                        "go on with {target}: the checkpoint does not tell where"
                    ))
                })?;
                (generation, kept.max(noted))
            }
            (Existing::Resume, None) => (delivered.created_ms(), noted),
            (Existing::Refuse, None) => (delivered.created_ms(), None),
            (Existing::Append, None) => (delivered.created_ms() + delivered.bounds(0)?.next as i64, None),
        };
        let delivered = delivered.writer(0, WriterOptions::default())?;
        let undelivered = undelivered.writer(0, WriterOptions::default())?;
        Ok(Remembered { delivered, undelivered, generation, done })
    }
}

/// Writes down what became of something.
pub(crate) fn note(
    writer: &Writer,
    (epoch, position): Place,
    now_ms: i64,
    value: &str,
    durable: bool,
) -> Result<(), ConnectorError> {
    let (epoch, position) = (epoch.to_le_bytes(), position.to_le_bytes());
    let record = RecordIn {
        timestamp_ms: now_ms,
        key: None,
        headers: &[(EPOCH_HEADER, &epoch), (POSITION_HEADER, &position)],
        value: value.as_bytes(),
    };
    if durable { writer.append_durable(&[record]) } else { writer.append(&[record]) }?;
    Ok(())
}

/// What a checkpoint keeps of what is done with: generation, whether there is a place, epoch, place in it.
pub(crate) fn write_place(generation: i64, place: Option<Place>) -> Vec<u8> {
    let (epoch, row) = place.unwrap_or_default();
    [generation as u64, u64::from(place.is_some()), epoch, row].map(u64::to_le_bytes).concat()
}

fn read_place(bytes: &[u8]) -> Option<(i64, Option<Place>)> {
    let bytes: &[u8; 32] = bytes.try_into().ok()?;
    let mut numbers = [0; 4];
    for (number, part) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
        *number = u64::from_le_bytes(part.try_into().ok()?);
    }
    let [generation, known, epoch, row] = numbers;
    Some((generation as i64, (known == 1).then_some((epoch, row))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        for place in [None, Some((0, 0)), Some((7, 9))] {
            assert_eq!(read_place(&write_place(5, place)), Some((5, place)));
        }
        assert_eq!(read_place(&[0; 31]), None);
    }
}
