//! Splitting, compression, resuming, and that a file is whole or not there.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use levada_types::{Batch, Blame, Epoch, Offset, PartitionId, Read, SinkFactory, SourceFactory, StartAt};
use proptest::prelude::*;

use super::{FileSink, FileSinkConfig, FileSource, FileSourceConfig, Lines, MAX_LINE_BYTES};
use crate::codec::Format;

/// An input that gives a few bytes at a time.
struct Drip(Vec<u8>, usize);

impl std::io::Read for Drip {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.1.min(buffer.len()).min(self.0.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0.drain(..count);
        Ok(count)
    }
}

fn config(path: &Path) -> FileSourceConfig {
    FileSourceConfig { path: Some(path.into()), ..FileSourceConfig::default() }
}

fn read_all(source: &FileSource, partition: u32, start: StartAt, step: usize) -> Vec<(u64, String)> {
    let mut reader = source.open(PartitionId(partition), start).unwrap();
    let (mut found, mut last) = (Vec::new(), step);
    while let Read::Records(records) = reader.read(step, Duration::ZERO).unwrap() {
        assert_eq!(last, step, "a read may be short only at the end");
        last = records.len();
        for i in 0..records.len() {
            found.push((records.offsets[i], String::from_utf8(records.value(i).to_vec()).unwrap()));
        }
    }
    assert!(matches!(reader.read(step, Duration::ZERO), Ok(Read::End)));
    found
}

proptest! {
    #[test]
    fn lines_are_split_alike_however_they_are_read(
        text in "([a-c]{0,5}\r?\n){0,12}[a-c]{0,3}", drip in 1usize..9, step in 1usize..5,
    ) {
        let expected: Vec<(u64, String)> = text.split('\n').enumerate()
            .map(|(n, line)| (n as u64 + 1, line.strip_suffix('\r').unwrap_or(line).to_owned()))
            .filter(|(_, line)| !line.is_empty())
            .collect();
        let mut lines = Lines::new(Box::new(Drip(text.into_bytes(), drip)), None);
        let mut found = Vec::new();
        loop {
            let records = lines.next(step).unwrap();
            prop_assert!(records.len() <= step);
            if records.is_empty() { break }
            for i in 0..records.len() {
                found.push((records.offsets[i], String::from_utf8(records.value(i).to_vec()).unwrap()));
            }
        }
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn csv_records_may_span_lines_and_blocks() {
    let mut text = String::from("\u{feff}a,b\r\n1,\"x\ny\"\r\n\r\n");
    let long = "z".repeat(3 << 20);
    text += &format!("2,\"{long}\n\"\"{long}\"\n3,\"\"");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    fs::write(&path, &text).unwrap();
    let source = FileSource::new(&config(&path), Format::Csv).unwrap();
    let found = read_all(&source, 0, StartAt::Configured, 2);
    assert_eq!(found[0], (2, "1,\"x\ny\"".to_owned()));
    assert_eq!(found[1], (5, format!("2,\"{long}\n\"\"{long}\"")));
    assert_eq!(found[2], (7, "3,\"\"".to_owned()));
    let schema = Arc::new(Schema::new(vec![Field::new("b", DataType::Utf8, false)]));
    let mut reader = source.open(PartitionId(0), StartAt::Configured).unwrap();
    let Read::Records(records) = reader.read(9, Duration::ZERO).unwrap() else { panic!("no records") };
    let decoded = source.decoder().decoder(schema).unwrap().decode(&records);
    assert_eq!((decoded.rows.num_rows(), decoded.dead.len()), (3, 0));
}

#[test]
fn a_line_that_is_too_long_is_an_error_that_names_it() {
    let mut text = b"{}\n".to_vec();
    text.resize(text.len() + MAX_LINE_BYTES + 1, b'x');
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs::write(&path, &text).unwrap();
    let mut reader = FileSource::new(&config(&path), Format::Json)
        .unwrap()
        .open(PartitionId(0), StartAt::Configured)
        .unwrap();
    let error = reader.read(10, Duration::ZERO).unwrap_err();
    assert_eq!(error.blame, Blame::Damage);
    assert!(error.to_string().ends_with("a.jsonl: line 2 is longer than 16 MiB"), "{error}");
}

#[test]
fn a_reader_begins_at_any_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs::write(&path, (1..=20_000).map(|n| format!("{{\"n\":{n}}}\n")).collect::<String>()).unwrap();
    let source = FileSource::new(&config(&path), Format::Json).unwrap();
    let whole = read_all(&source, 0, StartAt::Configured, 7000);
    for start in [0u64, 1, 2, 8192, 8193, 20_000, 20_001, 90_000] {
        let found = read_all(&source, 0, StartAt::Offset(Offset(start)), 7000);
        assert_eq!(found, whole[(start.saturating_sub(1) as usize).min(whole.len())..], "from {start}");
    }
}

#[test]
fn what_a_sink_writes_a_source_reads_in_every_compression() {
    let schema = Arc::new(Schema::new(vec![
        Batch::time_field(),
        Field::new("n", DataType::Int64, false),
        Field::new("s", DataType::Utf8, true),
    ]));
    let rows = |from: i64| {
        RecordBatch::try_new(
            schema.clone(),
            vec![
                Arc::new(TimestampMillisecondArray::from_value(0, 2)) as ArrayRef,
                Arc::new(Int64Array::from(vec![from, from + 1])),
                Arc::new(StringArray::from(vec![Some("x,y"), None])),
            ],
        )
        .unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in [
        ("a.jsonl", Format::Json),
        ("a.jsonl.gz", Format::Json),
        ("a.jsonl.zst", Format::Json),
        ("sub/a.csv", Format::Csv),
        ("a.csv.gz", Format::Csv),
    ] {
        let path = folder.path().join(name);
        let factory = FileSink::new(
            FileSinkConfig { path: path.clone(), compression: None, csv: Default::default() },
            format,
        );
        let mut sink = factory.open(schema.clone(), None).unwrap();
        sink.publish(Epoch(1), &[rows(1), rows(3)]).unwrap();
        assert!(!path.exists(), "nobody may see half a file");
        sink.publish(Epoch(5), &[rows(5)]).unwrap();
        sink.close().unwrap();
        sink.close().unwrap();
        drop(sink);
        let source = FileSource::new(&config(&path), format).unwrap();
        let found: Vec<String> =
            read_all(&source, 0, StartAt::Configured, 4).into_iter().map(|r| r.1).collect();
        let expected = match format {
            Format::Json => [r#"{"n":1,"s":"x,y"}"#, r#"{"n":2,"s":null}"#, r#"{"n":3,"s":"x,y"}"#],
            Format::Csv => ["1,\"x,y\"", "2,", "3,\"x,y\""],
        };
        assert_eq!(found.len(), 6);
        assert_eq!(found[..3], expected);
        // A sink that is dropped without closing changes nothing.
        let before = fs::read(&path).unwrap();
        let mut sink = factory.open(schema.clone(), None).unwrap();
        sink.publish(Epoch(1), &[rows(9)]).unwrap();
        drop(sink);
        assert_eq!(fs::read(&path).unwrap(), before);
        assert!(!PathBuf::from(format!("{}.partial", path.display())).exists());
    }
}

#[test]
fn wrong_files_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.csv"), "a,b\n1,2\n").unwrap();
    fs::write(at("b.csv"), "b,a\n1,2\n").unwrap();
    fs::write(at("c.csv"), "").unwrap();
    fs::write(at("d.jsonl.gz"), "not compressed").unwrap();
    fs::write(at("e.jsonl.zst"), "not compressed").unwrap();
    fs::write(at("f.zip"), "not an archive").unwrap();
    let mut cut = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    cut.write_all(&b"{}\n".repeat(1000)).unwrap();
    let cut = cut.finish().unwrap();
    fs::write(at("g.jsonl.gz"), &cut[..cut.len() / 2]).unwrap();

    let both = FileSourceConfig { paths: vec![at("a.csv"), at("b.csv")], ..FileSourceConfig::default() };
    let source = FileSource::new(&both, Format::Csv).unwrap();
    assert_eq!(source.partitions().unwrap(), [None, None]);
    assert_eq!(read_all(&source, 0, StartAt::Configured, 5), [(2, "1,2".to_owned())]);
    let error = source.open(PartitionId(1), StartAt::Configured).err().unwrap();
    assert!(error.to_string().ends_with("b.csv: its header is b,a, that of the first file a,b"), "{error}");

    let blame = |name: &str, format| {
        let open = FileSource::new(&config(&at(name)), format)
            .and_then(|s| s.open(PartitionId(0), StartAt::Configured));
        open.and_then(|mut reader| {
            loop {
                if let Read::End = reader.read(100, Duration::ZERO)? {
                    return Ok(());
                }
            }
        })
        .map_err(|error| error.blame)
    };
    assert_eq!(blame("a.csv", Format::Csv), Ok(()));
    assert_eq!(blame("missing.csv", Format::Csv), Err(Blame::Configuration));
    assert_eq!(blame("missing.jsonl", Format::Json), Err(Blame::Configuration));
    assert_eq!(blame("c.csv", Format::Csv), Err(Blame::Configuration));
    for damaged in ["d.jsonl.gz", "e.jsonl.zst", "f.zip", "g.jsonl.gz"] {
        assert_eq!(blame(damaged, Format::Json), Err(Blame::Damage), "{damaged}");
    }
}
