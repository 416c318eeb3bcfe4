//! The unit of data that flows: an Arrow record batch and where it came from.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, TimeUnit, TimestampMillisecondType};
use serde::{Deserialize, Serialize};

use crate::{Offset, PartitionId};

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

impl Batch {
    /// Rows that one batch holds at most: enough to amortise a call, few enough for the cache.
    pub const MAX_ROWS: usize = 8192;

    /// A batch of rows made by a step, which has no source position of its own.
    pub fn derived(rows: RecordBatch) -> Batch {
        Batch { rows, origin: Origin::default() }
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
