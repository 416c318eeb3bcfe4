//! Taking events: through the binary, which is killed and started again where that matters.

use std::collections::{BTreeMap, HashSet};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::answers::promtool_accepts;
use super::client::{PATIENCE, answer, attempt, get, post};
use super::intake::{JSON, LINES, PATH, Site, terminate, with_key};
use crate::same_bytes::levada;

fn random(state: &mut u64, end: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % end
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_every_form_become_records() {
    let site = Site::new("1");
    let gateway = site.start(&[]);
    let event = |id: &str, more: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/m","type":"reading","time":"2024-01-01T00:00:00Z"{more},"data":{{"n":{id}}}}}"#
        )
    };
    let binary = "ce-specversion: 1.0\r\nce-id: 8\r\nce-source: /m%20x\r\nce-type: reading\r\n";
    let requests = [
        ("", JSON.to_owned(), "{\"n\":\r\n 1}\n".to_owned()),
        (
            "?key=m&time=at",
            JSON.to_owned(),
            r#" [{"n":2,"m":"a","at":5}, {"n":3,"m":7,"at":"1970-01-01T00:00:00.006Z"}] "#.to_owned(),
        ),
        (
            "",
            format!("{LINES}levada-key-field: m\r\n"),
            "{\"n\":4,\"m\":\"b\"}\r\n\n  {\"n\":5,\"m\":\"c\"}".to_owned(),
        ),
        (
            "",
            "content-type: application/cloudevents+json; charset=utf-8\r\n".to_owned(),
            event("6", r#","partitionkey":"p""#),
        ),
        (
            "?time=n",
            "content-type: application/cloudevents-batch+json\r\n".to_owned(),
            format!("[{}]", event("7", "")),
        ),
        ("", format!("{JSON}{binary}"), r#"{"n":8}"#.to_owned()),
    ];
    let mut next = 0;
    for (query, headers, body) in &requests {
        let answer = gateway.post(query, headers, body).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{answer:?}");
        let told = answer.json();
        let records = told["records"].as_u64().unwrap();
        assert_eq!(told["partitions"], json!([{"partition": 0, "first": next, "next": next + records}]));
        next += records;
    }
    let records = site.records("readings").pop().unwrap();
    let values: Vec<&[u8]> = records.iter().map(|record| record.value.as_ref()).collect();
    let expected: [&[u8]; 8] = [
        b"{\"n\":   1}",
        br#"{"n":2,"m":"a","at":5}"#,
        br#"{"n":3,"m":7,"at":"1970-01-01T00:00:00.006Z"}"#,
        br#"{"n":4,"m":"b"}"#,
        br#"{"n":5,"m":"c"}"#,
        br#"{"n":6}"#,
        br#"{"n":7}"#,
        br#"{"n":8}"#,
    ];
    assert_eq!(values, expected);
    let keys: Vec<Option<&[u8]>> = records.iter().map(|record| record.key.as_deref()).collect();
    assert_eq!(keys, [None, Some(&b"a"[..]), Some(b"7"), Some(b"b"), Some(b"c"), Some(b"p"), None, None]);
    let times: Vec<i64> = [1, 2, 5, 6].iter().map(|index| records[*index].timestamp_ms).collect();
    assert_eq!(times, [5, 6, 1_704_067_200_000, 7]);
    let headers = |index: usize| -> BTreeMap<&str, &[u8]> {
        records[index].headers.iter().map(|(name, value)| (name.as_str(), value.as_ref())).collect()
    };
    assert!(headers(0).is_empty());
    let said = headers(5);
    assert_eq!((said["ce_id"], said["ce_source"], said["ce_type"]), (&b"6"[..], &b"/m"[..], &b"reading"[..]));
    assert_eq!(said["ce_time"], b"2024-01-01T00:00:00Z");
    assert_eq!((headers(7)["ce_source"], headers(7)["ce_id"]), (&b"/m x"[..], &b"8"[..]));
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_says_why_and_leaves_nothing() {
    let site = Site::new("2");
    let gateway = site.start(&["--max-body-bytes", "1000", "--max-records", "5"]);
    let big = format!("{{\"text\":\"{}\"}}", "x".repeat(3_000_000));
    let many = "{}\n".repeat(6);
    let long_key = with_key(&"k".repeat(256));
    let event = "content-type: application/cloudevents+json\r\n";
    let cases: [(&str, &str, &str, u16, &str); 21] = [
        ("", "", "{}", 415, "the content-type is missing"),
        ("", "content-type: text/plain\r\n", "{}", 415, "\"text/plain\"; there are: application/json"),
        ("", "content-type: application/json\r\ncontent-encoding: gzip\r\n", "{}", 415, "gzip"),
        ("", JSON, "", 400, "the record is empty"),
        ("", JSON, "[]", 400, "holds no event"),
        ("", LINES, "\n\n", 400, "holds no event"),
        ("", JSON, "[{},{]", 400, "not JSON: expected a key in quotes, found ] at byte 5"),
        ("", JSON, "{\"a\":\"\n\"}", 400, "control character"),
        ("", JSON, "{}\n{}", 400, "expected nothing after the object"),
        ("", JSON, "[{}, 1]", 422, "1 of 2 records cannot be used (record 1: not a JSON object"),
        ("?key=m", JSON, "{}", 422, "field `m`: expected the key"),
        ("?time=m", JSON, r#"{"m":"noon"}"#, 422, "field `m`: expected a timestamp"),
        ("?partial=true", LINES, "{\n", 422, "so nothing was taken"),
        ("?kee=m", JSON, "{}", 400, "no parameter \"kee\" here; there are: key, time, partial"),
        ("?partial=maybe", JSON, "{}", 400, "true or false"),
        ("", JSON, &big, 413, "longer than 1000 bytes"),
        ("", LINES, &many, 413, "6 records, and at most 5"),
        ("", &long_key, "{}", 400, "1 to 255 bytes"),
        ("", event, "{}", 422, "field `specversion`"),
        ("", "ce-id: 1\r\ncontent-type: application/json\r\n", "{}", 400, "field `specversion`"),
        ("", event, "[1]", 400, "a JSON array"),
    ];
    for (query, headers, body, status, detail) in cases {
        let answer = gateway.post(query, headers, body).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (status, "application/problem+json"),
            "{query} {headers} {answer:?}"
        );
        let problem = answer.json();
        assert_eq!(problem["status"], json!(status));
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{detail}: {problem}");
    }
    // One that says nothing of its length.
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n{JSON}transfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..3 {
        stream.write_all(format!("190\r\n{}\r\n", " ".repeat(400)).as_bytes()).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(answer(&mut stream).await.unwrap().status, 413);
    let elsewhere = post(gateway.address, "/v1/topics/other/events", JSON, b"{}").await;
    assert_eq!(elsewhere.status, 403);
    assert!(elsewhere.json()["detail"].as_str().unwrap().contains("start the gateway with --ingest other"));
    assert_eq!(site.held("readings"), 0);

    assert_eq!(gateway.post("?key=m", JSON, r#"{"m":1}"#).await.status, 200);
    let metrics = get(gateway.address, "/metrics").await;
    let text = String::from_utf8(metrics.body).unwrap();
    for line in [
        "levada_gateway_ingest_refused_total{reason=\"bad_records\"} 5\n",
        "levada_gateway_ingest_refused_total{reason=\"media_type\"} 3\n",
        "levada_gateway_ingest_refused_total{reason=\"not_open\"} 1\n",
        "levada_gateway_ingest_records_total{topic=\"readings\"} 1\n",
        "levada_gateway_ingest_bytes_total{topic=\"readings\"} 7\n",
        "levada_gateway_ingest_durable_seconds_count{topic=\"readings\"} 1\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    promtool_accepts(&text);
    gateway.stop();
}

const JOB: &str = r#"
[job]
name = "watch"

[source.readings.log]
topic = "readings"
schema = { machine = "string", celsius = "float", at = "timestamp", note = "string?" }
event_time = { column = "at", out_of_order = "0s" }

[step.alarms.decide]
from = "readings"
key = ["machine"]

[[step.alarms.decide.policies]]
name = "overheating"
when = "celsius > 90"
action = "stop"

[sink.alarms.log]
from = "alarms"
topic = "alarms"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_what_the_job_can_use_and_its_decisions_come_out() {
    let site = Site::new("1");
    let job = site.file("job.toml", JOB);
    let gateway = site.start(&["--job", &job]);
    let mut command = levada(&["run", &job], &site.data());
    let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();

    let reading =
        |n: u64, celsius: &str| format!(r#"{{"machine":"m{}","celsius":{celsius},"at":{n}}}"#, n % 3);
    let batch = format!(
        r#"[{}, {{"machine":"m1","celsius":"hot","at":2}}, {}, {{"celsius":3,"at":4}}]"#,
        reading(1, "95.5"),
        reading(3, "20")
    );
    let refused = gateway.post("?key=machine", JSON, &batch).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    let reader = "source `readings` of job `watch`";
    let list = json!([
        {"index": 1, "reason": "field `celsius`: expected a float, found \"hot\"", "field": "celsius", "reader": reader},
        {"index": 3, "reason": "field `machine`: expected the key, but it is missing or null", "field": "machine"},
    ]);
    assert_eq!((&refused.json()["refused"], &refused.json()["refused_records"]), (&list, &json!(2)));
    assert_eq!(site.held("readings"), 0);
    let taken = gateway.post("?key=machine&partial=true", JSON, &batch).await;
    assert_eq!((taken.status, &taken.json()["refused"], &taken.json()["records"]), (200, &list, &json!(2)));

    // A client that posts one after the other while the job runs.
    for n in 10..200 {
        let celsius = if n % 10 == 0 { "99" } else { "50" };
        let answer = gateway.post("?key=machine", JSON, reading(n, celsius)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // Of 95.5 and the 19 of 99 all are told once the time has gone on.
    let began = Instant::now();
    while site.held("alarms") < 20 {
        assert!(
            running.try_wait().unwrap().is_none() && began.elapsed() < PATIENCE,
            "{}",
            site.held("alarms")
        );
        std::thread::yield_now();
    }
    let alarms: Vec<Value> = site
        .records("alarms")
        .concat()
        .iter()
        .map(|record| serde_json::from_slice(&record.value).unwrap())
        .collect();
    assert!(alarms.iter().all(|alarm| alarm["action"] == "stop"), "{alarms:?}");
    assert_eq!(alarms.len(), 20);
    assert_eq!(site.held("watch.dead-letters"), 0);
    terminate(&running);
    assert!(running.wait().unwrap().success());
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_repeated_appends_nothing_again() {
    let site = Site::new("3");
    let mut gateway = site.start(&["--idempotency-window", "20"]);
    let batch = r#"[{"n":1},{"n":2},{"n":3},{"n":4}]"#;
    let first = gateway.post("", &with_key("a"), batch).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (200, ""));
    assert_eq!(site.held("readings"), 4);
    for round in 0..4 {
        if round == 2 {
            gateway.kill();
            gateway = site.start(&["--idempotency-window", "20"]);
        }
        let again = gateway.post("", &with_key("a"), batch).await;
        assert_eq!((again.status, again.header("idempotent-replayed")), (200, "true"));
        assert_eq!(again.body, first.body);
        // Without quotes it is the same key.
        let again = gateway.post("", &format!("{JSON}idempotency-key: a\r\n"), batch).await;
        assert_eq!(again.body, first.body);
        for (query, body) in [("", r#"{"n":1}"#), ("?partial=true", batch), ("?key=n", batch)] {
            let other = gateway.post(query, &with_key("a"), body).await;
            assert_eq!(other.status, 422, "{query}");
            assert!(other.json()["detail"].as_str().unwrap().contains("used for another request"));
        }
    }
    assert_eq!(site.held("readings"), 4);
    // A request that was refused has used no key.
    assert_eq!(gateway.post("", &with_key("b"), "[1]").await.status, 422);
    assert_eq!(gateway.post("", &with_key("b"), "{}").await.status, 200);
    // Until so many others have come that it is forgotten, before and after a start.
    let others = "{}\n".repeat(60);
    assert_eq!(gateway.post("", LINES, &others).await.status, 200);
    gateway.kill();
    let gateway = site.start(&["--idempotency-window", "20"]);
    let late = gateway.post("", &with_key("a"), batch).await;
    assert_eq!((late.status, late.header("idempotent-replayed")), (200, ""));
    assert_eq!(site.held("readings"), 4 + 1 + 60 + 4);
    gateway.stop();
}

/// What a client sends as its `number`th request: one event, or a batch, keyed or not.
fn request_of(client: usize, number: usize) -> (&'static str, String) {
    let event = |part: usize| format!(r#"{{"client":"c{client}","request":{number},"part":{part}}}"#);
    match number % 3 {
        0 => ("?key=client", event(0)),
        1 => ("?key=client", format!("[{}]", [0, 1, 2].map(event).join(","))),
        _ => ("", format!("[{}]", [0, 1, 2, 3, 4].map(event).join(","))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_repeat_until_they_are_answered_have_each_record_once_however_often_it_is_killed() {
    const CLIENTS: usize = 8;
    const KILLS: usize = 30;
    let site = Site::new("3");
    let mut gateway = site.start(&[]);
    let address = Arc::new(std::sync::Mutex::new(gateway.address));
    let (over, replayed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (address, over, replayed) = (Arc::clone(&address), Arc::clone(&over), Arc::clone(&replayed));
            tokio::spawn(async move {
                let mut number = 0;
                while !over.load(Relaxed) {
                    let (query, body) = request_of(client, number);
                    let headers = with_key(&format!("{client}/{number}"));
                    loop {
                        let at = *address.lock().unwrap();
                        let path = format!("{PATH}{query}");
                        match attempt(at, "POST", &path, &headers, Some(body.as_bytes())).await {
                            Ok(answer) if answer.status == 200 && answer.body.ends_with(b"}") => {
                                let again = answer.header("idempotent-replayed") == "true";
                                replayed.fetch_add(usize::from(again), Relaxed);
                                break;
                            }
                            Ok(answer) => assert!([200, 503].contains(&answer.status), "{answer:?}"),
                            Err(_) => tokio::task::yield_now().await,
                        }
                    }
                    number += 1;
                }
                number
            })
        })
        .collect();
    let mut seed = 7;
    for _ in 0..KILLS {
        let until = site.held("readings") + 1 + random(&mut seed, 300);
        let began = Instant::now();
        while site.held("readings") < until {
            assert!(began.elapsed() < PATIENCE, "no more records");
            tokio::task::yield_now().await;
        }
        gateway.kill();
        gateway = site.start(&[]);
        *address.lock().unwrap() = gateway.address;
    }
    over.store(true, Relaxed);
    let mut expected = HashSet::new();
    for (client, task) in clients.into_iter().enumerate() {
        let sent = tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
        assert!(sent >= KILLS / 2, "client {client} got no further than {sent}");
        for number in 0..sent {
            let parts = [1, 3, 5][number % 3];
            expected.extend((0..parts).map(|part| (client, number, part)));
        }
    }
    gateway.stop();
    let mut found = HashSet::new();
    for records in site.records("readings") {
        let mut last = [None; CLIENTS];
        for record in records {
            let value: Value = serde_json::from_slice(&record.value).unwrap();
            let client: usize = value["client"].as_str().unwrap()[1..].parse().unwrap();
            let place =
                (value["request"].as_u64().unwrap() as usize, value["part"].as_u64().unwrap() as usize);
            assert!(found.insert((client, place.0, place.1)), "{value} is there twice");
            assert!(last[client] < Some(place), "{value} comes too late");
            last[client] = Some(place);
        }
    }
    let missing = expected.difference(&found).count();
    assert_eq!((missing, found.len()), (0, expected.len()));
    let replayed = replayed.load(Relaxed);
    assert!(replayed > 0, "no kill fell between the append and the answer");
    println!("{} records, {KILLS} kills, {replayed} requests repeated after they were appended", found.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_too_much_is_told_when_to_try_again() {
    let site = Site::new("1");
    let gateway = site.start(&["--requests-per-second", "5", "--records-per-second", "1000"]);
    let mut refused = None;
    for _ in 0..200 {
        let answer = gateway.post("", JSON, "{}").await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.unwrap();
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"), "{refused:?}");
    gateway.stop();
    let gateway = site.start(&["--records-per-second", "10"]);
    let hundred = "{}\n".repeat(100);
    assert_eq!(gateway.post("", LINES, &hundred).await.status, 200);
    let refused = gateway.post("", LINES, "{}").await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "10"), "{refused:?}");
    gateway.stop();

    // Bodies that wait for their end hold memory, of which there is a bound.
    let gateway = site.start(&["--max-body-bytes", "15000000"]);
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: t\r\n{JSON}content-length: 15000000\r\n\r\n");
    let body = vec![b' '; 14_500_000];
    let mut waiting = Vec::new();
    let mut refused = None;
    for _ in 0..6 {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // What is refused is not read to its end.
        let _ = stream.write_all(&body).await;
        waiting.push(stream);
    }
    let began = Instant::now();
    while refused.is_none() {
        let answer = gateway.post("", LINES, " ".repeat(14_000_000) + "{}").await;
        assert!(began.elapsed() < PATIENCE);
        refused = (answer.status != 200).then_some(answer);
    }
    let refused = refused.unwrap();
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    drop(waiting);
    while gateway.post("", LINES, " ".repeat(14_000_000) + "{}").await.status != 200 {
        assert!(began.elapsed() < PATIENCE);
    }
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_has_one_writer() {
    let site = Site::new("2");
    let gateway = site.start(&[]);
    let said = |mut command: Command| {
        let output = command.stderr(Stdio::piped()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = said(site.command(&[]));
    let holder = format!("process {} holds it; a partition has one writer", gateway.child.id());
    assert!(code == Some(1) && error.contains(&holder) && error.contains("topic readings"), "{error}");
    gateway.stop();
    let job = site.file("job.toml", JOB);
    let (code, error) = said(site.command(&["--job", &job, "--ingest", "alarms"]));
    assert!(code == Some(1) && error.contains("job `watch` writes it"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_flight_when_it_is_stopped_is_answered() {
    let site = Site::new("1");
    let mut gateway = site.start(&[]);
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let head =
        format!("POST {PATH} HTTP/1.1\r\nhost: t\r\n{JSON}content-length: 7\r\nexpect: 100-continue\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    terminate(&gateway.child);
    // It takes no one else any more.
    let began = Instant::now();
    while TcpStream::connect(gateway.address).await.is_ok() {
        assert!(began.elapsed() < PATIENCE);
    }
    stream.write_all(br#"{"n":1}"#).await.unwrap();
    assert_eq!(answer(&mut stream).await.unwrap().status, 200);
    assert!(gateway.child.wait().unwrap().success());
    assert_eq!(site.held("readings"), 1);
}
