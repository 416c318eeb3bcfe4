//! Whether something was trimmed away before it was read.
//!
//! A stream is trimmed at its beginning, without a trace of what went but two numbers: how many entries were ever
//! added, and how many it holds. So a reader asks for the entry that it has read last together with those behind
//! it. While that one is there, nothing behind it has been trimmed. When it is gone, the numbers tell:
//!
//! ```text
//!   added before the reader's place            known from when it was at the stream's end or beginning
//!   ├──────────────┤
//!   ┌──────────────┬────────┬────────────┐
//!   │     read     │  LOST  │    held    │
//!   └──────────────┴────────┴────────────┘
//!   ├───────────────────────┤
//!   added, less those held                     told by the server
//! ```
//!
//! A reader that goes on from a checkpoint does not know the first number. If the entry before its place is gone, and
//! the one at its place too, it cannot tell whether something is missing, and says so rather than go on.

use super::EntryId;
use super::server::StreamInfo;

/// How far a reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The last entry read, or the last id that was there when reading began behind it; [`EntryId::NONE`] if none.
    pub last: EntryId,
    /// How many entries were ever added up to there, if it is known.
    pub added: Option<u64>,
    /// How it is known.
    pub origin: Origin,
}

/// Where a reader's place comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is to begin with whatever is held.
    Beginning,
    /// A run of before was there: what it is to read again is all to be there.
    Restored,
    /// It has been there itself.
    Seen,
}

/// What is wrong with a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// Entries are gone that were not read.
    Trimmed { lost: Lost, first: Option<EntryId> },
    /// An entry that is to be read again has been deleted.
    Deleted(EntryId),
    /// It ends before what was read of it.
    Shorter(EntryId),
    /// It is not there any more.
    Gone,
}

/// How many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    Exactly(u64),
    AtMost(u64),
    Unknown,
}

impl Place {
    /// Moves behind the entries up to `last`, `count` of them.
    pub(super) fn advance(&mut self, last: EntryId, count: usize) {
        self.last = last;
        self.added = self.added.map(|added| added + count as u64);
        self.origin = Origin::Seen;
    }

    /// The next id that may come, of those that fit an offset.
    fn next(&self) -> EntryId {
        self.last.offset().map_or(self.last.next(), |last| EntryId::of_offset(last + 1))
    }

    /// Looks at a stream in which the last entry read is not there. Learns the number of entries before it where
    /// it can be known.
    ///
    /// # Errors
    /// What is wrong with the stream.
    pub(super) fn look(&mut self, info: &StreamInfo) -> Result<(), Gap> {
        let origin = self.origin;
        if origin == Origin::Beginning && info.there {
            self.origin = Origin::Seen;
        }
        if !info.there {
            return if self.last == EntryId::NONE { Ok(()) } else { Err(Gap::Gone) };
        }
        if origin == Origin::Restored && info.deleted > self.last {
            return Err(Gap::Deleted(info.deleted));
        }
        if info.last <= self.last {
            // Nothing has been added since.
            if info.last < self.last {
                return Err(Gap::Shorter(info.last));
            }
            self.added = info.added;
            return Ok(());
        }
        // Something was added. If trimming has not come as far, or the very next id is there, it is all there.
        let reached = info.first.is_none_or(|first| first > self.next());
        let removed = info.removed();
        if reached && origin != Origin::Beginning {
            let lost = match (self.added, removed) {
                (before, Some(removed)) if removed <= before.unwrap_or(0) => None,
                (Some(before), Some(removed)) if info.deleted <= self.last => {
                    Some(Lost::Exactly(removed - before))
                }
                (Some(before), Some(removed)) => Some(Lost::AtMost(removed - before)),
                (None, Some(removed)) => Some(Lost::AtMost(removed)),
                (_, None) => Some(Lost::Unknown),
            };
            if let Some(lost) = lost {
                return Err(Gap::Trimmed { lost, first: info.first });
            }
        }
        if let Some(first) = info.first.filter(|first| *first > self.last)
            // Deleted ones behind the first are not before the place.
            && info.deleted < first
        {
            self.added = removed;
        }
        Ok(())
    }
}

impl Gap {
    /// For people.
    pub(super) fn tell(&self, stream: &str, last: EntryId) -> String {
        match self {
            Gap::Trimmed { lost, first } => {
                let entries = |count: u64| if count == 1 { "entry" } else { "entries" };
                let lost = match lost {
                    Lost::Exactly(1) => "1 entry that was not read is missing".into(),
                    Lost::Exactly(count) => format!("{count} entries that were not read are missing"),
                    Lost::AtMost(count) => format!("up to {count} {} may be missing", entries(*count)),
                    Lost::Unknown => "it cannot be known how many entries are missing".into(),
                };
                let held =
                    first.map_or("it holds none now".into(), |first| format!("its first one is {first} now"));
                format!(
                    "{lost}: stream {stream} was read up to {last}, and has been trimmed beyond it; {held}. Trim it \
                     later (MAXLEN, MINID), or begin afresh"
                )
            }
            Gap::Deleted(id) => format!(
                "entry {id} of stream {stream}, and maybe others before it, has been deleted (XDEL), and the run is to \
                 read again what is behind {last}; begin afresh"
            ),
            Gap::Shorter(found) => format!(
                "stream {stream} ends with {found}, and {last} has been read of it: it was made anew, or the server has \
                 lost its end (see `appendfsync`)"
            ),
            Gap::Gone => format!(
                "stream {stream} is not there any more, and has been read up to {last}: it was deleted, or the server \
                 has lost it (see `appendfsync`)"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A stream as Redis keeps it.
    #[derive(Default)]
    struct Stream {
        held: BTreeMap<EntryId, ()>,
        all: Vec<EntryId>,
    }

    impl Stream {
        fn add(&mut self, gap: u64) {
            let last = self.all.last().copied().unwrap_or_default();
            let id = EntryId { ms: last.ms + gap / 2, sequence: last.sequence + 1 };
            self.held.insert(id, ());
            self.all.push(id);
        }
        fn info(&self) -> StreamInfo {
            StreamInfo {
                there: !self.all.is_empty(),
                length: self.held.len() as u64,
                first: self.held.keys().next().copied(),
                last: self.all.last().copied().unwrap_or_default(),
                deleted: EntryId::NONE,
                added: Some(self.all.len() as u64),
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Act {
        Add(u64),
        Trim(usize),
        Read(usize),
        Restart,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            3 => (0..6u64).prop_map(Act::Add),
            2 => (0..5usize).prop_map(Act::Trim),
            3 => (1..4usize).prop_map(Act::Read),
            1 => Just(Act::Restart),
        ];
        prop::collection::vec(act, 0..60)
    }

    proptest! {
        #[test]
        fn what_is_trimmed_before_it_was_read_is_found_and_counted(acts in acts()) {
            let mut stream = Stream::default();
            let mut place = Place { last: EntryId::NONE, added: Some(0), origin: Origin::Restored };
            let mut read = 0;
            for act in acts {
                match act {
                    Act::Add(gap) => stream.add(gap),
                    Act::Trim(keep) => {
                        while stream.held.len() > keep {
                            stream.held.pop_first();
                        }
                    }
                    Act::Restart => place = Place { added: None, origin: Origin::Restored, ..place },
                    Act::Read(count) => {
                        let anchored = stream.held.contains_key(&place.last);
                        let lost = stream.all[read..].iter().filter(|id| !stream.held.contains_key(id)).count() as u64;
                        if anchored {
                            prop_assert_eq!(lost, 0);
                        } else {
                            match place.look(&stream.info()) {
                                Ok(()) => prop_assert_eq!(lost, 0),
                                Err(Gap::Trimmed { lost: Lost::Exactly(found), .. }) => {
                                    prop_assert_eq!(found, lost);
                                    prop_assert!(lost > 0);
                                    return Ok(());
                                }
                                Err(Gap::Trimmed { lost: Lost::AtMost(found), .. }) => {
                                    prop_assert!(found >= lost && place.added.is_none());
                                    return Ok(());
                                }
                                Err(other) => prop_assert!(false, "{:?}", other),
                            }
                        }
                        let next: Vec<EntryId> = stream.all[read..].iter().take(count).copied().collect();
                        read += next.len();
                        if let Some(last) = next.last() {
                            place.advance(*last, next.len());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let at = |ms| EntryId { ms, sequence: 0 };
        let held = |first, last, length, added| StreamInfo {
            there: true,
            length,
            first: Some(at(first)),
            last: at(last),
            deleted: EntryId::NONE,
            added: Some(added),
        };
        let place = Place { last: at(5), added: Some(5), origin: Origin::Seen };
        let tell = |mut place: Place, info: StreamInfo| place.look(&info).unwrap_err().tell("s", place.last);
        assert_eq!(place.clone().look(&held(6, 9, 4, 9)), Ok(()));
        // Nothing that fits an offset is between the greatest sequence of 5 ms and 6-0.
        let before = EntryId { ms: 5, sequence: (1 << 22) - 1 };
        let begins = Place { last: before, added: None, origin: Origin::Restored };
        assert_eq!(begins.clone().look(&held(6, 9, 4, 9)), Ok(()));
        let told = tell(place, held(8, 9, 2, 9));
        assert!(
            told.starts_with("2 entries that were not read are missing: stream s was read up to 5-0"),
            "{told}"
        );
        let told = tell(Place { added: None, origin: Origin::Restored, ..place }, held(8, 9, 2, 9));
        assert!(told.starts_with("up to 7 entries may be missing"), "{told}");
        assert!(tell(place, held(2, 3, 2, 3)).contains("ends with 3-0, and 5-0 has been read"));
        assert!(tell(place, StreamInfo::default()).contains("is not there any more"));
        let deleted = StreamInfo { deleted: at(7), ..held(1, 9, 8, 9) };
        assert!(tell(Place { origin: Origin::Restored, ..place }, deleted).contains("entry 7-0 of stream s"));
    }
}
