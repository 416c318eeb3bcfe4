//! Canonical order: by event time, and at equal times by content.
//!
//! Two rows that agree in both are the same row, so the order is total up to what nobody can tell
//! apart. It does not depend on partitions, offsets, workers or batch sizes, and that is why a job
//! gives the same bytes whatever these are.
//!
//! A row that is behind what its partition had promised stands not at its time, which is over, but at
//! the promise: that is the row's *moment*. The moment of any other row is its time.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMillisecondArray, UInt32Array};
use arrow::compute::{concat_batches, take, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMillisecondType};
use arrow::error::ArrowError;
use arrow::row::{Row, RowConverter, SortField};
use levada_types::{Batch, EventTime};

/// All rows of `batches` by moment, time and content.
///
/// # Errors
/// When the batches do not share `schema`.
pub fn by_moment(schema: &SchemaRef, batches: Vec<Batch>) -> Result<RecordBatch, ArrowError> {
    if batches.iter().all(|batch| batch.promises.is_none()) {
        let rows: Vec<RecordBatch> = batches.into_iter().map(|batch| batch.rows).collect();
        return canonical(schema, &rows);
    }
    let marked = batches.iter().map(|batch| with_moments(schema, batch, EventTime::MIN));
    let marked = marked.collect::<Result<Vec<_>, _>>()?;
    Ok(without_moments(schema, &canonical(&marked_schema(schema), &marked)?)?.rows)
}

/// A schema with the moment before its columns.
pub(crate) fn marked_schema(schema: &SchemaRef) -> SchemaRef {
    let moment = Arc::new(Field::new("_moment", Batch::timestamp_type(), false));
    let fields = std::iter::once(moment).chain(schema.fields().iter().cloned());
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Rows with their moments, none of them before `least`, before their columns.
pub(crate) fn with_moments(
    schema: &SchemaRef,
    batch: &Batch,
    least: EventTime,
) -> Result<RecordBatch, ArrowError> {
    let moment = |(row, &time): (usize, &i64)| time.max(least.0).max(batch.promise(row).0);
    let moments = TimestampMillisecondArray::from_iter_values(batch.times().iter().enumerate().map(moment));
    let columns = std::iter::once(Arc::new(moments) as ArrayRef).chain(batch.rows.columns().iter().cloned());
    RecordBatch::try_new(marked_schema(schema), columns.collect())
}

/// Rows behind their moments, which become their promises.
pub(crate) fn without_moments(schema: &SchemaRef, marked: &RecordBatch) -> Result<Batch, ArrowError> {
    let moments = marked.column(0).as_primitive::<TimestampMillisecondType>();
    let rows = RecordBatch::try_new(schema.clone(), marked.columns()[1..].to_vec())?;
    let promises = Some(Int64Array::new(moments.values().clone(), None));
    Ok(Batch { promises, ..Batch::derived(rows) })
}

/// All rows of `batches` (of one schema, with the time column first) as one batch in canonical order.
///
/// Costs a sort by time; only rows that share their time with another are compared by content, column by
/// column for as long as they agree.
///
/// # Errors
/// When the batches do not share `schema`.
pub fn canonical(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
    let rows = concat_batches(schema, batches)?;
    let times = rows.column(0).as_primitive::<TimestampMillisecondType>().values();
    if times.windows(2).all(|pair| pair[0] < pair[1]) {
        return Ok(rows);
    }
    let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
    order.sort_by_key(|&i| times[i as usize]);
    let mut ties = Vec::new();
    ties_within(0..order.len(), |a, b| times[order[a] as usize] == times[order[b] as usize], &mut ties);
    for column in &rows.columns()[1..] {
        if ties.is_empty() {
            break;
        }
        ties = sort_ties(column, &mut order, &ties)?;
    }
    take_record_batch(&rows, &UInt32Array::from(order))
}

/// Sorts the rows of each of `ties`, runs of `order`, by a column; gives the runs that still agree.
fn sort_ties(
    column: &ArrayRef,
    order: &mut [u32],
    ties: &[Range<usize>],
) -> Result<Vec<Range<usize>>, ArrowError> {
    let tied: UInt32Array = ties.iter().flat_map(|run| order[run.clone()].iter().copied()).collect();
    let converter = RowConverter::new(vec![SortField::new(column.data_type().clone())])?;
    let keys = converter.convert_columns(&[take(column, &tied, None)?])?;
    let mut keyed: Vec<(Row<'_>, u32)> = keys.iter().zip(tied.values().iter().copied()).collect();
    let mut left = Vec::new();
    let mut first = 0;
    for run in ties {
        let places = &mut keyed[first..first + run.len()];
        first += run.len();
        // Rows that agree in this column are sorted by the next, or are alike in all.
        places.sort_by(|a, b| a.0.cmp(&b.0));
        for (slot, &(_, row)) in order[run.clone()].iter_mut().zip(places.iter()) {
            *slot = row;
        }
        let base = run.start;
        ties_within(run.clone(), |a, b| places[a - base].0 == places[b - base].0, &mut left);
    }
    Ok(left)
}

/// Appends the runs of two or more places of `range` that are the `same`, neighbour by neighbour.
fn ties_within(range: Range<usize>, same: impl Fn(usize, usize) -> bool, ties: &mut Vec<Range<usize>>) {
    let mut start = range.start;
    for end in range.start + 1..=range.end {
        if end == range.end || !same(end - 1, end) {
            if end - start > 1 {
                ties.push(start..end);
            }
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray, TimestampMillisecondArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use levada_types::Batch;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_shuffle_and_split_gives_the_same_rows(
            rows in proptest::collection::vec((0i64..6, 0i64..3, "[ab]{0,2}", 0i64..3), 1..60),
            cut in 0usize..60,
        ) {
            let schema = Arc::new(Schema::new(vec![
                Batch::time_field(),
                Field::new("x", DataType::Int64, false),
                Field::new("y", DataType::Utf8, false),
                Field::new("z", DataType::Int64, false),
            ]));
            let batch = |rows: &[(i64, i64, String, i64)]| RecordBatch::try_new(schema.clone(), vec![
                Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|r| r.0))) as ArrayRef,
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1))),
                Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.2))),
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.3))),
            ]).unwrap();
            let mut expected = rows.clone();
            expected.sort();
            let (a, b) = rows.split_at(cut.min(rows.len()));
            prop_assert_eq!(canonical(&schema, &[batch(b), batch(a)]).unwrap(), batch(&expected));
        }
    }
}
