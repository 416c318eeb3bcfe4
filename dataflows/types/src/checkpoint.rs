//! The port by which the engine keeps checkpoints.

use bytes::Bytes;

use crate::ConnectorError;

/// Where the checkpoints of one job are kept: files by name, without folders.
///
/// A name is ASCII letters, digits, `-`, `_` and `.`. What the files hold is the engine's business. Who reads a name
/// after it was written finds it, and a list that is asked for after that has it.
pub trait CheckpointStore: Send + Sync {
    /// Where that is, for people: `the checkpoints in .levada/job`.
    fn describe(&self) -> String;

    /// The names of all files, sorted. Those that were being written when somebody died are not among them.
    ///
    /// # Errors
    /// When it cannot be asked. That there is nothing yet is no error.
    fn list(&self) -> Result<Vec<String>, ConnectorError>;

    /// A file's bytes; `None` if there is none of that name.
    ///
    /// # Errors
    /// When it cannot be read.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ConnectorError>;

    /// Writes a file whole, its parts one after the other: nobody ever sees it in part, and on return it is durable.
    /// One of that name before is replaced.
    ///
    /// # Errors
    /// When it cannot be made durable.
    fn put(&self, name: &str, parts: &[Bytes]) -> Result<(), ConnectorError>;

    /// Writes a file as [`put`](Self::put) does, if there is none of that name; false if there is one, which stays as it
    /// is. Of several that create one name at once, one is told true.
    ///
    /// # Errors
    /// When it cannot be made durable. Whether it is there then is not known.
    fn create(&self, name: &str, parts: &[Bytes]) -> Result<bool, ConnectorError>;

    /// Deletes a file; that there is none is fine.
    ///
    /// # Errors
    /// When it is still there.
    fn delete(&self, name: &str) -> Result<(), ConnectorError>;

    /// Whether it may be out of reach for a while, as what is behind a network may. An outage is then waited out while
    /// the job goes on; otherwise it ends the job.
    fn may_be_away(&self) -> bool {
        false
    }
}
