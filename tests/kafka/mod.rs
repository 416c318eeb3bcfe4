//! Jobs over a real Apache Kafka: the same records as over the embedded log, once, whatever is killed.

mod outages;
mod partitions;
mod resume;
mod site;

use std::process::Output;

use crate::brokers::kafka::shared;
use site::{OUTPUTS, Site, create, delete, same};

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
