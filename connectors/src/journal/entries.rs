//! What a journal's entries look like, wherever it is kept.
//!
//! ```text
//!  {"version":1,"header":{…}}               the first; again where epochs are forgotten ("trimmed"), or where sources
//!                                           have got more partitions ("grew_from"): the last one counts
//!  {"epoch":17,"taken":[[0,[{"records":9}]]]}   an epoch
//! ```
//!
//! Before entries are deleted the header is written again, with the epoch up to which epochs may be missing; so
//! a journal may begin in the midst of epochs. Where sources have got more partitions a header says with which the
//! epochs before it were counted.

use levada_types::journal::{EpochCut, JournalHeader, PartitionBounds, Recorded};
use levada_types::{Blame, ConnectorError};
use serde::{Deserialize, Serialize};

/// Counts the forms that entries have had.
const VERSION: u32 = 1;

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

/// The entry with which a journal begins, behind epoch `trimmed` if there is one.
pub(crate) fn header(header: &JournalHeader, trimmed: Option<u64>) -> Result<Vec<u8>, ConnectorError> {
    encode(&First { version: VERSION, header: header.clone(), trimmed, grew_from: None })
}

/// The entry with which a journal that holds `recorded` goes on with more partitions.
pub(crate) fn grown(recorded: &Recorded, header: &JournalHeader) -> Result<Vec<u8>, ConnectorError> {
    encode(&First {
        version: VERSION,
        header: header.clone(),
        trimmed: recorded.trimmed,
        grew_from: Some(recorded.header.partitions.clone()),
    })
}

/// The entries of epochs.
pub(crate) fn epochs(cuts: &[EpochCut]) -> Result<Vec<Vec<u8>>, ConnectorError> {
    cuts.iter().map(encode).collect()
}

fn encode<T: Serialize>(entry: &T) -> Result<Vec<u8>, ConnectorError> {
    serde_json::to_vec(entry)
        .map_err(|error| ConnectorError::configuration(format!("write the journal: {error}")))
}

/// Makes of the entries of a journal, in their order, what it holds.
pub(crate) struct Reading {
    place: String,
    recorded: Option<Recorded>,
    epochs: Vec<EpochCut>,
    /// The offset of the first entry.
    first: Option<u64>,
}

impl Reading {
    /// Of the journal that people know as `place`.
    pub fn new(place: String) -> Reading {
        Reading { place, recorded: None, epochs: Vec::new(), first: None }
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// When it is none, is of another version, or is not in order.
    pub fn take(&mut self, offset: u64, entry: &[u8]) -> Result<(), ConnectorError> {
        let begins_here = *self.first.get_or_insert(offset) == 0 && offset == 0;
        let wrong = |error: serde_json::Error| self.damaged(offset, error);
        // What an entry is the first byte of its first field tells; that of a header is its version.
        if entry.starts_with(b"{\"version\"") || begins_here {
            let first: First = serde_json::from_slice(entry).map_err(wrong)?;
            if first.version != VERSION {
                let why = format!("it is of version {}, and {VERSION} is understood", first.version);
                return Err(self.damaged(offset, why));
            }
            let mut recorded = first.recorded(std::mem::take(&mut self.epochs));
            self.epochs = std::mem::take(&mut recorded.epochs);
            self.recorded = Some(recorded);
            return Ok(());
        }
        let cut: EpochCut = serde_json::from_slice(entry).map_err(wrong)?;
        if self.epochs.last().is_some_and(|last| last.epoch >= cut.epoch) {
            return Err(self.damaged(offset, "its epoch is not after the one before"));
        }
        self.epochs.push(cut);
        Ok(())
    }

    /// What the journal holds whose entries from offset `from` on were taken; `None` of one that has not begun.
    ///
    /// # Errors
    /// When what it began with is gone.
    pub fn end(self, from: u64) -> Result<Option<Recorded>, ConnectorError> {
        match (&self.recorded, self.first) {
            (None, None) if from == 0 => Ok(None),
            (None, first) => Err(self.damaged(first.unwrap_or(from), "there is no header behind it")),
            (Some(recorded), _) if recorded.trimmed.is_none() && from > 0 => {
                Err(self.damaged(from, "the ones before it were deleted, and not by a job"))
            }
            (Some(_), _) => {
                let epochs = self.epochs;
                Ok(self.recorded.map(|recorded| Recorded { epochs, ..recorded }))
            }
        }
    }

    fn damaged(&self, offset: u64, why: impl std::fmt::Display) -> ConnectorError {
        let message = format!("understand entry {offset} of {}: {why}", self.place);
        ConnectorError { blame: Blame::Damage, message }
    }
}
