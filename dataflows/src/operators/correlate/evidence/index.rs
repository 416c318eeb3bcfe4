//! Where an event finds others that it may have to do with: buckets of events, each in order.
//!
//! ```text
//!   bucket "host h-7"     e3   e9   e12  ─── e15 looks at the nearest before it
//!   bucket "at ledger"    e3   e11*      ─── * posted there; e15, at a neighbour of ledger, looks as well
//! ```
//!
//! An event is *posted* in some buckets and *looks* into some; most often these are the same. Of two events in one bucket
//! the earlier is a candidate of the later if that one is posted, this one looks, they are near enough in time, and fewer
//! than `candidates` posted ones stand between. So what an event is compared with is a matter of which events there are,
//! not of when they came, and a burst in one bucket costs each of its events the same as a lull.
//!
//! An event that comes late, or goes, shifts what those behind it are compared with: each by one place at most, in each
//! bucket. That is told pair by pair, so nobody has to look again for all the others.
//!
//! A look walks over as many entries as there may be candidates. An entry costs 24 bytes, twice for an event that is posted and
//! looks; one that comes late is inserted, which moves those of the bucket behind it.

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

type Entries = VecDeque<(Order, u32)>;

#[derive(Debug, Default)]
struct Bucket {
    posted: Entries,
    looking: Entries,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    buckets: HashMap<u64, Bucket, ahash::RandomState>,
    /// Entries walked over.
    pub(super) steps: usize,
}

fn insert(entries: &mut Entries, order: Order, event: u32) {
    match entries.back() {
        Some(last) if last.0 > order => {
            let at = entries.partition_point(|other| other.0 < order);
            entries.insert(at, (order, event));
        }
        _ => entries.push_back((order, event)),
    }
}

fn remove(entries: &mut Entries, order: Order) {
    if entries.front().is_some_and(|first| first.0 == order) {
        entries.pop_front();
        return;
    }
    let at = entries.partition_point(|other| other.0 < order);
    if entries.get(at).is_some_and(|entry| entry.0 == order) {
        entries.remove(at);
    }
}

impl Index {
    pub(super) fn insert(&mut self, place: Place, order: Order, event: u32) {
        let bucket = self.buckets.entry(place.bucket).or_default();
        if place.role & POSTED > 0 {
            insert(&mut bucket.posted, order, event);
        }
        if place.role & LOOKS > 0 {
            insert(&mut bucket.looking, order, event);
        }
    }

    pub(super) fn remove(&mut self, place: Place, order: Order) {
        let Some(bucket) = self.buckets.get_mut(&place.bucket) else { return };
        if place.role & POSTED > 0 {
            remove(&mut bucket.posted, order);
        }
        if place.role & LOOKS > 0 {
            remove(&mut bucket.looking, order);
        }
        if bucket.posted.is_empty() && bucket.looking.is_empty() {
            self.buckets.remove(&place.bucket);
        }
    }

    /// The candidates before one who looks.
    pub(super) fn before(&mut self, place: Place, order: Order, within_ms: i64, most: usize, mut found: impl FnMut(u32)) {
        let Some(bucket) = self.buckets.get(&place.bucket).filter(|_| place.role & LOOKS > 0) else { return };
        let is_last = bucket.posted.back().is_none_or(|last| last.0 < order);
        let end = if is_last { bucket.posted.len() } else { bucket.posted.partition_point(|other| other.0 < order) };
        for &(other, event) in bucket.posted.range(end.saturating_sub(most)..end).rev() {
            if order.0.saturating_sub(other.0) > within_ms {
                break;
            }
            self.steps += 1;
            found(event);
        }
    }

    /// Those behind a place at which somebody is posted now, or is no more: each with the one that is no candidate of it any
    /// more for that, or has become one.
    pub(super) fn behind(
        &mut self,
        place: Place,
        order: Order,
        within_ms: i64,
        most: usize,
        came: bool,
        mut found: impl FnMut(u32, Option<u32>),
    ) {
        let Some(bucket) = self.buckets.get(&place.bucket).filter(|_| place.role & POSTED > 0) else { return };
        let next = bucket.posted.partition_point(|other| other.0 <= order);
        let until = bucket.posted.get(next + most - 1).map(|last| last.0);
        let start = bucket.looking.partition_point(|other| other.0 <= order);
        let mut end = next;
        for &(other, event) in bucket.looking.range(start..) {
            if other.0.saturating_sub(order.0) > within_ms || until.is_some_and(|until| other > until) {
                break;
            }
            while bucket.posted.get(end).is_some_and(|posted| posted.0 < other) {
                end += 1;
            }
            self.steps += 1;
            let shifted = end.checked_sub(most + usize::from(came)).and_then(|at| bucket.posted.get(at));
            let shifted = shifted.filter(|shifted| other.0.saturating_sub(shifted.0.0) <= within_ms);
            found(event, shifted.map(|shifted| shifted.1));
        }
    }

    /// Whether fewer than `most` posted ones of a bucket stand between two that are in it.
    pub(super) fn reaches(&self, bucket: u64, first: Order, second: Order, most: usize) -> bool {
        self.buckets.get(&bucket).is_some_and(|bucket| {
            let before = |order: Order| bucket.posted.partition_point(|other| other.0 < order);
            before(second) - before(first) <= most
        })
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.buckets.values().map(|bucket| bucket.posted.len() + bucket.looking.len()).sum()
    }
}
