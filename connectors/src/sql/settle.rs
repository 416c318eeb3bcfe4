//! Which rows are settled: no smaller number can turn up any more.
//!
//! A number out of a sequence is given when a row is inserted, and the row is there for others when its transaction
//! commits. So row 5 may be there before row 4:
//!
//! ```text
//!   A   ├─ gets 4 ──────────────── commits ┤
//!   B        ├─ gets 5 ─ commits ┤
//!                                 ▲        ▲
//!                 seen: 5, A is open       A has ended: all up to 5 is settled, whether or not 4 is there
//! ```
//!
//! So with the last row that is there, it is noted who is writing to the table at that time. Whoever has a smaller number
//! is among these, for a transaction locks the table, and the sequence, before it is given a number, and until it has
//! ended. When all of them have ended, the rows up to that one are settled. Those that begin later get greater numbers,
//! so they need not be waited for, and a busy table is never waited for without end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a look at the table tells, of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The last row that is there; `None` if there is none.
    pub last: Option<u64>,
    /// Who had a transaction open that has written to the table, or is about to, when that was the last row or later:
    /// the transaction's name, and how the server calls who runs it.
    pub writers: BTreeMap<String, String>,
}

/// How far the rows of a table are settled.
#[derive(Clone, Debug, Default)]
pub(super) struct Settling {
    settled: Option<u64>,
    held: Option<Held>,
}

/// Rows that are there and not settled.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The last of them.
    pub last: u64,
    /// Who may still bring smaller ones.
    pub writers: BTreeMap<String, String>,
    since: Instant,
    /// Whether it has been said that they are held for long.
    told: bool,
}

impl Settling {
    /// Takes in what was seen; rows that had been settled already up to `last` stay so.
    pub fn look(&mut self, seen: Seen, now: Instant) {
        if let Some(held) = &mut self.held {
            held.writers.retain(|writer, _| seen.writers.contains_key(writer));
            if held.writers.is_empty() {
                self.settled = self.settled.max(Some(held.last));
                self.held = None;
            }
        }
        if self.held.is_none() && seen.last > self.settled {
            match seen.last {
                Some(last) if !seen.writers.is_empty() => {
                    self.held = Some(Held { last, writers: seen.writers, since: now, told: false });
                }
                last => self.settled = last,
            }
        }
    }

    /// Forgets who was waited for: the transactions of another server have the same names.
    pub fn reconnected(&mut self) {
        self.held = None;
    }

    /// The last settled row.
    pub fn settled(&self) -> Option<u64> {
        self.settled
    }

    /// The rows that are held back.
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Who holds rows back, if they have for `long`: told once.
    pub fn held_for(&mut self, long: Duration, now: Instant) -> Option<&Held> {
        let held = self.held.as_mut().filter(|held| !held.told && now.duration_since(held.since) >= long)?;
        held.told = true;
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(last: u64, writers: &[&str]) -> Seen {
        let writers = writers.iter().map(|name| (name.to_string(), String::new())).collect();
        Seen { last: Some(last), writers }
    }

    #[test]
    fn rows_wait_for_those_who_wrote_when_they_were_seen_and_for_nobody_else() {
        let now = Instant::now();
        let mut settling = Settling::default();
        settling.look(Seen::default(), now);
        assert_eq!((settling.settled(), settling.held().is_some()), (None, false));
        settling.look(seen(5, &[]), now);
        assert_eq!(settling.settled(), Some(5));
        settling.look(seen(7, &["a", "b"]), now);
        settling.look(seen(9, &["a", "c"]), now);
        assert_eq!((settling.settled(), settling.held().map(|held| held.last)), (Some(5), Some(7)));
        assert!(settling.held_for(Duration::from_secs(1), now).is_none());
        let later = now + Duration::from_secs(1);
        assert!(settling.held_for(Duration::from_secs(1), later).is_some());
        assert!(settling.held_for(Duration::from_secs(1), later).is_none(), "it is said once");
        settling.look(seen(9, &["c"]), later);
        assert_eq!((settling.settled(), settling.held().map(|held| held.last)), (Some(7), Some(9)));
        settling.reconnected();
        settling.look(seen(9, &[]), later);
        assert_eq!((settling.settled(), settling.held().is_some()), (Some(9), false));
        settling.look(seen(3, &[]), later);
        assert_eq!(settling.settled(), Some(9), "what is settled stays so");
    }

    #[derive(Clone, Debug)]
    enum Act {
        Begin,
        /// A transaction inserts a row.
        Insert(usize),
        /// A transaction ends; with whether it commits.
        End(usize, bool),
        Look,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            2 => Just(Act::Begin),
            4 => (0..4usize).prop_map(Act::Insert),
            3 => (0..4usize, any::<bool>()).prop_map(|(who, commits)| Act::End(who, commits)),
            4 => Just(Act::Look),
        ];
        prop::collection::vec(act, 0..80)
    }

    proptest! {
        #[test]
        fn nothing_turns_up_among_settled_rows_and_nothing_is_held_for_ever(acts in acts()) {
            let now = Instant::now();
            let (mut settling, mut next, mut names) = (Settling::default(), 0, 0);
            let mut open: Vec<(String, Vec<u64>)> = Vec::new();
            let mut rows: Vec<u64> = Vec::new();
            let look = |settling: &mut Settling, rows: &[u64], open: &[(String, Vec<u64>)]| {
                let writers = open.iter().map(|(name, _)| (name.clone(), String::new())).collect();
                settling.look(Seen { last: rows.iter().max().copied(), writers }, now);
            };
            for act in acts {
                match act {
                    Act::Begin => {
                        names += 1;
                        open.push((names.to_string(), Vec::new()));
                    }
                    Act::Insert(who) if who < open.len() => {
                        open[who].1.push(next);
                        next += 1;
                    }
                    Act::End(who, commits) if who < open.len() => {
                        let (_, inserted) = open.remove(who);
                        if commits {
                            let settled = settling.settled();
                            prop_assert!(inserted.iter().all(|row| Some(*row) > settled), "{inserted:?}");
                            rows.extend(inserted);
                        }
                    }
                    Act::Look => look(&mut settling, &rows, &open),
                    _ => {}
                }
            }
            look(&mut settling, &rows, &[]);
            prop_assert_eq!(settling.settled(), rows.iter().max().copied());
        }
    }
}
