//! Late rows: they wait until the watermark has passed what they were behind, and are told of in the job's ledger.
//!
//! ```text
//!   late row ──► waits until its moment ─┬─► the step's late stream (of its first input)
//!                                        └─► the ledger: step, where it was read, how late it was and why, the row
//! ```
//!
//! A row's *moment* is what it was behind: what its partition had promised, or the watermark where that was further on,
//! because the partition had been silent for so long that it was not waited for. Rows go out when the watermark passes their
//! moment, in the order of moment, time and content; so neither the late streams nor the ledger depend on where epochs are
//! cut. State: the rows that wait, with where they were read; they wait for as long as the watermark is behind a promise.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use levada_types::{Batch, EventTime, KeyGroup, Origin, StateChanges, TIME_COLUMN};

use crate::held::{Held, decode_rows};
use crate::operator::OperatorError;
use crate::operators::decide::json;
use crate::order;

/// Late rows of an input that wait.
pub(crate) struct Late {
    schema: SchemaRef,
    /// The moment, the columns, and where the row was read: [`Late::origin_fields`].
    marked: SchemaRef,
    held: Held,
}

/// Late rows of an input that wait no more.
#[derive(Clone, Debug)]
pub struct LateRows {
    /// Which input of the step it is.
    pub input: usize,
    /// The rows; their promises are their moments.
    pub batch: Batch,
    /// Of each the source that it was read from, by its place in the plan; null of one that a step has made,
    sources: Int64Array,
    /// and the partition.
    partitions: Int64Array,
    /// Whether it is the watermark that it was behind, as its partition had been silent.
    silent: BooleanArray,
}

impl Late {
    /// None yet, of an input with these columns, of which `key` tells a row's key group.
    pub(crate) fn new(schema: SchemaRef, key: &[usize]) -> Late {
        let fields = order::marked_schema(&schema).fields().iter().cloned().collect::<Vec<_>>();
        let all = fields.into_iter().chain(Late::origin_fields().map(Arc::new));
        let marked: SchemaRef = Arc::new(Schema::new(all.collect::<Vec<_>>()));
        // The moment stands before the columns.
        let held = Held::new(marked.clone(), key.iter().map(|column| column + 1).collect());
        Late { schema, marked, held }
    }

    fn origin_fields() -> [Field; 3] {
        [
            Field::new("_source", DataType::Int64, true),
            Field::new("_partition", DataType::Int64, true),
            Field::new("_silent", DataType::Boolean, false),
        ]
    }

    /// Takes rows in that are late where the watermark is `before`.
    pub(crate) fn add(&mut self, batch: &Batch, before: EventTime) -> Result<(), OperatorError> {
        let rows = batch.rows.num_rows();
        let read = batch.origin < Origin::MADE;
        let number = |number: i64| (0..rows).map(|_| read.then_some(number)).collect::<Int64Array>();
        let silent = (0..rows).map(|row| Some(batch.promise(row) < before)).collect::<BooleanArray>();
        let marked = order::with_moments(&self.schema, batch, before)?;
        let mut columns = marked.columns().to_vec();
        columns.push(Arc::new(number(i64::from(batch.origin.source))));
        columns.push(Arc::new(number(i64::from(batch.origin.partition.0))));
        columns.push(Arc::new(silent));
        self.held.add(RecordBatch::try_new(self.marked.clone(), columns)?, Origin::MADE);
        Ok(())
    }

    /// Lets those go whose moment the watermark has passed.
    pub(crate) fn release(
        &mut self,
        input: usize,
        watermark: EventTime,
    ) -> Result<Vec<LateRows>, OperatorError> {
        let width = self.schema.fields().len() + 1;
        let unmarked = |rows: RecordBatch| -> Result<LateRows, ArrowError> {
            let own = rows.project(&(0..width).collect::<Vec<_>>())?;
            Ok(LateRows {
                input,
                batch: order::without_moments(&self.schema, &own)?,
                sources: rows.column(width).as_primitive::<Int64Type>().clone(),
                partitions: rows.column(width + 1).as_primitive::<Int64Type>().clone(),
                silent: rows.column(width + 2).as_boolean().clone(),
            })
        };
        Ok(self.held.release(watermark)?.into_iter().map(unmarked).collect::<Result<_, _>>()?)
    }

    pub(crate) fn checkpoint(
        &mut self,
        name: &[u8],
        changes: &mut StateChanges,
    ) -> Result<(), OperatorError> {
        self.held.checkpoint(name, changes)
    }

    /// Takes up the rows of a group from what a checkpoint wrote. Of those of a time when it was not kept where they had
    /// been read that is not known.
    pub(crate) fn restore(&mut self, group: KeyGroup, value: &[u8]) -> Result<(), OperatorError> {
        let mut all = Vec::new();
        for rows in decode_rows(value)? {
            let mut columns = rows.columns().to_vec();
            if columns.len() == self.schema.fields().len() + 1 {
                let unknown: ArrayRef = Arc::new(Int64Array::new_null(rows.num_rows()));
                columns.extend([unknown.clone(), unknown]);
                columns.push(Arc::new(BooleanArray::from(vec![false; rows.num_rows()])));
            }
            all.push(RecordBatch::try_new(self.marked.clone(), columns)?);
        }
        self.held.take_up(group, all)
    }
}

/// What a row of the ledger tells. A sink leaves the first column out, which is the moment.
pub fn ledger_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Batch::time_field(),
        Field::new("step", DataType::Utf8, false),
        Field::new("input", DataType::Utf8, false),
        Field::new("source", DataType::Utf8, true),
        Field::new("partition", DataType::Int64, true),
        Field::new("at", Batch::timestamp_type(), false),
        Field::new("promise", Batch::timestamp_type(), false),
        Field::new("behind_ms", DataType::Int64, false),
        Field::new("reason", DataType::Utf8, false),
        Batch::json_field("row", false),
    ]))
}

/// Why a row is late whose partition had promised that none such would come.
pub const BEHIND: &str = "behind what its partition had promised";
/// Why a row is late whose partition was not waited for.
pub const SILENT: &str = "its partition had been silent, and was not waited for";

impl LateRows {
    /// The rows as rows of the ledger. The `input` is what the step calls the stream; `sources` are the names of the plan's.
    ///
    /// # Errors
    /// When Arrow refuses.
    pub(crate) fn ledger(
        &self,
        step: &str,
        input: &str,
        sources: &[String],
    ) -> Result<RecordBatch, ArrowError> {
        let (batch, rows) = (&self.batch, self.batch.rows.num_rows());
        let moments = || (0..rows).map(|row| batch.promise(row).0);
        let source = |row: usize| {
            let place = self.sources.is_valid(row).then(|| self.sources.value(row))?;
            sources.get(usize::try_from(place).ok()?).map(String::as_str)
        };
        let behind = moments().zip(batch.times()).map(|(moment, time)| moment.saturating_sub(*time));
        let fields = batch.rows.schema();
        let columns = || {
            let all = fields.fields().iter().zip(batch.rows.columns());
            all.filter(|(field, _)| field.name() != TIME_COLUMN).map(|(field, column)| (&**field, &**column))
        };
        let reason = |row: usize| if self.silent.value(row) { SILENT } else { BEHIND };
        let all: Vec<ArrayRef> = vec![
            Arc::new(TimestampMillisecondArray::from_iter_values(moments())),
            Arc::new(StringArray::from_iter_values((0..rows).map(|_| step))),
            Arc::new(StringArray::from_iter_values((0..rows).map(|_| input))),
            Arc::new((0..rows).map(source).collect::<StringArray>()),
            Arc::new(self.partitions.clone()),
            Arc::new(TimestampMillisecondArray::from_iter_values(batch.times().iter().copied())),
            Arc::new(TimestampMillisecondArray::from_iter_values(moments())),
            Arc::new(Int64Array::from_iter_values(behind)),
            Arc::new(StringArray::from_iter_values((0..rows).map(reason))),
            Arc::new(StringArray::from_iter_values((0..rows).map(|row| json::object(columns(), row)))),
        ];
        RecordBatch::try_new(ledger_schema(), all)
    }
}
