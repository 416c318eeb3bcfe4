//! What is no stream: pages of records, the latest of every key, jobs, health, metrics, and problems.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use super::client::{Stream, get, request};
use super::{Served, append};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_get_a_problem_that_says_what_is_wrong() {
    let served = Served::start(|config| config.max_streams = 1).await;
    let (_, writers) = served.topic("decisions", 1);
    append(&writers, 0, "{}");
    let long = format!("/v1/events?topics={}", vec!["a"; 17].join(","));
    let cases = [
        ("GET", "/nothing", 404, "nothing at this address"),
        ("GET", "/v1/topics/none", 404, "no topic none"),
        ("GET", "/v1/topics/none/events", 404, "no topic none"),
        ("GET", "/v1/topics/none/records", 404, "no topic none"),
        ("GET", "/v1/topics/none/latest?key=a", 404, "no topic none"),
        ("GET", "/v1/topics/%2e%2e/records", 400, "no topic name"),
        ("GET", "/v1/topics/..%2f..%2fetc/events", 400, "no topic name"),
        ("GET", "/v1/topics/.hidden/events?wait=true", 400, "begins with a dot"),
        ("GET", "/v1/topics/decisions/records?partition=7", 404, "no partition 7"),
        ("GET", "/v1/topics/decisions/records?partition=x", 400, "parameter partition"),
        ("GET", "/v1/topics/decisions/records?limit=1001", 400, "from 0 to 1000"),
        ("GET", "/v1/topics/decisions/records?limit=-1", 400, "parameter limit"),
        ("GET", "/v1/topics/decisions/records?from=99", 416, "does not hold offset 99"),
        ("GET", "/v1/topics/decisions/records?form=1", 400, "no parameter \"form\""),
        ("GET", "/v1/topics/decisions/records?limit=1&limit=2", 400, "twice"),
        ("GET", "/v1/topics/decisions/latest", 400, "name of a field"),
        ("GET", "/v1/topics/decisions/latest?key=", 400, "parameter key"),
        ("GET", "/v1/topics/decisions/events?from=yesterday", 400, "offset:N or time:"),
        ("GET", "/v1/topics/decisions/events?from=10", 400, "it is last=N"),
        ("GET", "/v1/topics/decisions/events?from=offset:-1", 400, "where each partition"),
        ("GET", "/v1/topics/decisions/events?from=time:yesterday", 400, "where each partition"),
        ("GET", "/v1/topics/decisions/events?last=ten", 400, "how many of the newest"),
        ("GET", "/v1/topics/decisions/events?last=1&from=end", 400, "not both"),
        ("GET", "/v1/topics/decisions/events?cursor=1", 400, "failed to read the cursor"),
        ("GET", "/v1/topics/decisions/events?cursor=other:0=1", 400, "not asked for"),
        ("GET", "/v1/topics/decisions/events?wait=maybe", 400, "true or false"),
        ("GET", "/v1/events", 400, "names of topics"),
        ("GET", "/v1/events?topics=decisions,decisions", 400, "twice"),
        ("GET", "/v1/events?topics=decisions&last=1,2", 400, "one for each topic"),
        ("GET", &long, 400, "at most 16"),
        ("GET", "/v1/topics?x=%ff%00&=&&", 400, "no parameters here"),
        ("GET", "/v1/jobs/none/graph", 404, "no job"),
        ("POST", "/v1/topics", 405, "only GET"),
        ("POST", "/v1/topics/decisions/events", 403, "start the gateway with --ingest decisions"),
        ("DELETE", "/v1/topics/decisions/events", 405, "only GET"),
        ("PUT", "/", 405, "only GET"),
    ];
    for (method, path, status, detail) in cases {
        let answer = request(served.address, method, path, "").await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (status, "application/problem+json"),
            "{path}"
        );
        let problem = answer.json();
        assert_eq!((&problem["status"], &problem["type"]), (&json!(status), &json!("about:blank")), "{path}");
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains(detail)), "{path}: {problem}");
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
    let out_of_range = get(served.address, "/v1/topics/decisions/records?from=99").await.json();
    assert_eq!((&out_of_range["first"], &out_of_range["next"]), (&json!(0), &json!(1)));
    let path = "/v1/topics/decisions/events";
    let answer =
        request(served.address, "GET", path, "accept: application/json, text/event-stream;q=0\r\n").await;
    assert_eq!(answer.status, 406);
    let answer = request(served.address, "GET", path, "last-event-id: \u{7f}\r\n").await;
    assert_eq!(answer.status, 400);
    let answer = request(served.address, "GET", path, "last-event-id: é\r\n").await;
    assert_eq!(answer.status, 400);
    assert!(answer.json()["detail"].as_str().is_some_and(|text| text.contains("last-event-id")));
    // As many streams as there may be.
    let _stream = Stream::open(served.address, path, None).await;
    let answer = get(served.address, path).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_and_their_records_are_read_by_offset() {
    let served = Served::start(|_| {}).await;
    let (_, writers) = served.topic("decisions", 2);
    assert_eq!(get(served.address, "/v1/topics/decisions/records").await.json()["records"], json!([]));
    for number in 0..5 {
        append(&writers, 1, &format!("{{\"number\":{number}}}"));
    }
    let list = get(served.address, "/v1/topics").await;
    assert_eq!((list.status, list.header("cache-control")), (200, "no-store"));
    let list = list.json();
    assert_eq!(list["topics"][0]["name"], json!("decisions"));
    assert_eq!(list["topics"][0]["partitions"][1]["next"], json!(5));
    assert_eq!(get(served.address, "/v1/topics/decisions").await.json(), list["topics"][0]);
    let page = get(served.address, "/v1/topics/decisions/records?partition=1&from=2&limit=2").await.json();
    assert_eq!((&page["first"], &page["next"], &page["next_from"]), (&json!(0), &json!(5), &json!(4)));
    assert_eq!(
        page["records"][0],
        json!({"topic": "decisions", "partition": 1, "offset": 2, "time": "2013-01-01T10:17:00Z", "value": {"number": 2}})
    );
    assert_eq!(page["records"].as_array().map(Vec::len), Some(2));
    let end = get(served.address, "/v1/topics/decisions/records?partition=1&from=offset:5").await.json();
    assert_eq!(end["records"], json!([]));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_latest_record_of_each_key_follows_the_topic() {
    let served = Served::start(|_| {}).await;
    let (_, writers) = served.topic("delays", 1);
    for (origin, delay) in [("\"EWR\"", 1), ("\"JFK\"", 2), ("\"EWR\"", 3), ("7", 4), ("null", 5), ("[]", 6)]
    {
        append(&writers, 0, &format!("{{\"origin\":{origin},\"delay\":{delay}}}"));
    }
    append(&writers, 0, "no JSON");
    let path = "/v1/topics/delays/latest?key=origin";
    let latest = get(served.address, path).await.json();
    assert_eq!(
        (&latest["keys"], &latest["without_key"], &latest["next"]),
        (&json!(3), &json!(3), &json!([7]))
    );
    assert_eq!(latest["latest"]["EWR"]["value"]["delay"], json!(3));
    assert_eq!(latest["latest"]["EWR"]["offset"], json!(2));
    assert_eq!(latest["latest"]["7"]["value"]["delay"], json!(4));
    let none = get(served.address, "/v1/topics/delays/latest?key=orign").await;
    assert_eq!(none.status, 400);
    let detail = none.json()["detail"].to_string();
    assert!(detail.contains("any of the 7 records") && detail.contains("orign"), "{detail}");
    append(&writers, 0, "{\"origin\":\"JFK\",\"delay\":8}");
    assert_eq!(get(served.address, path).await.json()["latest"]["JFK"]["value"]["delay"], json!(8));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_latest_of_more_keys_than_fit_says_how_many_are_missing() {
    let served = Served::start(|_| {}).await;
    let (_, writers) = served.topic("many", 1);
    let values: Vec<String> = (0..10_500).map(|number| format!("{{\"key\":{number}}}")).collect();
    let records: Vec<_> = values
        .iter()
        .map(|value| levada_connectors::log::RecordIn { value: value.as_bytes(), ..Default::default() })
        .collect();
    writers.append(&records).expect("an append");
    let latest = get(served.address, "/v1/topics/many/latest?key=key").await.json();
    assert_eq!((&latest["keys"], &latest["refused"]), (&json!(10_000), &json!(500)));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_listed_and_drawn() {
    let served = Served::start(|_| {}).await;
    let jobs = get(served.address, "/v1/jobs").await.json();
    let graph = "/v1/jobs/flights/graph";
    assert_eq!(jobs, json!({"jobs": [{"name": "flights", "topics": ["decisions"], "graph": graph}]}));
    let drawn = get(served.address, graph).await;
    assert_eq!((drawn.status, drawn.header("content-type")), (200, "image/svg+xml"));
    assert!(drawn.body.starts_with(b"<svg"));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_alive_always_and_ready_as_long_as_the_topics_can_be_read() {
    let served = Served::start(|_| {}).await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(served.address, path).await.status, 200, "{path}");
        let head = request(served.address, "HEAD", path, "").await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
    }
    std::fs::remove_dir_all(served.log.root()).expect("removed");
    assert_eq!(get(served.address, "/healthz").await.status, 200);
    assert_eq!(get(served.address, "/readyz").await.status, 503);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_accepts_the_metrics() {
    let served = Served::start(|_| {}).await;
    let (_, writers) = served.topic("decisions", 1);
    append(&writers, 0, "{}");
    let mut stream = Stream::open(served.address, "/v1/topics/decisions/events?from=beginning", None).await;
    stream.record().await.expect("a record");
    let answer = get(served.address, "/metrics").await;
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = String::from_utf8(answer.body).expect("UTF-8");
    assert!(text.contains("levada_gateway_events_sent_total{topic=\"decisions\"} 1\n"), "{text}");
    promtool_accepts(&text);
    served.stop().await;
}

/// Checks metrics by Prometheus' own tool.
pub(super) fn promtool_accepts(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed for this test: `make test` installs it (Debian: prometheus)");
    promtool.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
    let checked = promtool.wait_with_output().expect("an end");
    let said = [checked.stdout, checked.stderr].concat();
    assert!(checked.status.success() && said.is_empty(), "{}\n{text}", String::from_utf8_lossy(&said));
}
