//! Fields, bad records, and that what is written reads back.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimestampMillisecondType,
};
use levada_types::{Batch, Decoded, DecoderFactory, RawRecords};
use proptest::prelude::*;

use super::{CsvConfig, CsvEncoder, CsvFormat, header, record_end};
use crate::codec::Encoder;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("f", DataType::Float64, true),
        Field::new("s", DataType::Utf8, false),
        Field::new("i", DataType::Int64, true),
        Field::new("b", DataType::Boolean, true),
        Field::new("t", Batch::timestamp_type(), true),
    ]))
}

fn decode(records: &[&[u8]], header: &[&str]) -> Decoded {
    let (mut data, mut spans) = (Vec::new(), Vec::new());
    for record in records {
        let start = data.len() as u32;
        data.extend_from_slice(record);
        spans.push((start, data.len() as u32));
    }
    let raw = RawRecords {
        data: data.into(),
        offsets: (0..spans.len() as u64).collect(),
        spans,
        ..RawRecords::default()
    };
    let config = CsvConfig { nulls: vec![String::new(), "NA".into()], ..CsvConfig::default() };
    let format = CsvFormat { columns: header.iter().map(|name| name.to_string()).collect(), config };
    format.decoder(schema()).unwrap().decode(&raw)
}

#[test]
fn json_is_checked_and_written_as_text() {
    let schema = Arc::new(Schema::new(vec![Batch::json_field("j", true)]));
    let lines: [&[u8]; 6] = [br#""{""a"": [1, 2]}""#, b"", b"null", b"12", b"{a}", br#""[1"",]""#];
    let (mut data, mut spans) = (Vec::new(), Vec::new());
    for line in lines {
        spans.push((data.len() as u32, (data.len() + line.len()) as u32));
        data.extend_from_slice(line);
    }
    let raw = RawRecords { data: data.into(), offsets: (0..6).collect(), spans, ..RawRecords::default() };
    let format = CsvFormat { columns: vec!["j".into()], config: CsvConfig::default() };
    let decoded = format.decoder(schema.clone()).unwrap().decode(&raw);
    let values: Vec<Option<&str>> = decoded.rows.column(0).as_string::<i32>().iter().collect();
    assert_eq!(values, [Some(r#"{"a": [1, 2]}"#), None, None, Some("12")]);
    assert_eq!(decoded.dead.len(), 2);
    assert_eq!(decoded.dead[0].reason, "field `j`: expected JSON, found {a}");

    let (mut out, mut ends) = (Vec::new(), Vec::new());
    let mut encoder = CsvEncoder::new(&schema, &CsvConfig::default()).unwrap();
    encoder.encode(&decoded.rows, b"\n", &mut out, &mut ends);
    assert_eq!(String::from_utf8(out).unwrap(), "\"{\"\"a\"\": [1, 2]}\"\n\n\n12\n");
}

#[test]
fn bad_records_say_why_and_leave_their_neighbours_alone() {
    let bad: &[(&[u8], &str)] = &[
        (b"a,1,2.5,true", "expected 6 fields as in the header, found 4"),
        (b"a,1,2.5,true,0,x,y", "expected 6 fields as in the header, found 7"),
        (b",1,2.5,true,0,x", "field `s`: expected a string, but it is missing"),
        (b"NA,1,2.5,true,0,x", "field `s`: expected a string, found NA"),
        (b"a,1.5,2.5,true,0,x", "field `i`: expected an int, found 1.5"),
        (
            b"a,9223372036854775808,2.5,true,0,x",
            "field `i`: expected an int, found 9223372036854775808, which does not fit 64 bits",
        ),
        (b"a,1,late,true,0,x", "field `f`: expected a float, found late"),
        (b"a,1,NaN,true,0,x", "field `f`: expected a float, found NaN"),
        (b"a,1,1e999,true,0,x", "field `f`: expected a float, found 1e999, which is beyond the largest"),
        (b"a,1,2.5,yes,0,x", "field `b`: expected a bool, found yes"),
        (b"a,1,2.5,true,now,x", "field `t`: expected a timestamp as in 2013-01-01T10:17:00Z, found now"),
        (
            b"a,1,2.5,true,2013-01-01T00:00:00,x",
            "field `t`: expected a timestamp with an offset from UTC (such as Z), found 2013-01-01T00:00:00",
        ),
        (b"\"a,1,2.5,true,0,x", "not CSV: the quote at byte 0 is not closed"),
        (b"\"a\"b,1,2.5,true,0,x", "not CSV: the quote at byte 0 is closed before the field ends"),
        (b"a\xff,1,2.5,true,0,x", "not UTF-8: byte 1 is 0xff"),
    ];
    let mut records: Vec<&[u8]> = Vec::new();
    for (record, _) in bad {
        records.extend([
            &b"before,1,,TRUE,2013-01-01T10:17:00Z,\"x,\""[..],
            record,
            b"\"af\"\"ter\",NA,.5,false,7,",
        ]);
    }
    let decoded = decode(&records, &["s", "i", "f", "b", "t", "extra"]);
    for ((record, reason), letter) in bad.iter().zip(&decoded.dead) {
        assert_eq!(&letter.reason, reason, "{}", String::from_utf8_lossy(record));
    }
    assert_eq!(decoded.dead.len(), bad.len());
    assert_eq!(decoded.rows.num_rows(), 2 * bad.len());
    let text = decoded.rows.column(1).as_string::<i32>();
    let (float, int) = (
        decoded.rows.column(0).as_primitive::<Float64Type>(),
        decoded.rows.column(2).as_primitive::<Int64Type>(),
    );
    let times = decoded.rows.column(4).as_primitive::<TimestampMillisecondType>();
    for n in 0..bad.len() {
        assert_eq!((text.value(2 * n), text.value(2 * n + 1)), ("before", "af\"ter"));
        assert_eq!((float.is_null(2 * n), float.value(2 * n + 1)), (true, 0.5));
        assert_eq!((int.value(2 * n), int.is_null(2 * n + 1)), (1, true));
        assert_eq!((times.value(2 * n), times.value(2 * n + 1)), (1_357_035_420_000, 7));
    }
}

#[test]
fn headers_are_checked() {
    assert_eq!(header(b"\xef\xbb\xbfa,\"b \"\"c\"\"\"", b','), Ok(vec!["a".into(), "b \"c\"".into()]));
    assert_eq!(header(b"a,,b", b','), Err("column 2 has no name".into()));
    assert_eq!(header(b"a,b,a", b','), Err("the column `a` is there twice".into()));
    let format = CsvFormat { columns: vec!["i".into(), "f".into()], config: CsvConfig::default() };
    let error = format.decoder(schema()).err().map(|error| error.to_string());
    assert_eq!(
        error.as_deref(),
        Some("failed to decode field `s`: the header has no such column, only i, f")
    );
}

#[test]
fn a_record_ends_at_a_line_feed_outside_quotes() {
    assert_eq!(record_end(b"a,b\nc", b','), Some(3));
    assert_eq!(record_end(b"a,\"b\nc\",d\ne", b','), Some(9));
    assert_eq!(record_end(b"\"a\"\"\n\",d\ne", b','), Some(8));
    assert_eq!(record_end(b"a 5\" pipe,d\ne", b','), Some(11));
    assert_eq!(record_end(b"\"a\n", b','), None);
    assert_eq!(record_end(b"a", b','), None);
}

proptest! {
    #[test]
    fn what_is_encoded_splits_and_decodes_to_the_same_rows(
        cells in proptest::collection::vec((
            any::<Option<f64>>(), "[a\",\n\r é]{0,6}|NA", any::<Option<i64>>(), any::<Option<bool>>(),
            proptest::option::of(0i64..4_102_444_800_000),
        ), 0..20),
    ) {
        let rows = RecordBatch::try_new(schema(), vec![
            Arc::new(arrow::array::Float64Array::from_iter(cells.iter().map(|c| c.0.filter(|f| f.is_finite())))),
            Arc::new(arrow::array::StringArray::from_iter_values(cells.iter().map(|c| &c.1))),
            Arc::new(arrow::array::Int64Array::from_iter(cells.iter().map(|c| c.2))),
            Arc::new(arrow::array::BooleanArray::from_iter(cells.iter().map(|c| c.3))),
            Arc::new(arrow::array::TimestampMillisecondArray::from_iter(cells.iter().map(|c| c.4))),
        ]).unwrap();
        let mut encoder = CsvEncoder::new(&schema(), &CsvConfig::default()).unwrap();
        let mut out = Vec::new();
        encoder.encode(&rows, b"\n", &mut out, &mut Vec::new());
        let (mut records, mut rest) = (Vec::new(), out.as_slice());
        while let Some(end) = record_end(rest, b',') {
            records.push(&rest[..end]);
            rest = &rest[end + 1..];
        }
        prop_assert_eq!(rest, b"");
        prop_assert_eq!(encoder.header().unwrap(), b"f,s,i,b,t".to_vec());
        let config = CsvConfig::default();
        let columns = header(b"f,s,i,b,t", b',').unwrap();
        let (mut data, mut spans) = (Vec::new(), Vec::new());
        for record in &records {
            spans.push((data.len() as u32, (data.len() + record.len()) as u32));
            data.extend_from_slice(record);
        }
        let raw = RawRecords { data: data.into(), offsets: (0..spans.len() as u64).collect(), spans, ..RawRecords::default() };
        let decoded = CsvFormat { columns, config }.decoder(schema()).unwrap().decode(&raw);
        prop_assert_eq!(decoded.dead, vec![]);
        prop_assert_eq!(decoded.rows, rows);
    }
}
