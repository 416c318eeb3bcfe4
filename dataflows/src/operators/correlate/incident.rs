//! What is known of an incident: a summary that takes in an event, or a whole other incident.
//!
//! Both ways of growing agree whatever their order, so that it makes no difference which of two
//! incidents was taken into which. (The sum of severities is a sum of floats; it is deterministic
//! because events come in canonical order.)

use std::cmp::Reverse;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::cell;

/// How many members an incident lists.
pub(super) const MEMBERS: usize = 20;
/// How many of the most frequent values of a counted column an incident tells.
pub(super) const TOP: usize = 5;

/// An event's place in the order of events, and its name: its time, and a hash of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct EventKey {
    pub(super) time: i64,
    pub(super) hash: u64,
}

impl EventKey {
    /// The identity that an incident has from its first event: 16 hexadecimal digits.
    pub(super) fn id(self) -> String {
        format!("{:016x}", self.hash)
    }
}

/// The summary of an incident, or of events that may yet become one.
///
/// It grows with the values of counted columns, at most one a column and event, and so is bounded by
/// `max_events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Incident {
    /// The first event that it had when it opened; before, the first that it has.
    pub(super) key: EventKey,
    /// How many rows have told of it: 0 as long as it is not open.
    pub(super) revision: i64,
    /// Whether it has changed since the last of them.
    pub(super) changed: bool,
    pub(super) first_at: i64,
    pub(super) last_at: i64,
    pub(super) events: u64,
    pub(super) severity: f64,
    pub(super) peak: f64,
    pub(super) peak_at: i64,
    /// Edges of each link.
    pub(super) edges: Vec<u64>,
    /// The values of each counted column.
    pub(super) tallies: Vec<Tally>,
    /// Time and cell of the first [`MEMBERS`] members, in order of both.
    pub(super) members: Vec<(i64, Box<[u8]>)>,
}

impl Incident {
    /// Nothing yet, of so many links and counted columns.
    pub(super) fn new(key: EventKey, links: usize, counted: usize) -> Incident {
        Incident {
            key,
            revision: 0,
            changed: false,
            first_at: i64::MAX,
            last_at: i64::MIN,
            events: 0,
            severity: 0.0,
            peak: f64::NEG_INFINITY,
            peak_at: i64::MAX,
            edges: vec![0; links],
            tallies: vec![Tally::default(); counted],
            members: Vec::new(),
        }
    }

    /// Whether it has been told of.
    pub(super) fn is_open(&self) -> bool {
        self.revision > 0
    }

    /// Takes in an event. Its edges, counted values and member are given apart.
    pub(super) fn add(&mut self, time: i64, severity: f64) {
        self.first_at = self.first_at.min(time);
        self.last_at = self.last_at.max(time);
        self.events += 1;
        self.severity += severity;
        self.see_peak(severity, time);
    }

    /// Takes in the name of an event.
    pub(super) fn add_member(&mut self, time: i64, cell: &[u8]) {
        let place = self.members.partition_point(|(t, c)| (*t, &**c) <= (time, cell));
        if place < MEMBERS {
            self.members.truncate(MEMBERS - 1);
            self.members.insert(place, (time, cell.into()));
        }
    }

    /// Takes in another incident; its identity and revision are left to the caller. Gives how many
    /// values were moved.
    pub(super) fn absorb(&mut self, other: Incident) -> usize {
        self.first_at = self.first_at.min(other.first_at);
        self.last_at = self.last_at.max(other.last_at);
        self.events += other.events;
        self.severity += other.severity;
        self.see_peak(other.peak, other.peak_at);
        for (mine, theirs) in self.edges.iter_mut().zip(other.edges) {
            *mine += theirs;
        }
        let mut moved = other.members.len();
        for (time, cell) in other.members {
            self.add_member(time, &cell);
        }
        for (mine, theirs) in self.tallies.iter_mut().zip(other.tallies) {
            moved += theirs.counts.len();
            for (cell, count) in theirs.counts {
                mine.add(&cell, count);
            }
        }
        moved
    }

    fn see_peak(&mut self, severity: f64, at: i64) {
        if severity > self.peak {
            (self.peak, self.peak_at) = (severity, at);
        } else if severity == self.peak {
            self.peak_at = self.peak_at.min(at);
        }
    }
}

/// How often each value of a column occurred, with the most frequent ones at hand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<(Box<[u8]>, u64)>", into = "Vec<(Box<[u8]>, u64)>")]
pub(super) struct Tally {
    counts: HashMap<Box<[u8]>, u64, ahash::RandomState>,
    /// At most [`TOP`]: the greatest counts, at equal counts the smallest values.
    top: Vec<(Box<[u8]>, u64)>,
}

impl Tally {
    /// Counts a value. As counts only grow, only this value can rise in `top`, and looking at
    /// [`TOP`] entries is enough.
    pub(super) fn add(&mut self, cell: &[u8], by: u64) {
        let count = self.counts.entry_ref(cell).or_insert(0);
        *count += by;
        let count = *count;
        if let Some(place) = self.top.iter().position(|(c, _)| **c == *cell) {
            self.top[place].1 = count;
        } else if self.top.len() < TOP {
            self.top.push((cell.into(), count));
        } else if let Some(last) = self.top.last_mut()
            && (Reverse(count), cell) < (Reverse(last.1), &*last.0)
        {
            *last = (cell.into(), count);
        } else {
            return;
        }
        self.top.sort_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
    }

    /// How many values there are.
    pub(super) fn distinct(&self) -> usize {
        self.counts.len()
    }

    /// The most frequent values, as a JSON array of `[value, count]`.
    pub(super) fn top(&self) -> String {
        let pairs = self.top.iter().map(|(cell, count)| serde_json::json!([cell::json(cell), count]));
        serde_json::Value::Array(pairs.collect()).to_string()
    }
}

impl From<Vec<(Box<[u8]>, u64)>> for Tally {
    fn from(counts: Vec<(Box<[u8]>, u64)>) -> Tally {
        let mut tally = Tally::default();
        for (cell, count) in counts {
            tally.add(&cell, count);
        }
        tally
    }
}

impl From<Tally> for Vec<(Box<[u8]>, u64)> {
    fn from(tally: Tally) -> Self {
        let mut counts: Vec<_> = tally.counts.into_iter().collect();
        counts.sort();
        counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_top_is_what_sorting_all_counts_gives(
            parts in proptest::collection::vec((proptest::collection::vec((0u8..12, 1u64..4), 0..40), any::<bool>()), 1..5),
        ) {
            // Parts are added value by value, or taken in as a whole.
            let key = EventKey { time: 0, hash: 0 };
            let mut incident = Incident::new(key, 0, 1);
            let mut expected = std::collections::BTreeMap::<u8, u64>::new();
            for (values, whole) in &parts {
                let mut part = Incident::new(key, 0, 1);
                for &(value, by) in values {
                    *expected.entry(value).or_default() += by;
                    let tally = if *whole { &mut part.tallies[0] } else { &mut incident.tallies[0] };
                    tally.add(&[b's', b'a' + value], by);
                }
                incident.absorb(part);
            }
            let mut expected: Vec<(u8, u64)> = expected.into_iter().collect();
            expected.sort_by_key(|&(value, count)| (Reverse(count), value));
            prop_assert_eq!(incident.tallies[0].distinct(), expected.len());
            expected.truncate(TOP);
            let expected: Vec<_> =
                expected.iter().map(|&(value, count)| serde_json::json!([((b'a' + value) as char).to_string(), count])).collect();
            prop_assert_eq!(incident.tallies[0].top(), serde_json::Value::Array(expected).to_string());
            let bytes = postcard::to_stdvec(&incident).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Incident>(&bytes).unwrap(), incident);
        }
    }
}
