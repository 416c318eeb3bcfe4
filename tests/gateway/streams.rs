//! Event streams: nothing is lost and nothing comes twice, wherever a client breaks off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use levada_connectors::log::{RecordIn, TopicConfig, WriterOptions};
use serde_json::json;

use super::client::{Event, PATIENCE, Stream, get};
use super::{Served, append};

/// A sequence of numbers that is the same each time (Lehmer's generator).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0 * 48271 % 0x7fff_ffff;
        self.0 % below
    }
}

/// Where a record lies, and that it says so itself.
fn place(event: &Event) -> (String, u64, u64) {
    let record = event.json();
    let (topic, partition) = (record["topic"].as_str().expect("a topic"), record["partition"].as_u64());
    let offset = record["offset"].as_u64().expect("an offset");
    assert_eq!(record["value"]["number"], json!(offset), "{event:?}");
    (topic.to_owned(), partition.expect("a partition"), offset)
}

const HISTORY: u64 = 4_000;
const LIVE: u64 = 4_000;
const ALL: [(&str, u32); 3] = [("calm", 1), ("busy", 2), ("busy", 2)];

/// Writers append to two topics of three partitions all the while; clients connect, take a few events or
/// many, break off anywhere, and come back with the id of the last one. The rings hold some 50 records.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn wherever_a_client_breaks_off_it_resumes_without_gap_or_duplicate() {
    let served = Served::start(|config| config.ring_bytes = 8 << 10).await;
    let (_, calm) = served.topic("calm", 1);
    let (_, busy) = served.topic("busy", 2);
    let write = move |from: u64, to: u64| {
        for number in from..to {
            let value =
                format!("{{\"number\":{number},\"padding\":\"{}\"}}", "x".repeat((number % 90) as usize));
            append(&busy, 0, &value);
            append(&busy, 1, &value);
            append(&calm, 0, &value);
        }
    };
    write(0, HISTORY);
    let begin = Arc::new(AtomicBool::new(false));
    let address = served.address;
    let clients: Vec<_> = (0..4_u64)
        .map(|client| {
            let begin = Arc::clone(&begin);
            tokio::spawn(async move {
                let path = "/v1/events?topics=busy,calm&from=beginning";
                let (mut numbers, mut id, mut next, mut connects) =
                    (Numbers(client + 1), None, [0_u64; 3], 0);
                while next.iter().sum::<u64>() < 3 * (HISTORY + LIVE) {
                    let mut stream = Stream::open(address, path, id.as_deref()).await;
                    let opened = stream.next().await.expect("what was opened").json();
                    assert_eq!(opened["resumed"].as_bool(), id.as_ref().map(|_| true), "{opened}");
                    connects += 1;
                    let most = if numbers.next(3) == 0 { 10 } else { 3_000 };
                    for _ in 0..=numbers.next(most) {
                        let event = stream.record().await.expect("no end");
                        let (topic, partition, offset) = place(&event);
                        let slot = if topic == "calm" { 2 } else { partition as usize };
                        assert_eq!(offset, next[slot], "client {client}, {topic} {partition}");
                        next[slot] += 1;
                        let expected = format!("busy:0={},1={};calm:0={}", next[0], next[1], next[2]);
                        assert_eq!(plain(&event.id), expected);
                        id = Some(event.id);
                        begin.store(true, Ordering::Release);
                        if next.iter().sum::<u64>() == 3 * (HISTORY + LIVE) {
                            break;
                        }
                    }
                }
                connects
            })
        })
        .collect();
    let writer = tokio::task::spawn_blocking(move || {
        // Where no client gets that far, the clients say why.
        let until = std::time::Instant::now() + PATIENCE;
        while !begin.load(Ordering::Acquire) && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        write(HISTORY, HISTORY + LIVE);
    });
    writer.await.expect("all written");
    for client in clients {
        let connects = tokio::time::timeout(PATIENCE, client).await.expect("in time").expect("no gap");
        assert!(connects > 3, "{connects}");
    }
    let metrics = String::from_utf8(get(address, "/metrics").await.body).expect("UTF-8");
    for (topic, partitions) in ALL {
        let sent = 4 * u64::from(partitions) * (HISTORY + LIVE);
        let figure = |name: &str| -> u64 {
            let line =
                metrics.lines().find_map(|line| line.strip_prefix(&format!("{name}{{topic=\"{topic}\"}} ")));
            line.and_then(|figure| figure.parse().ok()).unwrap_or_else(|| panic!("{name} {topic}: {metrics}"))
        };
        // What was on its way to a client that broke off was sent, but not received.
        assert!(figure("levada_gateway_events_sent_total") >= sent);
        assert!(figure("levada_gateway_ring_fallback_reads_total") > 0);
    }
    served.stop().await;
}

/// Live records come out of the ring: a client at the end never reads the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_at_the_end_is_served_from_the_ring() {
    let served = Served::start(|_| {}).await;
    let (_, writers) = served.topic("decisions", 1);
    append(&writers, 0, "{\"number\":0}");
    let mut stream = Stream::open(served.address, "/v1/topics/decisions/events", None).await;
    let opened = stream.next().await.expect("what was opened");
    assert_eq!((opened.name.as_str(), plain(&opened.id).as_str()), ("control", "decisions:0=1"));
    for number in 1..200 {
        append(&writers, 0, &format!("{{\"number\":{number}}}"));
        assert_eq!(place(&stream.record().await.expect("a record")).2, number);
    }
    let metrics = String::from_utf8(get(served.address, "/metrics").await.body).expect("UTF-8");
    assert!(!metrics.contains("ring_fallback_reads_total{"), "{metrics}");
    assert!(metrics.contains("levada_gateway_streams 1\n"), "{metrics}");
    assert!(metrics.contains("levada_gateway_lag_records{topic=\"decisions\"} 0\n"), "{metrics}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_begins_where_it_is_told() {
    let served = Served::start(|_| {}).await;
    let (_, writers) = served.topic("decisions", 1);
    for number in 0..10 {
        append(&writers, 0, &format!("{{\"number\":{number}}}"));
    }
    for (query, first) in [
        ("from=beginning", 0),
        ("last=3", 7),
        ("last=99", 0),
        ("from=offset:6", 6),
        ("from=time:1970-01-01T00:00:00Z", 0),
        ("from=time:2013-01-01T11:17:00%2B01:00", 0),
        ("last=0&cursor=decisions:0%3D4", 4),
        ("cursor=decisions:", 0),
    ] {
        let path = format!("/v1/topics/decisions/events?{query}");
        let mut stream = Stream::open(served.address, &path, None).await;
        assert_eq!(place(&stream.record().await.expect("a record")).2, first, "{query}");
    }
    // The header is newer than the address.
    let path = "/v1/topics/decisions/events?cursor=decisions:0%3D4";
    let mut stream = Stream::open(served.address, path, Some("decisions:0=8")).await;
    assert_eq!(place(&stream.record().await.expect("a record")).2, 8);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_is_not_held_is_told_so_and_continues_with_what_is() {
    let served = Served::start(|_| {}).await;
    let config = TopicConfig { segment_bytes: 4096, retain_bytes: Some(8192), ..TopicConfig::default() };
    let topic = served.log.create_topic("decisions", config).expect("a topic");
    let writer = topic.writer(0, WriterOptions::default()).expect("a writer");
    for number in 0..500 {
        let value = format!("{{\"number\":{number},\"padding\":\"{}\"}}", "x".repeat(100));
        writer.append(&[RecordIn { value: value.as_bytes(), ..RecordIn::default() }]).expect("an append");
    }
    let first = topic.bounds(0).expect("bounds").first;
    assert!(first > 0, "retention has deleted something");
    for (wanted, reason) in [(first - 1, "deleted by retention"), (501, "beyond the end")] {
        let id = format!("decisions:0={wanted}");
        let mut stream = Stream::open(served.address, "/v1/topics/decisions/events", Some(&id)).await;
        let opened = stream.next().await.expect("what was opened").json();
        assert_eq!(opened["resumed"], json!(false));
        let jump = &opened["jumps"][0];
        assert_eq!((&jump["wanted"], &jump["continues_at"]), (&json!(wanted), &json!(first)));
        assert!(jump["reason"].as_str().is_some_and(|text| text.contains(reason)), "{jump}");
        assert_eq!(place(&stream.record().await.expect("a record")).2, first);
    }
    let metrics = String::from_utf8(get(served.address, "/metrics").await.body).expect("UTF-8");
    assert!(metrics.contains("levada_gateway_not_resumed_total 2\n"), "{metrics}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_made_anew_is_not_taken_for_the_one_before() {
    let served = Served::start(|_| {}).await;
    let path = "/v1/topics/decisions/events?from=beginning";
    let fill = |records: u64| {
        let (_, writers) = served.topic("decisions", 1);
        (0..records).for_each(|number| append(&writers, 0, &format!("{{\"number\":{number}}}")));
    };
    fill(5);
    let mut stream = Stream::open(served.address, path, None).await;
    let mut been = String::new();
    for _ in 0..5 {
        been = stream.record().await.expect("a record").id;
    }
    drop(stream);
    served.log.delete_topic("decisions").expect("deleted");
    fill(7);
    let mut stream = Stream::open(served.address, path, Some(&been)).await;
    let opened = stream.next().await.expect("what was opened").json();
    assert_eq!(opened["resumed"], json!(false));
    assert!(opened["jumps"][0]["reason"].as_str().is_some_and(|why| why.contains("made anew")), "{opened}");
    for number in 0..7 {
        assert_eq!(place(&stream.record().await.expect("a record")).2, number);
    }
    served.stop().await;
}

/// A cursor without when its topics were created.
fn plain(id: &str) -> String {
    let parts = id.split(';').map(|part| match (part.split_once('@'), part.split_once(':')) {
        (Some((topic, _)), Some((_, places))) => format!("{topic}:{places}"),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join(";")
}

/// A gateway may be there before its topics, and a client before both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_comes_later_is_waited_for_and_seen_whole() {
    let served = Served::start(|_| {}).await;
    let path = "/v1/events?topics=decisions,incidents&from=end&wait=true";
    let mut stream = Stream::open(served.address, path, None).await;
    let opened = stream.next().await.expect("what was opened");
    assert_eq!(opened.id, "decisions:;incidents:");
    assert_eq!(opened.json()["waiting"], json!(["decisions", "incidents"]));
    let (_, writers) = served.topic("incidents", 1);
    append(&writers, 0, "{\"number\":0}");
    let event = stream.record().await.expect("a record");
    assert_eq!(
        (place(&event).0.as_str(), plain(&event.id).as_str()),
        ("incidents", "decisions:;incidents:0=1")
    );
    drop(stream);
    // And while it is away, the other one.
    let (_, writers) = served.topic("decisions", 1);
    append(&writers, 0, "{\"number\":0}");
    let mut stream = Stream::open(served.address, path, Some(&event.id)).await;
    let event = stream.record().await.expect("a record");
    assert_eq!(
        (place(&event).0.as_str(), plain(&event.id).as_str()),
        ("decisions", "decisions:0=1;incidents:0=1")
    );
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_stream_shows_signs_of_life_and_ends_with_the_gateway() {
    let served = Served::start(|config| config.heartbeat = std::time::Duration::from_millis(5)).await;
    let (_, _writers) = served.topic("decisions", 1);
    let mut stream = Stream::open(served.address, "/v1/topics/decisions/events", None).await;
    stream.next().await.expect("what was opened");
    for _ in 0..3 {
        assert_eq!(stream.next().await, Some(Event::default()), "a comment is an event without anything");
    }
    served.stop().await;
    while let Some(event) = stream.next().await {
        assert_eq!(event, Event::default());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_when_their_topic_is_deleted() {
    // A stream that only noticed with its sign of life would never end here.
    let served = Served::start(|config| config.heartbeat = PATIENCE * 2).await;
    let (_, writers) = served.topic("decisions", 1);
    append(&writers, 0, "{\"number\":0}");
    let mut stream = Stream::open(served.address, "/v1/topics/decisions/events?from=beginning", None).await;
    let event = stream.record().await.expect("a record");
    drop(writers);
    served.log.delete_topic("decisions").expect("deleted");
    assert_eq!(stream.record().await, None);
    let (_, writers) = served.topic("decisions", 1);
    drop(writers);
    let path = "/v1/topics/decisions/events";
    let mut stream = Stream::open(served.address, path, Some(&event.id)).await;
    assert_eq!(stream.next().await.expect("what was opened").json()["resumed"], json!(false));
    served.stop().await;
}
