//! A job's journal as a topic of its own: a folder of the same segments as the embedded topics, with their
//! checksums, their repair of a torn tail and their one writer.
//!
//! ```text
//!  STATE/journal/topic.json
//!  STATE/journal/0/00000000000000000000.log     record 0 is the header, each further one an epoch; JSON
//! ```
//!
//! What entries look like is in `entries.rs`, which the journal in a topic of Kafka shares (`kafka/journal.rs`).

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use levada_types::ConnectorError;
use levada_types::journal::{EpochCut, Journal, JournalHeader, JournalWriter, Recorded};

use crate::log::{
    Disk, Log, LogError, RecordIn, Start, Storage, SyncPolicy, Topic, TopicConfig, Writer, WriterOptions,
};

pub(crate) mod entries;
#[cfg(test)]
mod tests;

const TOPIC: &str = "journal";
/// Bytes read at a time.
const READ_BYTES: usize = 4 << 20;
/// Bytes of a segment, which is deleted whole: some ten minutes of busy epochs.
const SEGMENT_BYTES: u64 = 4 << 20;

/// The journal of one job in a folder of its own.
#[derive(Clone, Debug)]
pub struct LogJournal {
    folder: PathBuf,
    storage: Arc<dyn Storage>,
}

impl LogJournal {
    /// The journal in `folder`, which is made with it.
    pub fn new(folder: impl Into<PathBuf>) -> LogJournal {
        LogJournal { folder: folder.into(), storage: Arc::new(Disk) }
    }

    /// The same, on a disk that may fail.
    pub fn on(self, storage: Arc<dyn Storage>) -> LogJournal {
        LogJournal { storage, ..self }
    }

    fn topic(&self) -> Result<Option<Topic>, ConnectorError> {
        match Log::open(&self.folder)?.topic(TOPIC) {
            Ok(topic) => Ok(Some(topic)),
            Err(LogError::NoSuchTopic { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Journal for LogJournal {
    fn describe(&self) -> String {
        format!("the journal in {}", self.folder.display())
    }

    fn writer(&self) -> Result<Box<dyn JournalWriter>, ConnectorError> {
        let config = TopicConfig { segment_bytes: SEGMENT_BYTES, ..TopicConfig::default() };
        let topic = Log::open(&self.folder)?.ensure_topic(TOPIC, config)?;
        let options = WriterOptions { sync: SyncPolicy::EveryAppend, storage: Arc::clone(&self.storage) };
        let writer = topic.writer(0, options)?;
        if let Some(cut) = writer.recovery() {
            tracing::warn!(journal = %self.folder.display(), ?cut, "a torn tail was cut off");
        }
        Ok(Box::new(LogJournalWriter { writer, places: VecDeque::new() }))
    }

    fn recorded(&self) -> Result<Option<Recorded>, ConnectorError> {
        let Some(topic) = self.topic()? else { return Ok(None) };
        let mut reader = topic.reader(0, Start::Beginning)?;
        let mut entries = entries::Reading::new(self.describe());
        let mut from = None;
        loop {
            let fetched = reader.read(usize::MAX, READ_BYTES)?;
            if fetched.is_empty() {
                return entries.end(from.unwrap_or(0));
            }
            for record in &fetched {
                from.get_or_insert(record.offset);
                entries.take(record.offset, record.value)?;
            }
        }
    }

    fn delete(&self) -> Result<bool, ConnectorError> {
        match Log::open(&self.folder)?.delete_topic(TOPIC) {
            Ok(()) => Ok(true),
            Err(LogError::NoSuchTopic { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Of every so many entries the place is remembered, for trimming.
const PLACES_APART: u64 = 256;

struct LogJournalWriter {
    writer: Writer,
    /// An epoch, and the offset behind it: every [`PLACES_APART`] entries one.
    places: VecDeque<(u64, u64)>,
}

impl LogJournalWriter {
    fn write(&mut self, entries: &[Vec<u8>]) -> Result<(), ConnectorError> {
        let records: Vec<RecordIn<'_>> =
            entries.iter().map(|value| RecordIn { value, ..RecordIn::default() }).collect();
        self.writer.append_durable(&records)?;
        Ok(())
    }
}

impl JournalWriter for LogJournalWriter {
    fn begin(&mut self, header: &JournalHeader, behind: Option<u64>) -> Result<(), ConnectorError> {
        self.write(&[entries::header(header, behind)?])
    }

    fn grow(&mut self, recorded: &Recorded, header: &JournalHeader) -> Result<(), ConnectorError> {
        self.write(&[entries::grown(recorded, header)?])
    }

    fn append(&mut self, epochs: &[EpochCut]) -> Result<(), ConnectorError> {
        self.write(&entries::epochs(epochs)?)?;
        // Where an epoch stands matters only once a segment is full of them.
        if let Some(last) = epochs.last() {
            let next = self.writer.bounds().next;
            if self.places.back().is_none_or(|(_, place)| next - place >= PLACES_APART) {
                self.places.push_back((last.epoch, next));
            }
        }
        Ok(())
    }

    fn trim(&mut self, header: &JournalHeader, epoch: u64) -> Result<(), ConnectorError> {
        let mut before = None;
        while let Some(&(of, place)) = self.places.front()
            && of <= epoch
        {
            before = Some(place);
            self.places.pop_front();
        }
        let Some(before) = before else { return Ok(()) };
        if self.writer.can_trim(before)? {
            self.write(&[entries::header(header, Some(epoch))?])?;
            self.writer.trim(before)?;
        }
        Ok(())
    }
}
