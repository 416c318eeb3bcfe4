//! The ledger of late rows: each is there with where it was read, how late it was and why, the same whatever the workers;
//! and `levada late` lists them and gives them back, each once, also when it is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::resume::{held, random};
use crate::same_bytes::{levada, succeed};

const JOB: &str = r#"
[job]
name = "orders"
late = "orders.late"

[source.orders.log]
topic = "orders"
schema = { id = "int", shop = "string", amount = "float", note = "string?", at = "timestamp" }
event_time = { column = "at", out_of_order = "2s" }

[source.shops.log]
topic = "shops"
schema = { shop = "string", owner = "string", at = "timestamp" }
event_time = { column = "at" }

[step.sales.window]
from = "orders"
key = ["shop"]
tumbling = "10s"
aggregate = { orders = "count(*)" }

[step.owned.join]
from = "orders"
table = "shops"
on = { shop = "shop" }
columns = { owner = "owner" }

[sink.sales.log]
from = "sales"
topic = "sales"

[sink.owned.log]
from = "owned"
topic = "owned"
"#;

struct Site {
    folder: TempDir,
    job: PathBuf,
}

impl Site {
    fn new(partitions: &str) -> Site {
        let folder = TempDir::new().unwrap();
        let job = folder.path().join("job.toml");
        std::fs::write(&job, JOB).unwrap();
        let site = Site { folder, job };
        succeed(levada(&["topics", "create", "orders", "--partitions", partitions], &site.data()));
        site
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn produce(&self, topic: &str, lines: &str) {
        let file = self.folder.path().join("lines.jsonl");
        std::fs::write(&file, lines).unwrap();
        let file = file.to_str().unwrap();
        let arguments = ["topics", "produce", topic, "--file", file, "--key", "shop", "--time", "at"];
        succeed(levada(&arguments, &self.data()));
    }

    /// A run to the end of what there is; what it says at its end.
    fn run(&self, options: &[&str]) -> String {
        let mut command = levada(&["run", self.job.to_str().unwrap(), "--until-drained"], &self.data());
        command.args(options);
        succeed(command)
    }

    fn late(&self, verb: &str, options: &[&str]) -> String {
        let mut command = levada(&["late", verb, self.job.to_str().unwrap()], &self.data());
        command.args(options);
        succeed(command)
    }

    /// What a command that fails says.
    fn refused(&self, options: &[&str]) -> String {
        let output = levada(&["late", "inject", self.job.to_str().unwrap()], &self.data())
            .args(options)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    }
}

fn rows(topic: &str, data: &Path) -> Vec<Value> {
    let text = succeed(levada(&["topics", "export", topic], data));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn order(id: i64, shop: &str, second: u64) -> String {
    format!(
        "{{\"id\":{id},\"shop\":\"{shop}\",\"amount\":0.1,\"note\":null,\"at\":\"2024-01-01T00:00:{second:02}Z\"}}\n"
    )
}

/// Orders of which one is late for both steps, one for the join alone, and a shop that is late.
fn small() -> Site {
    let site = Site::new("1");
    site.produce(
        "orders",
        &[order(1, "a", 0), order(2, "a", 15), order(3, "b", 4), order(4, "a", 12)].concat(),
    );
    let shop = |shop: &str, second: u64| {
        format!("{{\"shop\":\"{shop}\",\"owner\":\"o\",\"at\":\"2024-01-01T00:00:{second:02}Z\"}}\n")
    };
    site.produce("shops", &[shop("a", 9), shop("b", 5)].concat());
    site
}

#[test]
fn late_rows_are_kept_with_where_they_were_read_and_why() {
    let site = small();
    let said = site.run(&[]);
    let behind = "behind what its partition had promised";
    let entry = |step: &str, at: u64, promise: u64, row: Value| {
        json!({ "step": step, "input": if row.get("id").is_some() { "orders" } else { "shops" },
            "source": if row.get("id").is_some() { "orders" } else { "shops" }, "partition": 0,
            "at": format!("2024-01-01T00:00:{at:02}Z"), "promise": format!("2024-01-01T00:00:{promise:02}Z"),
            "behind_ms": (promise - at) * 1000, "reason": behind, "row": row })
    };
    let line = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    assert_eq!(
        rows("orders.late", &site.data()),
        [
            entry("owned", 5, 9, json!({ "shop": "b", "owner": "o", "at": "2024-01-01T00:00:05Z" })),
            entry("owned", 4, 13, line(order(3, "b", 4))),
            entry("owned", 12, 13, line(order(4, "a", 12))),
            entry("sales", 4, 13, line(order(3, "b", 4))),
        ]
    );
    assert!(said.contains("is in topic orders.late; `levada late` lists them"), "{said}");
    let listed: Vec<Value> =
        site.late("list", &["--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let counted = |step: &str, input: &str, rows: u64, from: u64, to: u64, most: u64| {
        json!({ "step": step, "input": input, "source": input, "partition": 0, "reason": behind, "rows": rows,
            "from": format!("2024-01-01T00:00:{from:02}Z"), "to": format!("2024-01-01T00:00:{to:02}Z"), "most_behind_ms": most })
    };
    assert_eq!(
        listed,
        [
            counted("owned", "orders", 2, 4, 12, 9_000),
            counted("owned", "shops", 1, 5, 5, 4_000),
            counted("sales", "orders", 1, 4, 4, 9_000),
        ]
    );
    let table = site.late("list", &[]);
    assert!(table.lines().count() == 4 && table.contains("9,000 ms"), "{table}");
}

#[test]
fn late_rows_go_back_where_they_came_from_each_once() {
    let site = small();
    site.run(&[]);
    let said = site.refused(&[]);
    assert!(said.contains("may have been late for several steps (owned, sales)"), "{said}");
    let said = site.refused(&["--step", "sale"]);
    assert!(said.contains("there is no step `sale`; did you mean `sales`?"), "{said}");
    let said = site.refused(&["--step", "sales", "--set-time", "when"]);
    assert!(said.contains("the rows of `orders` have no column `when` to set"), "{said}");
    assert_eq!(rows("orders", &site.data()).len(), 4, "nothing was appended");

    // As they are, to another topic.
    assert_eq!(
        site.late("inject", &["--step", "sales", "--into", "again"]),
        "appended 1 late row to again\n"
    );
    assert_eq!(rows("again", &site.data()), [serde_json::from_str::<Value>(&order(3, "b", 4)).unwrap()]);
    // To where they came from, with another time.
    let inject = ["--step", "owned", "--set-time", "at"];
    let said = site.late("inject", &[&inject[..], &["--limit", "1"]].concat());
    assert_eq!(said, "appended 1 late row to orders\nappended 1 late row to shops\n");
    let said = site.late("inject", &inject);
    assert_eq!(
        said,
        "appended 1 late row to orders; 1 were there already\nappended 0 late rows to shops; 1 were there already\n"
    );
    assert_eq!(site.late("inject", &inject).matches("appended 0").count(), 2);
    assert_eq!(
        rows("orders", &site.data())[4..],
        [
            serde_json::from_str::<Value>(&order(3, "b", 15)).unwrap(),
            serde_json::from_str::<Value>(&order(4, "a", 15)).unwrap(),
        ]
    );
    // They are late no more.
    site.run(&["--fresh"]);
    assert_eq!(rows("owned", &site.data()).len(), 4, "the four that are in time");
}

#[test]
fn a_row_gets_the_newest_time_of_its_own_partition() {
    let site = Site::new("2");
    site.produce("shops", "{\"shop\":\"a\",\"owner\":\"o\",\"at\":\"2024-01-01T00:00:00Z\"}\n");
    site.produce("orders", &order(1, "a", 10));
    site.produce("orders", &order(2, "d", 50));
    site.produce("orders", &order(3, "a", 1));
    let placed = succeed(levada(&["topics", "export", "orders", "--with-position"], &site.data()));
    let of = |key: &str| placed.lines().find(|line| line.contains(key)).map(|line| line[..14].to_string());
    assert_ne!(of("\"key\":\"a\""), of("\"key\":\"d\""), "two partitions: {placed}");
    site.run(&[]);
    site.late("inject", &["--step", "owned", "--set-time", "at"]);
    let orders = rows("orders", &site.data());
    let given_back: Vec<&Value> = orders.iter().filter(|row| row["id"] == 3).collect();
    assert_eq!(given_back.len(), 2, "{given_back:?}");
    assert!(given_back.iter().any(|row| row["at"] == "2024-01-01T00:00:10Z"), "{given_back:?}");
}

/// Many orders of 3 partitions, some of them late.
fn many() -> Site {
    let site = Site::new("3");
    let mut seed = 3;
    let mut lines = String::new();
    for id in 0..30_000u64 {
        let behind = if random(&mut seed, 5) == 0 { random(&mut seed, 20_000) } else { 0 };
        let at = 1_700_000_000_000 + id * 3 - behind;
        let shop = random(&mut seed, 20);
        let _ = writeln!(
            lines,
            "{{\"id\":{id},\"shop\":\"s{shop}\",\"amount\":{}.5,\"at\":{at}}}",
            random(&mut seed, 99)
        );
    }
    site.produce("orders", &lines);
    site.produce("shops", "{\"shop\":\"s1\",\"owner\":\"o\",\"at\":1600000000000}\n");
    site
}

#[test]
fn the_ledger_is_the_same_on_any_workers_and_says_the_partition() {
    let site = many();
    let said = site.run(&["--workers", "1"]);
    let export = || succeed(levada(&["topics", "export", "orders.late"], &site.data()));
    let expected = export();
    for workers in ["2", "4"] {
        site.run(&["--fresh", "--workers", workers]);
        assert!(export() == expected, "{workers} workers");
    }
    let positions = succeed(levada(&["topics", "export", "orders", "--with-position"], &site.data()));
    let partition = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        (record["value"]["id"].as_u64().unwrap(), record["partition"].clone())
    };
    let partitions: BTreeMap<u64, Value> = positions.lines().map(partition).collect();
    let entries = rows("orders.late", &site.data());
    assert!(entries.len() > 1_000, "{}", entries.len());
    let mut told = BTreeSet::new();
    for entry in &entries {
        assert_eq!(entry["partition"], partitions[&entry["row"]["id"].as_u64().unwrap()], "{entry}");
        told.insert(entry["partition"].as_u64().unwrap());
    }
    assert_eq!(told, BTreeSet::from([0, 1, 2]));
    // The summary counts the same.
    let of = |partition: u64| {
        let of = entries
            .iter()
            .filter(|entry| entry["step"] == "owned" && entry["partition"] == partition)
            .count();
        format!("orders partition {partition}: {}", ::levada::telemetry::progress::grouped(of as u64))
    };
    let line = format!("owned: the late rows are from {}", [0, 1, 2].map(of).join(", "));
    assert!(said.contains(&line), "{line}: {said}");
}

#[test]
fn what_is_killed_while_it_gives_rows_back_gives_each_once() {
    let site = many();
    site.run(&[]);
    let wanted: Vec<Value> = rows("orders.late", &site.data());
    let wanted: BTreeSet<u64> = wanted
        .iter()
        .filter(|entry| entry["step"] == "owned")
        .map(|entry| entry["row"]["id"].as_u64().unwrap())
        .collect();
    let mut killed = 0;
    for round in 0..200 {
        let mut command: Command = levada(&["late", "inject", site.job.to_str().unwrap()], &site.data());
        command.args(["--step", "owned", "--into", "again"]).stdout(Stdio::null()).stderr(Stdio::null());
        let before = held(&site.data(), "again");
        let mut child = command.spawn().unwrap();
        // It is struck once it has appended something, if it is not quicker.
        while held(&site.data(), "again") <= before + round % 3 && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let _ = child.kill();
        killed += u32::from(!child.wait().unwrap().success());
        if held(&site.data(), "again") as usize == wanted.len() {
            break;
        }
    }
    site.late("inject", &["--step", "owned", "--into", "again"]);
    let found: Vec<u64> = rows("again", &site.data()).iter().map(|row| row["id"].as_u64().unwrap()).collect();
    assert_eq!(found.len(), wanted.len(), "each once; {killed} were killed");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted);
}
