//! The job of `resume.rs` over a table: it writes what it writes over the embedded log, whatever happens to it and to the
//! server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::brokers::postgres::{PASSWORD, Postgres};
use crate::resume::{JOB, OUTPUTS, held, kill, lines, random, until, written};
use crate::same_bytes::{levada, same, succeed};

/// A row: a machine, if it is a good one, a number, a time in milliseconds.
type Row = (Option<String>, i64, i64);

/// `count` rows, one in 500 without a machine, which makes a bad record.
pub(super) fn rows_of(seed: &mut u64, from: u64, count: u64) -> Vec<Row> {
    let row = |(n, line): (u64, String)| match serde_json::from_str::<Value>(&line) {
        Ok(record) => {
            (record["machine"].as_str().map(str::to_owned), n as i64, record["at"].as_i64().unwrap())
        }
        Err(_) => (None, n as i64, 1_700_000_000_000 + n as i64 * 2),
    };
    (from..).zip(lines(seed, from, count).lines().map(str::to_owned)).map(row).collect()
}

/// A database with the table `readings`.
pub(super) enum Database {
    Postgres(Box<Postgres>),
    Sqlite(PathBuf),
}

impl Database {
    /// An empty table; an SQLite file is made in `folder`.
    pub(super) fn new(server: Option<Postgres>, folder: &Path) -> Database {
        let columns = |id: &str, at: &str| {
            format!("CREATE TABLE readings (id {id}, machine TEXT, n BIGINT, at {at}, x TEXT)")
        };
        match server {
            Some(server) => {
                let id = "bigserial PRIMARY KEY";
                server.connection().batch_execute(&columns(id, "timestamptz")).unwrap();
                Database::Postgres(Box::new(server))
            }
            None => {
                let path = folder.join("readings.db");
                let connection = rusqlite::Connection::open(&path).unwrap();
                connection.execute_batch(&columns("INTEGER PRIMARY KEY AUTOINCREMENT", "TEXT")).unwrap();
                Database::Sqlite(path)
            }
        }
    }

    /// Adds rows in one transaction, behind a number that is given and never committed.
    pub(super) fn add(&self, rows: &[Row]) {
        match self {
            Database::Postgres(server) => {
                let mut client = server.connection();
                client.batch_execute("BEGIN; INSERT INTO readings (n) VALUES (0); ROLLBACK").unwrap();
                let machines: Vec<_> = rows.iter().map(|row| row.0.clone()).collect();
                let (numbers, times): (Vec<i64>, Vec<i64>) = rows.iter().map(|row| (row.1, row.2)).unzip();
                let insert = "INSERT INTO readings (machine, n, at) SELECT machine, n, to_timestamp(at / 1000.0) FROM \
                              unnest($1::text[], $2::int8[], $3::int8[]) WITH ORDINALITY AS r (machine, n, at, place) ORDER \
                              BY place";
                client.execute(insert, &[&machines, &numbers, &times]).unwrap();
            }
            Database::Sqlite(path) => {
                let mut connection = rusqlite::Connection::open(path).unwrap();
                connection.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
                let transaction = connection.transaction().unwrap();
                let insert = "INSERT INTO readings (machine, n, at) VALUES (?, ?, strftime('%Y-%m-%d %H:%M:%f', ? / 1000.0, \
                              'unixepoch'))";
                let mut statement = transaction.prepare(insert).unwrap();
                for row in rows {
                    statement.execute(rusqlite::params![row.0, row.1, row.2]).unwrap();
                }
                drop(statement);
                transaction.commit().unwrap();
            }
        }
    }

    /// Changes the table.
    pub(super) fn execute(&self, sql: &str) {
        match self {
            Database::Postgres(server) => server.connection().batch_execute(sql).unwrap(),
            Database::Sqlite(path) => rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap(),
        }
    }

    fn settings(&self) -> String {
        match self {
            Database::Postgres(server) => {
                format!("url = \"{}\"\npassword = {{ env = \"READINGS_PASSWORD\" }}", server.url())
            }
            Database::Sqlite(path) => format!("url = \"sqlite:{}\"", path.display()),
        }
    }
}

pub(super) struct Site {
    folder: TempDir,
    pub(super) database: Database,
}

impl Site {
    pub(super) fn new(server: Option<Postgres>) -> Site {
        let folder = TempDir::new().unwrap();
        let database = Database::new(server, folder.path());
        let source =
            format!("{}\ntable = \"readings\"\ncolumn = \"id\"\npoll = \"20ms\"", database.settings());
        let job = JOB.replace(
            "[source.readings.log]\ntopic = \"readings\"",
            &format!("[source.readings.sql]\n{source}"),
        );
        std::fs::write(folder.path().join("job.toml"), job).unwrap();
        Site { folder, database }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A run that writes to the topics in `data`, with its state in `state`.
    pub(super) fn run(&self, data: &str, state: &str, options: &[&str]) -> Command {
        let mut command = levada(&["run"], &self.path(data));
        command.arg(self.path("job.toml")).arg("--state").arg(self.path(state)).args(options);
        command.env("READINGS_PASSWORD", PASSWORD).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// What the job writes of these rows over the embedded log.
    fn expected(&self, rows: &[Row]) -> BTreeMap<String, String> {
        let (data, records, job) = (self.path("log"), self.path("rows.jsonl"), self.path("log.toml"));
        let line = |(machine, n, at): &Row| {
            format!("{}\n", serde_json::json!({ "machine": machine, "n": n, "at": at }))
        };
        std::fs::write(&records, rows.iter().map(line).collect::<String>()).unwrap();
        std::fs::write(&job, JOB).unwrap();
        succeed(levada(&["topics", "create", "readings"], &data));
        let mut produce = levada(&["topics", "produce", "readings", "--keep-bad"], &data);
        produce.arg("--file").arg(&records);
        succeed(produce);
        let mut run = levada(&["run"], &data);
        run.arg(&job).args(["--until-drained", "--workers", "2"]);
        succeed(run);
        without_dead_letters(written(&data))
    }
}

/// Dead letters hold the bytes of records, which are others in a table.
fn without_dead_letters(mut all: BTreeMap<String, String>) -> BTreeMap<String, String> {
    all.remove("resumed.dead-letters");
    all
}

pub(super) fn succeeds(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub(super) fn stop(child: Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    succeeds(child);
}

/// Bad records of a table, as they are told.
fn bad(data: &Path) -> Vec<(String, String)> {
    let letters = succeed(levada(&["topics", "export", "resumed.dead-letters"], data));
    let text = |letter: &Value, field: &str| letter[field].as_str().unwrap().to_string();
    let letters = letters.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    letters.map(|letter| (text(&letter, "reason"), text(&letter, "text"))).collect()
}

fn killed_again_and_again(mut site: Site) {
    let rows = rows_of(&mut 11, 0, 60_000);
    for some in rows.chunks(7_001) {
        site.database.add(some);
    }
    let expected = site.expected(&rows);
    for workers in ["1", "2", "4"] {
        let run = |options: &[&str]| succeeds(site.run(workers, workers, options).spawn().unwrap());
        run(&["--until-drained", "--workers", workers]);
        same(&expected, &without_dead_letters(written(&site.path(workers))), workers);
    }
    let dead = bad(&site.path("2"));
    assert_eq!(dead.len(), rows.iter().filter(|row| row.0.is_none()).count());
    for (reason, text) in &dead {
        assert_eq!(reason, "field `machine`: expected a string, found null");
        assert!(text.starts_with("{\"machine\":null,\"n\":"), "{text}");
    }

    let data = site.path("data");
    let total = held(&site.path("2"), "good");
    let (mut seed, mut struck) = (5, 0);
    for round in 0..9 {
        let workers = ["1", "4", "2"][round % 3];
        let mut child =
            site.run("data", "state", &["--until-drained", "--workers", workers]).spawn().unwrap();
        until(&mut child, &data, "good", 1 + total * round as u64 / 12 + random(&mut seed, total / 12));
        if let (1, Database::Postgres(server)) = (round % 4, &mut site.database) {
            // The job waits for it.
            server.stop();
            server.begin();
            assert_eq!(child.try_wait().unwrap().filter(|status| !status.success()), None);
        }
        struck += u32::from(kill(child));
    }
    assert!(struck > 3, "only {struck} of 9 runs were killed before their end");
    succeeds(site.run("data", "state", &["--until-drained", "--workers", "2"]).spawn().unwrap());
    same(&expected, &without_dead_letters(written(&data)), "killed");
    assert_eq!(bad(&data), dead);
}

#[test]
fn a_job_over_postgresql_that_is_killed_again_and_again_writes_what_it_writes_over_the_embedded_log() {
    killed_again_and_again(Site::new(Some(Postgres::start())));
}

#[test]
fn a_job_over_sqlite_that_is_killed_again_and_again_writes_what_it_writes_over_the_embedded_log() {
    killed_again_and_again(Site::new(None));
}

/// Sends rows to a job that is killed now and then, as its server is; then replays it by its journal alone.
fn live(mut site: Site) {
    let data = site.path("data");
    let mut seed = 23;
    let history = rows_of(&mut seed, 0, 3_000);
    site.database.add(&history);
    let good_of = |rows: &[Row]| rows.iter().filter(|row| row.0.is_some() && row.1 % 10 != 3).count() as u64;
    let (mut sent, mut good) = (3_000, good_of(&history));
    let mut child = site.run("data", "state", &["--workers", "2"]).spawn().unwrap();
    // The last one is for the run that goes on at last.
    for round in 0..17 {
        let rows = rows_of(&mut seed, sent, 150);
        site.database.add(&rows);
        (sent, good) = (sent + 150, good + good_of(&rows));
        if round % 4 == 1
            && let Database::Postgres(server) = &mut site.database
        {
            server.stop();
            server.begin();
        }
        if round % 4 == 3 {
            // Some of what was sent is published, some not, some not even read.
            until(&mut child, &data, "good", (sent - 300 + random(&mut seed, 250)) * 8 / 10);
            assert!(kill(child));
            let workers = ["1", "4", "3"][round % 3];
            child = site.run("data", "state", &["--workers", workers]).spawn().unwrap();
        }
    }
    until(&mut child, &data, "good", good);
    stop(child);
    // Each once.
    let mut numbers: Vec<u64> = succeed(levada(&["topics", "export", "good"], &data))
        .lines()
        .chain(bad(&data).iter().map(|(_, text)| text.as_str()))
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["n"].as_u64().unwrap())
        .filter(|n| n % 10 != 3)
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..sent).filter(|n| n % 10 != 3).collect::<Vec<_>>());

    let expected = written(&data);
    for workers in ["1", "4"] {
        inputs_alone(&site, workers);
        let replayed = site.path(workers);
        let mut child =
            site.run(workers, &format!("state-{workers}"), &["--workers", workers]).spawn().unwrap();
        for topic in OUTPUTS {
            until(&mut child, &replayed, topic, held(&data, topic));
        }
        stop(child);
        same(&expected, &written(&replayed), workers);
    }
}

/// A copy of the state that knows nothing but what was read, and in which epochs.
pub(super) fn inputs_alone(site: &Site, name: &str) {
    let state = site.path(&format!("state-{name}"));
    assert!(Command::new("cp").arg("-r").args([&site.path("state"), &state]).status().unwrap().success());
    std::fs::remove_dir_all(state.join("checkpoints")).unwrap();
}

#[test]
fn a_live_job_over_postgresql_has_each_row_once_and_is_replayed_to_the_same_bytes() {
    live(Site::new(Some(Postgres::start())));
}

#[test]
fn a_live_job_over_sqlite_has_each_row_once_and_is_replayed_to_the_same_bytes() {
    live(Site::new(None));
}
