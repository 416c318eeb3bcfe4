//! What goes wrong on the way: throttling, outages, iterators that end, records that are gone.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use serde_json::{Value, json};

use super::{Site, expected, inputs_alone, said};
use crate::brokers::kinesis::{Fault, unbase64};
use crate::resume::kill;

/// The metrics that a job serves.
fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn throttling_outages_and_ended_iterators_cost_time_and_no_record() {
    let site = Site::new("troubled", 2);
    site.put(0, 300);
    site.kinesis.split("troubled", 0);
    site.put(300, 300);
    let calls = AtomicU64::new(0);
    site.kinesis.treat(move |action, _| match (action, calls.fetch_add(1, SeqCst) % 7) {
        ("GetRecords", 1) => Fault::Refuse(400, "ProvisionedThroughputExceededException"),
        ("GetRecords", 3) => Fault::Refuse(400, "ExpiredIteratorException"),
        ("ListShards", 2 | 5) => Fault::Refuse(400, "LimitExceededException"),
        (_, 4) => Fault::Refuse(500, "InternalFailure"),
        (_, 6) => Fault::Lose,
        _ => Fault::None,
    });
    let mut command = site.run_on("data", &["--metrics", "127.0.0.1:0"]);
    command.env("LEVADA_LOG", "info");
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let (mut seen, mut address) = (String::new(), None);
    while address.is_none() {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "{seen}");
        address =
            line.split("http://").nth(1).and_then(|rest| rest.split("/metrics").next()).map(str::to_string);
        seen += &line;
    }
    let address = address.unwrap();
    let rest = std::thread::spawn(move || {
        let mut rest = String::new();
        let _ = log.read_to_string(&mut rest);
        rest
    });
    site.until(&mut child, "data", "good", 540);
    let number = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    let name = "levada_source_throttled_total{job=\"shards\",source=\"readings\"}";
    while number(&scrape(&address), name).unwrap_or_default() < 1.0 {
        assert_eq!(child.try_wait().unwrap(), None);
    }
    let text = scrape(&address);
    let behind =
        "levada_source_behind_seconds{job=\"shards\",source=\"readings\",shard=\"shardId-000000000001\"}";
    assert!(number(&text, behind).is_some(), "{text}");
    assert!(kill(child));
    let log = rest.join().unwrap();
    assert!(
        log.contains("ProvisionedThroughputExceededException") && log.contains("trying again in"),
        "{log}"
    );
    assert_eq!(site.numbers("data"), expected(600));
}

/// Treats requests as if the records with numbers below `end` had been deleted.
fn trim(site: &Site, end: u64) {
    site.kinesis.treat(move |action, arguments| {
        if action != "GetRecords" {
            return Fault::None;
        }
        let kept = move |record: &Value| {
            let data: Value = serde_json::from_slice(&unbase64(record["Data"].as_str().unwrap())).unwrap();
            data["n"].as_u64().unwrap() >= end
        };
        let change = move |mut answer: Value| {
            if let Some(records) = answer["Records"].as_array_mut() {
                records.retain(kept);
            }
            answer
        };
        Fault::Change(arguments.clone(), Box::new(change))
    });
}

#[test]
fn records_that_are_gone_before_they_are_read_again_end_the_job_with_what_to_do() {
    let site = Site::new("trimmed", 2);
    site.put(0, 400);
    assert!(site.run_on("data", &["--until-drained"]).output().unwrap().status.success());
    assert_eq!(site.numbers("data"), expected(400));
    inputs_alone(&site, "data", "again");
    trim(&site, 100);
    let error = said(site.run_on("again", &["--until-drained"]), 1);
    assert!(error.contains("is not there any more") || error.contains("are not there any more"), "{error}");
    assert!(error.contains("begin afresh (--fresh)"), "{error}");
    // With nothing gone it is as before.
    site.kinesis.treat(|_, _| Fault::None);
    assert!(site.run_on("again", &["--until-drained"]).output().unwrap().status.success());
    assert_eq!(site.numbers("again"), expected(400));
}

#[test]
fn a_stop_that_was_longer_than_the_stream_keeps_records_is_noticed() {
    let site = Site::new("away", 1);
    site.put(0, 50);
    let run = || site.run_on("data", &[]).spawn().unwrap();
    let mut child = run();
    site.until(&mut child, "data", "good", 45);
    assert!(kill(child));
    // As if it had kept them for no time at all since: 0 hours.
    let short = |number: u64| {
        move |action: &str, arguments: &Value| match action {
            "DescribeStreamSummary" => {
                let change = move |mut answer: Value| {
                    answer["StreamDescriptionSummary"]["RetentionPeriodHours"] = json!(0);
                    answer
                };
                Fault::Change(arguments.clone(), Box::new(change))
            }
            "GetRecords" => {
                let change = move |mut answer: Value| {
                    if let Some(records) = answer["Records"].as_array_mut() {
                        let n = |record: &Value| {
                            let data = unbase64(record["Data"].as_str().unwrap());
                            serde_json::from_slice::<Value>(&data).unwrap()["n"].as_u64().unwrap()
                        };
                        records.retain(|record| n(record) >= number);
                    }
                    answer
                };
                Fault::Change(arguments.clone(), Box::new(change))
            }
            _ => Fault::None,
        }
    };
    // The last record that was read is still there, so nothing behind it is gone.
    site.kinesis.treat(short(0));
    site.put(50, 50);
    let mut child = run();
    site.until(&mut child, "data", "good", 90);
    // One that is told to stop has nothing to read again.
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    assert_eq!(site.numbers("data"), expected(100));
    site.kinesis.treat(short(110));
    site.put(100, 50);
    let error = said(site.run_on("data", &[]), 1);
    assert!(error.contains("the last record that was read is not there any more"), "{error}");
}

#[test]
fn what_is_configured_wrongly_ends_the_job_with_what_to_do() {
    let site = Site::new("configured", 1);
    site.put(0, 10);
    let run = || site.run("data", &["--until-drained"]);
    let mut command = run();
    command.env_remove("AWS_ACCESS_KEY_ID").env("HOME", "/nowhere");
    let error = said(command, 1);
    assert!(
        error.contains("failed to read stream configured of Kinesis: find credentials for AWS"),
        "{error}"
    );
    assert!(error.contains("AWS_ACCESS_KEY_ID") && error.contains("/nowhere/.aws/credentials"), "{error}");
    let text = std::fs::read_to_string(site.job()).unwrap();
    std::fs::write(site.job(), text.replace("region = \"us-east-1\"\n", "")).unwrap();
    let mut command = run();
    command.env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION").env("HOME", "/nowhere");
    let error = said(command, 1);
    assert!(error.contains("nothing says the region; say `region`, or set AWS_REGION"), "{error}");
    std::fs::write(site.job(), text.replace("stream = \"configured\"", "stream = \"nowhere\"")).unwrap();
    let error = said(run(), 1);
    assert!(error.contains("ResourceNotFoundException"), "{error}");
    std::fs::write(site.job(), &text).unwrap();
    site.kinesis.treat(|_, _| Fault::Refuse(400, "AccessDeniedException"));
    let error = said(run(), 1);
    assert!(error.contains("DescribeStreamSummary: AccessDeniedException: as the test wants it"), "{error}");

    // A stream that was made anew is another one.
    site.kinesis.treat(|_, _| Fault::None);
    assert!(site.run_on("kept", &["--until-drained"]).output().unwrap().status.success());
    site.kinesis.delete("configured");
    site.kinesis.create("configured", 1);
    let error = said(site.run_on("kept", &["--until-drained"]), 1);
    assert!(error.contains("it was made anew since"), "{error}");
}
