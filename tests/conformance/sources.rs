//! Sources: in order, each record once, cut as is asked, from any record on again, and what comes later too.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use levada_connectors::log::{Log, RecordIn, TopicConfig, WriterOptions};
use levada_types::{Existing, Offset, PartitionId, Read, RecordReader, SourceFactory, StartAt};
use tempfile::TempDir;

use super::{load, record};
use crate::brokers::redis::Redis;

/// A test that waits longer than this for anything has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many records are asked for at once.
const AT_ONCE: usize = 700;
/// How many there are first: some whole cuts, and a shorter one.
const HISTORY: usize = 5 * AT_ONCE + 123;
/// How many come later, each time.
const MORE: usize = 40;

/// Somewhere to read from: a source with one partition, and a way to add to it.
struct Origin<'a> {
    /// Its table in a job file.
    table: String,
    /// Adds the records with these numbers, in their order.
    add: &'a dyn Fn(std::ops::Range<usize>),
}

/// A record as it was read.
type Seen = (u64, Vec<u8>);

fn factory(table: &str, folder: &TempDir, existing: Existing) -> Arc<dyn SourceFactory> {
    let loaded = load(table, "[sink.out.log]\ntopic = \"out\"", folder.path(), existing);
    Arc::clone(&loaded.plan.sources[0].reader)
}

fn open(source: &dyn SourceFactory, start: StartAt) -> Box<dyn RecordReader> {
    source.open(PartitionId(0), start).unwrap()
}

/// Reads until all that is there has been read: the records, and how many each read gave.
fn to_the_end(reader: &mut dyn RecordReader, at_once: usize) -> (Vec<Seen>, Vec<usize>) {
    let (mut seen, mut cuts) = (Vec::new(), Vec::new());
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < PATIENCE, "it never comes to its end; {} records, {cuts:?}", seen.len());
        match reader.read(at_once, Duration::from_millis(200)).unwrap() {
            Read::Records(records) => {
                cuts.push(records.len());
                seen.extend((0..records.len()).map(|i| (records.offsets[i], records.value(i).to_vec())));
            }
            Read::Nothing => {}
            Read::CaughtUp | Read::End => return (seen, cuts),
        }
    }
}

/// What the records say of themselves must be `numbers`, and their offsets grow.
fn check(seen: &[Seen], numbers: std::ops::Range<usize>) {
    let said = |value: &[u8]| {
        let value: serde_json::Value = serde_json::from_slice(value).unwrap();
        assert_eq!(value["text"].as_str().unwrap().len(), value["n"].as_u64().unwrap() as usize * 31 % 97);
        value["n"].as_u64().unwrap() as usize
    };
    let found: Vec<usize> = seen.iter().map(|(_, value)| said(value)).collect();
    assert_eq!(found, numbers.collect::<Vec<_>>());
    assert!(seen.is_sorted_by(|one, next| one.0 < next.0), "offsets grow");
}

fn conforms(origin: &Origin<'_>) {
    conforms_in(origin, &TempDir::new().unwrap());
}

/// `folder` is where the job's own topics and its state are.
fn conforms_in(origin: &Origin<'_>, folder: &TempDir) {
    (origin.add)(0..HISTORY);
    let source = factory(&origin.table, folder, Existing::Refuse);
    let ends = source.partitions().unwrap();
    assert_eq!(ends.len(), 1);

    // In order, each once, cut as is asked.
    let mut reader = open(&*source, beginning(&*source));
    let (mut all, cuts) = to_the_end(&mut *reader, AT_ONCE);
    check(&all, 0..HISTORY);
    assert_eq!(cuts, [AT_ONCE, AT_ONCE, AT_ONCE, AT_ONCE, AT_ONCE, 123]);
    let last = all[HISTORY - 1].0;
    assert!(ends[0].is_none_or(|end| last < end.0), "the history ends behind its last record: {ends:?}");

    // What comes later comes to who has seen all.
    if source.unbounded() {
        (origin.add)(HISTORY..HISTORY + MORE);
        all.extend(until_there(&mut *reader, MORE));
        check(&all, 0..HISTORY + MORE);
    }
    drop((reader, source));

    // From any record on the same again, by a run that goes on.
    let resumed = factory(&origin.table, folder, Existing::Resume);
    resumed.partitions().unwrap();
    for first in [0, 1, AT_ONCE - 1, AT_ONCE, 2 * AT_ONCE + 77, HISTORY - 1] {
        let rest = until_there(&mut *open(&*resumed, at(all[first].0)), all.len() - first);
        assert!(rest == all[first..], "from record {first} on");
    }

    // And what comes later to who begins behind all.
    if resumed.unbounded() {
        let there = all.len();
        let mut late = open(&*resumed, at(all[there - 1].0 + 1));
        assert_eq!(to_the_end(&mut *late, AT_ONCE).0, []);
        (origin.add)(there..there + MORE);
        all.extend(until_there(&mut *late, MORE));
        check(&all, 0..there + MORE);
    }
    drop(resumed);

    // A run that begins afresh finds all of it, cut as is asked now.
    let afresh = factory(&origin.table, folder, Existing::Refuse);
    afresh.partitions().unwrap();
    let (seen, cuts) = to_the_end(&mut *open(&*afresh, beginning(&*afresh)), 2 * AT_ONCE);
    check(&seen, 0..all.len());
    assert_eq!(cuts, [2 * AT_ONCE, 2 * AT_ONCE, all.len() - 4 * AT_ONCE]);
}

fn at(offset: u64) -> StartAt {
    StartAt::Offset(Offset(offset))
}

/// Where a job with a journal begins: what its journal will say.
fn beginning(source: &dyn SourceFactory) -> StartAt {
    source.start(PartitionId(0)).unwrap().map_or(StartAt::Configured, StartAt::Offset)
}

/// Reads until so many records have come.
fn until_there(reader: &mut dyn RecordReader, count: usize) -> Vec<Seen> {
    let (mut seen, began) = (Vec::new(), Instant::now());
    while seen.len() < count {
        assert!(began.elapsed() < PATIENCE, "{} of {count} came", seen.len());
        seen.extend(to_the_end(reader, AT_ONCE).0);
    }
    seen
}

#[test]
fn a_topic_of_the_log() {
    let folder = TempDir::new().unwrap();
    let log = Log::open(folder.path().join("data")).unwrap();
    log.create_topic("in", TopicConfig::default()).unwrap();
    let add = |numbers: std::ops::Range<usize>| {
        let writer = log.topic("in").unwrap().writer(0, WriterOptions::default()).unwrap();
        for n in numbers {
            writer.append(&[RecordIn { value: record(n).as_bytes(), ..RecordIn::default() }]).unwrap();
        }
    };
    conforms_in(&Origin { table: "[source.in.log]\ntopic = \"in\"".into(), add: &add }, &folder);
}

#[test]
fn a_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("in.jsonl");
    let add = |numbers: std::ops::Range<usize>| {
        let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        numbers.for_each(|n| writeln!(file, "{}", record(n)).unwrap());
    };
    conforms(&Origin { table: format!("[source.in.file]\npath = {path:?}"), add: &add });
}

#[test]
fn a_stream_of_redis() {
    let server = Redis::start();
    let add = |numbers: std::ops::Range<usize>| {
        let mut pipe = redis::pipe();
        for n in numbers {
            pipe.cmd("XADD").arg("in").arg("*").arg("value").arg(record(n)).ignore();
        }
        pipe.exec(&mut server.connection()).unwrap();
    };
    conforms(&Origin {
        table: format!("[source.in.redis]\nurl = {:?}\nstream = \"in\"", server.url()),
        add: &add,
    });
}

#[cfg(feature = "kafka")]
#[test]
fn a_topic_of_kafka() {
    use rdkafka::producer::Producer as _;

    use crate::brokers::kafka::shared;
    use crate::kafka::site::{create, send, transactional};

    create(shared(), "conformance.in", 1);
    // Transactions leave gaps between the offsets.
    let producer = transactional(shared(), "conformance.in");
    let add = |numbers: std::ops::Range<usize>| {
        for chunk in numbers.collect::<Vec<_>>().chunks(97) {
            producer.begin_transaction().unwrap();
            chunk.iter().for_each(|&n| send(&producer, "conformance.in", 0, record(n).as_bytes()));
            producer.commit_transaction(PATIENCE).unwrap();
        }
    };
    let table = format!("[source.in.kafka]\nbrokers = {:?}\ntopic = \"conformance.in\"", shared());
    conforms(&Origin { table, add: &add });
}

#[cfg(feature = "kinesis")]
#[test]
fn a_stream_of_kinesis() {
    let server = crate::brokers::kinesis::Kinesis::start();
    server.create("conformance-in", 1);
    let add = |numbers: std::ops::Range<usize>| {
        let records: Vec<String> = numbers.map(record).collect();
        server.put("conformance-in", records.iter().map(|record| ("key", record.as_bytes())));
    };
    let table = format!(
        "[source.in.kinesis]\n{}poll = \"5ms\"\nlanes = 1\n{}",
        server.settings("conformance-in"),
        super::ANY_KEYS
    );
    conforms(&Origin { table, add: &add });
}

#[cfg(feature = "sql")]
#[test]
fn a_table_of_postgresql() {
    use crate::brokers::postgres::{PASSWORD, Postgres};

    let server = Postgres::start();
    let mut client = server.connection();
    client
        .batch_execute("CREATE TABLE events (id bigserial PRIMARY KEY, n bigint, text text, at timestamptz)")
        .unwrap();
    let client = std::sync::Mutex::new(client);
    let add = |numbers: std::ops::Range<usize>| {
        let sql = "INSERT INTO events (n, text, at) SELECT n, repeat('x', n * 31 % 97), now() \
                   FROM generate_series($1::int4, $2::int4) AS n";
        client.lock().unwrap().execute(sql, &[&(numbers.start as i32), &(numbers.end as i32 - 1)]).unwrap();
    };
    let password = server.folder().join("secret");
    std::fs::write(&password, PASSWORD).unwrap();
    let table = format!(
        "[source.in.sql]\nurl = {:?}\npassword = {{ file = {password:?} }}\ntable = \"events\"\ncolumn = \"id\"\npoll = \"20ms\"",
        server.url()
    );
    conforms(&Origin { table, add: &add });
}

#[cfg(feature = "sql")]
#[test]
fn a_table_of_sqlite() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("events.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    database
        .execute_batch(
            "CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, n INTEGER, text TEXT, at TEXT)",
        )
        .unwrap();
    let add = |numbers: std::ops::Range<usize>| {
        database.execute_batch("BEGIN").unwrap();
        for n in numbers {
            let sql = "INSERT INTO events (n, text, at) VALUES (?1, ?2, datetime('now'))";
            database.execute(sql, rusqlite::params![n as i64, "x".repeat(n * 31 % 97)]).unwrap();
        }
        database.execute_batch("COMMIT").unwrap();
    };
    let table = format!(
        "[source.in.sql]\nurl = \"sqlite:{}\"\ntable = \"events\"\ncolumn = \"id\"\npoll = \"20ms\"",
        path.display()
    );
    conforms(&Origin { table, add: &add });
}
