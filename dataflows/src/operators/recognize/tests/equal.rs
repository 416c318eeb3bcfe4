//! The step against the reference, and the contract.

use std::collections::BTreeSet;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

use super::histories::{Chance, expected_lines, history, lines, rows, schema, settings, story, text};
use super::reference::Skip;
use crate::harness::{self, Topic};
use crate::operators::recognize::Contiguity;

const CONTIGUITIES: [Contiguity; 3] = [Contiguity::Strict, Contiguity::Relaxed, Contiguity::RelaxedAny];
const SKIPS: [Skip; 5] = [Skip::None, Skip::ToNext, Skip::PastLast, Skip::ToFirst(0), Skip::ToLast(0)];
/// Histories of a pattern.
const HISTORIES: usize = 5;

/// How many pairs of a pattern and a history are tried of each contiguity and way to skip.
fn pairs() -> usize {
    harness::cases(300).cases as usize
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
        let (found, expected) = (lines(&rows), expected_lines(&settings, &history, &[]));
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

/// Rows in disorder, some of them late, in one partition or two, cut into chunks and epochs in any way.
#[test]
fn late_rows_are_set_aside_and_no_cut_shows() {
    let (mut all_late, mut all_told) = (0, 0);
    for seed in 0..pairs().div_ceil(10) as u64 {
        let mut chance = Chance::of(seed ^ 0x1a7e);
        let contiguity = CONTIGUITIES[chance.below(3)];
        let skip = SKIPS[chance.below(5)];
        let (settings, step) = settings(&mut chance, contiguity, skip, 2);
        let history = history(&mut chance, 16);
        let mut arrivals: Vec<(i64, usize)> = Vec::new();
        for (place, (_, row)) in history.iter().enumerate() {
            arrivals.push((row.time + [0, 0, 0, 1, 2, 7][chance.below(6)], place));
        }
        arrivals.sort_unstable();
        let count = 1 + chance.below(2);
        let mut partitions = vec![Vec::new(); count];
        for (_, place) in arrivals {
            partitions[chance.below(count)].push((place, history[place]));
        }
        let partitions = partitions.into_iter().map(|all| rows(all.into_iter())).collect();
        let topic = Topic { partitions, out_of_order_ms: chance.below(3) as i64 };
        let told = harness::check_cuts(&step, &[schema()], &[topic]);
        let late: Vec<i64> = told.late.column(1).as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(lines(&told.rows), expected_lines(&settings, &history, &late), "seed {seed}");
        all_late += late.len();
        all_told += told.rows.num_rows();
    }
    assert!(all_late > 10 && all_told > 10, "{all_late} late, {all_told} told");
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
        assert_eq!(lines(&told.rows), expected_lines(&settings, &history, &[]), "seed {seed}");
        assert_eq!(told.late.num_rows(), 0);
    }
}
