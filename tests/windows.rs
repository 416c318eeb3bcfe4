//! Windows that are told more than once, and of several lengths, as a job and its topics have them.

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

const JOB: &str = r#"
[job]
name = "doors"

[source.visits.file]
path = "visits.jsonl"
schema = { door = "string", at = "timestamp" }
event_time = { column = "at", out_of_order = "5s" }

[step.minutes.window]
from = "visits"
key = ["door"]
tumbling = "1m"
early_every = "20s"
allowed_lateness = "1m"
aggregate = { visits = "count(*)" }

[step.lengths.window]
from = "visits"
key = ["door"]
tumbling = ["1m", "2m"]
aggregate = { visits = "count(*)" }

# The mark of a changelog stays with the column.
[step.renamed.select]
from = "minutes"
columns = { door = "door", change = "change", n = "visits" }

[step.totals.group]
from = "renamed"
key = ["door"]
aggregate = { visits = "sum(n)", windows = "count(*)" }

[sink.totals.log]
from = "totals"
topic = "totals"
key = ["door"]

[sink.changes.log]
from = "minutes"
topic = "changes"
key = ["door"]

[sink.newest.log]
from = "minutes"
topic = "newest"
key = ["door"]
changes = "upsert"

[sink.lengths.log]
from = "lengths"
topic = "lengths"

[sink.late.log]
from = "minutes.late"
topic = "late"
"#;

/// Minute and second, and the door.
const VISITS: [(&str, &str); 9] = [
    ("00:10", "a"),
    ("00:50", "a"),
    ("00:55", "b"),
    ("01:30", "a"),
    // [0, 1 m) is over, and may be told once more until 2 m.
    ("00:58", "a"),
    ("02:10", "b"),
    // Now it may not.
    ("00:59", "a"),
    ("03:40", "a"),
    // [2 m, 3 m) may.
    ("02:59", "b"),
];

struct Doors(TempDir);

impl Doors {
    fn new(job: &str) -> Doors {
        let doors = Doors(TempDir::new().unwrap());
        fs::write(doors.0.path().join("job.toml"), job).unwrap();
        let visit = |(at, door): &(&str, &str)| json!({ "door": door, "at": format!("2026-01-01T00:{at}Z") });
        let lines: Vec<String> = VISITS.iter().map(|row| visit(row).to_string() + "\n").collect();
        fs::write(doors.0.path().join("visits.jsonl"), lines.concat()).unwrap();
        doors
    }

    fn levada(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
        command.current_dir(self.0.path()).args(line.split_whitespace()).output().unwrap()
    }

    fn run(&self, workers: usize) {
        let output = self.levada(&format!("run job.toml --fresh --workers {workers}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn topic(&self, topic: &str) -> String {
        let output = self.levada(&format!("topics export {topic}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Of each record of a topic the door, when its window began, what it says of it, how many visits.
fn told(topic: &str) -> Vec<(String, String, String, i64)> {
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let start = text("window_start")[14..19].to_owned();
        (text("door"), start, text("change") + &text("window"), row["visits"].as_i64().unwrap())
    };
    topic.lines().map(row).collect()
}

fn rows(rows: &[(&str, &str, &str, i64)]) -> Vec<(String, String, String, i64)> {
    rows.iter().map(|&(door, start, kind, visits)| (door.into(), start.into(), kind.into(), visits)).collect()
}

#[test]
fn what_is_told_again_is_a_changelog_or_an_upsert_as_the_sink_chooses() {
    let doors = Doors::new(JOB);
    doors.run(1);
    let changes = doors.topic("changes");
    let of = |door: &str| told(&changes).into_iter().filter(|row| row.0 == door).collect::<Vec<_>>();
    let a = rows(&[
        ("a", "00:00", "insert", 1),
        ("a", "00:00", "retract", 1),
        ("a", "00:00", "update", 2),
        ("a", "01:00", "insert", 1),
        ("a", "00:00", "retract", 2),
        ("a", "00:00", "update", 3),
        ("a", "03:00", "insert", 1),
    ]);
    assert_eq!(of("a"), a, "{changes}");
    let b = [
        ("b", "00:00", "insert", 1),
        ("b", "02:00", "insert", 1),
        ("b", "02:00", "retract", 1),
        ("b", "02:00", "update", 2),
    ];
    assert_eq!(of("b"), rows(&b));
    let newest = told(&doors.topic("newest"));
    let kept: Vec<_> = told(&changes).into_iter().filter(|row| row.2 != "retract").collect();
    assert_eq!(newest, kept);
    let late: Vec<String> = doors.topic("late").lines().map(str::to_owned).collect();
    assert!(late.len() == 1 && late[0].contains("00:00:59"), "{late:?}");
    let all =
        |doors: &Doors| ["changes", "newest", "lengths", "late", "totals"].map(|topic| doors.topic(topic));
    let expected = all(&doors);
    for workers in [2, 4] {
        doors.run(workers);
        assert_eq!(all(&doors), expected, "{workers} workers");
    }
}

#[test]
fn a_group_takes_away_what_was_taken_back() {
    let doors = Doors::new(JOB);
    doors.run(2);
    // In the end a has five visits in three windows, and b three in two; what was retracted does not count.
    let totals = doors.topic("totals");
    let last = |door: &str| {
        let mut rows = totals.lines().rev().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let row = rows.find(|row| row["door"] == door && row["change"] != "retract").unwrap();
        (row["visits"].as_i64().unwrap(), row["windows"].as_i64().unwrap())
    };
    assert_eq!((last("a"), last("b")), ((5, 3), (3, 2)));
}

#[test]
fn a_step_that_would_count_what_was_taken_back_is_refused() {
    let doors = Doors::new(&JOB.replace("[step.totals.group]", "[step.totals.window]\ntumbling = \"1h\""));
    let output = doors.levada("check job.toml");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("`renamed` takes back rows that it told, and a window step would count them"),
        "{said}"
    );
    let plain = "[step.renamed.select]\nwhere = \"change in ('insert', 'update')\"\ncolumns = { door = \"door\", n = \"visits\" }\n";
    let from = JOB.find("[step.renamed.select]").unwrap()..JOB.find("[step.totals.group]").unwrap();
    let mut job = JOB.to_owned();
    job.replace_range(from, &format!("{plain}from = \"minutes\"\n\n"));
    let doors = Doors::new(&job.replace("[step.totals.group]", "[step.totals.window]\ntumbling = \"1h\""));
    let output = doors.levada("check job.toml");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn windows_of_several_lengths_are_one_stream() {
    let doors = Doors::new(JOB);
    doors.run(2);
    let mut found = told(&doors.topic("lengths"));
    found.sort();
    // 00:58 and 02:59 missed their minutes, and not the two minutes that hold them; 00:59 missed both.
    let expected = [
        ("a", "00:00", "1m", 2),
        ("a", "00:00", "2m", 4),
        ("a", "01:00", "1m", 1),
        ("a", "02:00", "2m", 1),
        ("a", "03:00", "1m", 1),
        ("b", "00:00", "1m", 1),
        ("b", "00:00", "2m", 1),
        ("b", "02:00", "1m", 1),
        ("b", "02:00", "2m", 2),
    ];
    assert_eq!(found, rows(&expected));
}

#[test]
fn what_takes_nothing_back_is_no_upsert() {
    let doors = Doors::new(&JOB.replace("early_every = \"20s\"\nallowed_lateness = \"1m\"\n", ""));
    let output = doors.levada("check job.toml");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("what it writes takes nothing back: it has no column `change` of type string"),
        "{said}"
    );
    assert!(said.contains("changes = \"upsert\""), "{said}");
}
