//! The unit of data that flows: an Arrow record batch and where it came from.

use arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{filter, filter_record_batch, take, take_record_batch};
use arrow::datatypes::{DataType, Field, TimeUnit, TimestampMillisecondType};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use crate::{EventTime, Offset, PartitionId};

/// The first column of every batch: the row's event time, `Timestamp(Millisecond, None)`, never null.
///
/// A source fills it from the column that the job names; a step that makes rows states what time
/// they carry. A sink leaves it out.
pub const TIME_COLUMN: &str = "_time";

/// The key, in a field's metadata, of a text column whose values are JSON: see [`Batch::json_field`].
const JSON_KEY: &str = "levada.json";

/// Rows of one stream, at most [`Batch::MAX_ROWS`] of them.
///
/// Column 0 is [`TIME_COLUMN`]; the other columns are the stream's schema. All timestamps are
/// `Timestamp(Millisecond, None)` in UTC, strings (and JSON) are `Utf8`, integers `Int64`, floats `Float64`.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The rows.
    pub rows: RecordBatch,
    /// Where they came from, which orders batches that still stand in their source's order.
    pub origin: Origin,
    /// What each row's partition had promised when the row came: that nothing before this time would
    /// come any more. A row whose time is before it is *behind*. Given if some row is behind; without
    /// it none is.
    ///
    /// Until a step's host has told it what came before the chunk, it tells of the chunk alone.
    pub promises: Option<Int64Array>,
}

/// Orders the batches of an epoch: by source, then partition, then offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// Index of the source in the plan.
    pub source: u16,
    /// The partition that the rows were read from.
    pub partition: PartitionId,
    /// The offset of the first record of the chunk that the rows were decoded from.
    pub offset: Offset,
}

impl Origin {
    /// That of rows which some step has made.
    pub const MADE: Origin = Origin { source: u16::MAX, partition: PartitionId(0), offset: Offset(0) };
}

impl Batch {
    /// Rows that one batch holds at most: enough to amortise a call, few enough for the cache.
    pub const MAX_ROWS: usize = 4096;

    /// Rows that were read, none of them behind.
    pub fn read(rows: RecordBatch, origin: Origin) -> Batch {
        Batch { rows, origin, promises: None }
    }

    /// A batch of rows made by a step, which has no source position of its own.
    pub fn derived(rows: RecordBatch) -> Batch {
        Batch::read(rows, Origin::MADE)
    }

    /// The same rows with other columns.
    #[must_use]
    pub fn with_rows(&self, rows: RecordBatch) -> Batch {
        debug_assert_eq!(rows.num_rows(), self.rows.num_rows());
        Batch { rows, origin: self.origin, promises: self.promises.clone() }
    }

    /// The rows at `indices`.
    ///
    /// # Errors
    /// When there is no such row.
    pub fn take(&self, indices: &UInt32Array) -> Result<Batch, ArrowError> {
        let promises = self.promises.as_ref().map(|promises| take(promises, indices, None)).transpose()?;
        Ok(Batch {
            rows: take_record_batch(&self.rows, indices)?,
            origin: self.origin,
            promises: promises.map(|promises| promises.as_primitive().clone()),
        })
    }

    /// The rows that `mask` is true of.
    ///
    /// # Errors
    /// When the mask has another length.
    pub fn filter(&self, mask: &BooleanArray) -> Result<Batch, ArrowError> {
        let promises = self.promises.as_ref().map(|promises| filter(promises, mask)).transpose()?;
        Ok(Batch {
            rows: filter_record_batch(&self.rows, mask)?,
            origin: self.origin,
            promises: promises.map(|promises| promises.as_primitive().clone()),
        })
    }

    /// `length` rows from `offset` on, without copying.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Batch {
        let promises = self.promises.as_ref().map(|promises| promises.slice(offset, length));
        Batch { rows: self.rows.slice(offset, length), origin: self.origin, promises }
    }

    /// What the partition of a row had promised when the row came, as far as it matters.
    pub fn promise(&self, row: usize) -> EventTime {
        self.promises.as_ref().map_or(EventTime::MIN, |promises| EventTime(promises.value(row)))
    }

    /// The event times of the rows, in milliseconds since the Unix epoch UTC.
    pub fn times(&self) -> &[i64] {
        self.rows.column(0).as_primitive::<TimestampMillisecondType>().values()
    }

    /// The field that [`TIME_COLUMN`] is.
    pub fn time_field() -> Field {
        Field::new(TIME_COLUMN, Batch::timestamp_type(), false)
    }

    /// A field of texts each of which is one JSON value. A sink that writes JSON writes them as they are,
    /// one within the other; everywhere else they are text. Who makes such a column vouches for it.
    pub fn json_field(name: &str, nullable: bool) -> Field {
        let metadata = [(JSON_KEY.to_string(), "true".to_string())].into();
        Field::new(name, DataType::Utf8, nullable).with_metadata(metadata)
    }

    /// Whether a field is such as [`Batch::json_field`] makes.
    pub fn is_json(field: &Field) -> bool {
        field.data_type() == &DataType::Utf8 && field.metadata().get(JSON_KEY).is_some_and(|v| v == "true")
    }

    /// The type of every timestamp column.
    pub fn timestamp_type() -> DataType {
        DataType::Timestamp(TimeUnit::Millisecond, None)
    }
}
