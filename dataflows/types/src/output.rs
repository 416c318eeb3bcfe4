//! The port by which a run looks after what its sinks have written before.
//!
//! It is asked once, before the job runs: what stands there, who wrote it, and, where the run begins afresh, to
//! delete it. What a person would do instead is told as a command line.

use crate::ConnectorError;

/// Where a sink writes, seen before the job runs.
pub trait Output {
    /// Its name among the outputs of a job: `decisions`, `file out.jsonl`.
    fn name(&self) -> String;

    /// The same with its kind, where the name does not tell it: `topic decisions`.
    fn full_name(&self) -> String {
        self.name()
    }

    /// Whether a run can write behind what is held; otherwise it can only replace it.
    fn appends(&self) -> bool;

    /// Makes sure that it can be written once it has been deleted, as far as that can be told.
    ///
    /// # Errors
    /// When it surely cannot.
    fn prepare(&self) -> Result<(), ConnectorError> {
        Ok(())
    }

    /// What is there; `None` of what is not.
    ///
    /// # Errors
    /// When it cannot be looked at.
    fn held(&self) -> Result<Option<Held>, ConnectorError>;

    /// Deletes it all. Whether there was something to delete.
    ///
    /// # Errors
    /// When it cannot be deleted.
    fn delete(&self) -> Result<bool, ConnectorError>;

    /// How a person does it; `None` where there is no such command.
    fn by_hand(&self, deed: Deed) -> Option<CommandLine>;
}

/// What is held where a sink writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// How many records; `None` where they are not counted (a file).
    pub records: Option<u64>,
    /// Whether the newest are a job's. What somebody else wrote is not a job's to delete.
    pub by_job: bool,
}

/// What a person may want to do with an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Look at the records.
    Look,
    /// Delete it.
    Delete,
    /// Have it out of the way of a new run.
    Clear,
}

/// A command line about one output. Those that differ only in `target` can be written as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// What stands before the target: `levada topics delete`.
    pub command: String,
    /// The output: `decisions`.
    pub target: String,
    /// What stands behind it: `--data .levada`; may be empty.
    pub options: String,
}

impl std::fmt::Display for CommandLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.command, self.target)?;
        if !self.options.is_empty() {
            write!(f, " {}", self.options)?;
        }
        Ok(())
    }
}
