//! A job's journal as a topic of its own: a folder of the same segments as the embedded topics, with their
//! checksums, their repair of a torn tail and their one writer.
//!
//! ```text
//!  STATE/journal/topic.json
//!  STATE/journal/0/00000000000000000000.log     record 0 is the header, each further one an epoch; JSON
//! ```

use std::path::PathBuf;

use levada_types::journal::{EpochCut, Journal, JournalHeader, JournalWriter, Recorded};
use levada_types::{Blame, ConnectorError};
use serde::{Deserialize, Serialize};

use crate::log::{Log, LogError, RecordIn, Start, SyncPolicy, Topic, TopicConfig, Writer, WriterOptions};

#[cfg(test)]
mod tests;

const TOPIC: &str = "journal";
/// Counts the forms that entries have had.
const VERSION: u32 = 1;
/// Bytes read at a time.
const READ_BYTES: usize = 4 << 20;

/// The journal of one job in a folder of its own.
#[derive(Clone, Debug)]
pub struct LogJournal {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    version: u32,
    header: JournalHeader,
}

impl LogJournal {
    /// The journal in `folder`, which is made with it.
    pub fn new(folder: impl Into<PathBuf>) -> LogJournal {
        LogJournal { folder: folder.into() }
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
        let topic = Log::open(&self.folder)?.ensure_topic(TOPIC, TopicConfig::default())?;
        let options = WriterOptions { sync: SyncPolicy::EveryAppend, ..WriterOptions::default() };
        let writer = topic.writer(0, options)?;
        if let Some(cut) = writer.recovery() {
            tracing::warn!(journal = %self.folder.display(), ?cut, "a torn tail was cut off");
        }
        Ok(Box::new(LogJournalWriter { writer }))
    }

    fn recorded(&self) -> Result<Option<Recorded>, ConnectorError> {
        let Some(topic) = self.topic()? else { return Ok(None) };
        let mut reader = topic.reader(0, Start::Beginning)?;
        let mut recorded: Option<Recorded> = None;
        loop {
            let fetched = reader.read(usize::MAX, READ_BYTES)?;
            if fetched.is_empty() {
                return Ok(recorded);
            }
            for record in &fetched {
                let wrong = |error: serde_json::Error| self.damaged(record.offset, error);
                let Some(so_far) = &mut recorded else {
                    let first: First = serde_json::from_slice(record.value).map_err(wrong)?;
                    if first.version != VERSION {
                        let why = format!("it is of version {}, and {VERSION} is understood", first.version);
                        return Err(self.damaged(record.offset, why));
                    }
                    recorded = Some(Recorded { header: first.header, epochs: Vec::new() });
                    continue;
                };
                let epoch: EpochCut = serde_json::from_slice(record.value).map_err(wrong)?;
                if so_far.epochs.last().is_some_and(|last| last.epoch >= epoch.epoch) {
                    return Err(self.damaged(record.offset, "its epoch is not after the one before"));
                }
                so_far.epochs.push(epoch);
            }
        }
    }
}

struct LogJournalWriter {
    writer: Writer,
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
    fn begin(&mut self, header: &JournalHeader) -> Result<(), ConnectorError> {
        self.write(std::iter::once(First { version: VERSION, header: header.clone() }))
    }

    fn append(&mut self, epochs: &[EpochCut]) -> Result<(), ConnectorError> {
        self.write(epochs.iter())
    }
}
