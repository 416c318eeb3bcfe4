//! Who works where and when, what there is to do, and how much of it at which hour.

use std::collections::{BTreeSet, VecDeque};

use crate::generate::random::Random;

pub(super) const MINUTE_US: u64 = 60_000_000;
pub(super) const HOUR_US: u64 = 60 * MINUTE_US;
const DAY_US: u64 = 24 * HOUR_US;
/// A shift begins at 06:00, 14:00 and 22:00.
pub(super) const SHIFT_US: u64 = 8 * HOUR_US;
/// When the stream begins, in hours of the day.
const BEGIN_HOUR: u64 = 6;
const EVENTS_PER_ZONE: f64 = 0.3;

/// By hour of the day, from 0: for how much of its time a crew is busy.
const BUSY: [f64; 24] = [
    0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.55, 0.6, 0.66, 0.7, 0.7, 0.64, 0.64, 0.66, 0.7, 0.72, 0.72, 0.7,
    0.65, 0.6, 0.55, 0.5, 0.5,
];
/// How much of a shift a worker is at work: breaks, coming and leaving, and who comes late are the rest.
const AT_WORK: f64 = 0.84;

/// A kind of task: how long it takes, and how many units it has.
pub(super) struct Type {
    pub name: &'static str,
    base_s: f64,
    unit_s: f64,
    least_units: u64,
    most_units: u64,
}

pub(super) const TYPES: [Type; 4] = [
    Type { name: "pick", base_s: 40.0, unit_s: 14.0, least_units: 1, most_units: 10 },
    Type { name: "pack", base_s: 30.0, unit_s: 20.0, least_units: 1, most_units: 6 },
    Type { name: "restock", base_s: 90.0, unit_s: 10.0, least_units: 4, most_units: 20 },
    Type { name: "heavy", base_s: 60.0, unit_s: 32.0, least_units: 1, most_units: 8 },
];
/// How often each comes, usually, and while heavy ones come.
const USUAL: [u64; 4] = [55, 30, 12, 3];
const HEAVY: [u64; 4] = [36, 18, 6, 40];

/// Something to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub number: u64,
    pub kind: usize,
    pub units: u64,
}

/// A growing slowness.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decline {
    pub from_us: u64,
    pub ramp_us: u64,
    pub until_us: u64,
    /// By how much tasks take longer in the end: 0.4 is 1.4 times as long.
    pub by: f64,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub name: String,
    pub home: usize,
    pub shift: usize,
    /// How long tasks take, beside what is usual.
    pub pace: f64,
    /// Where they are on duty, if they are.
    pub zone: Option<usize>,
    pub logged_in_us: u64,
    pub leaves_us: u64,
    /// When each of today's breaks is due, and how long it is; the next one last.
    pub breaks: Vec<(u64, u64)>,
    pub decline: Option<Decline>,
    /// Until then they are called away.
    pub away_until_us: u64,
}

#[derive(Debug, Default)]
pub(super) struct Zone {
    pub name: String,
    pub waiting: VecDeque<Task>,
    /// Who is free.
    pub free: BTreeSet<usize>,
    /// How many are on duty, whether they are free, busy or on a break.
    pub on_duty: usize,
    pub overload: Option<Overload>,
    /// Until then there are this many times as many tasks.
    pub burst: (u64, f64),
    pub heavy_until_us: u64,
}

/// A zone that gets more than it can do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overload {
    pub from_us: u64,
    /// Until then tasks come, this many times what the crew can do; then those that wait are worked off.
    pub surge_until_us: u64,
    pub times: f64,
}

pub(super) struct Site {
    pub zones: Vec<Zone>,
    pub workers: Vec<Worker>,
}

impl Site {
    pub(super) fn new(rate: f64, noise: f64, random: &mut Random) -> Site {
        let count = ((rate / EVENTS_PER_ZONE) as usize).max(2);
        let zones: Vec<Zone> =
            (1..=count).map(|number| Zone { name: format!("z-{number}"), ..Zone::default() }).collect();
        let mut workers = Vec::new();
        for home in 0..count {
            let crew = 5 + random.below(7);
            for shift in 0..3 {
                let of_shift = if shift == 2 { crew.div_ceil(2) } else { crew };
                for _ in 0..of_shift {
                    let is_new = random.chance(noise * 0.25);
                    let pace = if is_new { 1.25 } else { 0.85 } + 0.3 * random.unit();
                    workers.push(Worker {
                        name: format!("w-{:03}", workers.len() + 1),
                        home,
                        shift,
                        pace,
                        zone: None,
                        logged_in_us: 0,
                        leaves_us: 0,
                        breaks: Vec::new(),
                        decline: None,
                        away_until_us: 0,
                    });
                }
            }
        }
        Site { zones, workers }
    }

    /// How many tasks a second come to a zone.
    pub(super) fn tasks_per_second(&self, zone: usize, now_us: u64) -> f64 {
        let zone = &self.zones[zone];
        let heavy = now_us < zone.heavy_until_us;
        let can_do = zone.on_duty as f64 * AT_WORK / mean_s(heavy);
        let hour = (now_us / HOUR_US + BEGIN_HOUR) % 24;
        let usual = BUSY[hour as usize] * can_do;
        match zone.overload {
            Some(overload) if now_us < overload.surge_until_us => overload.times * can_do,
            _ if now_us < zone.burst.0 => zone.burst.1 * usual,
            _ => usual,
        }
    }

    /// A task that comes to a zone.
    pub(super) fn task(&self, number: u64, zone: usize, now_us: u64, random: &mut Random) -> Task {
        let heavy = now_us < self.zones[zone].heavy_until_us;
        let kind = random.weighted(if heavy { HEAVY } else { USUAL });
        let Type { least_units, most_units, .. } = TYPES[kind];
        Task { number, kind, units: least_units + random.below(most_units - least_units + 1) }
    }
}

impl Task {
    /// How long it takes at the usual pace, in seconds.
    pub(super) fn usual_s(&self) -> f64 {
        let of = &TYPES[self.kind];
        of.base_s + of.unit_s * self.units as f64
    }
}

impl Decline {
    /// How many times as long things take.
    pub(super) fn times(&self, now_us: u64) -> f64 {
        if now_us < self.from_us || now_us >= self.until_us {
            return 1.0;
        }
        let grown = (now_us - self.from_us) as f64 / self.ramp_us as f64;
        1.0 + self.by * grown.min(1.0)
    }
}

/// How long a task takes on average.
fn mean_s(heavy: bool) -> f64 {
    let weights = if heavy { HEAVY } else { USUAL };
    let of = |(kind, weight): (&Type, u64)| {
        (kind.base_s + kind.unit_s * (kind.least_units + kind.most_units) as f64 / 2.0) * weight as f64
    };
    TYPES.iter().zip(weights).map(of).sum::<f64>() / weights.iter().sum::<u64>() as f64
}

/// Which shift is on, and when it ends.
pub(super) fn shift_at(now_us: u64) -> (usize, u64) {
    ((now_us % DAY_US / SHIFT_US) as usize, now_us - now_us % SHIFT_US + SHIFT_US)
}
