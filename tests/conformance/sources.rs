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

/// Somewhere to read from: a source, and a way to add to it.
struct Origin<'a> {
    /// Its table in a job file.
    table: String,
    /// Whether what is there when a job begins is its history. To a member of a group only what it had been given is.
    history: bool,
    /// Adds the records with these numbers, in their order.
    add: &'a dyn Fn(std::ops::Range<usize>),
}

/// A record as it was read.
type Seen = (u64, Vec<u8>);

/// The source of a run with a state, which is one that may go on.
fn factory(table: &str, folder: &TempDir) -> Arc<dyn SourceFactory> {
    let loaded = load(table, "[sink.out.log]\ntopic = \"out\"", folder.path(), Existing::Resume);
    Arc::clone(&loaded.plan.sources[0].reader)
}

fn open(source: &dyn SourceFactory, start: StartAt) -> Box<dyn RecordReader> {
    source.open(PartitionId(0), start).unwrap()
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("in{number}")).collect()
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

/// The numbers that the records have by what they say of themselves; their offsets grow.
fn numbers(seen: &[Seen]) -> Vec<usize> {
    let said = |value: &[u8]| {
        let value: serde_json::Value = serde_json::from_slice(value).unwrap();
        assert_eq!(value["text"].as_str().unwrap().len(), value["n"].as_u64().unwrap() as usize * 31 % 97);
        value["n"].as_u64().unwrap() as usize
    };
    assert!(seen.is_sorted_by(|one, next| one.0 < next.0), "offsets grow");
    seen.iter().map(|(_, value)| said(value)).collect()
}

fn check(seen: &[Seen], expected: std::ops::Range<usize>) {
    assert_eq!(numbers(seen), expected.collect::<Vec<_>>());
}

fn conforms(origin: &Origin<'_>) {
    conforms_in(origin, &TempDir::new().unwrap());
}

/// A source with so many partitions.
fn conforms_with(partitions: u32, origin: &Origin<'_>, folder: &TempDir) {
    match partitions {
        1 => conforms_in(origin, folder),
        several => conforms_in_each_of(several, origin, folder),
    }
}

/// `folder` is where the job's own topics and its state are.
fn conforms_in(origin: &Origin<'_>, folder: &TempDir) {
    (origin.add)(0..HISTORY);
    let source = factory(&origin.table, folder);
    let ends = source.partitions().unwrap();
    assert_eq!(ends.len(), 1);

    // In order, each once, cut as is asked.
    let mut reader = open(&*source, beginning(&*source));
    let (mut all, cuts) = to_the_end(&mut *reader, AT_ONCE);
    check(&all, 0..HISTORY);
    assert_eq!(cuts, [AT_ONCE, AT_ONCE, AT_ONCE, AT_ONCE, AT_ONCE, 123]);
    let last = all[HISTORY - 1].0;
    let over = |end: Option<Offset>, last| end.is_none_or(|end| last < end.0);
    assert!(!origin.history || over(ends[0], last), "the history ends behind its last record: {ends:?}");

    // What comes later comes to who has seen all.
    if source.unbounded() {
        (origin.add)(HISTORY..HISTORY + MORE);
        all.extend(until_there(&mut *reader, MORE));
        check(&all, 0..HISTORY + MORE);
    }
    drop((reader, source));

    // From any record on the same again, by a run that goes on.
    let resumed = factory(&origin.table, folder);
    let ends = resumed.partitions().unwrap();
    assert!(over(ends[0], all[all.len() - 1].0), "it ends behind what was read: {ends:?}");
    for first in [0, 1, AT_ONCE - 1, AT_ONCE, 2 * AT_ONCE + 77, HISTORY - 1] {
        let rest = until_there(&mut *open(&*resumed, at(all[first].0)), all.len() - first);
        assert!(rest == all[first..], "from record {first} on");
    }

    // However much is asked for, and however little patience there is.
    let mut reader = open(&*resumed, at(all[0].0));
    let (mut seen, mut ways) =
        (Vec::new(), [(AT_ONCE, 0), (3, 0), (AT_ONCE, 1), (50, 20)].into_iter().cycle());
    let began = Instant::now();
    while seen.len() < all.len() {
        assert!(began.elapsed() < PATIENCE, "{} of {} came", seen.len(), all.len());
        let (at_most, wait_ms) = ways.next().unwrap();
        if let Read::Records(records) = reader.read(at_most, Duration::from_millis(wait_ms)).unwrap() {
            assert!(records.len() <= at_most);
            seen.extend((0..records.len()).map(|i| (records.offsets[i], records.value(i).to_vec())));
        }
    }
    assert!(seen == all, "in other cuts");
    drop(reader);

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
    let afresh = factory(&origin.table, folder);
    afresh.partitions().unwrap();
    let (seen, cuts) = to_the_end(&mut *open(&*afresh, beginning(&*afresh)), 2 * AT_ONCE);
    check(&seen, 0..all.len());
    assert_eq!(cuts, [2 * AT_ONCE, 2 * AT_ONCE, all.len() - 4 * AT_ONCE]);
}

/// A source with several partitions: each has its records in order, together they have all, and from the middle of each
/// the same come again.
fn conforms_in_each_of(partitions: u32, origin: &Origin<'_>, folder: &TempDir) {
    (origin.add)(0..HISTORY);
    let source = factory(&origin.table, folder);
    assert_eq!(source.partitions().unwrap().len(), partitions as usize);
    let all: Vec<Vec<Seen>> = (0..partitions)
        .map(|partition| {
            let start = source.start(PartitionId(partition)).unwrap();
            let start = start.map_or(StartAt::Configured, StartAt::Offset);
            to_the_end(&mut *source.open(PartitionId(partition), start).unwrap(), AT_ONCE).0
        })
        .collect();
    drop(source);
    let own: Vec<Vec<usize>> = all.iter().map(|seen| numbers(seen)).collect();
    assert!(own.iter().all(|numbers| !numbers.is_empty() && numbers.is_sorted()), "{own:?}");
    let mut found = own.concat();
    found.sort_unstable();
    assert_eq!(found, (0..HISTORY).collect::<Vec<_>>());

    let resumed = factory(&origin.table, folder);
    resumed.partitions().unwrap();
    for (partition, seen) in (0..).zip(&all) {
        let rest = &seen[seen.len() / 2..];
        let mut reader = resumed.open(PartitionId(partition), at(rest[0].0)).unwrap();
        assert!(until_there(&mut *reader, rest.len()) == rest, "from the middle of partition {partition} on");
    }
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
    for partitions in [1, 3] {
        let folder = TempDir::new().unwrap();
        let log = Log::open(folder.path().join("data")).unwrap();
        let topic = log.create_topic("in", TopicConfig { partitions, ..TopicConfig::default() }).unwrap();
        let add = |numbers: std::ops::Range<usize>| {
            let writers = topic.writers(WriterOptions::default()).unwrap();
            for n in numbers {
                let writer = writers.partition(n as u32 % partitions).unwrap();
                writer.append(&[RecordIn { value: record(n).as_bytes(), ..RecordIn::default() }]).unwrap();
            }
        };
        let table = "[source.in.log]\ntopic = \"in\"".into();
        conforms_with(partitions, &Origin { table, history: true, add: &add }, &folder);
    }
}

/// A topic into which a gateway takes events over HTTP, and which is killed as soon as it has answered: what it has
/// answered is there, and what it is told again it knows.
#[test]
fn events_over_http() {
    use crate::gateway::intake::{LINES, Site};

    let site = Site::new("1");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let add = |numbers: std::ops::Range<usize>| {
        for (round, chunk) in numbers.collect::<Vec<_>>().chunks(97).enumerate() {
            let lines: String = chunk.iter().map(|&n| record(n) + "\n").collect();
            let headers = format!("{LINES}idempotency-key: \"from {}\"\r\n", chunk[0]);
            for again in [false, true].into_iter().take(1 + round % 2) {
                let gateway = site.start(&[]);
                let answer = runtime.block_on(gateway.post("", &headers, &lines));
                gateway.kill();
                let known = answer.header("idempotent-replayed") == "true";
                assert_eq!((answer.status, known), (200, again), "{answer:?}");
            }
        }
    };
    let table = "[source.in.log]\ntopic = \"readings\"".into();
    conforms_in(&Origin { table, history: true, add: &add }, &site.folder);
}

#[test]
fn a_file() {
    for partitions in [1, 3] {
        let folder = TempDir::new().unwrap();
        let paths: Vec<_> =
            numbered(partitions).iter().map(|name| folder.path().join(format!("{name}.jsonl"))).collect();
        let add = |numbers: std::ops::Range<usize>| {
            let file = |path| OpenOptions::new().create(true).append(true).open(path).unwrap();
            let mut files: Vec<_> = paths.iter().map(file).collect();
            numbers.for_each(|n| writeln!(files[n % partitions], "{}", record(n)).unwrap());
        };
        let table = format!("[source.in.file]\npaths = {paths:?}");
        conforms_with(partitions as u32, &Origin { table, history: true, add: &add }, &folder);
    }
}

/// Adds entries to streams, to each in turn.
fn add_to(server: &Redis, streams: &[String], numbers: std::ops::Range<usize>) {
    let mut pipe = redis::pipe();
    for n in numbers {
        let stream = &streams[n % streams.len()];
        pipe.cmd("XADD").arg(stream).arg("*").arg("value").arg(record(n)).ignore();
    }
    pipe.exec(&mut server.connection()).unwrap();
}

#[test]
fn a_stream_of_redis() {
    for partitions in [1, 3] {
        let (folder, server, streams) = (TempDir::new().unwrap(), Redis::start(), numbered(partitions));
        let add = |numbers: std::ops::Range<usize>| add_to(&server, &streams, numbers);
        let table = format!("[source.in.redis]\nurl = {:?}\nstreams = {streams:?}", server.url());
        conforms_with(partitions as u32, &Origin { table, history: true, add: &add }, &folder);
    }
}

/// What the member was given it is given again, in the order of then; and of what it has not acknowledged another member
/// is given all, as the same entries: at least once.
#[test]
fn a_member_of_a_group_of_redis() {
    for partitions in [1, 3] {
        let (folder, server, streams) = (TempDir::new().unwrap(), Redis::start(), numbered(partitions));
        let add = |numbers: std::ops::Range<usize>| add_to(&server, &streams, numbers);
        let member = |name: &str| {
            let group = format!("group = \"g\"\nconsumer = \"{name}\"\nclaim_after = \"1s\"");
            format!("[source.in.redis]\nurl = {:?}\nstreams = {streams:?}\n{group}", server.url())
        };
        let origin = Origin { table: member("one"), history: false, add: &add };
        conforms_with(partitions as u32, &origin, &folder);

        let one = factory(&origin.table, &folder);
        let given = one.partitions().unwrap();
        let acknowledged: Vec<_> = given.iter().map(|end| end.map(|end| Offset(end.0 / 3))).collect();
        one.checkpointed(&acknowledged);
        let other = TempDir::new().unwrap();
        let other = factory(&member("two"), &other);
        other.partitions().unwrap();
        for (partition, (given, acknowledged)) in (0..).zip(given.iter().zip(acknowledged)) {
            let (given, first) = (given.unwrap().0, acknowledged.unwrap());
            let left = (given - first.0) as usize;
            let open =
                |source: &dyn SourceFactory, start| source.open(PartitionId(partition), start).unwrap();
            let own = numbers(&until_there(&mut *open(&*one, StartAt::Offset(first)), left));
            let (mut reader, mut taken) = (open(&*other, StartAt::Offset(Offset(0))), Vec::new());
            let began = Instant::now();
            while !own.iter().all(|n| taken.contains(n)) {
                assert!(began.elapsed() < PATIENCE, "{} of {left} were taken over", taken.len());
                taken.extend(numbers(&to_the_end(&mut *reader, AT_ONCE).0));
            }
            // Entries are acknowledged by pieces of up to 512.
            taken.sort_unstable();
            let each_once = taken.windows(2).all(|pair| pair[0] < pair[1]);
            assert!(each_once && taken.len() < left + 512, "{left} were left: {taken:?}");
        }
    }
}

#[cfg(feature = "kafka")]
#[test]
fn a_topic_of_kafka() {
    use rdkafka::producer::Producer as _;

    use crate::brokers::kafka::shared;
    use crate::kafka::site::{create, send, transactional};

    for partitions in [1, 3] {
        let (folder, topic) = (TempDir::new().unwrap(), format!("conformance.in{partitions}"));
        create(shared(), &topic, partitions);
        // Transactions leave gaps between the offsets.
        let producer = transactional(shared(), &topic);
        let add = |numbers: std::ops::Range<usize>| {
            for chunk in numbers.collect::<Vec<_>>().chunks(97) {
                producer.begin_transaction().unwrap();
                for &n in chunk {
                    send(&producer, &topic, n as i32 % partitions, record(n).as_bytes());
                }
                producer.commit_transaction(PATIENCE).unwrap();
            }
        };
        let table = format!("[source.in.kafka]\nbrokers = {:?}\ntopic = {topic:?}", shared());
        conforms_with(partitions as u32, &Origin { table, history: true, add: &add }, &folder);
    }
}

/// A stream that is read as `more` says.
#[cfg(feature = "kinesis")]
fn kinesis(name: &str, more: &str) {
    let server = crate::brokers::kinesis::Kinesis::start();
    for partitions in [1, 3] {
        let (folder, stream) = (TempDir::new().unwrap(), format!("{name}{partitions}"));
        server.create(&stream, partitions);
        let add = |numbers: std::ops::Range<usize>| {
            let records: Vec<(String, String)> =
                numbers.map(|n| (format!("key {}", n % 23), record(n))).collect();
            server.put(&stream, records.iter().map(|(key, record)| (key.as_str(), record.as_bytes())));
        };
        let table = format!("[source.in.kinesis]\n{}{more}\n{}", server.settings(&stream), super::ANY_KEYS);
        conforms_with(partitions, &Origin { table, history: true, add: &add }, &folder);
    }
}

#[cfg(feature = "kinesis")]
#[test]
fn a_stream_of_kinesis() {
    kinesis("conformance-in", "poll = \"5ms\"");
}

#[cfg(feature = "kinesis")]
#[test]
fn a_stream_of_kinesis_by_fan_out() {
    kinesis("conformance-fan", "fan_out = { consumer = \"levada\" }");
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
    conforms(&Origin { table, history: true, add: &add });
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
    conforms(&Origin { table, history: true, add: &add });
}
