//! Streams read by subscriptions: what comes is the same, whatever becomes of them.

use std::io::Read;
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::streams::{resharded_and_killed, with_a_history};
use super::{Site, expected, said};
use crate::brokers::fan_out::OnEvent;
use crate::brokers::kinesis::Fault;
use crate::resume::kill;
use crate::same_bytes::same;

const FAN_OUT: &str = "fan_out = { consumer = \"levada\" }";

/// Kills a live job once it has written so many good readings; what it has said.
fn said_until(site: &Site, mut child: Child, good: u64) -> String {
    let mut log = child.stderr.take().unwrap();
    let rest = std::thread::spawn(move || {
        let mut rest = String::new();
        let _ = log.read_to_string(&mut rest);
        rest
    });
    site.until(&mut child, "data", "good", good);
    assert_eq!(child.try_wait().unwrap(), None);
    assert!(kill(child));
    rest.join().unwrap()
}

#[test]
fn every_record_comes_once_while_shards_are_split_and_merged_and_the_job_is_killed() {
    resharded_and_killed("fanned", FAN_OUT, 6);
}

#[test]
fn a_history_gives_the_same_bytes_as_by_polling() {
    let site = with_a_history("fan-history");
    let run = |data: &str| {
        let output = site.run(data, &["--until-drained", "--workers", "2"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        site.written(data)
    };
    let polled = run("polled");
    site.write(FAN_OUT);
    same(&polled, &run("subscribed"), "subscribed");
}

/// What subscriptions were asked for: shard, and where to begin.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// Notes them, and refuses those that `refused` says.
fn notes(site: &Site, refused: impl Fn(u64) -> Fault + Send + Sync + 'static) -> Asked {
    let asked = Asked::default();
    let (noted, count) = (Arc::clone(&asked), AtomicU64::new(0));
    site.kinesis.treat(move |action, arguments| {
        if action != "SubscribeToShard" {
            return Fault::None;
        }
        let shard = arguments["ShardId"].as_str().unwrap().to_string();
        noted.lock().unwrap().push((shard, arguments["StartingPosition"].clone()));
        refused(count.fetch_add(1, SeqCst))
    });
    asked
}

#[test]
fn a_subscription_that_is_over_is_renewed_without_loss_or_doubling() {
    let site = Site::new("fan-renewed", 1);
    site.write(FAN_OUT);
    let asked = notes(&site, |_| Fault::None);
    // Each is over after its first event.
    site.kinesis.treat_events(|_| OnEvent::Last);
    site.put(0, 100);
    let mut child = site.run_on("data", &[]).spawn().unwrap();
    for (put, good) in [(100, 180), (200, 270)] {
        site.until(&mut child, "data", "good", good - 90);
        site.put(put, 100);
    }
    let log = said_until(&site, child, 270);
    assert_eq!(site.numbers("data"), expected(300));
    assert!(!log.contains("is damaged"), "{log}");
    let kinds: Vec<Value> = asked.lock().unwrap().iter().map(|(_, begin)| begin["Type"].clone()).collect();
    assert_eq!(kinds[0], "TRIM_HORIZON");
    assert!(kinds.len() >= 3 && kinds[1..].iter().all(|kind| kind == "AFTER_SEQUENCE_NUMBER"), "{kinds:?}");
}

#[test]
fn events_that_are_damaged_or_lost_end_a_subscription_and_are_read_again() {
    let site = Site::new("fan-damaged", 2);
    site.write(FAN_OUT);
    site.kinesis.treat_events(|number| match number % 5 {
        1 => OnEvent::Damage,
        3 => OnEvent::Lose,
        _ => OnEvent::Pass,
    });
    site.put(0, 200);
    let mut child = site.run_on("data", &[]).spawn().unwrap();
    site.until(&mut child, "data", "good", 180);
    site.put(200, 200);
    let log = said_until(&site, child, 360);
    assert_eq!(site.numbers("data"), expected(400));
    assert!(log.contains("is damaged: its CRC-32 is") && log.contains("trying again in"), "{log}");
}

#[test]
fn throttling_is_waited_for_visibly() {
    let site = Site::new("fan-throttled", 1);
    site.write(FAN_OUT);
    notes(&site, |number| match number {
        0 | 1 => Fault::Refuse(400, "LimitExceededException"),
        2 => Fault::Refuse(400, "ResourceInUseException"),
        3 => Fault::Lose,
        _ => Fault::None,
    });
    site.put(0, 100);
    let log = said_until(&site, site.run_on("data", &[]).spawn().unwrap(), 90);
    assert_eq!(site.numbers("data"), expected(100));
    for why in [
        "SubscribeToShard: LimitExceededException",
        "SubscribeToShard: ResourceInUseException",
        "(failure 4)",
    ] {
        assert!(log.contains(why), "{why}: {log}");
    }
}

#[test]
fn a_shard_of_several_lanes_is_polled_and_a_consumer_that_may_not_be_one_ends_the_job() {
    let site = Site::new("fan-lanes", 2);
    site.put(0, 300);
    // The lanes in the middle have a part of a shard each, which nobody has alone.
    site.write(&format!("lanes = 3\n{FAN_OUT}"));
    let asked = notes(&site, |_| Fault::None);
    assert!(site.run("lanes", &["--until-drained"]).output().unwrap().status.success());
    assert_eq!(site.numbers("lanes"), expected(300));
    assert_eq!(*asked.lock().unwrap(), []);
    let arn = site.kinesis.ask("DescribeStreamSummary", json!({ "StreamName": "fan-lanes" }));
    let consumers = json!({ "StreamARN": arn["StreamDescriptionSummary"]["StreamARN"] });
    let consumers = site.kinesis.ask("ListStreamConsumers", consumers);
    assert_eq!(consumers["Consumers"][0]["ConsumerName"], "levada");

    site.write(&FAN_OUT.replace("levada", "other"));
    site.kinesis.treat(|action, _| match action {
        "RegisterStreamConsumer" => Fault::Refuse(400, "AccessDeniedException"),
        _ => Fault::None,
    });
    let error = said(site.run("other", &["--until-drained"]), 1);
    assert!(error.contains("as consumer other: RegisterStreamConsumer: AccessDeniedException"), "{error}");
}
