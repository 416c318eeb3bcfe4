//! What a live job writes down of its inputs, so that it can be run again to the same bytes.
//!
//! A history is cut into epochs by the data alone, so of it only the bounds are written: where each partition
//! began and where its history ended. What comes live is cut by the clock, and every such epoch has an entry:
//! how many records of each partition, and when a partition was declared idle.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{ConnectorError, Offset};

/// How a journal begins: what stands fixed for a job, however often it is run on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalHeader {
    /// The job, as a hash of all that decides what it computes.
    pub job: u64,
    /// This beginning of it: no other has the same number, so that checkpoints of another one are told apart.
    #[serde(default)]
    pub begun: u64,
    /// Whether the job ends with its history.
    pub until_drained: bool,
    /// All partitions of all sources, in the job's order.
    pub partitions: Vec<PartitionBounds>,
}

/// The history of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionBounds {
    /// The source's name.
    pub source: String,
    /// The first record; `None` where a source has but one beginning.
    pub start: Option<Offset>,
    /// One past its last record; `None` where reading finds out.
    pub end: Option<Offset>,
    /// Whether the source had it only when a later run began. It has no history then, and is waited for from its
    /// first record on, so that what came before is as it was without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub later: bool,
}

/// What a live epoch took in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochCut {
    /// The epoch.
    pub epoch: u64,
    /// By the job-wide index of the partition, in the order in which it happened.
    pub taken: Vec<(usize, Vec<Taken>)>,
}

/// Something that an epoch took of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Taken {
    /// So many further records.
    Records(usize),
    /// The news that it has been silent for its idle time.
    Idle,
}

/// All that a journal holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// How it begins.
    pub header: JournalHeader,
    /// The epochs up to this one may be missing: a checkpoint held what they had led to.
    pub trimmed: Option<u64>,
    /// The live epochs, growing.
    pub epochs: Vec<EpochCut>,
}

impl Recorded {
    /// Goes on under a header that has more partitions: those of before are counted anew.
    pub fn grow(&mut self, header: JournalHeader) {
        let places = places(&self.header.partitions, &header.partitions);
        for cut in &mut self.epochs {
            for (partition, _) in &mut cut.taken {
                *partition = places.get(*partition).copied().unwrap_or(*partition);
            }
        }
        self.header = header;
    }
}

/// Where each partition of `before` is in `now`: a source's own keep their order.
fn places(before: &[PartitionBounds], now: &[PartitionBounds]) -> Vec<usize> {
    let number =
        |index: usize, source: &str| before[..index].iter().filter(|other| other.source == source).count();
    let place = |(index, bounds): (usize, &PartitionBounds)| {
        let of_source = now.iter().enumerate().filter(|(_, other)| other.source == bounds.source);
        of_source.map(|(place, _)| place).nth(number(index, &bounds.source)).unwrap_or(index)
    };
    before.iter().enumerate().map(place).collect()
}

/// Where a job's journal is kept.
pub trait Journal: Send + Sync {
    /// Where that is, for people.
    fn describe(&self) -> String;

    /// Takes the right to write, for the process that has worker 0.
    ///
    /// # Errors
    /// When another process has it, or the journal is damaged.
    fn writer(&self) -> Result<Box<dyn JournalWriter>, ConnectorError>;

    /// All that has been written; `None` of a journal that has not begun.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    fn recorded(&self) -> Result<Option<Recorded>, ConnectorError>;

    /// Deletes it; false if there is none.
    ///
    /// # Errors
    /// When it cannot be deleted, or may not be while a job writes it.
    fn delete(&self) -> Result<bool, ConnectorError>;
}

/// Whether the job has ended, and nothing need be waited for any more.
pub type Ended = Arc<dyn Fn() -> bool + Send + Sync>;

/// Writes a journal.
pub trait JournalWriter: Send {
    /// Has a writer that waits for what is out of reach wait no longer than the job runs; what it was to write then
    /// is an error. One that never waits need not listen.
    fn end_with(&mut self, _: Ended) {}

    /// Begins it, where a checkpoint holds what led up to epoch `behind`, if one does. Durable on return.
    ///
    /// # Errors
    /// When it cannot be made durable.
    fn begin(&mut self, header: &JournalHeader, behind: Option<u64>) -> Result<(), ConnectorError>;

    /// Writes down that its sources have more partitions from here on: `header` is how it began with them, `recorded`
    /// what it holds. Durable on return.
    ///
    /// # Errors
    /// When it cannot be made durable.
    fn grow(&mut self, recorded: &Recorded, header: &JournalHeader) -> Result<(), ConnectorError>;

    /// Adds epochs, growing. Durable on return: what an epoch has led to is visible only after.
    ///
    /// # Errors
    /// When they cannot be made durable.
    fn append(&mut self, epochs: &[EpochCut]) -> Result<(), ConnectorError>;

    /// Forgets the epochs up to `epoch` and with it, as far as that saves room; `header` is how the journal
    /// begins. Called when checkpoints hold what they have led to.
    ///
    /// # Errors
    /// When it cannot be written. What is there then is as good as before.
    fn trim(&mut self, header: &JournalHeader, epoch: u64) -> Result<(), ConnectorError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_keep_their_epochs_when_there_are_more_of_them() {
        let bounds =
            |source: &str, later| PartitionBounds { source: source.into(), start: None, end: None, later };
        let header = |partitions| JournalHeader { job: 1, begun: 1, until_drained: false, partitions };
        let taken = |partition, count| (partition, vec![Taken::Records(count)]);
        let before = header(vec![bounds("a", false), bounds("a", false), bounds("b", false)]);
        let now = header(vec![
            bounds("a", false),
            bounds("a", false),
            bounds("a", true),
            bounds("b", false),
            bounds("b", true),
        ]);
        let cut = |taken| EpochCut { epoch: 7, taken };
        let mut recorded =
            Recorded { header: before, trimmed: None, epochs: vec![cut(vec![taken(1, 5), taken(2, 6)])] };
        recorded.grow(now.clone());
        assert_eq!(recorded.header, now);
        assert_eq!(recorded.epochs, [cut(vec![taken(1, 5), taken(3, 6)])]);
    }
}
