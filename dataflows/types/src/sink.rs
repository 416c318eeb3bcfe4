//! The port by which the engine writes.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::{ConnectorError, Epoch};

/// A configured sink.
pub trait SinkFactory: Send + Sync {
    /// Where the records go, for people: `topic decisions`, `file out.jsonl`.
    fn describe(&self) -> String;

    /// Opens the sink for rows of `schema`, on the worker that owns it.
    ///
    /// # Errors
    /// When the outside system refuses.
    fn open(&self, schema: SchemaRef) -> Result<Box<dyn Sink>, ConnectorError>;
}

/// Publishes whole epochs, in order, from one thread.
pub trait Sink: Send {
    /// Publishes the rows of `epoch`, in this order; all of them become visible or none. Called once
    /// an epoch that has rows, with growing epochs. May return before the rows are durable.
    ///
    /// # Errors
    /// When the rows could not be published; the job stops.
    fn publish(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<(), ConnectorError>;

    /// Waits until everything published is durable, and closes.
    ///
    /// # Errors
    /// When it could not be made durable.
    fn close(&mut self) -> Result<(), ConnectorError>;
}
