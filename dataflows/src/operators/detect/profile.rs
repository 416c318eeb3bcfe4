//! What is usual at this hour of the day and of the week, learnt as it goes.
//!
//! Of each of the 24 hours of a day and the 168 of a week (UTC) there is a mean, and how far values are from it. Values
//! are gathered until their hour is over, and then count as one: so an hour weighs as much with sixty values as with one,
//! and no value is judged by those of its own hour. The last hours weigh most, as a mean of some eight does.
//!
//! ```text
//!   value ──► this hour: count, mean, variance ── when it is over ──┬─► the hour of the day
//!                                                                   └─► the hour of the week
//! ```
//!
//! Until there was an hour of the week, that of the day stands in for it. 5 KB.

use serde::{Deserialize, Serialize};

const HOUR_MS: i64 = 3_600_000;
const DAY: usize = 24;
const WEEK: usize = 168;
/// How many hours of a day, and of a week, are weighed, about.
const WEIGHED: f64 = 8.0;

/// The hours of days and weeks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Profile {
    /// Of each hour of a day,
    day: Vec<Spread>,
    /// and of a week.
    week: Vec<Spread>,
    /// Of which hour since 1970 values are gathered,
    current: i64,
    /// and those.
    gathered: Spread,
}

/// A mean, and how far from it that was of which it is one.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Spread {
    count: f64,
    mean: f64,
    variance: f64,
}

/// What an hour tells of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AtHour {
    /// By how many hours that is told.
    pub(super) hours: f64,
    /// What was to be expected.
    pub(super) expected: f64,
    /// How far its values are from that, as a standard deviation.
    pub(super) deviation: f64,
}

impl Spread {
    /// Takes values in that have `mean` and `variance`, as one; what was before weighs `most` of them, less one, at most.
    fn add(&mut self, mean: f64, variance: f64, most: f64) {
        let away = mean - self.mean;
        // What a float cannot square would stay for long.
        if !(away * away).is_finite() {
            return;
        }
        self.count += 1.0;
        let share = 1.0 / self.count.min(most);
        self.mean += share * away;
        self.variance += share * (variance + away * (mean - self.mean) - self.variance);
    }
}

impl Profile {
    pub(super) fn new() -> Profile {
        Profile {
            day: vec![Spread::default(); DAY],
            week: vec![Spread::default(); WEEK],
            current: i64::MIN,
            gathered: Spread::default(),
        }
    }

    /// What is usual at `at_ms`, in milliseconds since 1970: of the hour of the week if there were so many as are
    /// `needed`, one at least, or of the hour of the day; `None` if there were fewer of both. Times do not go back.
    pub(super) fn at(&mut self, at_ms: i64, needed: f64) -> Option<AtHour> {
        let current = at_ms.div_euclid(HOUR_MS);
        if current != self.current {
            self.fold();
            self.current = current;
        }
        let known = |hours: &[Spread]| {
            let Spread { count, mean, variance } = hours[place(current, hours.len())];
            (count >= needed).then(|| AtHour { hours: count, expected: mean, deviation: variance.sqrt() })
        };
        known(&self.week).or_else(|| known(&self.day))
    }

    /// How far values are from what is expected of their hours, as a variance: the mean of all hours of the week if there
    /// were so many of this one as are `needed`, or of all hours of the day.
    pub(super) fn variance(&self, needed: f64) -> f64 {
        let this = |hours: &&[Spread]| hours[place(self.current, hours.len())].count >= needed;
        let hours = [&self.week[..], &self.day].into_iter().find(this).unwrap_or_default();
        let known = || hours.iter().filter(|hour| hour.count >= needed);
        known().map(|hour| hour.variance).sum::<f64>() / known().count().max(1) as f64
    }

    /// Takes in a value of the hour that was asked for last.
    pub(super) fn add(&mut self, value: f64) {
        self.gathered.add(value, 0.0, f64::INFINITY);
    }

    /// What was gathered counts from now on.
    fn fold(&mut self) {
        let Spread { count, mean, variance } = std::mem::take(&mut self.gathered);
        if count > 0.0 {
            for hours in [&mut self.day, &mut self.week] {
                let place = place(self.current, hours.len());
                hours[place].add(mean, variance, WEIGHED);
            }
        }
    }
}

fn place(hour: i64, hours: usize) -> usize {
    hour.rem_euclid(hours as i64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_MS: i64 = 59_000;

    fn at(day: i64, hour: i64) -> i64 {
        (day * DAY as i64 + hour) * HOUR_MS + AT_MS
    }

    #[test]
    fn the_hour_of_the_day_stands_in_for_that_of_the_week() {
        let mut profile = Profile::new();
        for day in 0..7 {
            let expected = profile.at(at(day, 8), 1.0).map(|hour| hour.expected);
            assert_eq!(expected, (day > 0).then_some(100.0));
            profile.add(100.0);
            profile.at(at(day, 9), 1.0);
            profile.add(day as f64);
        }
        let told = |profile: &mut Profile, day: i64, needed: f64| {
            profile.at(at(day, 9), needed).map(|hour| (hour.hours, hour.expected))
        };
        assert_eq!(told(&mut profile, 9, 1.0), Some((1.0, 2.0)));
        assert_eq!(told(&mut profile, 9, 2.0), Some((7.0, 3.0)));
        assert_eq!(told(&mut profile, 9, 8.0), None);
    }

    #[test]
    fn an_hour_counts_once_it_is_over_and_as_one() {
        let mut profile = Profile::new();
        // Two values in the first week, two hundred in the second.
        for (day, values) in [(0, vec![1.0, 3.0]), (7, vec![8.0; 200])] {
            for value in values {
                let before = profile.at(at(day, 5), 1.0).map(|hour| hour.expected);
                assert_eq!(before, (day > 0).then_some(2.0));
                profile.add(value);
            }
        }
        // The mean of 2 and 8; three from it, and the first values one more from theirs.
        let hour = profile.at(at(14, 5), 1.0).unwrap();
        assert_eq!((hour.hours, hour.expected, hour.deviation), (2.0, 5.0, f64::midpoint(1.0 + 9.0, 9.0).sqrt()));
        // Before 1970 as well.
        assert_eq!(profile.at(at(-7, 5), 1.0), Some(hour));
    }
}
