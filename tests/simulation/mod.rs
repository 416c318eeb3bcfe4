//! A job on a disk that loses power, again and again, at steps that a seed chooses: of the journal, of a
//! checkpoint's state and manifest, of what the sinks publish, and of what a restart repairs. In the end it has
//! published what an undisturbed run publishes: record by record with offset, key, time, epoch and position.
//!
//! `POWER_CUTS=1000 SIMULATION_SEED=1` cuts more, from another seed on; see `make torture`. What a seed decides is
//! the input, the steps, what is left of the files, and the number of workers of each run; how the threads take
//! turns it does not.

mod disk;
mod site;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use disk::{Dice, PowerCut, Step};
use site::Site;

/// How often the power goes, where nobody says otherwise; of live jobs a tenth of it.
const POWER_CUTS: u64 = 100;

fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// How often the power went at each step.
#[derive(Default)]
struct Tally {
    cuts: BTreeMap<Step, u64>,
    runs: u64,
}

impl Tally {
    fn all(&self) -> u64 {
        self.cuts.values().sum()
    }

    /// Shows how far a long run is.
    fn progress(&self, wanted: u64) {
        if wanted > POWER_CUTS {
            eprint!("\r{} of {wanted} power cuts", self.all());
        }
    }

    /// Prints what was done, as JSON. It gets here only if every comparison was equal.
    fn tell(&self, what: &str, seeds: std::ops::Range<u64>) {
        let cuts: BTreeMap<String, u64> =
            self.cuts.iter().map(|((of, step), count)| (format!("{of}: {step}"), *count)).collect();
        let told = serde_json::json!({
            "job": what, "seeds": [seeds.start, seeds.end - 1], "runs": self.runs, "power_cuts": self.all(),
            "at": cuts,
        });
        println!("{}", serde_json::to_string_pretty(&told).unwrap());
    }
}

/// Chooses a step of those that a run has taken, each kind as likely as any other, and which of its times: the
/// early ones rather, as a run that goes on takes fewer.
fn choose(dice: &mut Dice, steps: &BTreeMap<Step, u64>) -> (Step, u64) {
    let kinds: Vec<(Step, u64)> = steps.iter().map(|(step, times)| (*step, *times)).collect();
    let (step, times) = dice.one_of(&kinds);
    let up_to = dice.below(times) + 1;
    (step, 1 + dice.below(up_to))
}

/// What every run must leave behind, whatever happened to those before it.
fn check(site: &Site, expected: &BTreeMap<String, Vec<String>>, context: &str) {
    compare(&site.written(), expected, context);
}

fn compare(found: &BTreeMap<String, Vec<String>>, expected: &BTreeMap<String, Vec<String>>, context: &str) {
    for (topic, lines) in expected {
        assert_eq!(found[topic].len(), lines.len(), "{context}: records of {topic}");
        assert_eq!(&found[topic], lines, "{context}: {topic}");
    }
}

/// A topic without records would show nothing.
fn assert_filled(told: &BTreeMap<String, Vec<String>>, seed: u64) {
    let empty: Vec<&String> =
        told.iter().filter(|(_, lines)| lines.is_empty()).map(|(topic, _)| topic).collect();
    assert!(empty.is_empty() && told.len() == 8, "seed {seed}: of {:?} are empty {empty:?}", told.keys());
}

#[test]
fn a_job_that_ends_with_its_history_loses_and_doubles_nothing_when_the_power_goes() {
    let (wanted, first) = (asked("POWER_CUTS", POWER_CUTS), asked("SIMULATION_SEED", 1));
    let mut tally = Tally::default();
    let mut seeds = first..;
    while tally.all() < wanted {
        let Some(seed) = seeds.next() else { break };
        let mut dice = Dice(seed);
        let site = Site::new(3);
        site.feed(&site.events(seed), || ());
        let undisturbed = PowerCut::new(seed, None);
        site.drain(&undisturbed, 2).unwrap();
        let expected = site.written();
        assert_filled(&expected, seed);
        site.forget();
        let mut steps = undisturbed.steps();
        for _ in 0..1 + dice.below(5) {
            let (step, time) = choose(&mut dice, &steps);
            let disk = PowerCut::new(dice.below(u64::MAX), Some((step, time)));
            let workers = dice.one_of(&[1, 2, 4]);
            let outcome = site.drain(&disk, workers);
            tally.runs += 1;
            let context = format!("seed {seed}, power cut at {step:?} number {time} with {workers} workers");
            if disk.gone() {
                *tally.cuts.entry(step).or_default() += 1;
                let error = outcome.err();
                // The last calls of a run tidy up, and whether they worked is of no consequence.
                if let Some(error) = error {
                    assert!(error.to_string().contains("power is gone"), "{context}: {error}");
                }
            } else {
                outcome.unwrap();
                break;
            }
            disk.settle();
            // What a restart does is worth a power cut, too.
            steps.extend(disk.steps());
        }
        let context = format!("seed {seed}");
        site.drain(&PowerCut::new(seed, None), dice.one_of(&[1, 2, 4])).unwrap();
        check(&site, &expected, &context);
        tally.progress(wanted);
    }
    tally.tell("to the end of its history", first..seeds.start);
    for part in ["journal", "run", "state", "manifest", "sink"] {
        assert!(tally.cuts.keys().any(|(of, _)| *of == part), "the power never went at a step of the {part}");
    }
}

/// Waits a little, so that records come in many epochs; not for anything.
fn pace() {
    std::thread::park_timeout(Duration::from_millis(1));
}

/// Runs a live job until it has published all that comes before the last records.
fn until_done(site: &Site, disk: &PowerCut, workers: usize, keep: Option<usize>, context: &str) {
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let job = scope.spawn(|| site.live(disk, workers, keep, &stop));
        let began = Instant::now();
        while !site.is_done() && !job.is_finished() {
            assert!(began.elapsed() < Duration::from_secs(120), "{context}: it is never done");
            pace();
        }
        stop.store(true, Relaxed);
        job.join().unwrap().unwrap();
    });
}

#[test]
fn a_live_job_goes_on_after_power_cuts_and_its_journal_gives_the_same_bytes() {
    let (wanted, first) = (asked("POWER_CUTS", POWER_CUTS).div_ceil(10), asked("SIMULATION_SEED", 1));
    let mut tally = Tally::default();
    let mut seeds = first..;
    while tally.all() < wanted {
        let Some(seed) = seeds.next() else { break };
        let mut dice = Dice(seed);
        let site = Site::new(6);
        let events = site.events(seed);
        let fed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                site.feed(&events, pace);
                fed.store(true, Relaxed);
            });
            let mut steps = BTreeMap::new();
            while !fed.load(Relaxed) {
                let at = (!steps.is_empty()).then(|| choose(&mut dice, &steps));
                let disk = PowerCut::new(dice.below(u64::MAX), at);
                let workers = dice.one_of(&[1, 2, 4]);
                let stop = Arc::new(AtomicBool::new(false));
                let outcome = std::thread::scope(|scope| {
                    let job = scope.spawn(|| site.live(&disk, workers, Some(10_000), &stop));
                    // The first run only shows which steps there are.
                    let until = Instant::now() + Duration::from_millis(50);
                    while !job.is_finished() && !fed.load(Relaxed) && (at.is_some() || Instant::now() < until)
                    {
                        pace();
                    }
                    stop.store(true, Relaxed);
                    job.join().unwrap()
                });
                tally.runs += 1;
                match at {
                    Some((step, _)) if disk.gone() => *tally.cuts.entry(step).or_default() += 1,
                    _ => outcome.unwrap_or_else(|error| panic!("seed {seed}: {error}")),
                }
                disk.settle();
                steps.extend(disk.steps());
            }
        });
        site.feed(&site.last(), || ());
        let calm = PowerCut::new(seed, None);
        until_done(&site, &calm, dice.one_of(&[1, 2, 4]), Some(10_000), &format!("seed {seed}"));
        let told = site.written();
        assert_filled(&told, seed);
        for workers in [1, 2, 4] {
            let context = format!("seed {seed}, replayed with {workers} workers");
            let replay = site.with_journal_alone();
            until_done(&replay, &calm, workers, None, &context);
            check(&replay, &told, &context);
        }
    }
    tally.tell("live, and replayed with 1, 2 and 4 workers", first..seeds.start);
}

/// Where a state is kept that an earlier levada left when the power went, in the form of its number.
/// The second is of runs that have numbers; the third of detectors that know how what they measure is distributed.
const KEPT: [(u32, &str, Scores); 3] = [
    (1, "tests/simulation/golden/form-1", Scores::LearntAnew),
    (1, "tests/simulation/golden/form-1-numbered", Scores::LearntAnew),
    (1, "tests/simulation/golden/form-1-scored", Scores::Kept),
];

/// What becomes of the scores of findings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scores {
    Kept,
    /// The state has nothing of them, and what was published has other columns: all else must be the same.
    LearntAnew,
}

impl Scores {
    fn comparable(self, mut written: BTreeMap<String, Vec<String>>) -> BTreeMap<String, Vec<String>> {
        if self == Scores::LearntAnew {
            for line in written.get_mut("unusual").unwrap() {
                let (head, row) = line.split_at(line.find('{').unwrap());
                let mut row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(row).unwrap();
                row.retain(|column, _| !["measure", "score", "reasons"].contains(&column.as_str()));
                *line = format!("{head}{}", serde_json::Value::from(row));
            }
        }
        written
    }
}

/// How a kept state is made, once for each form of state: `WRITE_GOLDEN=1`.
fn keep_a_state(folder: &Path) {
    let site = Site::new(2);
    let mut events = site.events(1);
    events.truncate(500);
    site.feed(&events, || ());
    let disk = PowerCut::new(1, Some((("manifest", "rename"), 2)));
    site.drain(&disk, 2).unwrap_err();
    disk.settle();
    site.keep_in(folder);
}

#[test]
fn a_state_that_an_earlier_levada_kept_is_taken_up() {
    for (form, folder, scores) in KEPT.map(|(form, folder, scores)| (form, Path::new(folder), scores)) {
        if std::env::var_os("WRITE_GOLDEN").is_some() && !folder.exists() {
            keep_a_state(folder);
        }
        let calm = || PowerCut::new(1, None);
        let undisturbed = Site::kept_in(folder, 2).with_inputs_alone();
        let all = undisturbed.drain(&calm(), 1).unwrap();
        let expected = scores.comparable(undisturbed.written());
        assert_filled(&expected, 1);
        for workers in [1, 4] {
            let site = Site::kept_in(folder, 2);
            let checkpoint = site.newest_checkpoint().unwrap();
            assert_eq!(checkpoint.version, form);
            let before: u64 = checkpoint.partitions.iter().filter_map(|place| place.next).sum();
            assert!(0 < before && before < all, "{before} of {all} records are behind the checkpoint");
            // It is the checkpoint that is taken up, and not the first record.
            assert_eq!(site.drain(&calm(), workers).unwrap(), all - before);
            compare(
                &scores.comparable(site.written()),
                &expected,
                &format!("{}, {workers} workers", folder.display()),
            );
        }
    }
}
