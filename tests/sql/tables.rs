//! The port over real databases: how a table is read, and which rows are held back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;

use levada_connectors::sql::{SqlSource, SqlSourceConfig, StartFrom};
use levada_types::{Offset, PartitionId, Read, RecordReader, SourceFactory, StartAt};
use rusqlite::Connection;
use tempfile::TempDir;

use super::{WAIT, all, columns, create, file, open, rows, source, table};
use crate::brokers::postgres::Postgres;

/// The number of row `n`: 1, 3, 4, 6, 7, 9 and so on, some next to each other and some with a gap between.
fn row(n: u64) -> u64 {
    n + n / 2
}

/// Reads a table of the rows 1 to 10,000 in every way, and adds 29 to it.
fn read_in_every_way(config: &SqlSourceConfig, mut add: impl FnMut(std::ops::Range<i64>)) {
    let all_rows = source(config);
    let end = all_rows.partitions().unwrap()[0].unwrap();
    assert_eq!(end, Offset(15_001));
    let (counts, records) = all(&mut *open(&all_rows, StartAt::Configured), 4096);
    assert_eq!(counts, [4096, 4096, 1808]);
    for (n, (offset, value)) in (1..).zip(&records) {
        assert_eq!((*offset, value.as_str()), (row(n), format!("{{\"n\":{n},\"at\":null}}").as_str()));
    }
    for cut in [0, 1, 2, 4095, 4096, 9_999] {
        // From the row itself, and from the gap before it, if there is one.
        let behind = if cut == 0 { 0 } else { records[cut - 1].0 + 1 };
        for start in behind..=records[cut].0 {
            let rest = all(&mut *open(&all_rows, StartAt::Offset(Offset(start))), 777);
            assert_eq!(rest.1, records[cut..]);
        }
    }
    assert_eq!(all(&mut *open(&all_rows, StartAt::Offset(end)), 777).1, []);
    let some = SqlSourceConfig { condition: Some("n % 1000 = 1 -- the first".into()), ..config.clone() };
    let numbers = |config| {
        let offsets = all(&mut *open(&source(config), StartAt::Configured), 4096).1.into_iter();
        offsets.map(|(offset, _)| offset).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&some), (0..10).map(|thousand| row(thousand * 1000 + 1)).collect::<Vec<_>>());

    let from_end = SqlSourceConfig { start: StartFrom::End, ..config.clone() };
    assert_eq!(numbers(&from_end), [0; 0]);
    let from_end = source(&from_end);
    assert_eq!(from_end.start(PartitionId(0)).unwrap(), Some(end));
    // What comes while it is read is seen.
    let mut reader = open(&from_end, StartAt::Configured);
    assert!(matches!(reader.read(10, WAIT), Ok(Read::CaughtUp)));
    // Each time the first of them is next to the last one that was there.
    for added in [10_001..10_027, 10_027..10_030] {
        add(added.start as i64..added.end as i64);
        let came: Vec<u64> = added.clone().map(row).collect();
        assert_eq!(came[0], row(added.start - 1) + 1);
        assert_eq!(rows(&mut *reader, came.len()), came);
    }
    assert_eq!(all_rows.partitions().unwrap(), [Some(end)], "a history ends where it ended");
}

#[test]
fn a_table_of_sqlite_is_read_in_exact_counts_from_wherever_one_is() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("shop.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("CREATE TABLE feedback (id INTEGER PRIMARY KEY, n INTEGER, at TEXT, note TEXT)")
        .unwrap();
    let add = |numbers: std::ops::Range<i64>| {
        let sql = "WITH RECURSIVE ns(n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM ns WHERE n + 1 < ?2) INSERT INTO feedback \
                   SELECT n + n / 2, n, NULL, 'x' FROM ns";
        connection.execute(sql, [numbers.start, numbers.end]).unwrap();
    };
    add(1..10_001);
    read_in_every_way(&file(&path, "feedback"), add);
}

#[test]
fn a_table_of_postgresql_is_read_in_exact_counts_from_wherever_one_is() {
    let server = Postgres::start();
    let mut client = server.connection();
    client.batch_execute("CREATE SCHEMA \"Shop\"").unwrap();
    create(&mut client, "\"Shop\".feedback");
    let mut add = |numbers: std::ops::Range<i64>| {
        let sql =
            "INSERT INTO \"Shop\".feedback SELECT n + n / 2, n FROM generate_series($1::int8, $2::int8) AS n";
        client.execute(sql, &[&numbers.start, &(numbers.end - 1)]).unwrap();
    };
    add(1..10_001);
    read_in_every_way(&table(&server, "Shop.feedback"), add);
}

/// Reads until the table's reader has held rows back for so long.
fn until_held(source: &SqlSource, reader: &mut dyn RecordReader, ms: u64) {
    // They are there, so it is not silent.
    let mut known = false;
    while !known || source.lag().behind_ms()["feedback"] < ms {
        match reader.read(100, WAIT).unwrap() {
            Read::Nothing => known = true,
            Read::CaughtUp => assert!(!known, "rows are held back no more"),
            other => panic!("a row came that is not settled: {other:?}"),
        }
    }
}

#[test]
fn a_row_waits_for_those_with_smaller_numbers_that_may_still_come_and_for_nothing_else() {
    let server = Postgres::start();
    let (mut a, mut b, mut c) = (server.connection(), server.connection(), server.connection());
    create(&mut a, "feedback");
    let source = source(&table(&server, "feedback"));
    let mut reader = open(&source, StartAt::Configured);
    assert_eq!(all(&mut *reader, 100).1, []);
    let insert = "INSERT INTO feedback (n) VALUES (0)";

    // Inserted before, committed after.
    let mut first = a.transaction().unwrap();
    first.execute(insert, &[]).unwrap();
    b.execute(insert, &[]).unwrap();
    until_held(&source, &mut *reader, 1);
    first.commit().unwrap();
    assert_eq!(rows(&mut *reader, 2), [1, 2]);

    // Rolled back: the row behind it comes, and those after it are not waited for.
    let mut first = a.transaction().unwrap();
    first.execute(insert, &[]).unwrap();
    b.execute(insert, &[]).unwrap();
    until_held(&source, &mut *reader, 1);
    let mut later = c.transaction().unwrap();
    later.execute(insert, &[]).unwrap();
    first.rollback().unwrap();
    assert_eq!(rows(&mut *reader, 1), [4]);
    later.commit().unwrap();
    assert_eq!(rows(&mut *reader, 1), [5]);

    // Drawn and not inserted yet: the transaction has no number of its own, which the other one has had by then.
    let mut first = a.transaction().unwrap();
    let drawn: i64 = first.query_one("SELECT nextval('feedback_id_seq')", &[]).unwrap().get(0);
    b.execute(insert, &[]).unwrap();
    until_held(&source, &mut *reader, 1);
    first.execute("INSERT INTO feedback (id, n) VALUES ($1, 0)", &[&drawn]).unwrap();
    // As long as it takes.
    until_held(&source, &mut *reader, 2_000);
    first.commit().unwrap();
    assert_eq!(rows(&mut *reader, 2), [6, 7]);

    // Who only reads, and who writes to another table, is not waited for.
    a.batch_execute("CREATE TABLE other (id bigint)").unwrap();
    let mut first = a.transaction().unwrap();
    first.batch_execute("SELECT count(*) FROM feedback; INSERT INTO other VALUES (1)").unwrap();
    b.execute(insert, &[]).unwrap();
    assert_eq!(rows(&mut *reader, 1), [8]);
    first.rollback().unwrap();
}

#[test]
fn a_prepared_transaction_and_one_in_a_partition_are_waited_for_across_a_restart() {
    let mut server = Postgres::start();
    let mut client = server.connection();
    client
        .batch_execute(
            "CREATE SEQUENCE ids; CREATE TABLE feedback (id bigint DEFAULT nextval('ids'), n bigint, at timestamp, PRIMARY \
             KEY (id, n)) PARTITION BY LIST (n); CREATE TABLE one PARTITION OF feedback FOR VALUES IN (1); CREATE TABLE \
             two PARTITION OF feedback FOR VALUES IN (2)",
        )
        .unwrap();
    let source = source(&table(&server, "feedback"));
    let mut reader = open(&source, StartAt::Configured);
    assert_eq!(all(&mut *reader, 100).1, []);
    client
        .batch_execute("BEGIN; INSERT INTO one VALUES (DEFAULT, 1, '2013-01-01 10:17:00.25'); PREPARE TRANSACTION 'first'")
        .unwrap();
    client.execute("INSERT INTO two VALUES (DEFAULT, 2)", &[]).unwrap();
    until_held(&source, &mut *reader, 1);
    server.stop();
    while !matches!(reader.read(100, WAIT).unwrap(), Read::Nothing) {}
    server.begin();
    let mut client = server.connection();
    client.execute("INSERT INTO two VALUES (DEFAULT, 2)", &[]).unwrap();
    // It is connected to again, and still waits.
    let connected =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'levada' AND query LIKE '%pg_locks%'";
    while client.query_one(connected, &[]).unwrap().get::<_, i64>(0) == 0 {
        assert!(matches!(reader.read(100, WAIT).unwrap(), Read::Nothing));
    }
    assert!(matches!(reader.read(100, WAIT).unwrap(), Read::Nothing));
    client.execute("COMMIT PREPARED 'first'", &[]).unwrap();
    let mut values = Vec::new();
    while values.len() < 3 {
        if let Read::Records(read) = reader.read(100, WAIT).unwrap() {
            values.extend((0..read.len()).map(|i| String::from_utf8(read.value(i).to_vec()).unwrap()));
        }
    }
    // A time without an offset is in UTC.
    assert_eq!(values[0], r#"{"n":1,"at":"2013-01-01T10:17:00.25+00:00"}"#);
    assert_eq!(values[1..], [r#"{"n":2,"at":null}"#, r#"{"n":2,"at":null}"#]);
}

#[test]
fn a_history_ends_with_a_settled_row() {
    let server = Postgres::start();
    let (mut a, mut b) = (server.connection(), server.connection());
    create(&mut a, "feedback");
    let mut first = a.transaction().unwrap();
    first.execute("INSERT INTO feedback (n) VALUES (1)", &[]).unwrap();
    b.execute("INSERT INTO feedback (n) VALUES (2)", &[]).unwrap();
    let source = Arc::new(source(&table(&server, "feedback")));
    let asked = thread::spawn({
        let source = Arc::clone(&source);
        move || source.partitions().unwrap()
    });
    // It looks again and again.
    let looked = "SELECT query_start::text FROM pg_stat_activity \
                  WHERE application_name = 'levada' AND query LIKE '%pg_locks%'";
    let mut looks = BTreeSet::new();
    while looks.len() < 3 {
        looks.extend(b.query(looked, &[]).unwrap().iter().map(|row| row.get::<_, String>(0)));
        assert!(!asked.is_finished(), "a smaller number may still come");
    }
    first.commit().unwrap();
    assert_eq!(asked.join().unwrap(), [Some(Offset(3))]);
    let records = all(&mut *open(&source, StartAt::Configured), 100).1;
    assert_eq!(records.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_backlog_is_read_in_pages_of_bounded_size() {
    let server = Postgres::with(&["log_statement=all"]);
    let mut client = server.connection();
    create(&mut client, "feedback");
    client.batch_execute("INSERT INTO feedback (n) SELECT generate_series(1, 100000)").unwrap();
    // The pages that the server was asked for, by how many rows they may have.
    let pages = |server: &Postgres| -> Vec<usize> {
        let log = server.log();
        let limits = log.split("$3 = '").skip(1);
        limits.filter_map(|rest| rest.split('\'').next()?.parse().ok()).filter(|limit| *limit > 0).collect()
    };
    let source = source(&table(&server, "feedback"));
    let (counts, records) = all(&mut *open(&source, StartAt::Configured), 4096);
    assert_eq!(records.len(), 100_000);
    assert!(counts[..24].iter().all(|count| *count == 4096), "{counts:?}");
    let small = pages(&server);
    assert!(small.len() >= 25 && small.iter().all(|limit| *limit <= 4096), "{small:?}");

    // Long rows come in pages of fewer.
    client
        .batch_execute(
            "CREATE TABLE long AS SELECT id, n, at, repeat('x', 100000) AS note FROM feedback LIMIT 1000",
        )
        .unwrap();
    client.batch_execute("ALTER TABLE long ADD PRIMARY KEY (id)").unwrap();
    let fields = columns().fields().iter().cloned().chain([note()]).collect::<Vec<_>>();
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    let source = SqlSource::new("in", &table(&server, "long"), schema, None).unwrap();
    assert_eq!(all(&mut *open(&source, StartAt::Configured), 4096).1.len(), 1000);
    let long = pages(&server)[small.len()..].to_vec();
    assert!(long.len() > 15 && long[1..].iter().all(|limit| *limit <= 42), "{long:?}");
}

fn note() -> arrow::datatypes::FieldRef {
    Arc::new(arrow::datatypes::Field::new("note", arrow::datatypes::DataType::Utf8, true))
}
