//! The ports over a real server: how a stream is read, what is found missing, who may write.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use levada_connectors::redis::RedisUrl;
use levada_connectors::redis::{
    EntryId, Overflow, RedisSink, RedisSinkConfig, RedisSource, RedisSourceConfig, StartFrom,
};
use levada_types::{
    Batch, Blame, ConnectorError, Epoch, Existing, Offset, PartitionId, Read, RecordReader, Sink,
    SinkFactory, SourceFactory, StartAt,
};
use redis::Connection;

use super::{add, length, written};
use crate::brokers::redis::Redis;

const WAIT: Duration = Duration::from_millis(20);

fn produce(connection: &mut Connection, from: usize, to: usize) {
    let records: Vec<Vec<u8>> = (from..to).map(|n| format!("{{\"n\":{n}}}").into_bytes()).collect();
    add(connection, "s", records.iter().map(Vec::as_slice));
}

fn source(server: &Redis, start: StartFrom) -> RedisSource {
    RedisSource::new(&RedisSourceConfig { start, ..RedisSourceConfig::new(server.url(), "s") }, true).unwrap()
}

fn open(source: &RedisSource, start: StartAt) -> Box<dyn RecordReader> {
    source.open(PartitionId(0), start).unwrap()
}

/// The lengths of the reads to the end, and each record with its offset.
fn all(reader: &mut dyn RecordReader, max: usize) -> (Vec<usize>, Vec<(u64, String)>) {
    let (mut counts, mut records) = (Vec::new(), Vec::new());
    loop {
        match reader.read(max, WAIT).unwrap() {
            Read::Records(read) => {
                counts.push(read.len());
                let value = |i| String::from_utf8(read.value(i).to_vec()).unwrap();
                records.extend((0..read.len()).map(|i| (read.offsets[i], value(i))));
            }
            Read::CaughtUp => return (counts, records),
            Read::Nothing => {}
            Read::End => panic!("a stream does not end"),
        }
    }
}

#[test]
fn a_stream_is_read_in_exact_counts_from_wherever_one_is() {
    let server = Redis::start();
    let mut connection = server.connection();
    produce(&mut connection, 0, 10_000);
    let source = source(&server, StartFrom::Beginning);
    let end = source.partitions().unwrap()[0].unwrap();
    let (counts, records) = all(&mut *open(&source, StartAt::Configured), 4096);
    assert_eq!(counts, [4096, 4096, 1808]);
    assert!(records.is_sorted_by(|a, b| a.0 < b.0));
    assert_eq!(records.last().unwrap().0 + 1, end.0);
    for (n, (_, value)) in records.iter().enumerate() {
        assert_eq!(value, &format!("{{\"n\":{n}}}"));
    }
    assert_eq!(all(&mut *open(&source, StartAt::Configured), 4096).1, records);
    for cut in [0, 1, 4095, 4096, 9_999] {
        let rest = all(&mut *open(&source, StartAt::Offset(Offset(records[cut].0))), 777);
        assert_eq!(rest.1, records[cut..]);
        let behind = all(&mut *open(&source, StartAt::Offset(Offset(records[cut].0 + 1))), 777);
        assert_eq!(behind.1, records[cut + 1..]);
    }
    // What comes while it is read is seen.
    let mut reader = open(&source, StartAt::Offset(end));
    assert!(matches!(reader.read(10, WAIT), Ok(Read::CaughtUp)));
    produce(&mut connection, 10_000, 10_025);
    assert_eq!(all(&mut *reader, 10).0, [10, 10, 5]);

    let starts = |start| all(&mut *open(&self::source(&server, start), StartAt::Configured), 4096).1.len();
    assert_eq!(starts(StartFrom::End), 0);
    assert_eq!(starts(StartFrom::Id(EntryId::of_offset(records[7_000].0).to_string())), 3_025);
    assert_eq!(starts(StartFrom::Time("1970-01-01T00:00:00Z".into())), 10_025);
    assert_eq!(starts(StartFrom::Time("2100-01-01T00:00:00Z".into())), 0);
    let from_end = self::source(&server, StartFrom::End);
    let start = from_end.start(PartitionId(0)).unwrap().unwrap();
    produce(&mut connection, 10_025, 10_030);
    assert_eq!(all(&mut *open(&from_end, StartAt::Offset(start)), 100).1.len(), 5);
}

/// What a read of a stream says is wrong.
fn wrong(reader: &mut dyn RecordReader) -> ConnectorError {
    loop {
        match reader.read(100, WAIT) {
            Err(error) => return error,
            Ok(Read::Records(_) | Read::Nothing) => {}
            Ok(other) => panic!("{other:?}"),
        }
    }
}

fn trim(connection: &mut Connection, keep: usize) {
    redis::cmd("XTRIM").arg("s").arg("MAXLEN").arg("=").arg(keep).exec(connection).unwrap();
}

#[test]
fn what_was_trimmed_before_it_was_read_is_missed_and_what_was_read_is_not() {
    let server = Redis::start();
    let mut connection = server.connection();
    produce(&mut connection, 0, 1_000);
    let source = source(&server, StartFrom::Beginning);
    let start = StartAt::Offset(source.start(PartitionId(0)).unwrap().unwrap());
    let mut reader = open(&source, start);
    let records = all(&mut *reader, 100).1;
    // What was read may go, all of it.
    trim(&mut connection, 0);
    assert!(matches!(reader.read(100, WAIT), Ok(Read::CaughtUp)));
    produce(&mut connection, 1_000, 1_200);
    trim(&mut connection, 150);
    let error = wrong(&mut *reader);
    assert!(error.message.contains("50 entries that were not read are missing"), "{error}");
    assert_eq!(error.blame, Blame::Damage);
    // A later run is to read again what is not there.
    let error = wrong(&mut *open(&source, start));
    assert!(error.message.contains("up to 1050 entries may be missing"), "{error}");
    let error = wrong(&mut *open(&source, StartAt::Offset(Offset(records[500].0))));
    assert!(error.message.contains("has been trimmed beyond it"), "{error}");
    // One that begins afresh takes what there is.
    let fresh = self::source(&server, StartFrom::Beginning);
    assert_eq!(all(&mut *open(&fresh, StartAt::Configured), 100).1.len(), 150);
    let start = StartAt::Offset(fresh.start(PartitionId(0)).unwrap().unwrap());
    assert_eq!(all(&mut *open(&fresh, start), 100).1.len(), 150);

    let mut reader = open(&fresh, start);
    assert_eq!(all(&mut *reader, 100).1.len(), 150);
    redis::cmd("DEL").arg("s").exec(&mut connection).unwrap();
    assert!(wrong(&mut *reader).message.contains("is not there any more"));
    produce(&mut connection, 0, 10);
}

#[test]
fn a_full_intake_drops_the_oldest_and_counts_it_but_nothing_of_the_history() {
    let server = Redis::start();
    let mut connection = server.connection();
    produce(&mut connection, 0, 10_000);
    let config = RedisSourceConfig {
        overflow: Overflow::DropOldest,
        intake: 4096,
        ..RedisSourceConfig::new(server.url(), "s")
    };
    let source = RedisSource::new(&config, false).unwrap();
    source.partitions().unwrap();
    let mut reader = open(&source, StartAt::Configured);
    let dropped = source.dropped();
    let (mut history, mut counts) = (0, Vec::new());
    while history < 10_000 {
        if let Read::Records(records) = reader.read(4096, WAIT).unwrap() {
            history += records.len();
            counts.push(records.len());
        }
    }
    assert_eq!((counts.as_slice(), dropped.load(Relaxed)), (&[4096, 4096, 1808][..], 0));
    produce(&mut connection, 10_000, 30_000);
    while dropped.load(Relaxed) < 20_000 - 4_096 {
        std::thread::yield_now();
    }
    let records = all(&mut *reader, 4096).1;
    assert_eq!(records.len() as u64 + dropped.load(Relaxed), 20_000);
    assert_eq!(records.last().unwrap().1, "{\"n\":29999}");
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Batch::time_field(), Field::new("n", DataType::Int64, false)]))
}

fn rows(numbers: std::ops::Range<i64>) -> RecordBatch {
    let times = TimestampMillisecondArray::from_iter_values(numbers.clone());
    let columns = vec![Arc::new(times) as ArrayRef, Arc::new(Int64Array::from_iter_values(numbers))];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn sink(
    server: &Redis,
    existing: Existing,
    config: RedisSinkConfig,
) -> Result<Box<dyn Sink>, ConnectorError> {
    let config = RedisSinkConfig { url: RedisUrl::new(server.url()), stream: "out".into(), ..config };
    RedisSink::new(config, existing).unwrap().open(schema(), None)
}

#[test]
fn who_was_replaced_writes_nothing_more() {
    let server = Redis::start();
    let mut connection = server.connection();
    let open = |existing| sink(&server, existing, RedisSinkConfig::default());
    let mut old = open(Existing::Refuse).unwrap();
    old.publish(Epoch(1), &[rows(0..5)]).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    old.when_durable(Box::new(move |durable| tell.send(durable).unwrap()));
    told.recv().unwrap().unwrap();
    assert!(open(Existing::Refuse).err().unwrap().message.contains("it holds 5 entries"));
    // The old one sleeps; a new one goes on, and is given again what is there.
    let mut new = open(Existing::Resume).unwrap();
    new.publish(Epoch(1), &[rows(0..5)]).unwrap();
    new.publish(Epoch(3), &[rows(5..8)]).unwrap();
    let _ = old.publish(Epoch(7), &[rows(100..105)]);
    let error = old.close().unwrap_err();
    assert!(error.message.contains("another process has begun to write it since"), "{error}");
    assert!(old.check().is_err());
    new.close().unwrap();
    new.close().unwrap();
    let found: Vec<(u64, u64, i64)> =
        written(&mut connection, "out").into_iter().map(|r| (r.2, r.3, r.1)).collect();
    let expected = (0..5).map(|n| (1, n, n as i64)).chain((0..3).map(|n| (3, n, n as i64 + 5)));
    assert_eq!(found, expected.collect::<Vec<_>>());

    // Behind it, with ids that come after.
    let mut more = open(Existing::Append).unwrap();
    more.publish(Epoch(0), &[rows(0..2)]).unwrap();
    more.publish(Epoch(2), &[rows(2..3)]).unwrap();
    more.close().unwrap();
    let found: Vec<(u64, u64)> =
        written(&mut connection, "out").into_iter().skip(8).map(|r| (r.2, r.3)).collect();
    assert_eq!(found, [(4, 0), (4, 1), (6, 0)]);
}

#[test]
fn a_sink_says_what_was_lost_or_done_by_somebody_else() {
    let mut server = Redis::start();
    let mut connection = server.connection();
    let mut first = sink(&server, Existing::Refuse, RedisSinkConfig::default()).unwrap();
    first.publish(Epoch(1), &[rows(0..5)]).unwrap();
    first.close().unwrap();
    let mut second = sink(&server, Existing::Resume, RedisSinkConfig::default()).unwrap();
    redis::cmd("XADD").arg("out").arg("*").arg("a").arg("b").exec(&mut connection).unwrap();
    second.publish(Epoch(2), &[rows(5..6)]).unwrap();
    assert!(second.close().unwrap_err().message.contains("somebody else adds entries to it"));
    let error = sink(&server, Existing::Resume, RedisSinkConfig::default()).err().unwrap();
    assert!(error.message.contains("no job has written the last entry of stream out"), "{error}");
    redis::cmd("DEL").arg("out").exec(&mut connection).unwrap();
    let mut third = sink(&server, Existing::Refuse, RedisSinkConfig::default()).unwrap();
    third.publish(Epoch(1), &[rows(0..5)]).unwrap();
    while length(&mut connection, "out") < 5 {
        std::thread::yield_now();
    }
    // A server that keeps nothing.
    server.restart();
    third.publish(Epoch(2), &[rows(5..6)]).unwrap();
    assert!(third.close().unwrap_err().message.contains("the server has lost what it had acknowledged"));
}

#[test]
fn a_trimmed_stream_is_gone_on_with_and_replicas_are_waited_for() {
    let server = Redis::start();
    let mut connection = server.connection();
    let config = || RedisSinkConfig { max_len: Some(100), ..RedisSinkConfig::default() };
    let mut sink = sink(&server, Existing::Refuse, config()).unwrap();
    sink.publish(Epoch(1), &[rows(0..3_000)]).unwrap();
    sink.close().unwrap();
    redis::cmd("XTRIM").arg("out").arg("MAXLEN").arg("=").arg(0).exec(&mut connection).unwrap();
    let mut sink = self::sink(&server, Existing::Resume, config()).unwrap();
    sink.publish(Epoch(1), &[rows(0..3_000)]).unwrap();
    sink.publish(Epoch(2), &[rows(0..3)]).unwrap();
    sink.close().unwrap();
    assert_eq!(written(&mut connection, "out").len(), 3);

    let waits = RedisSinkConfig { wait_replicas: Some(1), ..RedisSinkConfig::default() };
    let mut sink = self::sink(&server, Existing::Resume, waits).unwrap();
    sink.publish(Epoch(5), &[rows(0..1)]).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    sink.when_durable(Box::new(move |durable| tell.send(durable).unwrap()));
    while length(&mut connection, "out") < 4 {
        std::thread::yield_now();
    }
    assert!(told.try_recv().is_err());
    let port = server.url().rsplit_once(':').unwrap().1.to_string();
    let _replica = Redis::with(&[
        "--appendonly",
        "no",
        "--repl-diskless-load",
        "disabled",
        "--replicaof",
        "127.0.0.1",
        &port,
    ]);
    told.recv().unwrap().unwrap();
    sink.close().unwrap();
}
