//! The step against the reference, and the contract.

use arrow::array::AsArray;
use std::collections::BTreeSet;

use super::histories::{Chance, expected_lines, history, lines, schema, settings, story, text};
use super::reference::Skip;
use crate::harness;
use crate::operators::recognize::Contiguity;

const CONTIGUITIES: [Contiguity; 3] = [Contiguity::Strict, Contiguity::Relaxed, Contiguity::RelaxedAny];
const SKIPS: [Skip; 5] = [Skip::None, Skip::ToNext, Skip::PastLast, Skip::ToFirst(0), Skip::ToLast(0)];
/// Histories of a pattern.
const HISTORIES: usize = 5;

/// How many pairs of a pattern and a history are tried of each contiguity and way to skip; by default 300.
#[allow(clippy::disallowed_methods)] // A test may be told how long to try.
fn pairs() -> usize {
    std::env::var("LEVADA_RECOGNIZE_PAIRS").ok().and_then(|pairs| pairs.parse().ok()).unwrap_or(300)
}

fn check(contiguity: Contiguity, skip: Skip, seed: u64, told: &mut [usize; 3]) {
    let mut chance = Chance::of(seed);
    let depth = 1 + chance.below(3);
    let (settings, step) = settings(&mut chance, contiguity, skip, depth);
    let most = if contiguity == Contiguity::RelaxedAny { 8 } else { 12 };
    for _ in 0..HISTORIES {
        let history = history(&mut chance, most);
        let story = story(&history, &mut chance);
        let rows = harness::run(&step, &[schema()], &story, 1, usize::MAX, &[]).rows;
        let (found, expected) = (lines(&rows), expected_lines(&settings, &history));
        let pattern = text(&settings.pattern);
        assert_eq!(found, expected, "seed {seed}: {pattern}\n{settings:#?}\n{history:#?}");
        let ids = rows.column_by_name("match_id").unwrap().as_string::<i32>();
        let distinct: BTreeSet<&str> = ids.iter().flatten().collect();
        assert_eq!(distinct.len(), rows.num_rows(), "seed {seed}: {pattern}: two matches of one identity");
        told[0] += found.iter().filter(|line| line.2 && line.4 == line.0).count();
        told[1] += found.iter().filter(|line| line.2 && line.4 < line.0).count();
        told[2] += found.iter().filter(|line| !line.2).count();
    }
}

#[test]
fn what_is_told_is_what_the_definition_says() {
    let each = pairs().div_ceil(HISTORIES);
    let mut combinations: Vec<(Contiguity, Skip, u64)> = Vec::new();
    for (nth, contiguity) in CONTIGUITIES.into_iter().enumerate() {
        for (mth, skip) in SKIPS.into_iter().enumerate() {
            combinations.push((contiguity, skip, (nth * SKIPS.len() + mth) as u64));
        }
    }
    // No combination may be one in which nothing is told.
    for (contiguity, skip, number) in combinations {
        let mut told = [0; 3];
        for nth in 0..each as u64 {
            check(contiguity, skip, (nth << 8) | number, &mut told);
        }
        println!("{contiguity:?} {skip:?}: {} pairs; at once, later, timed out: {told:?}", each * HISTORIES);
        assert!(told.iter().all(|count| *count > each / 100), "{contiguity:?} {skip:?}: {told:?}");
    }
}

#[test]
fn the_contract_is_kept() {
    for seed in 0..pairs().div_ceil(10) as u64 {
        let mut chance = Chance::of(seed ^ 0xc0de);
        let contiguity = CONTIGUITIES[chance.below(3)];
        let skip = SKIPS[chance.below(5)];
        let (settings, step) = settings(&mut chance, contiguity, skip, 2);
        let history = history(&mut chance, 14);
        let story = story(&history, &mut chance);
        let told = harness::check_contract(&step, &[schema()], &story);
        assert_eq!(lines(&told.rows), expected_lines(&settings, &history), "seed {seed}");
        assert_eq!(told.late.num_rows(), 0);
    }
}
