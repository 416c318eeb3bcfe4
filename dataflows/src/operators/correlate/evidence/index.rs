//! Where an event finds others that it may have to do with: buckets of events, each in order.
//!
//! ```text
//!   bucket "host h-7"     e3   e9   e12  ─── e15 looks at the nearest before it
//!   bucket "at ledger"    e3   e11*      ─── * posted there; e15, at a neighbour of ledger, looks as well
//! ```
//!
//! An event is *posted* in some buckets and *looks* into some; most often these are the same. Of two events in one bucket
//! the earlier is a candidate of the later if that one is posted, this one looks, they are near enough in time, and
//! fewer than `candidates` posted ones and fewer than `candidates` looking ones stand between. So what an event is compared
//! with is a matter of which events there are, not of when they came, and a burst in one bucket costs each of its events the
//! same as a lull. (A bound on both sides means that one cause of a million effects is compared with some of them.)
//!
//! A look walks over at most twice as many entries as there may be candidates. An entry costs 24 bytes; one that comes late is
//! inserted, which moves those of the bucket behind it.

use std::collections::VecDeque;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

/// An event's place in the order of events: its time, then a hash of its content.
pub(super) type Order = (i64, u64);

/// That an event is in a bucket to be found.
pub(super) const POSTED: u8 = 1;
/// That it looks there.
pub(super) const LOOKS: u8 = 2;

/// In which bucket an event is, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) bucket: u64,
    pub(super) role: u8,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    order: Order,
    event: u32,
    role: u8,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    buckets: HashMap<u64, VecDeque<Entry>, ahash::RandomState>,
    /// Entries walked over.
    pub(super) steps: usize,
}

impl Index {
    pub(super) fn insert(&mut self, place: Place, order: Order, event: u32) {
        let bucket = self.buckets.entry(place.bucket).or_default();
        let entry = Entry { order, event, role: place.role };
        match bucket.back() {
            Some(last) if last.order > order => {
                let at = bucket.partition_point(|other| other.order < order);
                bucket.insert(at, entry);
            }
            _ => bucket.push_back(entry),
        }
    }

    pub(super) fn remove(&mut self, place: Place, order: Order) {
        let Some(bucket) = self.buckets.get_mut(&place.bucket) else { return };
        if bucket.front().is_some_and(|first| first.order == order) {
            bucket.pop_front();
        } else {
            let at = bucket.partition_point(|other| other.order < order);
            if bucket.get(at).is_some_and(|entry| entry.order == order) {
                bucket.remove(at);
            }
        }
        if bucket.is_empty() {
            self.buckets.remove(&place.bucket);
        }
    }

    /// The candidates before one who looks.
    pub(super) fn before(&mut self, place: Place, order: Order, within_ms: i64, most: usize, mut found: impl FnMut(u32)) {
        let Some(bucket) = self.buckets.get(&place.bucket).filter(|_| place.role & LOOKS > 0) else { return };
        let end = bucket.partition_point(|other| other.order < order);
        let (mut posted, mut looking) = (0, 0);
        for entry in bucket.range(..end).rev() {
            if posted == most || looking == most || order.0.saturating_sub(entry.order.0) > within_ms {
                break;
            }
            self.steps += 1;
            if entry.role & POSTED > 0 {
                found(entry.event);
                posted += 1;
            }
            looking += usize::from(entry.role & LOOKS > 0);
        }
    }

    /// Those behind a place whose candidates depend on whether somebody stands there.
    pub(super) fn behind(&mut self, place: Place, order: Order, within_ms: i64, most: usize, mut found: impl FnMut(u32)) {
        let Some(bucket) = self.buckets.get(&place.bucket) else { return };
        let start = bucket.partition_point(|other| other.order <= order);
        let mut looking = 0;
        for entry in bucket.range(start..) {
            if looking == most || entry.order.0.saturating_sub(order.0) > within_ms {
                break;
            }
            self.steps += 1;
            if entry.role & LOOKS > 0 {
                found(entry.event);
                looking += 1;
            }
        }
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.buckets.values().map(VecDeque::len).sum()
    }
}
