//! What depends on what, and since when: a graph whose edges come and go in event time.
//!
//! ```text
//!   checkout ──depends on──► ledger      from 09:00
//!   checkout ──depends on──► rates       from 09:00 to 11:30
//! ```
//!
//! In: rows in time order, each of which adds or removes an edge from its time on; of rows of one edge and one time the
//! last in canonical order holds, so one that adds. A place is known by a 64-bit hash of its cell. Edges that ended are
//! kept as long as an event may still ask how it was.
//!
//! A look costs the edges that a search of so many hops meets, and stops at [`MAX_NEIGHBOURS`] places; what was found for the
//! present is kept until the graph changes. State: an edge a pair that is linked or was lately; it grows with what the
//! table tells, as a join's table does.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use levada_types::{KeyGroup, StateChanges};

/// So many places around one are looked at: the nearest, and of those equally near the ones with the smallest hashes.
pub(super) const MAX_NEIGHBOURS: usize = 64;
/// So many places are remembered together with what is around them.
const MAX_KNOWN: usize = 4096;

/// A place around another one: its hash, and how many hops away it is.
pub(super) type Near = (u64, u8);

/// When an edge was there: from, and until just before.
type Spans = Vec<(i64, i64)>;

#[derive(Debug, Default)]
pub(super) struct Topology {
    /// By what depends and what it depends on.
    edges: BTreeMap<(u64, u64), Spans>,
    /// By place: the others of its edges.
    around: HashMap<u64, Vec<u64>, ahash::RandomState>,
    /// When it last changed.
    changed_at: i64,
    /// What is around a place now, sorted by hash.
    known: HashMap<u64, Arc<[Near]>, ahash::RandomState>,
    /// Edges that the next checkpoint writes or deletes.
    unsaved: std::collections::BTreeSet<(u64, u64)>,
    /// Edges that ended, by when.
    ended: BTreeMap<i64, Vec<(u64, u64)>>,
}

impl Topology {
    /// Takes in a row.
    pub(super) fn set(&mut self, a: u64, b: u64, linked: bool, time: i64) {
        if a == b {
            return;
        }
        let spans = self.edges.entry((a, b)).or_default();
        match (linked, spans.last_mut()) {
            // Removed at this very time: that row does not hold.
            (true, Some(last)) if last.1 == time => last.1 = i64::MAX,
            (true, Some(last)) if last.1 == i64::MAX => return,
            (true, _) => {
                spans.push((time, i64::MAX));
                for (place, other) in [(a, b), (b, a)] {
                    let others = self.around.entry(place).or_default();
                    if !others.contains(&other) {
                        others.push(other);
                    }
                }
            }
            (false, Some(last)) if last.1 == i64::MAX => {
                last.1 = time;
                self.ended.entry(time).or_default().push((a, b));
            }
            (false, _) => {
                if spans.is_empty() {
                    self.edges.remove(&(a, b));
                }
                return;
            }
        }
        self.changed_at = time;
        self.known.clear();
        self.unsaved.insert((a, b));
    }

    /// Whether `a` depended on `b` at a time.
    pub(super) fn depends(&self, a: u64, b: u64, time: i64) -> bool {
        self.edges.get(&(a, b)).is_some_and(|spans| spans.iter().any(|&(from, to)| from <= time && time < to))
    }

    /// The places of the edges of one, then or at another time.
    pub(super) fn beside(&self, place: u64) -> &[u64] {
        self.around.get(&place).map_or(&[], Vec::as_slice)
    }

    /// Whether something was linked to a place at a time.
    pub(super) fn is_place(&self, place: u64, time: i64) -> bool {
        let linked = |&other: &u64| self.depends(place, other, time) || self.depends(other, place, time);
        self.beside(place).iter().any(linked)
    }

    /// What is around a place at a time, the place itself too, sorted by hash.
    pub(super) fn near(&mut self, place: u64, time: i64, hops: u8) -> Arc<[Near]> {
        let now = time >= self.changed_at;
        if now && let Some(known) = self.known.get(&place) {
            return known.clone();
        }
        let found: Arc<[Near]> = self.search(place, time, hops).into();
        if now {
            if self.known.len() >= MAX_KNOWN {
                self.known.clear();
            }
            self.known.insert(place, found.clone());
        }
        found
    }

    fn search(&self, place: u64, time: i64, hops: u8) -> Vec<Near> {
        let mut found = vec![(place, 0)];
        let mut ring = 0..1;
        for hop in 1..=hops {
            let mut next: Vec<u64> = Vec::new();
            for &(from, _) in &found[ring.clone()] {
                let linked = |&&other: &&u64| self.depends(from, other, time) || self.depends(other, from, time);
                next.extend(self.beside(from).iter().filter(linked));
            }
            next.sort_unstable();
            next.dedup();
            next.retain(|other| found.iter().all(|(known, _)| known != other));
            next.truncate(MAX_NEIGHBOURS - found.len());
            ring = found.len()..found.len() + next.len();
            found.extend(next.into_iter().map(|other| (other, hop)));
        }
        found.sort_unstable();
        found
    }

    /// Forgets what ended before `horizon`.
    pub(super) fn forget(&mut self, horizon: i64) {
        while let Some(first) = self.ended.first_entry().filter(|entry| *entry.key() < horizon) {
            for (a, b) in first.remove() {
                let Some(spans) = self.edges.get_mut(&(a, b)) else { continue };
                spans.retain(|&(_, to)| to >= horizon);
                self.unsaved.insert((a, b));
                if spans.is_empty() {
                    self.edges.remove(&(a, b));
                    if self.edges.contains_key(&(b, a)) {
                        continue;
                    }
                    for (place, other) in [(a, b), (b, a)] {
                        if let Some(others) = self.around.get_mut(&place) {
                            others.retain(|&known| known != other);
                            if others.is_empty() {
                                self.around.remove(&place);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Appends the edges that changed, under keys that begin with `prefix`.
    pub(super) fn checkpoint(&mut self, prefix: u8, changes: &mut StateChanges) -> Result<(), postcard::Error> {
        for (a, b) in std::mem::take(&mut self.unsaved) {
            let key = [&[prefix][..], &a.to_be_bytes(), &b.to_be_bytes()].concat();
            match self.edges.get(&(a, b)) {
                Some(spans) => changes.put(KeyGroup(0), &key, &postcard::to_stdvec(&(self.changed_at, spans))?),
                None => changes.delete(KeyGroup(0), &key),
            }
        }
        Ok(())
    }

    /// Takes up an edge; `key` is without its prefix.
    pub(super) fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), postcard::Error> {
        let (a, b) = key.split_at_checked(8).ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        let word = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes);
        let (Ok(a), Ok(b)) = (word(a), word(b)) else { return Err(postcard::Error::DeserializeUnexpectedEnd) };
        let (changed_at, spans): (i64, Spans) = postcard::from_bytes(value)?;
        self.changed_at = self.changed_at.max(changed_at);
        for &(_, to) in spans.iter().filter(|(_, to)| *to < i64::MAX) {
            self.ended.entry(to).or_default().push((a, b));
        }
        self.edges.insert((a, b), spans);
        for (place, other) in [(a, b), (b, a)] {
            let others = self.around.entry(place).or_default();
            if !others.contains(&other) {
                others.push(other);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_of_one_direction_leaves_the_other() {
        let mut topology = Topology::default();
        topology.set(1, 2, true, 0);
        topology.set(1, 2, false, 10);
        topology.set(2, 1, true, 20);
        topology.forget(50);
        for (from, to) in [(1, 2), (2, 1)] {
            assert_eq!(*topology.near(from, 60, 1), [(1, u8::from(from != 1)), (2, u8::from(from != 2))]);
            assert_eq!(topology.beside(from), [to]);
        }
        topology.set(2, 1, false, 70);
        topology.forget(100);
        assert!(topology.beside(1).is_empty() && topology.beside(2).is_empty());
    }
}
