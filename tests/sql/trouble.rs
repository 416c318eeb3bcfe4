//! What goes wrong: rows that are gone, settings that are wrong, servers that are not who they say.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::Command;

use levada_connectors::sql::{SqlSourceConfig, SqlUrl};
use levada_types::{Blame, ConnectorError};
use rusqlite::Connection;
use tempfile::TempDir;

use super::jobs::{Site, inputs_alone, rows_of, stop, succeeds};
use super::{all, create, file, open, source, table, wrong};
use crate::brokers::postgres::{Postgres, give};
use crate::resume::{held, until};

/// What a run that is to fail says.
fn said(mut command: Command, data: &Path) -> String {
    let mut child = command.spawn().unwrap();
    // One that writes would go on and on.
    until(&mut child, data, "good", 1);
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    error
}

/// Changes rows that a run is to read again.
fn rows_that_change(site: &Site) {
    site.database.add(&rows_of(&mut 3, 0, 1_000));
    let data = site.path("data");
    let mut child = site.run("data", "state", &[]).spawn().unwrap();
    until(&mut child, &data, "good", 780);
    site.database.add(&rows_of(&mut 4, 1_000, 1_000));
    until(&mut child, &data, "good", 1_580);
    stop(child);
    // Of what is behind the checkpoint nothing is read again.
    site.database.execute("DELETE FROM readings WHERE id < 500");
    let mut child = site.run("data", "state", &[]).spawn().unwrap();
    site.database.add(&rows_of(&mut 5, 2_000, 100));
    until(&mut child, &data, "good", 1_870);
    stop(child);

    let replay = |name: &str| {
        inputs_alone(site, name);
        said(site.run(name, &format!("state-{name}"), &[]), &site.path(name))
    };
    let error = replay("deleted");
    assert!(error.contains("was read before, and is not there any more"), "{error}");
    assert!(error.contains("begin afresh (--fresh)"), "{error}");
    assert_eq!(held(&site.path("deleted"), "good"), 0, "nothing is written of what is not whole");
}

#[test]
fn rows_of_postgresql_that_are_gone_when_they_are_to_be_read_again_end_the_job() {
    rows_that_change(&Site::new(Some(Postgres::start())));
}

#[test]
fn rows_of_sqlite_that_are_gone_or_changed_when_they_are_to_be_read_again_end_the_job() {
    rows_that_change(&Site::new(None));
    let site = Site::new(None);
    site.database.add(&rows_of(&mut 3, 0, 1_000));
    succeeds(site.run("data", "state", &["--until-drained"]).spawn().unwrap());
    let replay = |name: &str| {
        inputs_alone(&site, name);
        site.run(name, &format!("state-{name}"), &["--until-drained"])
    };
    site.database.execute("UPDATE readings SET x = 'is not read' WHERE id = 500");
    succeeds(replay("same").spawn().unwrap());
    site.database.execute("UPDATE readings SET n = n + 10 WHERE id = 500");
    let error = said(replay("changed"), &site.path("changed"));
    assert!(error.contains("is not what it was when they were read before"), "{error}");
    // One that begins afresh takes what there is.
    succeeds(site.run("data", "state", &["--until-drained", "--fresh"]).spawn().unwrap());
    succeeds(replay("afresh").spawn().unwrap());
}

#[test]
fn a_job_that_begins_says_that_it_waits_for_an_open_transaction() {
    let server = Postgres::start();
    let (mut a, mut b) = (server.connection(), server.connection());
    let site = Site::new(Some(server));
    let insert = "INSERT INTO readings (machine, n, at) VALUES ('m', 1, '2013-01-01T00:00:00Z')";
    let mut first = a.transaction().unwrap();
    first.execute(insert, &[]).unwrap();
    b.execute(insert, &[]).unwrap();
    let mut child = site.run("data", "state", &["--until-drained"]).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("waiting for open transactions that write to it (process ") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended without");
    }
    first.commit().unwrap();
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    assert_eq!(held(&site.path("data"), "good"), 2);
}

fn complains(error: &ConnectorError, blame: Blame, of: &str) {
    assert!(error.message.contains(of), "{error}");
    assert_eq!(error.blame, blame, "{error}");
    assert!(!error.message.contains("s3cret"), "{error}");
}

#[test]
fn what_is_configured_wrongly_of_postgresql_is_said_with_what_to_do() {
    let server = Postgres::start();
    let mut client = server.connection();
    create(&mut client, "feedback");
    client
        .batch_execute(
            "CREATE TABLE plain (id bigint NOT NULL, n bigint, at timestamptz); CREATE TABLE optional (id bigint UNIQUE, n \
             bigint, at timestamptz); CREATE TABLE texts (id text PRIMARY KEY, n bigint, at timestamptz); CREATE TABLE below \
             (LIKE plain); ALTER TABLE below ADD PRIMARY KEY (id); INSERT INTO below VALUES (-5); CREATE SEQUENCE blocks \
             CACHE 20; CREATE TABLE cached (id bigint PRIMARY KEY DEFAULT nextval('blocks'), n bigint, at timestamptz); \
             CREATE VIEW seen AS SELECT * FROM feedback; CREATE ROLE stranger LOGIN PASSWORD 's3cret word'",
        )
        .unwrap();
    let good = table(&server, "feedback");
    let complain = |config: SqlSourceConfig, of: &str| complains(&wrong(&config), Blame::Configuration, of);
    for (name, of) in [
        ("feedbak", "there is no table `feedbak`; did you mean `feedback`?"),
        ("public.Feedback", "did you mean `feedback`?"),
        ("plain", "`id` has to be an integer, unique and never null"),
        ("optional", "`id` has to be an integer, unique and never null"),
        ("texts", "`id` has to be an integer, unique and never null"),
        ("below", "`id` of a row is -5, and a record's offset is never negative"),
        ("cached", "`ALTER SEQUENCE blocks CACHE 1`"),
        ("seen", "it is no table (a view, perhaps)"),
    ] {
        complain(table(&server, name), of);
    }
    complain(SqlSourceConfig { column: "ids".into(), ..good.clone() }, "no column `ids`; did you mean `id`?");
    let condition = |condition: &str| SqlSourceConfig { condition: Some(condition.into()), ..good.clone() };
    complain(condition("m = 1"), "the server says: column \"m\" does not exist");
    complain(condition("n = 'x'"), "invalid input syntax for type bigint");
    let at = |place: &str| SqlSourceConfig {
        url: SqlUrl::new(server.url().replace("me@", place)),
        ..good.clone()
    };
    complain(at("stranger@"), "the user needs SELECT on the table");
    complain(at("nobody@"), "is the user in `url` right, and the `password`?");
    complain(SqlSourceConfig { password: None, ..good.clone() }, "say `password = { env = \"NAME\" }`");
    let nowhere =
        SqlUrl::new(server.url().replace("/postgres", "/nowhere").replace("/nowhere://", "/postgres://"));
    complain(SqlSourceConfig { url: nowhere, ..good.clone() }, "database \"nowhere\" does not exist");
    std::fs::write(server.folder().join("secret"), "s3cret wort").unwrap();
    complain(good, "is the user in `url` right, and the `password`?");
}

#[test]
fn what_is_configured_wrongly_of_sqlite_is_said_with_what_to_do() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("shop.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE feedback (id INTEGER PRIMARY KEY, n INT, at TEXT); CREATE TABLE plain (id INTEGER NOT NULL, n INT, \
             at TEXT); CREATE TABLE optional (id INT UNIQUE, n INT, at TEXT); CREATE TABLE texts (id TEXT PRIMARY KEY NOT NULL, \
             n INT, at TEXT); CREATE TABLE below (id INT NOT NULL UNIQUE, n INT, at TEXT); INSERT INTO below VALUES (-5, 1, \
             ''); CREATE TABLE mixed (id INT NOT NULL UNIQUE, n INT, at TEXT); INSERT INTO mixed VALUES ('x', 1, ''), (1, 1, \
             ''); CREATE TABLE pairs (id INTEGER, n INT, at TEXT, PRIMARY KEY (id, n)); CREATE VIEW seen AS SELECT * FROM \
             feedback",
        )
        .unwrap();
    let good = file(&path, "feedback");
    assert_eq!(all(&mut *open(&source(&good), levada_types::StartAt::Configured), 10).1, []);
    let complain = |config: SqlSourceConfig, of: &str| complains(&wrong(&config), Blame::Configuration, of);
    for (name, of) in [
        ("feedbak", "there is no table `feedbak`; did you mean `feedback`?"),
        ("plain", "`id` has to be an integer, unique and never null"),
        ("optional", "`id` has to be an integer, unique and never null"),
        ("texts", "`id` has to be an integer, unique and never null"),
        ("pairs", "`id` has to be an integer, unique and never null"),
        ("below", "`id` of a row is -5, and a record's offset is never negative"),
        ("seen", "there is no table `seen`"),
    ] {
        complain(file(&path, name), of);
    }
    complain(SqlSourceConfig { column: "ids".into(), ..good.clone() }, "no column `ids`; did you mean `id`?");
    // In double quotes too, which SQLite would take for a text.
    let condition = Some("\"m\" = 1".to_string());
    complain(SqlSourceConfig { condition, ..good.clone() }, "no such column: \"m\"");
    complain(file(Path::new("/nowhere/shop.db"), "feedback"), "there is no file /nowhere/shop.db");
    let text = folder.path().join("text.db");
    std::fs::write(&text, "This is a text, and no database. ".repeat(100)).unwrap();
    complains(&wrong(&file(&text, "feedback")), Blame::Damage, "file is not a database");
    complain(file(&path, "mixed"), "`id` of a row is no integer");
}

#[test]
fn a_server_on_another_machine_has_to_show_who_it_is() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for line in [
        format!("req -x509 {key} -days 2 -keyout ca.key -out ca.pem -subj /CN=authority"),
        format!("req {key} -keyout server.key -out server.csr -subj /CN=server"),
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names".into(),
    ] {
        let made = Command::new("openssl").args(line.split(' ')).current_dir(folder.path()).output();
        let made = made.expect("openssl is needed for this test: `make test` installs it");
        assert!(made.status.success(), "{line}: {}", String::from_utf8_lossy(&made.stderr));
    }
    for file in ["", "server.key", "server.pem"] {
        give(&folder.path().join(file));
    }
    let at = |name: &str, file: &str| format!("{name}={}", folder.path().join(file).display());
    let (certificate, key) = (at("ssl_cert_file", "server.pem"), at("ssl_key_file", "server.key"));
    let server = Postgres::with(&["ssl=on", &certificate, &key]);
    create(&mut server.connection(), "feedback");
    let plain = table(&server, "feedback");
    let encrypted = SqlSourceConfig { ca: Some(folder.path().join("ca.pem")), ..plain.clone() };
    let source = source(&encrypted);
    levada_types::SourceFactory::partitions(&source).unwrap();
    let mut client = server.connection();
    let mut reader = open(&source, levada_types::StartAt::Configured);
    assert_eq!(all(&mut *reader, 10).1, []);
    let by_tls = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'levada' AND ssl";
    assert_eq!(client.query_one(by_tls, &[]).unwrap().get::<_, i64>(0), 1);

    let stranger = SqlUrl::new(format!("{}?sslmode=verify-full", server.url()));
    let error = wrong(&SqlSourceConfig { url: stranger, ..plain.clone() });
    complains(&error, Blame::Configuration, "say in `ca` which authorities are trusted");
    let other = SqlSourceConfig { ca: Some(folder.path().join("names")), ..plain.clone() };
    complains(&wrong(&other), Blame::Configuration, "there is no certificate in it");
    let by_name = SqlUrl::new(server.url().replace("127.0.0.1", "localhost"));
    complains(&wrong(&SqlSourceConfig { url: by_name, ..encrypted }), Blame::Configuration, "certificate");
}
