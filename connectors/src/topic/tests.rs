//! What a sink publishes, a source reads; what must be refused is.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use levada_types::{Batch, Epoch, Existing, Offset, PartitionId, Read, SinkFactory, SourceFactory, StartAt};

use super::{LogSink, LogSinkConfig, LogSource, LogSourceConfig, StartFrom, published};
use crate::codec::Encoder as _;
use crate::codec::json::{JsonEncoder, JsonFormat};
use crate::codec::metadata::{MetadataColumns, with_metadata};
use crate::log::{Log, RecordIn, Start, TopicConfig, WriterOptions};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Batch::time_field(),
        Field::new("origin", DataType::Utf8, false),
        Field::new("delay", DataType::Float64, true),
    ]))
}

fn rows(cells: &[(i64, &str, Option<f64>)]) -> RecordBatch {
    RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(TimestampMillisecondArray::from_iter_values(cells.iter().map(|c| c.0))) as ArrayRef,
            Arc::new(StringArray::from_iter_values(cells.iter().map(|c| c.1))),
            Arc::new(Float64Array::from_iter(cells.iter().map(|c| c.2))),
        ],
    )
    .unwrap()
}

fn sink_config(key: &[&str], partitions: Option<u32>) -> LogSinkConfig {
    let key = key.iter().map(|name| name.to_string()).collect();
    LogSinkConfig { topic: "out".into(), partitions, key, ..LogSinkConfig::default() }
}

#[test]
fn an_epoch_is_published_whole_with_its_time_key_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path()).unwrap();
    let mut sink = LogSink::new(folder.path(), sink_config(&["origin"], None), Existing::Refuse)
        .open(schema(), None)
        .unwrap();
    sink.publish(Epoch(3), &[rows(&[(10, "EWR", Some(2.0))]), rows(&[(11, "JFK", None)])]).unwrap();
    sink.publish(Epoch(9), &[rows(&[(12, "EWR", Some(0.5))])]).unwrap();
    sink.close().unwrap();

    let fetched = log.topic("out").unwrap().reader(0, Start::Beginning).unwrap().read(10, 1 << 20).unwrap();
    let found: Vec<_> = fetched
        .iter()
        .map(|r| {
            (r.timestamp_ms, r.key.unwrap(), published(&r).unwrap(), std::str::from_utf8(r.value).unwrap())
        })
        .collect();
    assert_eq!(
        found,
        [
            (10, &b"EWR"[..], (3, 0), r#"{"origin":"EWR","delay":2.0}"#),
            (11, &b"JFK"[..], (3, 1), r#"{"origin":"JFK","delay":null}"#),
            (12, &b"EWR"[..], (9, 0), r#"{"origin":"EWR","delay":0.5}"#),
        ]
    );
}

#[test]
fn a_topic_that_holds_records_is_written_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path()).unwrap();
    let open = |config, existing| LogSink::new(folder.path(), config, existing).open(schema(), None);
    let mut sink = open(sink_config(&[], None), Existing::Refuse).unwrap();
    // A topic that is there but empty is fine.
    sink.close().unwrap();
    drop(sink);
    let mut sink = open(sink_config(&[], None), Existing::Refuse).unwrap();
    sink.publish(Epoch(1), &[rows(&[(1, "a", None)])]).unwrap();
    sink.close().unwrap();
    drop(sink);
    let refusal = open(sink_config(&[], None), Existing::Refuse).err().unwrap().to_string();
    let told = "failed to write topic out: it already holds 1 record; write behind them with --append, or delete it \
                first with `levada topics delete out --data ";
    assert!(refusal.starts_with(told), "{refusal}");
    let mut sink = open(sink_config(&[], None), Existing::Append).unwrap();
    sink.publish(Epoch(1), &[rows(&[(1, "a", None)])]).unwrap();
    sink.close().unwrap();
    assert_eq!(log.topic("out").unwrap().bounds(0).unwrap().next, 2);
    drop(sink);
    assert_eq!(
        open(sink_config(&[], Some(4)), Existing::Append).err().unwrap().to_string(),
        "failed to write topic out with 4 partitions: it has 1"
    );
    assert_eq!(
        open(sink_config(&["carrier"], None), Existing::Append).err().unwrap().to_string(),
        "failed to key topic out by `carrier`: the rows have no such column, only origin, delay"
    );
}

#[test]
fn keys_of_several_columns_are_joined_and_keep_to_their_partition() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path()).unwrap();
    let config = sink_config(&["origin", "delay"], Some(3));
    let mut sink = LogSink::new(folder.path(), config, Existing::Refuse).open(schema(), None).unwrap();
    for epoch in 0..20 {
        sink.publish(Epoch(epoch), &[rows(&[(1, "EWR", Some(1.5)), (2, "a|b", None), (3, "LGA", None)])])
            .unwrap();
    }
    sink.close().unwrap();
    let topic = log.topic("out").unwrap();
    let mut keys = Vec::new();
    for partition in 0..3 {
        let fetched = topic.reader(partition, Start::Beginning).unwrap().read(100, 1 << 20).unwrap();
        let mut here: Vec<String> =
            fetched.iter().map(|r| String::from_utf8(r.key.unwrap().to_vec()).unwrap()).collect();
        here.sort();
        here.dedup();
        keys.extend(here);
    }
    keys.sort();
    assert_eq!(keys, ["\"a|b\"|", "EWR|1.5", "LGA|"]);
}

#[test]
fn a_source_reads_exact_counts_and_knows_its_history() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path()).unwrap();
    let config = |start| LogSourceConfig { topic: "in".into(), start };
    assert_eq!(
        LogSource::new(folder.path(), &config(StartFrom::Beginning)).unwrap().partitions().unwrap_err().blame,
        levada_types::Blame::Configuration
    );
    let topic = log.create_topic("in", TopicConfig { partitions: 2, ..TopicConfig::default() }).unwrap();
    let writer = topic.writer(1, WriterOptions::default()).unwrap();
    for n in 0..10i64 {
        let value = format!("{{\"n\":{n}}}");
        // Two records an append, which a reader must not notice.
        let record = RecordIn {
            timestamp_ms: n * 1000,
            value: value.as_bytes(),
            key: Some(b"k"),
            ..RecordIn::default()
        };
        writer.append(&[record, record]).unwrap();
    }
    let source = LogSource::new(folder.path(), &config(StartFrom::Beginning)).unwrap();
    assert_eq!(source.partitions().unwrap(), [Some(Offset(0)), Some(Offset(20))]);
    let mut reader = source.open(PartitionId(1), StartAt::Configured).unwrap();
    let mut counts = Vec::new();
    while let Read::Records(records) = reader.read(7, Duration::ZERO).unwrap() {
        assert_eq!(records.value(0), format!("{{\"n\":{}}}", records.offsets[0] / 2).as_bytes());
        counts.push(records.len());
    }
    assert_eq!(counts, [7, 7, 6]);

    let first = |start, at| {
        let source = LogSource::new(folder.path(), &config(start)).unwrap();
        match source.open(PartitionId(1), at).unwrap().read(1, Duration::ZERO).unwrap() {
            Read::Records(records) => Some(records.offsets[0]),
            _ => None,
        }
    };
    assert_eq!(first(StartFrom::Offset(5), StartAt::Configured), Some(5));
    assert_eq!(first(StartFrom::Time("1970-01-01T00:00:03Z".into()), StartAt::Configured), Some(6));
    assert_eq!(first(StartFrom::End, StartAt::Configured), None);
    assert_eq!(first(StartFrom::End, StartAt::Offset(Offset(19))), Some(19));
    assert!(LogSource::new(folder.path(), &config(StartFrom::Time("now".into()))).is_err());
}

#[test]
fn what_is_known_of_a_record_beside_its_value_becomes_columns() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path()).unwrap();
    let topic = log.create_topic("in", TopicConfig { partitions: 2, ..TopicConfig::default() }).unwrap();
    let records: [(Option<&[u8]>, &[(&str, &[u8])], &[u8]); 5] = [
        (Some(b"a"), &[("trace", b"t1"), ("trace", b"t2")], br#"{"n":1}"#),
        (None, &[], br#"{"n":2}"#),
        (Some(b"\xff"), &[], br#"{"n":3}"#),
        (Some(b"b"), &[("other", b"\xff")], b"no JSON"),
        (Some(b""), &[("trace", b"")], br#"{"n":5}"#),
    ];
    let batch = (0..).zip(&records).map(|(n, (key, headers, value))| RecordIn {
        timestamp_ms: 1000 + n,
        key: *key,
        headers,
        value,
    });
    let writer = topic.writer(1, WriterOptions::default()).unwrap();
    writer.append(&batch.collect::<Vec<_>>()).unwrap();

    let asked = ["key", "timestamp", "partition", "offset", "headers.trace"];
    let names = ["k", "sent", "shard", "place", "trace"];
    let asked =
        names.iter().zip(asked).map(|(name, what)| (name.to_string(), what.to_string().try_into().unwrap()));
    let columns: MetadataColumns = asked.collect();
    let config = LogSourceConfig { topic: "in".into(), start: StartFrom::Beginning };
    let source = LogSource::new(folder.path(), &config).unwrap().telling(&columns);
    let Read::Records(raw) =
        source.open(PartitionId(1), StartAt::Configured).unwrap().read(9, Duration::ZERO).unwrap()
    else {
        panic!("there are records");
    };
    let decoders = with_metadata(JsonFormat::shared(), &Arc::new(columns.clone()));
    let value = Field::new("n", DataType::Int64, false);
    // In another order than the job's, as after pruning; and without what nobody uses.
    let order = ["shard", "trace", "k", "place", "sent"];
    let beside = order.iter().map(|name| columns[*name].field(name));
    let schema: SchemaRef =
        Arc::new(Schema::new(std::iter::once(value.clone()).chain(beside).collect::<Vec<_>>()));
    let decoded = decoders.decoder(schema.clone()).unwrap().decode(&raw);
    assert_eq!(decoded.rows.schema(), schema);
    assert_eq!(decoded.indices, Some(vec![0, 1, 4]));
    let mut rows = Vec::new();
    JsonEncoder::new(&schema).unwrap().encode(&decoded.rows, b"\n", &mut rows, &mut Vec::new());
    assert_eq!(
        String::from_utf8(rows).unwrap().lines().collect::<Vec<_>>(),
        [
            r#"{"n":1,"shard":1,"trace":"t2","k":"a","place":0,"sent":"1970-01-01T00:00:01Z"}"#,
            r#"{"n":2,"shard":1,"trace":null,"k":null,"place":1,"sent":"1970-01-01T00:00:01.001Z"}"#,
            r#"{"n":5,"shard":1,"trace":"","k":"","place":4,"sent":"1970-01-01T00:00:01.004Z"}"#,
        ]
    );
    let dead: Vec<_> = decoded.dead.iter().map(|letter| (letter.offset.0, &letter.bytes[..])).collect();
    assert_eq!(dead, [(2, &br#"{"n":3}"#[..]), (3, &b"no JSON"[..])]);
    assert_eq!(decoded.dead[0].reason, "its key is no text (UTF-8)");

    // A key that nobody uses makes no record bad.
    let schema: SchemaRef = Arc::new(Schema::new(vec![value]));
    let decoded = decoders.decoder(schema.clone()).unwrap().decode(&raw);
    assert_eq!(decoded.indices, Some(vec![0, 1, 2, 4]));
    // What decodes values alone knows nothing of it.
    assert_eq!(decoders.of_values(&schema).unwrap().1, schema);
}

#[test]
fn a_waiting_reader_is_woken_by_an_append() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path()).unwrap();
    let topic = log.create_topic("in", TopicConfig::default()).unwrap();
    let source =
        LogSource::new(folder.path(), &LogSourceConfig { topic: "in".into(), start: StartFrom::Beginning })
            .unwrap();
    let mut reader = source.open(PartitionId(0), StartAt::Configured).unwrap();
    let waiting = std::thread::spawn(move || {
        loop {
            if let Read::Records(records) = reader.read(5, Duration::from_secs(60)).unwrap() {
                return records.len();
            }
        }
    });
    let writer = topic.writer(0, WriterOptions::default()).unwrap();
    writer.append(&[RecordIn { value: b"{}", ..RecordIn::default() }]).unwrap();
    assert_eq!(waiting.join().unwrap(), 1);
}

#[test]
fn a_start_is_written_in_four_ways() {
    let start = |text: &str| serde_json::from_str::<StartFrom>(text).ok();
    assert_eq!(start(r#""beginning""#), Some(StartFrom::Beginning));
    assert_eq!(start(r#""end""#), Some(StartFrom::End));
    assert_eq!(start(r#"{"offset":5}"#), Some(StartFrom::Offset(5)));
    assert_eq!(
        start(r#"{"time":"2013-01-01T00:00:00Z"}"#),
        Some(StartFrom::Time("2013-01-01T00:00:00Z".into()))
    );
    assert_eq!(start(r#""middle""#), None);
}

#[test]
fn a_topic_that_is_deleted_while_it_is_read_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path()).unwrap();
    // Two topics of one name are told apart by the millisecond in which they were made.
    let mut made_before = 0;
    let mut make = || {
        let topic = loop {
            let topic = log.create_topic("in", TopicConfig::default()).unwrap();
            if topic.created_ms() != made_before {
                break topic;
            }
            log.delete_topic("in").unwrap();
        };
        made_before = topic.created_ms();
        let writer = topic.writer(0, WriterOptions::default()).unwrap();
        writer.append(&[RecordIn { value: b"{}", ..RecordIn::default() }]).unwrap();
    };
    let config = LogSourceConfig { topic: "in".into(), start: StartFrom::Beginning };
    let source = LogSource::new(folder.path(), &config).unwrap();
    let wait = Duration::from_millis(1);
    for made_anew in [false, true] {
        make();
        let mut reader = source.open(PartitionId(0), StartAt::Configured).unwrap();
        assert!(matches!(reader.read(10, wait), Ok(Read::Records(_))));
        assert!(matches!(reader.read(10, wait), Ok(Read::CaughtUp)));
        log.delete_topic("in").unwrap();
        if made_anew {
            make();
        }
        let error = reader.read(10, wait).unwrap_err();
        assert_eq!(error.message, "read topic in: it was deleted while it was read");
        if made_anew {
            log.delete_topic("in").unwrap();
        }
    }
}
