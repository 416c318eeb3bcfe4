use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::generate::setting::Length;

fn lines(setting: &Setting) -> [Vec<String>; 4] {
    let mut lines = [(); 4].map(|()| Vec::new());
    for record in Warehouse::new(setting).unwrap() {
        lines[record.topic].push(String::from_utf8(record.event.value).unwrap());
    }
    lines
}

fn days(seed: u64, difficulty: Difficulty, days: u64) -> Setting {
    Setting { length: Length::Time(days * 86_400_000), ..Setting::events(seed, difficulty, 1) }
}

fn values(lines: &[String]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text<'a>(told: &'a Value, field: &str) -> &'a str {
    told[field].as_str().unwrap()
}

fn at(told: &Value) -> i64 {
    told["at"].as_i64().unwrap()
}

struct Label {
    overload: bool,
    whom: String,
    from: i64,
    until: i64,
}

fn labels(lines: &[String]) -> Vec<Label> {
    let label = |told: Value| {
        let overload = told["kind"] == "overload";
        assert!(overload == told["worker"].is_null() && (overload || told["kind"] == "decline"));
        let whom = text(&told, if overload { "zone" } else { "worker" }).to_owned();
        Label {
            overload,
            whom,
            from: told["from"].as_i64().unwrap(),
            until: told["until"].as_i64().unwrap_or(i64::MAX),
        }
    };
    values(lines).into_iter().map(label).collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes_however_many_are_asked_for() {
    let of = |seed, events| lines(&Setting::events(seed, Difficulty::Hard, events));
    let whole = of(7, 30_000);
    assert_eq!(whole, of(7, 30_000));
    assert_ne!(whole[0], of(8, 30_000)[0]);
    let begin = of(7, 11_234);
    assert_eq!(begin[..3].iter().map(Vec::len).sum::<usize>(), 11_234);
    for topic in 0..3 {
        assert_eq!(begin[topic], whole[topic][..begin[topic].len()]);
    }
    let digest = Sha256::digest(of(1, 30_000).map(|lines| lines.join("\n")).join("\n"));
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        digest, "b6fbad68aadc55c0e080a7bb1a7789d1087db3f02ba6d1fe75adcae1cd84a893",
        "on every machine"
    );
}

#[test]
fn none_is_further_behind_than_stated_and_the_rate_is_as_stated() {
    for difficulty in [Difficulty::Easy, Difficulty::Normal, Difficulty::Hard] {
        let mut times = Vec::new();
        for record in Warehouse::new(&days(2, difficulty, 2)).unwrap() {
            if record.topic < 3 {
                times.push(record.event.time_ms);
            }
        }
        let mut newest = 0;
        for time in &times {
            newest = newest.max(*time);
            assert!(newest - time <= OUT_OF_ORDER_MS as i64);
        }
        let rate = times.len() as f64 / (2.0 * 86_400.0);
        assert!((1.7..3.1).contains(&rate), "{difficulty:?}: {rate}");
    }
}

/// A task is created, then assigned to somebody who is there and has nothing else at hand, scanned unit by unit, and
/// completed; nobody is in two zones.
#[test]
fn tasks_and_workers_are_one_story() {
    let [tasks, workers, scans, _] = lines(&days(3, Difficulty::Hard, 2));
    let mut told: Vec<(i64, u8, Value)> = Vec::new();
    for task in values(&tasks) {
        let order = match text(&task, "kind") {
            "completed" => 0,
            "created" => 2,
            _ => 4,
        };
        told.push((at(&task), order, task));
    }
    for worker in values(&workers) {
        let order = if ["log_in", "break_end"].contains(&text(&worker, "kind")) { 3 } else { 1 };
        told.push((at(&worker), order, worker));
    }
    told.sort_by_key(|(at, order, _)| (*at, *order));
    let mut where_is: HashMap<String, String> = HashMap::new();
    let mut at_hand: HashMap<String, String> = HashMap::new();
    let mut open: HashMap<String, &str> = HashMap::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (_, _, told) in &told {
        let kind = text(told, "kind");
        *counts.entry(kind.into()).or_default() += 1;
        let worker = told["worker"].as_str().map(String::from);
        match kind {
            "created" => assert!(open.insert(text(told, "task").into(), "created").is_none()),
            "assigned" => {
                let worker = worker.unwrap();
                assert_eq!(open.insert(text(told, "task").into(), "assigned"), Some("created"), "{told}");
                assert_eq!(where_is.get(&worker).map(String::as_str), told["zone"].as_str(), "{told}");
                assert_eq!(at_hand.insert(worker, text(told, "task").into()), None, "{told}");
            }
            "completed" => {
                assert_eq!(at_hand.remove(&worker.unwrap()).as_deref(), told["task"].as_str(), "{told}");
                assert_eq!(open.remove(text(told, "task")), Some("assigned"));
            }
            "log_in" => {
                assert_eq!(where_is.insert(worker.unwrap(), text(told, "zone").into()), None, "{told}")
            }
            "log_out" => {
                assert!(!at_hand.contains_key(worker.as_ref().unwrap()), "{told}");
                assert_eq!(where_is.remove(&worker.unwrap()).as_deref(), told["zone"].as_str(), "{told}");
            }
            _ => assert!(!at_hand.contains_key(&worker.unwrap()), "{told}"),
        }
    }
    assert!(counts.len() == 7 && counts["completed"] > 5_000, "{counts:?}");
    let units: HashMap<&str, u64> = told
        .iter()
        .filter(|(_, _, told)| told["kind"] == "completed")
        .map(|(_, _, told)| (text(told, "task"), told["units"].as_u64().unwrap()))
        .collect();
    let mut scanned: HashMap<String, BTreeSet<u64>> = HashMap::new();
    for scan in values(&scans) {
        assert!(
            scanned.entry(text(&scan, "task").into()).or_default().insert(scan["unit"].as_u64().unwrap())
        );
    }
    for (task, units) in units {
        assert_eq!(scanned[task], (1..=units).collect(), "{task}");
    }
}

/// Seconds that each completed task took, by worker, with when it was begun and what it was.
fn took(tasks: &[Value]) -> BTreeMap<String, Vec<(i64, f64, String)>> {
    let mut begun: HashMap<&str, i64> = HashMap::new();
    for task in tasks.iter().filter(|task| task["kind"] == "assigned") {
        begun.insert(text(task, "task"), at(task));
    }
    let mut took: BTreeMap<String, Vec<(i64, f64, String)>> = BTreeMap::new();
    for task in tasks.iter().filter(|task| task["kind"] == "completed") {
        let from = begun[text(task, "task")];
        let what = format!("{} {}", text(task, "type"), task["units"]);
        took.entry(text(task, "worker").into()).or_default().push((
            from,
            (at(task) - from) as f64 / 1000.0,
            what,
        ));
    }
    took
}

#[test]
fn who_declines_takes_longer_for_the_same_and_nobody_else_does() {
    let [tasks, _, _, told] = lines(&days(4, Difficulty::Hard, 4));
    let took = took(&values(&tasks));
    let mut usual: HashMap<&str, (f64, f64)> = HashMap::new();
    for (_, seconds, what) in took.values().flatten() {
        let sum = usual.entry(what).or_default();
        *sum = (sum.0 + seconds, sum.1 + 1.0);
    }
    // How many times as long as others somebody took, within a time.
    let slowness = |worker: &str, from: i64, until: i64| {
        let tasks = took[worker].iter().filter(|(at, ..)| (from..until).contains(at));
        let sums = tasks.fold((0.0, 0.0), |sum, (_, seconds, what)| {
            (sum.0 + seconds, sum.1 + usual[what.as_str()].0 / usual[what.as_str()].1)
        });
        (sums.1 > 0.0).then(|| sums.0 / sums.1)
    };
    let hour = 3_600_000;
    let (mut ratios, mut rising) = (Vec::new(), 0);
    for label in labels(&told).iter().filter(|label| !label.overload && label.until < i64::MAX) {
        assert!(label.until - label.from >= 59 * 60_000, "an hour at least");
        let full = slowness(&label.whom, label.from + hour / 2, label.until);
        let before = slowness(&label.whom, label.from - 24 * hour, label.from);
        let (Some(full), Some(before)) = (full, before) else { continue };
        ratios.push(full / before);
        rising += usize::from(full > before * 1.1);
    }
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    assert!(ratios.len() > 30 && (1.2..1.6).contains(&mean), "{}: {mean}", ratios.len());
    assert!(rising * 10 > ratios.len() * 8, "{rising} of {}", ratios.len());
}

/// In an overload more comes than is done, and the queue grows; it is over when the queue is.
#[test]
fn an_overload_is_more_than_can_be_done_and_its_queue_grows() {
    let [tasks, _, _, told] = lines(&days(6, Difficulty::Hard, 4));
    let mut changes: HashMap<String, Vec<(i64, i64)>> = HashMap::new();
    for task in values(&tasks) {
        let change = match text(&task, "kind") {
            "created" => 1,
            "assigned" => -1,
            _ => continue,
        };
        changes.entry(text(&task, "zone").into()).or_default().push((at(&task), change));
    }
    let waiting = |zone: &str, when: i64| {
        changes[zone].iter().filter(|(at, _)| *at <= when).map(|(_, change)| change).sum::<i64>()
    };
    let (mut grew, mut overloads) = (0, 0);
    for label in labels(&told).iter().filter(|label| label.overload && label.until < i64::MAX) {
        overloads += 1;
        assert!(label.until - label.from >= 40 * 60_000);
        let [first, later] = [label.from, label.from + 40 * 60_000].map(|when| waiting(&label.whom, when));
        grew += usize::from(later >= first + 8);
        assert!(waiting(&label.whom, label.until) <= 20, "it was worked off");
    }
    assert!(overloads >= 15 && grew * 10 >= overloads * 9, "{grew} of {overloads}");
}

#[test]
fn there_are_as_many_at_once_as_was_asked_for() {
    for (difficulty, wanted) in [(Difficulty::Easy, 0.5), (Difficulty::Hard, 2.0)] {
        let mut lasted = 0;
        for seed in 1..=4 {
            let [_, _, _, told] = lines(&days(seed, difficulty, 7));
            let over = labels(&told).into_iter().filter(|label| label.until < i64::MAX);
            lasted += over.map(|label| label.until - label.from).sum::<i64>();
        }
        let at_once = lasted as f64 / (28.0 * 86_400_000.0);
        assert!((wanted * 0.75..wanted * 1.25).contains(&at_once), "{difficulty:?}: {at_once}");
    }
}
