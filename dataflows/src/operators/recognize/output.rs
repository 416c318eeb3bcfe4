//! Matches as rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMillisecondArray};

use super::known::Told;
use super::plan::{Measure, RecognizePlan};
use crate::cells::{self, Cell};
use crate::operator::OperatorError;
use crate::rows::read_rows;

/// What `outcome` says.
pub(super) const MATCHED: &str = "matched";
pub(super) const TIMED_OUT: &str = "timed_out";

/// The rows of what is told; `key` gives the bytes of a key.
pub(super) fn rows<'k>(
    told: &[Told],
    key: impl Fn(u32) -> &'k [u8],
    plan: &RecognizePlan,
) -> Result<RecordBatch, OperatorError> {
    let times = |time: &dyn Fn(&Told) -> i64| {
        Arc::new(TimestampMillisecondArray::from_iter_values(told.iter().map(time))) as ArrayRef
    };
    let mut columns = vec![times(&|told| told.at)];
    columns.extend(read_rows(&plan.key_types, told.iter().map(|told| key(told.key)))?);
    for measure in &plan.measures {
        columns.push(match measure {
            Measure::MatchId => {
                let ids = told.iter().map(|told| format!("{:032x}", told.partial.id));
                Arc::new(StringArray::from_iter_values(ids))
            }
            Measure::Outcome => {
                let outcomes = told.iter().map(|told| if told.matched { MATCHED } else { TIMED_OUT });
                Arc::new(StringArray::from_iter_values(outcomes))
            }
            Measure::At => times(&|told| told.at),
            Measure::FirstAt => times(&|told| told.partial.first.time),
            Measure::LastAt => times(&|told| told.partial.last.time),
            Measure::Rows => Arc::new(Int64Array::from_iter_values(told.iter().map(|told| told.partial.rows))),
            Measure::Of { value, schema, running } => {
                let column = |(&place, field): (&usize, &Arc<arrow::datatypes::Field>)| {
                    let of = &plan.running[place];
                    let cells: Vec<Cell> = told.iter().map(|told| of.value(&told.partial.running[place])).collect();
                    cells::array(cells.iter().map(Some), field.data_type())
                };
                let columns = running.iter().zip(schema.fields()).map(column).collect();
                let options = RecordBatchOptions::new().with_row_count(Some(told.len()));
                value.evaluate(&RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)?
            }
        });
    }
    Ok(RecordBatch::try_new(plan.schema.clone(), columns)?)
}
