//! A job's journal as a topic of its own: a folder of the same segments as the embedded topics, with their
//! checksums, their repair of a torn tail and their one writer.
//!
//! ```text
//!  STATE/journal/topic.json
//!  STATE/journal/0/00000000000000000000.log     record 0 is the header, each further one an epoch; JSON
//! ```
//!
//! Before segments are deleted the header is written again, with the epoch up to which epochs may be missing; so
//! a journal may begin in the midst of epochs, and the last header counts. Where sources have got more partitions a
//! header says with which the epochs before it were counted.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use levada_types::journal::{EpochCut, Journal, JournalHeader, JournalWriter, PartitionBounds, Recorded};
use levada_types::{Blame, ConnectorError};
use serde::{Deserialize, Serialize};

use crate::log::{
    Disk, Log, LogError, RecordIn, Start, Storage, SyncPolicy, Topic, TopicConfig, Writer, WriterOptions,
};

#[cfg(test)]
mod tests;

const TOPIC: &str = "journal";
/// Counts the forms that entries have had.
const VERSION: u32 = 1;
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

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    version: u32,
    header: JournalHeader,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trimmed: Option<u64>,
    /// The partitions by which the epochs before this are counted, where they were fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grew_from: Option<Vec<PartitionBounds>>,
}

impl First {
    /// What a journal holds that has come to this header behind `epochs`.
    fn recorded(self, epochs: Vec<EpochCut>) -> Recorded {
        let First { header, trimmed, grew_from, .. } = self;
        let Some(partitions) = grew_from else { return Recorded { header, trimmed, epochs } };
        let mut recorded =
            Recorded { header: JournalHeader { partitions, ..header.clone() }, trimmed, epochs };
        recorded.grow(header);
        recorded
    }
}

enum Entry {
    Epoch(EpochCut),
    Header(First),
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

    /// Deletes it; false if there is none.
    ///
    /// # Errors
    /// While a job writes it, and when it cannot be deleted.
    pub fn delete(&self) -> Result<bool, ConnectorError> {
        match Log::open(&self.folder)?.delete_topic(TOPIC) {
            Ok(()) => Ok(true),
            Err(LogError::NoSuchTopic { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn topic(&self) -> Result<Option<Topic>, ConnectorError> {
        match Log::open(&self.folder)?.topic(TOPIC) {
            Ok(topic) => Ok(Some(topic)),
            Err(LogError::NoSuchTopic { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn damaged(&self, offset: u64, why: impl std::fmt::Display) -> ConnectorError {
        let message = format!("understand entry {offset} of {}: {why}", self.describe());
        ConnectorError { blame: Blame::Damage, message }
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
        let mut recorded: Option<Recorded> = None;
        let mut epochs: Vec<EpochCut> = Vec::new();
        let mut beginning = None;
        loop {
            let fetched = reader.read(usize::MAX, READ_BYTES)?;
            if fetched.is_empty() {
                break;
            }
            for record in &fetched {
                let begins_here = *beginning.get_or_insert(record.offset) == 0 && record.offset == 0;
                let wrong = |error: serde_json::Error| self.damaged(record.offset, error);
                // What an entry is the first byte of its first field tells; that of a header is its version.
                let entry = match record.value.starts_with(b"{\"version\"") || begins_here {
                    true => Entry::Header(serde_json::from_slice(record.value).map_err(wrong)?),
                    false => Entry::Epoch(serde_json::from_slice(record.value).map_err(wrong)?),
                };
                match entry {
                    Entry::Header(first) if first.version != VERSION => {
                        let why = format!("it is of version {}, and {VERSION} is understood", first.version);
                        return Err(self.damaged(record.offset, why));
                    }
                    Entry::Header(first) => {
                        let before = std::mem::take(&mut epochs);
                        let next = recorded.insert(first.recorded(before));
                        epochs = std::mem::take(&mut next.epochs);
                    }
                    Entry::Epoch(epoch) => {
                        if epochs.last().is_some_and(|last| last.epoch >= epoch.epoch) {
                            return Err(self.damaged(record.offset, "its epoch is not after the one before"));
                        }
                        epochs.push(epoch);
                    }
                }
            }
        }
        match (recorded, beginning) {
            (Some(recorded), _) => Ok(Some(Recorded { epochs, ..recorded })),
            (None, None) => Ok(None),
            (None, Some(first)) => Err(self.damaged(first, "there is no header behind it")),
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
    fn write<T: Serialize>(&mut self, entries: impl Iterator<Item = T>) -> Result<(), ConnectorError> {
        let encode = |entry| {
            serde_json::to_vec(&entry)
                .map_err(|error| ConnectorError::configuration(format!("write the journal: {error}")))
        };
        let values = entries.map(encode).collect::<Result<Vec<_>, _>>()?;
        let records: Vec<RecordIn<'_>> =
            values.iter().map(|value| RecordIn { value, ..RecordIn::default() }).collect();
        self.writer.append_durable(&records)?;
        Ok(())
    }
}

impl JournalWriter for LogJournalWriter {
    fn begin(&mut self, header: &JournalHeader, behind: Option<u64>) -> Result<(), ConnectorError> {
        let header = header.clone();
        self.write(std::iter::once(First { version: VERSION, header, trimmed: behind, grew_from: None }))
    }

    fn grow(&mut self, recorded: &Recorded, header: &JournalHeader) -> Result<(), ConnectorError> {
        self.write(std::iter::once(First {
            version: VERSION,
            header: header.clone(),
            trimmed: recorded.trimmed,
            grew_from: Some(recorded.header.partitions.clone()),
        }))
    }

    fn append(&mut self, epochs: &[EpochCut]) -> Result<(), ConnectorError> {
        self.write(epochs.iter())?;
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
            let (header, trimmed) = (header.clone(), Some(epoch));
            self.write(std::iter::once(First { version: VERSION, header, trimmed, grew_from: None }))?;
            self.writer.trim(before)?;
        }
        Ok(())
    }
}
