//! Entry ids, and how one becomes an offset.
//!
//! Redis names an entry by two numbers of 64 bits, `MS-SEQUENCE`; an offset has 64 bits in all. So an id is packed,
//! 42 bits for the milliseconds and 22 for the sequence:
//!
//! ```text
//!   63                          22 21            0
//!  ┌──────────────────────────────┬───────────────┐
//!  │ milliseconds, to 2109-05-15  │ sequence      │     at most 4,194,303 entries a millisecond (or an epoch)
//!  └──────────────────────────────┴───────────────┘
//! ```
//!
//! The order stays. An id that does not fit is refused by name; none that Redis makes by itself is such.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Bits of an offset that hold the sequence.
const SEQUENCE_BITS: u32 = 22;

/// An entry's id. `0-0` is no entry's, and stands before all of them.
///
/// ```
/// use levada_connectors::redis::EntryId;
/// let id: EntryId = "1700000000000-5".parse()?;
/// assert_eq!(id.offset()?, (1_700_000_000_000 << 22) + 5);
/// assert_eq!(EntryId::of_offset(id.offset()?), id);
/// assert!("4398046511104-0".parse::<EntryId>()?.offset().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Milliseconds since the Unix epoch where Redis made the id; of what a job has written, the epoch.
    pub ms: u64,
    /// Tells the entries of one millisecond apart; of what a job has written, the place in the epoch, from 1.
    pub sequence: u64,
}

/// An id that no offset can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "use entry {0}: an offset holds ids with less than 4398046511104 (2^42) before the `-` and less than 4194304 \
     (2^22) behind it, and not the very last of them"
)]
pub struct UnpackableId(pub EntryId);

impl EntryId {
    /// Before every entry.
    pub const NONE: EntryId = EntryId { ms: 0, sequence: 0 };

    /// The id as an offset. The greatest offset is left out, so that each id has a next offset.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn offset(self) -> Result<u64, UnpackableId> {
        let fits = self.ms < 1 << (64 - SEQUENCE_BITS) && self.sequence < 1 << SEQUENCE_BITS;
        let packed = self.ms.wrapping_shl(SEQUENCE_BITS) | self.sequence;
        if fits && packed != u64::MAX { Ok(packed) } else { Err(UnpackableId(self)) }
    }

    /// The id that an offset stands for.
    pub fn of_offset(offset: u64) -> EntryId {
        EntryId { ms: offset >> SEQUENCE_BITS, sequence: offset & ((1 << SEQUENCE_BITS) - 1) }
    }

    /// The least id after this one.
    pub(super) fn next(self) -> EntryId {
        match self.sequence.checked_add(1) {
            Some(sequence) => EntryId { sequence, ..self },
            None => EntryId { ms: self.ms.saturating_add(1), sequence: 0 },
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.sequence)
    }
}

/// What is no id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no entry id as in 1700000000000-0")]
pub struct NoId(String);

impl FromStr for EntryId {
    type Err = NoId;

    fn from_str(text: &str) -> Result<EntryId, NoId> {
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok());
        let wrong = || NoId(text.into());
        let (ms, sequence) = text.split_once('-').unwrap_or((text, "0"));
        let number = |part| digits(part).flatten().ok_or_else(wrong);
        Ok(EntryId { ms: number(ms)?, sequence: number(sequence)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_id() -> impl Strategy<Value = EntryId> {
        let near = |bound: u64| prop_oneof![Just(0), Just(bound - 1), Just(bound), 0..bound, any::<u64>()];
        (near(1 << 42), near(1 << 22)).prop_map(|(ms, sequence)| EntryId { ms, sequence })
    }

    proptest! {
        #[test]
        fn what_fits_comes_back_and_what_does_not_is_refused(id in any_id()) {
            match id.offset() {
                Ok(offset) => prop_assert_eq!(EntryId::of_offset(offset), id),
                Err(error) => {
                    let last = id == EntryId { ms: (1 << 42) - 1, sequence: (1 << 22) - 1 };
                    prop_assert!(id.ms >= 1 << 42 || id.sequence >= 1 << 22 || last);
                    prop_assert!(error.to_string().contains(&id.to_string()));
                }
            }
        }

        #[test]
        fn offsets_are_in_the_order_of_the_ids(one in any_id(), other in any_id()) {
            if let (Ok(a), Ok(b)) = (one.offset(), other.offset()) {
                prop_assert_eq!(a.cmp(&b), one.cmp(&other));
            }
        }

        #[test]
        fn an_offset_is_an_id_and_its_next_offset_no_earlier_than_the_next_id(offset in 0..u64::MAX - 1) {
            let id = EntryId::of_offset(offset);
            prop_assert_eq!(id.offset(), Ok(offset));
            // Between the two there is nothing that fits.
            prop_assert!(EntryId::of_offset(offset + 1) >= id.next());
        }

        #[test]
        fn an_id_is_read_as_it_is_written(id in any_id()) {
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn what_is_no_id_is_said() {
        for text in ["", "-", "5-", "-5", "+5-1", "5-1-2", "5.1", "18446744073709551616-0"] {
            assert!(text.parse::<EntryId>().is_err(), "{text}");
        }
        assert_eq!("7".parse(), Ok(EntryId { ms: 7, sequence: 0 }));
    }
}
