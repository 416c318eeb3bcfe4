//! `levada suggest`: what it suggests of a made-up platform is true by the labels, the same whatever the workers, and right
//! in the job file; a shuffled stream suggests nothing.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::same_bytes::{levada, succeed};

const JOB: &str = "config/jobs/platform.toml";

/// What the command prints about the platform's categories at neighbours.
fn suggest(data: &Path, more: &[&str]) -> String {
    let asked = ["suggest", JOB, "--step", "correlated", "--by", "category", "--hops", "1"];
    succeed(levada(&[&asked[..], more].concat(), data))
}

fn records(data: &Path, topic: &str) -> Vec<Value> {
    let lines = succeed(levada(&["topics", "export", topic], data));
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_is_suggested_of_the_platform_is_true_and_shuffled_it_suggests_nothing() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let made = ["generate", "platform", "--seed", "7", "--difficulty", "easy", "--events", "40000"];
    succeed(levada(&made, &data));
    let told = suggest(&data, &["--format", "json", "--workers", "1"]);
    for workers in ["1", "2", "4"] {
        assert_eq!(suggest(&data, &["--format", "json", "--workers", workers]), told, "{workers}");
    }
    let told: Value = serde_json::from_str(&told).unwrap();
    let found = told["suggestions"].as_array().unwrap();
    assert!((2..=6).contains(&found.len()), "{told:#}");
    // In one incident and at two services, the effect comes after the cause more often than before it.
    let incidents: BTreeMap<String, Value> = records(&data, "platform.labels")
        .into_iter()
        .map(|label| (label["id"].as_str().unwrap().to_string(), label["incident"].clone()))
        .collect();
    let mut by_incident: BTreeMap<&str, Vec<(i64, String, String)>> = BTreeMap::new();
    let events = records(&data, "platform.events");
    for event in &events {
        let text = |field: &str| event[field].as_str().unwrap();
        if let Some(incident) = incidents[text("id")].as_str() {
            let event =
                (event["at"].as_i64().unwrap(), text("category").to_string(), text("service").to_string());
            by_incident.entry(incident).or_default().push(event);
        }
    }
    let follows = |first: &str, then: &str| -> usize {
        let pairs = |events: &Vec<(i64, String, String)>| {
            let after = |a: &(i64, String, String)| {
                let near = |b: &&(i64, String, String)| {
                    b.1 == then && b.2 != a.2 && b.0 > a.0 && b.0 - a.0 <= 240_000
                };
                events.iter().filter(near).count()
            };
            events.iter().filter(|a| a.1 == first).map(after).sum::<usize>()
        };
        by_incident.values().map(pairs).sum()
    };
    for pair in found {
        let of = |side: &str| pair[side]["value"].as_str().unwrap();
        let (with, against) = (follows(of("cause"), of("effect")), follows(of("effect"), of("cause")));
        assert!(with as f64 > 1.1 * against as f64, "{pair:#}: {with} and {against}");
    }
    // The links are such as the step takes.
    let links = suggest(&data, &["--format", "toml"]);
    let step = "[source.events.log]\ntopic = \"platform.events\"\nevent_time = { column = \"at\" }\n\
                schema = { at = \"timestamp\", category = \"string\", service = \"string\" }\n\
                [source.topology.log]\ntopic = \"platform.topology\"\nevent_time = { column = \"at\" }\n\
                schema = { at = \"timestamp\", service = \"string\", depends_on = \"string\" }\n\
                [step.correlated.correlate]\nfrom = \"events\"\nclose_after = \"5m\"\n\
                topology = { from = \"topology\", a = \"service\", b = \"depends_on\", on = \"service\" }\n";
    let job = folder.path().join("job.toml");
    std::fs::write(&job, format!("[job]\nname = \"suggested\"\n{step}{links}")).unwrap();
    succeed(levada(&["check", job.to_str().unwrap()], &data));

    // The same times and services, but every category elsewhere: by a step through the stream that meets each once.
    let count = events.len();
    let shuffled: Vec<String> = (0..count)
        .map(|place| {
            let mut event = events[place].clone();
            event["category"] = events[(place * 7919 + 13) % count]["category"].clone();
            format!("{event}\n")
        })
        .collect();
    let file = folder.path().join("shuffled.jsonl");
    std::fs::write(&file, shuffled.concat()).unwrap();
    succeed(levada(&["topics", "produce", "shuffled", "--file", file.to_str().unwrap()], &data));
    let other = ["--set", "source.events.log.topic=shuffled"];
    let nothing = suggest(&data, &other);
    assert!(nothing.contains("40,000 events, 56 pairs"), "{nothing}");
    assert!(nothing.ends_with("no pair follows more often than chance would have it\n"), "{nothing}");
}

#[test]
fn what_is_asked_for_and_is_not_there_is_said_by_its_option() {
    let folder = TempDir::new().unwrap();
    let refusal = |more: &[&str]| {
        let output = levada(&[&["suggest", JOB], more].concat(), folder.path()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(
        refusal(&["--by", "categry", "--on", "servic"]),
        "error: failed to suggest links: --by: there is no column `categry`; did you mean `category`?; --on: there is no column \
         `servic`; did you mean `service`?\n"
    );
    assert_eq!(
        refusal(&["--by", "category", "--step", "corelated"]),
        "error: failed to suggest links: platform has no correlate step `corelated`; did you mean `correlated`?\n"
    );
    assert!(
        refusal(&["--by", "at"])
            .contains("--by: the values of `at` are neither text, whole numbers nor true or false")
    );
}
