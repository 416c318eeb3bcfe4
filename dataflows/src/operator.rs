//! The operator: what every step of a job is behind.
//!
//! An operator is a plain struct. It knows nothing of timely, threads, workers or partitions: it is
//! handed one epoch after another, and what it emits depends only on what it was handed. One host
//! ([`crate::host::Host`]) runs it, and one harness ([`crate::harness`]) tests that it keeps the
//! contract.

use std::collections::BTreeMap;

use arrow::array::{RecordBatch, UInt32Array};
use levada_types::{Batch, Epoch, EventTime, PartitionId, StateChanges};
use thiserror::Error;

use crate::late::LateRows;

/// One epoch as an operator sees it.
#[derive(Debug)]
pub struct EpochInput<'a> {
    /// The epoch.
    pub epoch: Epoch,
    /// The watermark before this epoch: what ends by then is over.
    pub before: EventTime,
    /// The watermark now: no further row with a smaller time is expected. [`EventTime::MAX`] in the
    /// last epoch of an input that ends.
    pub watermark: EventTime,
    /// The rows of each input, in the order that its [`InputOrder`] promises.
    pub inputs: &'a [Vec<Batch>],
}

/// What an input promises about the order of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputOrder {
    /// Rows come as soon as they arrive, in whatever order: the operator's output must not depend on
    /// it. Rows that are behind what their partition had promised come too, with
    /// [`Batch::promises`]; the operator decides what late means to it, by the promise.
    Arrival,
    /// Rows come once the watermark has passed their time, sorted by time and, at equal times, by
    /// their content, so that neither partitions nor workers nor batch sizes can change the order.
    /// Rows that are behind never reach the operator: they are late. They are counted, and those of
    /// the first input go to the step's `late` output.
    Time,
    /// Like [`InputOrder::Time`], but a row that is behind reaches the operator too, if it is so by at most
    /// `lateness_ms` of event time; only what is later goes to the `late` output. Such a row comes at its
    /// *moment*, the promise that it broke, when the watermark has passed that: rows are sorted by moment, time
    /// and content, and [`Batch::promises`] holds their moments. The moment of a row that is not behind is its time.
    Moment {
        /// By how much a row may be behind, in milliseconds.
        lateness_ms: i64,
    },
}

/// A step's behaviour.
///
/// The contract, which the harness tests for every operator:
/// - **Deterministic**: no clock, no randomness, no order of a hash map in what it emits.
/// - **Split-blind**: how an input's rows are cut into batches and epochs does not change the *set*
///   of rows that it has emitted once the watermark has passed them.
/// - **Key-local**: rows of different keys do not influence one another, so that keys can be spread
///   over workers. (A step without a key runs on one worker.)
/// - **Restorable**: `restore` of everything that `checkpoint` ever gave, in a fresh operator, then
///   going on, emits what going on without it would have.
/// - **Bounded**: what it keeps shrinks as the watermark advances, or has a stated bound.
pub trait Operator {
    /// Takes one epoch in. Emits rows whose first column is [`levada_types::TIME_COLUMN`]; each
    /// emitted time is at least `input.before` and less than `input.watermark`. The order of
    /// emission is free: whoever needs an order sorts.
    ///
    /// # Errors
    /// Only for what no input can cause; a row that cannot be processed goes to `out.dead`.
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError>;

    /// Appends what changed in the state since the last call. Where that is the most of it, all of it may be
    /// appended ([`StateChanges::set_whole`]): then nobody need put it together with what was told before.
    ///
    /// # Errors
    /// When state cannot be encoded.
    fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError>;

    /// Takes up the state that earlier checkpoints wrote. Called once, before the first epoch, with
    /// the live entries of the key groups that this worker owns, sorted by group and key.
    ///
    /// # Errors
    /// When the state cannot be understood, saying why.
    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError>;

    /// What every worker's operator knows alike, as it comes by [`crate::plan::Route::All`]; one of them is asked with each
    /// checkpoint, which has what was told last. `None` if there is no such thing, or it is as it was told before;
    /// so an operator that has it never says that all of its state was appended.
    ///
    /// # Errors
    /// When it cannot be encoded.
    fn common(&mut self) -> Result<Option<Vec<u8>>, OperatorError> {
        Ok(None)
    }

    /// Takes up what [`Self::common`] told last. Called before [`Self::restore`].
    ///
    /// # Errors
    /// When it cannot be understood, saying why.
    fn restore_common(&mut self, _common: &[u8]) -> Result<(), OperatorError> {
        Err(OperatorError::State(
            "restore what all workers know alike: this step has nothing of that kind".into(),
        ))
    }
}

/// What an operator emitted in an epoch.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Rows of the step's stream that it has made.
    pub rows: Vec<RecordBatch>,
    /// Rows of the step's stream that it has only let pass: they keep their origin, and with it
    /// whether they are behind.
    pub passed: Vec<Batch>,
    /// Rows of the first input that came too late to be used, in its schema.
    pub late: Vec<Batch>,
    /// The late rows of all inputs whose moment has come, for the job's ledger; an operator leaves it empty.
    pub told_late: Vec<LateRows>,
    /// How many rows of each source's partition the epoch has shown to be late.
    pub late_by: BTreeMap<(u16, PartitionId), usize>,
    /// How many rows of all inputs the epoch has shown to be late.
    pub late_count: usize,
    /// How many of these are of other inputs than the first, and in no stream but the ledger.
    pub late_unseen: usize,
    /// Of a join: how many rows of the stream matched no row of the table.
    pub unmatched: usize,
    /// Of a join: how many rows of a table without times took the place of another.
    pub replaced: usize,
    /// Of a recognize step: how many partial matches were given up because their key had too many.
    pub evicted: usize,
}

impl Outputs {
    /// Emits rows; none is fine.
    pub fn emit(&mut self, rows: RecordBatch) {
        if rows.num_rows() > 0 {
            self.rows.push(rows);
        }
    }

    /// Lets rows of the input pass; none is fine.
    pub fn pass(&mut self, batch: Batch) {
        if batch.rows.num_rows() > 0 {
            self.passed.push(batch);
        }
    }

    /// Sets rows of the first input's `batch` aside as late; none is fine.
    ///
    /// # Errors
    /// When the batch has no such rows.
    pub fn emit_late(&mut self, batch: &Batch, rows: Vec<u32>) -> Result<(), OperatorError> {
        if !rows.is_empty() {
            self.late_count += rows.len();
            self.late.push(batch.take(&UInt32Array::from(rows))?);
        }
        Ok(())
    }
}

/// A step failed. The message finishes the sentence "failed to …".
#[derive(Debug, Error)]
pub enum OperatorError {
    /// An Arrow kernel refused: wrong types got past the plan, which is a bug of ours.
    #[error("failed to compute: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// An expression failed on data: for instance an integer overflow.
    #[error("failed to evaluate: {0}")]
    Expression(String),
    /// A model failed.
    #[error(transparent)]
    Score(#[from] levada_types::ScoreError),
    /// State could not be written or read.
    #[error("failed to {0}")]
    State(String),
}
