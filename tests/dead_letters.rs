//! Twenty kinds of bad record among good ones: each ends in the dead-letter topic with its reason and
//! its bytes, and the good ones do not notice.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tempfile::TempDir;

const JOB: &str = r#"
[job]
name = "sorted"

[source.readings.log]
topic = "readings"
event_time = { column = "at" }
schema = { sensor = "string", value = "float", count = "int", ok = "bool", at = "timestamp" }

[sink.good.log]
from = "readings"
topic = "good"
"#;

const GOOD: &str = r#"{"sensor":"s","value":1.5,"count":N,"ok":true,"at":"2024-01-01T00:00:00Z"}"#;

/// Each bad record, and what its reason must say.
const BAD: [(&[u8], &str); 20] = [
    (b"hello", "JSON"),
    (b"[1, 2]", "object"),
    (b"null", "object"),
    (br#"{"sensor":"s","value":1.5,"count":1,"ok":true,"at":"2024-01-01T00:00:00Z""#, "breaks off"),
    (br#"{"sensor":"s","value":1.5,"count":1,"ok":true}"#, "`at`"),
    (br#"{"sensor":null,"value":1.5,"count":1,"ok":true,"at":"2024-01-01T00:00:00Z"}"#, "`sensor`"),
    (br#"{"sensor":7,"value":1.5,"count":1,"ok":true,"at":"2024-01-01T00:00:00Z"}"#, "`sensor`"),
    (br#"{"sensor":"s","value":"x","count":1,"ok":true,"at":"2024-01-01T00:00:00Z"}"#, "`value`"),
    (br#"{"sensor":"s","value":{},"count":1,"ok":true,"at":"2024-01-01T00:00:00Z"}"#, "`value`"),
    (br#"{"sensor":"s","value":NaN,"count":1,"ok":true,"at":"2024-01-01T00:00:00Z"}"#, ""),
    (br#"{"sensor":"s","value":1.5,"count":1.5,"ok":true,"at":"2024-01-01T00:00:00Z"}"#, "`count`"),
    (
        br#"{"sensor":"s","value":1.5,"count":9223372036854775808,"ok":true,"at":"2024-01-01T00:00:00Z"}"#,
        "`count`",
    ),
    (br#"{"sensor":"s","value":1.5,"count":01,"ok":true,"at":"2024-01-01T00:00:00Z"}"#, ""),
    (br#"{"sensor":"s","value":1.5,"count":1,"ok":"yes","at":"2024-01-01T00:00:00Z"}"#, "`ok`"),
    (br#"{"sensor":"s","value":1.5,"count":1,"ok":true,"at":"yesterday"}"#, "`at`"),
    (br#"{"sensor":"s","value":1.5,"count":1,"ok":true,"at":"2024-02-30T00:00:00Z"}"#, "`at`"),
    (br#"{"sensor":"s","value":1.5,"count":1,"ok":true,"at":"2024-01-01T00:00:00"}"#, "`at`"),
    (
        b"{\"sensor\":\"\xff\xfe\",\"value\":1.5,\"count\":1,\"ok\":true,\"at\":\"2024-01-01T00:00:00Z\"}",
        "UTF-8",
    ),
    (
        br#"{"sensor":"s","sensor":"t","value":1.5,"count":1,"ok":true,"at":"2024-01-01T00:00:00Z"}"#,
        "`sensor`",
    ),
    (br#"{"sensor":"s","value":1.5,"count":1,"ok":true,"at":"2024-01-01T00:00:00Z"} trailing"#, ""),
];

#[test]
fn twenty_kinds_of_bad_record_are_kept_with_their_reason_and_bytes() {
    let folder = TempDir::new().unwrap();
    let job = folder.path().join("job.toml");
    std::fs::write(&job, JOB).unwrap();
    let lines = folder.path().join("readings.jsonl");
    let mut text = Vec::new();
    for (number, (bad, _)) in BAD.iter().enumerate() {
        text.extend_from_slice(GOOD.replace('N', &number.to_string()).as_bytes());
        text.push(b'\n');
        text.extend_from_slice(bad);
        text.push(b'\n');
    }
    std::fs::write(&lines, text).unwrap();
    let levada = |arguments: &[&str]| -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
        let output = command.args(arguments).arg("--data").arg(folder.path().join("data")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let rows = |topic: &str| -> Vec<Value> {
        let text = levada(&["topics", "export", topic]);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    levada(&["topics", "produce", "readings", "--file", lines.to_str().unwrap(), "--keep-bad"]);
    levada(&["run", job.to_str().unwrap(), "--until-drained"]);

    let counts: Vec<i64> = rows("good").iter().map(|row| row["count"].as_i64().unwrap()).collect();
    assert_eq!(counts, (0..20).collect::<Vec<_>>(), "every good record, in its order");
    let dead = rows("sorted.dead-letters");
    assert_eq!(dead.len(), BAD.len());
    for (number, (letter, (bytes, says))) in dead.iter().zip(BAD).enumerate() {
        assert_eq!(STANDARD.decode(letter["bytes"].as_str().unwrap()).unwrap(), bytes, "record {number}");
        assert_eq!(letter["text"].as_str(), std::str::from_utf8(bytes).ok(), "record {number}");
        assert_eq!((&letter["source"], &letter["partition"]), (&"readings".into(), &0.into()));
        assert_eq!(letter["offset"], 2 * number + 1);
        let reason = letter["reason"].as_str().unwrap();
        assert!(!reason.is_empty() && reason.contains(says), "record {number}: {reason}");
    }
}

#[test]
fn a_source_without_one_good_record_is_no_success() {
    let folder = TempDir::new().unwrap();
    let job = folder.path().join("job.toml");
    std::fs::write(&job, JOB).unwrap();
    let lines = folder.path().join("readings.jsonl");
    let levada = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
        command.args(arguments).arg("--data").arg(folder.path().join("data")).output().unwrap()
    };
    let produce = |text: &str| {
        std::fs::write(&lines, text).unwrap();
        assert!(
            levada(&["topics", "produce", "readings", "--file", lines.to_str().unwrap(), "--keep-bad"])
                .status
                .success()
        );
    };
    let run = |more: &[&str]| {
        levada(&[&["run", job.to_str().unwrap(), "--until-drained", "--fresh"], more].concat())
    };
    produce("hello\n{}\n");
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("error: not one record of readings could be used"), "{said}");
    produce(&GOOD.replace('N', "1"));
    assert_eq!(run(&[]).status.code(), Some(0), "one good record");
    assert_eq!(run(&["--fail-on-dead-letters"]).status.code(), Some(3));
}
