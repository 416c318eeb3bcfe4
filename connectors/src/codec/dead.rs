//! Dead letters as rows, so that any sink can keep them.
//!
//! A row says where the record stood, why it could not be used, and holds its bytes: base64 in `bytes`
//! always, so that nothing is lost, and readable in `text` where they are UTF-8.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use levada_types::{Batch, DeadLetter, EventTime, PartitionId};

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Batch::time_field(),
        Field::new("source", DataType::Utf8, false),
        Field::new("partition", DataType::Int64, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("bytes", DataType::Utf8, false),
        Field::new("text", DataType::Utf8, true),
    ]))
});

/// The columns of dead letters: `_time`, `source`, `partition`, `offset`, `reason`, `bytes` (base64), `text`
/// (null where the bytes are not UTF-8).
pub fn dead_letter_schema() -> SchemaRef {
    SCHEMA.clone()
}

/// Dead letters of one partition as rows of [`dead_letter_schema`].
///
/// A bad record has no event time of its own, so the caller says which `time` the rows carry; it must not
/// come from a clock if the output is to be the same each time.
///
/// # Errors
/// When the texts together exceed 2 GiB.
pub fn dead_letter_rows(
    source: &str,
    partition: PartitionId,
    time: EventTime,
    dead: &[DeadLetter],
) -> Result<RecordBatch, ArrowError> {
    let count = dead.len();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_value(time.0, count)),
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(source, count))),
        Arc::new(Int64Array::from_value(i64::from(partition.0), count)),
        Arc::new(Int64Array::from_iter_values(dead.iter().map(|letter| letter.offset.0 as i64))),
        Arc::new(StringArray::from_iter_values(dead.iter().map(|letter| &letter.reason))),
        Arc::new(StringArray::from_iter_values(dead.iter().map(|letter| STANDARD.encode(&letter.bytes)))),
        Arc::new(StringArray::from_iter(dead.iter().map(|letter| std::str::from_utf8(&letter.bytes).ok()))),
    ];
    RecordBatch::try_new(dead_letter_schema(), columns)
}

#[cfg(test)]
mod tests {
    use levada_types::Offset;

    use super::*;
    use crate::codec::Encoder;
    use crate::codec::json::JsonEncoder;

    #[test]
    fn a_dead_letter_keeps_its_bytes_readable_or_not() {
        let letter = |offset, bytes: &[u8]| DeadLetter {
            offset: Offset(offset),
            reason: "not JSON: it breaks off after 1 bytes".into(),
            bytes: bytes.to_vec(),
        };
        let dead = [letter(7, b"{"), letter(9, b"\xff")];
        let rows = dead_letter_rows("clicks", PartitionId(2), EventTime(0), &dead).unwrap();
        let mut out = Vec::new();
        JsonEncoder::new(&dead_letter_schema()).unwrap().encode(&rows, b"\n", &mut out, &mut Vec::new());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"source":"clicks","partition":2,"offset":7,"reason":"not JSON: it breaks off after 1 bytes","bytes":"ew==","text":"{"}
{"source":"clicks","partition":2,"offset":9,"reason":"not JSON: it breaks off after 1 bytes","bytes":"/w==","text":null}
"#
        );
    }
}
