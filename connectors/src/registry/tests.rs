use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use levada_types::{Blame, ConnectorError, DecoderFactory as _, RawRecords, Read, RecordReader};
use serde_json::{Value, json};

use super::source::RegistryReader;
use super::{Registry, RegistryConfig};
use crate::Secret;
use crate::codec::avro::{AvroConfig, AvroFormat};
use crate::codec::golden::{columns, events, path, raw, reading, records, rows};

/// What a registry answers: the status and the body, by path. It closes a connection to whose path it has nothing.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<HashMap<String, (u16, String)>>>);

/// A registry on loopback that lasts as long as the test.
struct Server {
    address: SocketAddr,
    answers: Answers,
    /// The paths that were asked for, and the `authorization` of each.
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            address: listener.local_addr().unwrap(),
            answers: Answers::default(),
            asked: Arc::default(),
        };
        let (answers, asked) = (server.answers.clone(), Arc::clone(&server.asked));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let Some(first) = lines.next() else { continue };
                let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let authorization = headers.iter().find_map(|line| line.strip_prefix("authorization: "));
                asked.lock().unwrap().push((path.clone(), authorization.unwrap_or_default().to_owned()));
                let Some((status, body)) = answers.0.lock().unwrap().get(&path).cloned() else { continue };
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
            }
        });
        server
    }

    fn answer(&self, path: &str, status: u16, body: &Value) {
        self.answers.0.lock().unwrap().insert(path.to_owned(), (status, body.to_string()));
    }

    fn schema(&self, id: u32, name: &str) {
        let schema = std::fs::read_to_string(path(name)).unwrap();
        self.answer(&format!("/schemas/ids/{id}"), 200, &json!({ "schema": schema }));
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn config(&self) -> RegistryConfig {
        RegistryConfig { url: format!("http://{}/", self.address), ..RegistryConfig::default() }
    }

    fn registry(&self, data: &Path) -> Arc<Registry> {
        Arc::new(Registry::new(&self.config(), data).unwrap())
    }
}

/// A reader that gives some records once.
struct Once(Option<RawRecords>);

impl RecordReader for Once {
    fn read(&mut self, _: usize, _: Duration) -> Result<Read, ConnectorError> {
        Ok(self.0.take().map_or(Read::End, Read::Records))
    }
}

fn reader(registry: &Arc<Registry>, records: &[Vec<u8>]) -> RegistryReader {
    let registry = Arc::clone(registry);
    RegistryReader {
        reader: Box::new(Once(Some(raw(records)))),
        registry,
        metadata: Arc::default(),
        held: None,
    }
}

/// Reads until something comes.
fn records_of(reader: &mut RegistryReader, max: usize) -> RawRecords {
    loop {
        match reader.read(max, Duration::from_millis(20)).unwrap() {
            Read::Records(records) => return records,
            Read::Nothing => {}
            other => panic!("{other:?}"),
        }
    }
}

fn format(registry: &Arc<Registry>) -> AvroFormat {
    let config = AvroConfig { reader: Some(path("reader.avsc")), ..AvroConfig::default() };
    AvroFormat::new(&config, Some(Arc::clone(registry)))
}

#[test]
fn schemas_are_asked_for_once_and_kept() {
    let (server, data) = (Server::start(), tempfile::tempdir().unwrap());
    server.schema(7, "reading.avsc");
    server.schema(100_000, "reading-2.avsc");
    let registry = server.registry(data.path());
    let all = records("avro-confluent.records");
    let mut of_all = reader(&registry, &all);
    assert!(!of_all.at_once());
    let mut given = records_of(&mut of_all, 100);
    let decoded = format(&registry).decoder(reading()).unwrap().decode(&given);
    assert_eq!((decoded.dead.len(), decoded.rows.num_rows()), (0, 100));
    given = records_of(&mut of_all, 100);
    assert_eq!(given.offsets.first(), Some(&100), "what was too much is given next");
    assert_eq!(server.asked(), 2);

    // Next year the registry is gone, and another process has nothing but the folder.
    server.answers.0.lock().unwrap().clear();
    let registry = server.registry(data.path());
    let decoded = format(&registry).decoder(reading()).unwrap().decode(&raw(&all));
    let mut expected = events();
    for event in expected.iter_mut().enumerate().filter(|(n, _)| n % 4 != 0).map(|(_, event)| event) {
        event["ok"] = json!(true);
    }
    assert_eq!((decoded.dead, rows(&decoded.rows)), (Vec::new(), expected));
    assert_eq!(server.asked(), 2);
}

#[test]
fn an_outage_costs_no_record() {
    let (server, data) = (Server::start(), tempfile::tempdir().unwrap());
    server.answer("/schemas/ids/7", 503, &json!({}));
    let registry = server.registry(data.path());
    let all = &records("avro-confluent.records")[..1];
    let mut reader = reader(&registry, all);
    for _ in 0..3 {
        let read = reader.read(10, Duration::ZERO).unwrap();
        assert!(matches!(read, Read::Nothing), "{read:?}");
    }
    assert_eq!(server.asked(), 1, "it is not asked again before its time");
    server.answers.0.lock().unwrap().clear();
    while server.asked() < 2 {
        let read = reader.read(10, Duration::from_millis(20)).unwrap();
        assert!(matches!(read, Read::Nothing), "{read:?}");
    }
    server.schema(7, "reading.avsc");
    let given = records_of(&mut reader, 10);
    let decoded = format(&registry).decoder(columns(&[("id", "int")])).unwrap().decode(&given);
    assert_eq!((decoded.dead.len(), rows(&decoded.rows)), (0, vec![json!({ "id": -2_147_483_648_i64 })]));
}

#[test]
fn an_id_without_a_schema_is_a_reason_that_lasts() {
    let (server, data) = (Server::start(), tempfile::tempdir().unwrap());
    let unknown = json!({ "error_code": 40403, "message": "Schema 9 not found" });
    server.answer("/schemas/ids/9", 404, &unknown);
    server.answer(
        "/schemas/ids/10",
        200,
        &json!({ "schema": "syntax = \"proto3\";", "schemaType": "PROTOBUF" }),
    );
    server.answer("/schemas/ids/11", 200, &json!({ "schema": "{" }));
    server.schema(7, "reading.avsc");
    let registry = server.registry(data.path());
    let good = records("avro-confluent.records").swap_remove(0);
    let of = |id: u8| [&[0, 0, 0, 0, id], &good[5..]].concat();
    let all = [good.clone(), of(9), of(10), of(11), b"{\"id\":1}".to_vec(), vec![0, 0], good.clone()];
    let given = records_of(&mut reader(&registry, &all), 10);
    assert_eq!(server.asked.lock().unwrap().iter().filter(|(path, _)| path.ends_with("/9")).count(), 3);
    let decode = |registry, given: &RawRecords| {
        let decoded = format(registry).decoder(columns(&[("id", "int")])).unwrap().decode(given);
        assert_eq!(decoded.indices, Some(vec![0, 6]));
        decoded.dead.into_iter().map(|letter| letter.reason).collect::<Vec<_>>()
    };
    let reasons = decode(&registry, &given);
    let expected = [
        "schema 9: the registry does not know it (Schema 9 not found)",
        "schema 10: what the registry has is of the kind PROTOBUF, not Avro",
        "schema 11: what the registry has is no Avro schema: it is not JSON",
        "not of the wire format of a schema registry, which begins with the byte 00: it begins with 7b",
        "not of the wire format of a schema registry: it has 2 bytes, and no id",
    ];
    assert_eq!(reasons.len(), expected.len());
    for (reason, expected) in reasons.iter().zip(expected) {
        assert!(reason.starts_with(expected), "{reason}");
    }
    // Also after the id was given away: a replay tells the same.
    server.schema(9, "reading.avsc");
    assert_eq!(decode(&server.registry(data.path()), &given), reasons);
}

#[test]
fn a_schema_may_name_the_types_of_others() {
    let (server, data) = (Server::start(), tempfile::tempdir().unwrap());
    let reference = |subject: &str| json!([{ "name": "x", "subject": subject, "version": 1 }]);
    let record = |fields: Value| json!({ "type": "record", "name": "R", "fields": fields }).to_string();
    let top = record(json!([{ "name": "unit", "type": "si.Unit" }, { "name": "box", "type": "Box" }]));
    let of_box = json!({ "type": "record", "name": "Box", "fields": [{ "name": "u", "type": "si.Unit" }] });
    let both = json!([reference("box/1")[0], reference("unit")[0]]);
    server.answer("/schemas/ids/7", 200, &json!({ "schema": top, "references": both }));
    let of_box = json!({ "schema": of_box.to_string(), "references": reference("unit") });
    server.answer("/subjects/box%2F1/versions/1", 200, &of_box);
    let unit = json!({ "type": "enum", "name": "si.Unit", "symbols": ["C", "F"] });
    server.answer("/subjects/unit/versions/1", 200, &json!({ "schema": unit.to_string() }));
    let registry = server.registry(data.path());
    let given = records_of(&mut reader(&registry, &[vec![0, 0, 0, 0, 7, 2, 0]]), 10);
    let format = AvroFormat::new(&AvroConfig::default(), Some(Arc::clone(&registry)));
    let decoded = format.decoder(columns(&[("unit", "string"), ("box", "json")])).unwrap().decode(&given);
    assert_eq!(decoded.dead, []);
    assert_eq!(rows(&decoded.rows), [json!({ "unit": "F", "box": { "u": "C" } })]);
    assert_eq!(server.asked(), 3);
}

#[test]
fn who_asks_is_told_and_who_is_refused_ends_the_job() {
    let (server, data) = (Server::start(), tempfile::tempdir().unwrap());
    let password = data.path().join("password");
    std::fs::write(&password, "geheim\n").unwrap();
    let config = RegistryConfig {
        user: Some("levada".into()),
        password: Some(Secret::File(password.clone())),
        ..server.config()
    };
    server.answer("/schemas/ids/7", 401, &json!({}));
    let registry = Registry::new(&config, data.path()).unwrap();
    let error = registry.learn(7).unwrap_err();
    assert_eq!(error.blame, Blame::Configuration);
    let expected = format!(
        "failed to ask the schema registry http://{}: it answered 401 Unauthorized; check `user` and `password`",
        server.address
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(server.asked.lock().unwrap()[0].1, "Basic bGV2YWRhOmdlaGVpbQ==");
    server.answer("/schemas/ids/7", 404, &json!("no"));
    let error = registry.learn(7).unwrap_err().to_string();
    assert!(error.ends_with("it answered 404 Not Found: is `url` that of a schema registry?"), "{error}");
    std::fs::remove_file(&password).unwrap();
    let error = Registry::new(&config, data.path()).unwrap().learn(8).unwrap_err().to_string();
    assert!(error.contains("read the schema registry's secret from file"), "{error}");
    for (url, user) in
        [("registry:8081", None), ("http://a:b@registry", None), ("http://registry", Some("a"))]
    {
        let config =
            RegistryConfig { url: url.into(), user: user.map(Into::into), ..RegistryConfig::default() };
        assert!(config.check().is_err(), "{url}");
    }
}

#[test]
fn a_damaged_file_is_asked_for_again() {
    let (server, data) = (Server::start(), tempfile::tempdir().unwrap());
    server.schema(7, "reading.avsc");
    assert!(server.registry(data.path()).learn(7).unwrap());
    let folder = std::fs::read_dir(data.path().join(".schemas")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    std::fs::write(folder.join("7.json"), "{\"avro\":").unwrap();
    let registry = server.registry(data.path());
    assert!(registry.learn(7).unwrap());
    assert!(registry.known(7).unwrap().is_ok());
    assert_eq!(server.asked(), 2);
}
