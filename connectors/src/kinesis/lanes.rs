//! Lanes: the fixed parts into which a source divides the hash keys.
//!
//! Shards come and go, while a job has as many partitions as it began with. So a partition is not a shard but a range
//! of hash keys, a *lane*, which reads every shard that has some of its keys and leaves the others' records:
//!
//! ```text
//!  hash keys   0                                          2^128
//!  lane 0      ├──────────────────────┤
//!  lane 1                             ├─────────────────────┤
//!  shards      ├── 0 ─────────────────┼── 1 ────────────────┤
//!  split       ├── 2 ─────┼── 3 ──────┤   │                     read by lane 0 after shard 0
//!  merge                  └─────── 4 ─────┴─────────────────┤   read by both, by lane 0 after shard 3, by lane 1 after 1
//! ```
//!
//! A key thus stays in its lane whatever becomes of the shards, and with it the order of its records.

use md5::{Digest, Md5};

/// Hash keys from one to another, both of them included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyRange {
    pub first: u128,
    pub last: u128,
}

impl KeyRange {
    pub const ALL: KeyRange = KeyRange { first: 0, last: u128::MAX };

    pub fn contains(self, key: u128) -> bool {
        (self.first..=self.last).contains(&key)
    }

    pub fn covers(self, other: KeyRange) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    pub fn overlaps(self, other: KeyRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// The hash key of a record that was put without one of its own.
pub(super) fn hash_key(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key).into())
}

/// How near to a shard's beginning a lane's is moved onto it: shards do not divide the keys exactly evenly, and a
/// shard that reached into a lane with a single key would have to be read for it.
const SNAP: u128 = 1 << 96;

/// `count` lanes, equal but for where a shard begins nearby.
pub(super) fn divide(count: u32, shards: &[KeyRange]) -> Vec<KeyRange> {
    let count = u128::from(count.max(1));
    let begin = |number: u128| {
        // 2^128 is one more than what a u128 holds, which the last lane makes up for.
        let even = (u128::MAX / count) * number;
        let near = shards.iter().map(|shard| shard.first).filter(|first| first.abs_diff(even) < SNAP);
        near.min_by_key(|first| first.abs_diff(even)).unwrap_or(even)
    };
    (0..count)
        .map(|number| KeyRange {
            first: if number == 0 { 0 } else { begin(number) },
            last: if number + 1 == count { u128::MAX } else { begin(number + 1) - 1 },
        })
        .collect()
}

/// As many lanes as shards, each with the keys of one; `None` if they do not divide the keys among them.
pub(super) fn one_each(shards: &[KeyRange]) -> Option<Vec<KeyRange>> {
    let mut lanes = shards.to_vec();
    lanes.sort_by_key(|lane| lane.first);
    let whole = lanes.first()?.first == 0
        && lanes.last()?.last == u128::MAX
        && lanes
            .windows(2)
            .all(|two| matches!(two, [one, next] if one.last.checked_add(1) == Some(next.first)));
    whole.then_some(lanes)
}

/// Which of a shard's records are a lane's, told by a hash key. One that is not of the shard (a record that was put with
/// a hash key of its own, which readers are not told) is the first of the shard's lanes'.
pub(super) fn is_of(lane: KeyRange, shard: KeyRange, key: u128) -> bool {
    lane.contains(if shard.contains(key) { key } else { shard.first })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hash_key_is_the_md5_of_the_partition_key() {
        // As `printf a | md5sum` says.
        assert_eq!(hash_key("a"), 0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661);
    }

    #[test]
    fn lanes_follow_shards_that_are_nearly_even() {
        // As Kinesis makes three.
        let third = 113_427_455_640_312_821_154_458_202_477_256_070_485;
        let shards = [(0, third - 1), (third, 2 * third - 1), (2 * third, u128::MAX)];
        let shards = shards.map(|(first, last)| KeyRange { first, last });
        assert_eq!(divide(3, &shards), shards);
        assert_eq!(one_each(&[shards[2], shards[0], shards[1]]).unwrap(), shards);
        assert_eq!(one_each(&shards[..2]), None);
        assert_eq!(divide(1, &shards), [KeyRange::ALL]);
    }

    proptest! {
        #[test]
        fn every_key_is_in_one_lane_and_every_record_is_one_lanes(
            count in 1..257u32,
            cuts in proptest::collection::btree_set(1..u128::MAX, 0..20),
            key in any::<u128>(),
        ) {
            let firsts: Vec<u128> = std::iter::once(0).chain(cuts.iter().copied()).collect();
            let lasts = cuts.iter().map(|cut| cut - 1).chain([u128::MAX]);
            let shards: Vec<KeyRange> =
                firsts.iter().zip(lasts).map(|(&first, last)| KeyRange { first, last }).collect();
            let lanes = divide(count, &shards);
            prop_assert_eq!(lanes.len(), count as usize);
            prop_assert_eq!(one_each(&lanes), Some(lanes.clone()));
            for shard in &shards {
                let of = lanes.iter().filter(|lane| lane.overlaps(*shard) && is_of(**lane, *shard, key)).count();
                prop_assert_eq!(of, 1);
            }
        }
    }
}
