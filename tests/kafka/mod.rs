//! Jobs over a real Apache Kafka: the same records as over the embedded log, once, whatever is killed.

mod formats;
mod journal;
mod outages;
mod partitions;
mod resume;
pub mod site;

use std::process::Output;

use serde_json::Value;

use crate::brokers::kafka::shared;
use crate::same_bytes::{levada, succeed};
use site::{OUTPUTS, Site, create, delete, same, topics};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_job_writes_to_kafka_what_it_writes_to_the_embedded_log() {
    let site = Site::new("same", shared(), 60_000);
    let expected = site.expected(&["--until-drained", "--workers", "2"]);
    assert!(expected.values().map(Vec::len).sum::<usize>() > 50_000);
    site.copy_inputs();
    for (kind, workers) in [("kafka", "1"), ("kafka", "2"), ("kafka", "4"), ("loose", "2")] {
        site.clear();
        let output = site.run(kind, &["--until-drained", "--workers", workers]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        same(&expected, &site.written(), &format!("{kind} with {workers} workers"));
    }

    let output = site.run("kafka", &["--until-drained"]).output().unwrap();
    assert!(!output.status.success());
    for part in [
        "there is output of before: kafka topic same.good, kafka topic same.late, kafka topic same.seconds",
        "--fresh    deletes it, and runs",
        "--append   writes behind it",
        "--delete --topic same.good same.late same.seconds",
    ] {
        assert!(said(&output).contains(part), "{part}: {}", said(&output));
    }
    let output = site.run("kafka", &["--until-drained", "--fresh"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("deleted kafka topic same.good"), "{}", said(&output));
    same(&expected, &site.written(), "afresh");
}

#[test]
fn what_another_try_does_not_mend_ends_the_job() {
    let site = Site::new("wrong", shared(), 10);
    let run = |options: &[&str]| {
        let output = site.run("kafka", options).output().unwrap();
        assert!(!output.status.success());
        said(&output)
    };
    let told = run(&["--until-drained"]);
    assert!(told.contains("failed to read kafka topic wrong.readings: there is no such topic at "), "{told}");
    site.copy_inputs();
    let told = run(&["--set", "sink.good.kafka.properties={ \"isolation.level\" = \"read_uncommitted\" }"]);
    assert!(told.contains("with the property isolation.level: levada sets it itself"), "{told}");
    let told = run(&["--set", "source.readings.kafka.properties={ \"no.such\" = 1 }"]);
    assert!(told.contains("No such configuration property: \"no.such\""), "{told}");
    create(shared(), &site.topic("good"), 5);
    let told = run(&["--until-drained"]);
    assert!(told.contains("failed to write kafka topic wrong.good with 2 partitions: it has 5"), "{told}");
    for output in OUTPUTS {
        delete(shared(), &site.topic(output));
    }
}

#[test]
fn what_a_job_costs_is_measured_on_topics_that_are_gone_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let bench = |arguments: &[&str]| -> Value {
        let command = [&["bench", "kafka"][..], arguments, &["--brokers", shared()]].concat();
        serde_json::from_str(&succeed(levada(&command, folder.path()))).unwrap()
    };
    let number = |value: &Value| value.as_f64().unwrap();
    let cost = bench(&["cost", "--events", "20000", "--keys", "50", "--repeat", "1"]);
    assert!(number(&cost["windows"]) >= 50.0 && number(&cost["cpu_ratio"]) > 0.0, "{cost}");
    let memory = bench(&["memory", "--events", "20000", "--keys", "50"]);
    assert!(memory["within_bound"] == true && number(&memory["peak_memory_mib"]) > 1.0, "{memory}");
    let latency = bench(&["latency", "--rate", "500", "--seconds", "1", "--checkpoint", "1s", "--journal"]);
    // Half of a second's records are kept by the job.
    for (way, least) in [
        ("exactly_once", 200.0),
        ("at_least_once", 200.0),
        ("exactly_once_kafka_journal", 200.0),
        ("at_least_once_kafka_journal", 200.0),
        ("kafka_alone", 400.0),
    ] {
        assert!(number(&latency[way]["rows"]) >= least && number(&latency[way]["p99_ms"]) > 0.0, "{latency}");
    }
    assert!(!topics(shared()).iter().any(|topic| topic.starts_with("levada-bench-")));
}
