//! The port by which the engine writes.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::{ConnectorError, Epoch, Output};

/// Hears that something is durable, or why it is not.
pub type WhenDurable = Box<dyn FnOnce(Result<(), ConnectorError>) + Send>;

/// What a sink does when records are there before the job has written any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Refuse: a run that begins afresh would publish everything a second time.
    #[default]
    Refuse,
    /// Write behind them.
    Append,
    /// They are of earlier runs of the same job: what they hold of its output is not written again.
    Resume,
}

/// A configured sink.
pub trait SinkFactory: Send + Sync {
    /// Where the records go, for people: `topic decisions`, `file out.jsonl`.
    fn describe(&self) -> String;

    /// Opens the sink for rows of `schema`, on the worker that owns it. `place` is what [`Sink::place`] gave
    /// when the checkpoint was made from which the run goes on; `None` where it begins with the first epoch.
    ///
    /// # Errors
    /// When the outside system refuses.
    fn open(&self, schema: SchemaRef, place: Option<&[u8]>) -> Result<Box<dyn Sink>, ConnectorError>;

    /// Where it writes, to be looked after before the job runs; nothing of a sink that leaves nothing.
    fn outputs(&self) -> Vec<&dyn Output> {
        Vec::new()
    }
}

/// Publishes whole epochs, in order, from one thread.
pub trait Sink: Send {
    /// Publishes the rows of `epoch`, in this order; all of them become visible or none. Called once
    /// an epoch that has rows, with growing epochs. May return before the rows are durable.
    ///
    /// # Errors
    /// When the rows could not be published; the job stops.
    fn publish(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<(), ConnectorError>;

    /// What [`SinkFactory::open`] needs to go on after what has been published so far, beyond what it finds
    /// where it writes. It is kept in checkpoints.
    fn place(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Has `then` called once everything published so far is durable, or cannot become so: on any thread, or
    /// before this returns. Does not wait.
    fn when_durable(&mut self, then: WhenDurable);

    /// Whether what was published can still become durable: asked every now and then, for sinks that publish on
    /// a thread of their own. Does not wait.
    ///
    /// # Errors
    /// When it cannot any more; the job stops.
    fn check(&mut self) -> Result<(), ConnectorError> {
        Ok(())
    }

    /// Waits until everything published is durable, and closes.
    ///
    /// # Errors
    /// When it could not be made durable.
    fn close(&mut self) -> Result<(), ConnectorError>;
}
