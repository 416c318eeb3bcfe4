//! Where a stream begins: the offset of the first record to send, of each partition by itself.
//!
//! A client that has been there before says so with its cursor; the places that are no longer held are told
//! to it as *jumps*. Otherwise it begins where it asks to.

use levada_connectors::log::{Bounds, LogError, Start, Topic};
use serde_json::{Value, json};

use super::cursor::Been;

/// Where to begin without a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With the first record held.
    Beginning,
    /// With the first record that is not there yet.
    End,
    /// With the last so many records of each partition.
    Last(u64),
    /// With the record of this number, or the nearest one that is held.
    Offset(u64),
    /// With the first record whose time is at or after this, in milliseconds since the Unix epoch.
    Time(i64),
}

/// A place where a stream did not begin where the client had been.
#[derive(Clone, Copy, Debug)]
pub struct Jump {
    /// The partition.
    pub partition: u32,
    /// Where the client had been.
    pub wanted: u64,
    /// What the partition holds.
    pub held: Bounds,
    /// Whether that was in another topic, of the same name.
    pub another: bool,
}

impl Jump {
    /// The jump as a client is told it.
    pub fn to_json(self, topic: &str) -> Value {
        let (wanted, first) = (self.wanted, self.held.first);
        let reason = if self.another {
            format!("the topic was deleted and made anew since, so this is not the topic of offset {wanted}")
        } else if wanted < first {
            format!("offset {wanted} was deleted by retention; the first one held is {first}")
        } else {
            format!("offset {wanted} is beyond the end of the topic, so this is not the topic it was")
        };
        json!({
            "topic": topic, "partition": self.partition, "wanted": wanted,
            "first": first, "next": self.held.next, "continues_at": first, "reason": reason,
        })
    }
}

/// The first offset of each partition, and what the client has to be told. `known` is what its cursor says of
/// the topic. Reads files.
pub fn first_offsets(
    topic: &Topic,
    begin: Begin,
    known: Option<&Been>,
) -> Result<(Vec<u64>, Vec<Jump>), LogError> {
    let (mut next, mut jumps) = (Vec::new(), Vec::new());
    let another = known.and_then(|known| known.created_ms).is_some_and(|then| then != topic.created_ms());
    for partition in 0..topic.partitions() {
        let held = topic.bounds(partition)?;
        next.push(match (known, begin) {
            (Some(known), _) => match known.offsets.get(&partition) {
                // Whoever had read nothing has missed nothing.
                Some(0) if another => held.first,
                Some(wanted) if !another && (held.first..=held.next).contains(wanted) => *wanted,
                Some(wanted) => {
                    jumps.push(Jump { partition, wanted: *wanted, held, another });
                    held.first
                }
                None => held.first,
            },
            (None, Begin::Beginning) => held.first,
            (None, Begin::End) => held.next,
            (None, Begin::Last(count)) => held.next.saturating_sub(count).max(held.first),
            (None, Begin::Offset(offset)) => offset.clamp(held.first, held.next),
            (None, Begin::Time(time)) => topic.reader(partition, Start::Time(time))?.position(),
        });
    }
    Ok((next, jumps))
}
