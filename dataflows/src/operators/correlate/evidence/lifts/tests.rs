//! Counts by hand and against the definition; what is planted is found, and nothing in noise.

use std::collections::BTreeSet;

use arrow::array::{RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::Field;
use levada_types::EventTime;
use proptest::prelude::*;
use serde_json::json;

use super::counts::Seen;
use super::*;
use crate::harness::{Story, plan, run};

/// An event: seconds, service, category.
type Event = (i64, String, &'static str);

const CATEGORIES: [&str; 6] = ["deploy", "error", "latency", "network", "security", "report"];

/// The numbers of a generator (Steele, Lea and Flood: SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn category(&mut self) -> &'static str {
        CATEGORIES[self.below(CATEGORIES.len() as u64) as usize]
    }

    fn service(&mut self) -> String {
        format!("s{}", self.below(5))
    }
}

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![Batch::time_field(), text("service"), text("category")]))
}

fn table() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![Batch::time_field(), text("a"), text("b")]))
}

/// A step with a topology, counted at `place`, with `within` in seconds.
fn spec(place: Where, within: i64) -> LiftsSpec {
    let step = json!({
        "from": "events", "close_after": "1h",
        "link": [{ "name": "service", "on": ["service"], "within": "5m" }],
        "topology": { "from": "table", "a": "a", "b": "b", "on": "service" },
    });
    LiftsSpec::new(serde_json::from_value(step).unwrap(), vec!["category".into()], within * 1000, place, 5)
}

fn rows(schema: SchemaRef, of: &[(i64, &str, &str)]) -> RecordBatch {
    let times = TimestampMillisecondArray::from_iter_values(of.iter().map(|row| row.0 * 1000));
    let first = StringArray::from_iter_values(of.iter().map(|row| row.1));
    let second = StringArray::from_iter_values(of.iter().map(|row| row.2));
    RecordBatch::try_new(schema, vec![Arc::new(times), Arc::new(first), Arc::new(second)]).unwrap()
}

/// What is found in events, with a topology if the step looks at one.
fn found_by(spec: &LiftsSpec, events: &[Event], links: &[(&str, &str)], workers: usize, piece: usize) -> Lifts {
    let mut events: Vec<(i64, &str, &str)> = events.iter().map(|(at, service, category)| (*at, &**service, *category)).collect();
    events.sort_unstable();
    let links: Vec<(i64, &str, &str)> = links.iter().map(|(a, b)| (0, *a, *b)).collect();
    let hops = matches!(spec.place, Where::Hops(_));
    let schemas = [schema(), table()];
    let schemas = &schemas[..if hops { 2 } else { 1 }];
    let mut epochs: Vec<_> = Vec::new();
    for (number, part) in events.chunks(1000).enumerate() {
        let mut inputs = vec![vec![rows(schema(), part)]];
        if hops {
            inputs.push(if number == 0 { vec![rows(table(), &links)] } else { Vec::new() });
        }
        epochs.push((inputs, EventTime(part[0].0 * 1000)));
    }
    let last = epochs.last_mut().unwrap();
    last.1 = EventTime::MAX;
    run(&plan(spec, schemas), schemas, &Story { epochs }, workers, piece, &[]);
    spec.take()
}

fn names(lifts: &Lifts) -> Vec<String> {
    let of = |value: &(String, Json)| value.1.as_str().unwrap().to_string();
    lifts.found.iter().map(|lift| format!("{} -> {}", of(&lift.cause), of(&lift.effect))).collect()
}

#[test]
fn a_stream_that_can_be_counted_by_hand_is_counted_so() {
    // From 0 s to 120 s, within 10 s: causes count from 10 s to 110 s. Value 0 at 20, 50, 55 and 80 s; value 1 at 23, 24, 57
    // and 70 s. So 20, 50 and 55 are followed, after 3, 7 and 2 s, by 23 and 57; 80 is preceded by 70.
    let mut counts = super::counts::Counts::new(10_000);
    let near = [(7, 0)];
    for (at, value) in [(0, 2), (20, 0), (23, 1), (24, 1), (50, 0), (55, 0), (57, 1), (70, 1), (80, 0), (120, 2)] {
        counts.instant(at * 1000, &[Seen { place: 7, near: &near, values: &[value] }]);
    }
    assert_eq!(counts.end(), 100_000);
    let pair = &counts.pairs[&(0, 1)];
    assert_eq!((pair.followed, pair.preceded, pair.answers), (3, 1, 2));
    assert_eq!((pair.delays.percentile(50), pair.delays.percentile(95)), (3000, 7000));
    let causes = counts.causes[&0];
    // 50 and 55 are one occasion.
    assert_eq!((causes.count, causes.occasions), (4, 3));
    // A value 1 can be seen from 13 to 24 s, 47 to 57 s and 60 to 70 s: 31 of 100 s.
    assert_eq!(counts.by_chance()[&(0, 1)], 4 * 31_000);
    // What came at the end, or at the same moment, follows nothing.
    assert_eq!(counts.left_out.unsettled, 1);
    let mut counts = super::counts::Counts::new(10_000);
    let at_once = || [0, 1].map(|value| Seen { place: 7, near: &near, values: if value == 0 { &[0] } else { &[1] } });
    (0..9).for_each(|tenth| counts.instant(tenth * 20_000, &at_once()));
    counts.end();
    assert!(counts.pairs.is_empty(), "{:?}", counts.pairs);
}

/// Of 60 s, exponentially: half of them are shorter than 42 s.
fn delay(random: &mut Random) -> i64 {
    let unit = (random.below(1_000_000) + 1) as f64 / 1e6;
    (-libm::log(unit) * 60.0) as i64 + 1
}

/// Two days of noise, and deploys of which 8 in 10 bring an error at the same service.
fn planted(seed: u64) -> Vec<Event> {
    let mut random = Random(seed);
    let mut events: Vec<Event> =
        (0..2000).map(|_| (random.below(172_800) as i64, random.service(), random.category())).collect();
    events.retain(|event| event.2 != "deploy");
    for _ in 0..100 {
        let (at, service) = (random.below(172_000) as i64, random.service());
        events.push((at, service.clone(), "deploy"));
        if random.below(10) < 8 {
            events.push((at + delay(&mut random), service, "error"));
        }
    }
    events
}

#[test]
fn a_cause_that_was_planted_is_found_with_its_delay_and_nothing_else() {
    for seed in 0..10 {
        let lifts = found_by(&spec(Where::Same(vec!["service".into()]), 300), &planted(seed), &[], 1, 8192);
        assert_eq!(names(&lifts), ["deploy -> error"], "{seed}");
        let lift = &lifts.found[0];
        assert!(lift.low > 2.0 && lift.low < lift.lift && lift.lift < lift.high && lift.order > 1.5, "{lift:?}");
        assert!((25_000..65_000).contains(&lift.median_ms), "{lift:?}");
        assert!((120_000..=300_000).contains(&lift.within_ms) && lift.decays, "{lift:?}");
    }
}

#[test]
fn the_same_is_found_whatever_the_workers_and_batches() {
    let by = || spec(Where::Hops(1), 300);
    let links = [("s0", "s1"), ("s1", "s2")];
    let whole = found_by(&by(), &planted(1), &links, 1, 8192);
    assert_eq!(names(&whole), ["deploy -> error"]);
    for (workers, piece) in [(1, 1), (2, 7), (4, 100)] {
        assert_eq!(found_by(&by(), &planted(1), &links, workers, piece), whole);
    }
}

#[test]
fn an_effect_at_a_neighbour_is_found_by_hops() {
    // A deploy of the data store is felt by those that depend on it.
    let mut random = Random(3);
    let mut events: Vec<Event> = (0..60).map(|n| (n * 2000 + random.below(900) as i64, "store".to_string(), "deploy")).collect();
    let felt: Vec<Event> = events.iter().map(|(at, ..)| (at + 20, "shop".to_string(), "latency")).collect();
    events.extend(felt);
    let near = found_by(&spec(Where::Hops(1), 60), &events, &[("shop", "store")], 1, 8192);
    assert_eq!(names(&near), ["deploy -> latency"]);
    // 58 causes count, each after 20 s: the first and the last are at the ends of the stream.
    let lift = &near.found[0];
    assert_eq!((lift.causes, lift.followed, lift.answers, lift.preceded), (58, 58, 58, 0));
    assert_eq!((lift.median_ms, lift.within_ms, lift.decays), (20_000, 20_000, false));
    assert_eq!(names(&found_by(&spec(Where::Hops(1), 60), &events, &[("shop", "other")], 1, 8192)), [""; 0]);
    assert_eq!(names(&found_by(&spec(Where::Same(vec!["service".into()]), 60), &events, &[], 1, 8192)), [""; 0]);
}

/// A day and a half of events that have nothing to do with one another.
fn noise(seed: u64, kind: usize) -> Vec<Event> {
    let mut random = Random(seed * 31 + kind as u64);
    let mut events = Vec::new();
    let span = 130_000;
    while events.len() < 4000 {
        let at = random.below(span) as i64;
        match kind {
            // Evenly.
            0 => events.push((at, random.service(), random.category())),
            // By day, and few at night.
            1 if random.below(1000) < if at % 86_400 < 43_200 { 1000 } else { 100 } => {
                events.push((at, random.service(), random.category()));
            }
            1 => {}
            // In bursts of all categories, at one service.
            2 => {
                let (service, events_of_it) = (random.service(), random.below(40));
                let burst = |_| (at + random.below(400) as i64, service.clone(), random.category());
                events.extend((0..events_of_it).map(burst));
            }
            // Some categories are rare.
            _ => {
                let category = CATEGORIES[(random.below(6) * random.below(6) / 5) as usize];
                let service = random.service();
                let repeated = if random.below(20) == 0 { 30 } else { 1 };
                events.extend((0..repeated).map(|n| (at + n * 7, service.clone(), category)));
            }
        }
    }
    events
}

#[test]
fn noise_suggests_nothing_or_almost() {
    let mut told = Vec::new();
    for kind in 0..4 {
        for place in [Where::Anywhere, Where::Same(vec!["service".into()]), Where::Hops(1)] {
            for seed in 0..25 {
                let links = [("s0", "s1"), ("s1", "s2"), ("s3", "s4")];
                let lifts = found_by(&spec(place.clone(), 120), &noise(seed, kind), &links, 1, 8192);
                if !lifts.found.is_empty() {
                    told.push(format!("{kind} {place:?} {seed}: {:?}", lifts.found));
                }
            }
        }
    }
    // The bounds allow some 7 of 300 streams with a pair; it is one.
    assert!(told.len() <= 1, "{told:#?}");
}

/// What the definition says of one pair: followed, preceded, causes, and how long a value 1 could be seen from a place.
fn by_definition(events: &[(i64, u64, u16)], within: i64) -> (u64, u64, u64, u128) {
    let (from, until) = (events[0].0 + within, events.last().unwrap().0 - within);
    let causes: Vec<_> = events.iter().filter(|e| e.2 == 0 && e.0 >= from && e.0 <= until).collect();
    let effect = |place: u64, of: &dyn Fn(i64) -> bool| events.iter().any(|e| e.1 == place && e.2 == 1 && of(e.0));
    let followed = causes.iter().filter(|c| effect(c.1, &|at| at > c.0 && at <= c.0 + within)).count();
    let preceded = causes.iter().filter(|c| effect(c.1, &|at| at < c.0 && at >= c.0 - within)).count();
    let seen = |place: u64| (from..until).filter(|&x| effect(place, &|at| at > x && at <= x + within)).count();
    let by_chance = causes.iter().map(|cause| seen(cause.1) as u128).sum();
    (followed as u64, preceded as u64, causes.len() as u64, by_chance)
}

proptest! {
    #![proptest_config(crate::harness::cases(200))]

    #[test]
    fn what_is_counted_is_what_the_definition_says(
        events in proptest::collection::vec((0_i64..200, 0_u64..3, 0_u16..3), 2..80),
        within in 1_i64..40,
    ) {
        let events: BTreeSet<(i64, u64, u16)> = events.into_iter().collect();
        let events: Vec<_> = events.into_iter().collect();
        let mut counts = super::counts::Counts::new(within);
        let near: Vec<[(u64, u8); 1]> = (0..3).map(|place| [(place, 0)]).collect();
        for instant in events.chunk_by(|a, b| a.0 == b.0) {
            let seen: Vec<Seen<'_>> = instant
                .iter()
                .map(|e| Seen { place: e.1, near: &near[e.1 as usize], values: std::slice::from_ref(&e.2) })
                .collect();
            counts.instant(instant[0].0, &seen);
        }
        counts.end();
        let pair = counts.pairs.get(&(0, 1));
        let counted = (
            pair.map_or(0, |pair| pair.followed),
            pair.map_or(0, |pair| pair.preceded),
            counts.causes.get(&0).map_or(0, |causes| causes.count),
            counts.by_chance().get(&(0, 1)).copied().unwrap_or_default(),
        );
        prop_assert_eq!(counted, by_definition(&events, within));
    }
}
