//! What is usual at this hour of the day and of the week, learnt as it goes.
//!
//! Of each of the 24 hours of a day and the 168 of a week (UTC) there is a mean, and of the latter how far values are
//! from it, each of about the last 60 values of the hour: with more than one a minute, of a part of the hour. Until an
//! hour of the week has a value, that of the day stands in for it. 4 KB.

use serde::{Deserialize, Serialize};

const HOUR_MS: i64 = 3_600_000;
const DAY: i64 = 24;
const WEEK: i64 = 168;
/// How many values an hour's means weigh, about.
const WEIGHED: f64 = 60.0;

/// The hours of days and weeks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Profile {
    day: Vec<Hour>,
    week: Vec<Hour>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Hour {
    count: f64,
    mean: f64,
    variance: f64,
}

/// What an hour tells of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AtHour {
    /// How many values there were at this hour of the week.
    pub(super) seen: f64,
    /// What was to be expected: of this hour of the week, or of the day.
    pub(super) expected: f64,
    /// How far values of this hour of the week are from what is expected, as a standard deviation.
    pub(super) deviation: f64,
}

impl Hour {
    fn add(&mut self, value: f64) {
        let away = value - self.mean;
        // What a float cannot square would stay for long.
        if !(away * away).is_finite() {
            return;
        }
        self.count += 1.0;
        let share = 1.0 / self.count.min(WEIGHED);
        self.mean += share * away;
        self.variance += share * (away * (value - self.mean) - self.variance);
    }
}

impl Profile {
    pub(super) fn new() -> Profile {
        Profile { day: vec![Hour::default(); DAY as usize], week: vec![Hour::default(); WEEK as usize] }
    }

    /// What is usual at `at_ms`, in milliseconds since 1970; `None` at an hour of the day of which nothing was seen.
    pub(super) fn at(&self, at_ms: i64) -> Option<AtHour> {
        let (day, week) = (self.day[place(at_ms, DAY)], self.week[place(at_ms, WEEK)]);
        (day.count > 0.0).then(|| AtHour {
            seen: week.count,
            expected: if week.count > 0.0 { week.mean } else { day.mean },
            deviation: week.variance.sqrt(),
        })
    }

    /// Takes a value in.
    pub(super) fn add(&mut self, at_ms: i64, value: f64) {
        self.day[place(at_ms, DAY)].add(value);
        self.week[place(at_ms, WEEK)].add(value);
    }
}

fn place(at_ms: i64, hours: i64) -> usize {
    at_ms.div_euclid(HOUR_MS).rem_euclid(hours) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hour_of_the_day_stands_in_for_that_of_the_week() {
        let mut profile = Profile::new();
        let at = |day: i64, hour: i64| (day * DAY + hour) * HOUR_MS + 59_000;
        for day in 0..7 {
            assert_eq!(profile.at(at(day, 8)).map(|hour| hour.expected), (day > 0).then_some(100.0));
            profile.add(at(day, 8), 100.0);
            profile.add(at(day, 9), day as f64);
        }
        assert_eq!(profile.at(at(9, 9)), Some(AtHour { seen: 1.0, expected: 2.0, deviation: 0.0 }));
        // Before 1970 as well.
        assert_eq!(profile.at(at(-5, 9)), profile.at(at(9, 9)));
    }
}
