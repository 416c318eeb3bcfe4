//! How the records of several shards become those of one lane: a function of the records alone.
//!
//! The next record is always the one that arrived first among the first of each shard, and of several the one of the
//! first shard. So a lane that reads the same records again has them in the same order, and its order is near to that
//! in which they came.

use std::collections::VecDeque;

use super::aggregate;
use super::lanes::{KeyRange, is_of};
use super::shards::Record;

/// The first records of the shards, in the order of the shards; which is next.
pub(super) fn next<'a>(heads: impl Iterator<Item = Option<&'a Record>>) -> Option<usize> {
    let there = heads.enumerate().filter_map(|(shard, head)| Some((head?.arrived_ms, shard)));
    there.min().map(|(_, shard)| shard)
}

/// Hands over the lane's records of some shards, in order.
pub(super) fn merge(lane: KeyRange, shards: Vec<(KeyRange, Vec<Record>)>, mut give: impl FnMut(&[u8])) {
    let mut shards: Vec<(KeyRange, VecDeque<Record>)> =
        shards.into_iter().map(|(range, records)| (range, records.into())).collect();
    while let Some(least) = next(shards.iter().map(|(_, records)| records.front())) {
        let (range, records) = &mut shards[least];
        if let Some(record) = records.pop_front() {
            each(lane, *range, &record, &mut give);
        }
    }
}

/// Those of the lane that a record of Kinesis holds. What an aggregated record holds for keys that are not its shard's
/// is another shard's: the producer did not know yet that the stream had been split, and sends it again.
fn each(lane: KeyRange, shard: KeyRange, record: &Record, give: &mut impl FnMut(&[u8])) {
    match aggregate::records(&record.data) {
        Some(inner) => inner
            .iter()
            .filter(|inner| shard.contains(inner.hash_key) && lane.contains(inner.hash_key))
            .for_each(|inner| give(inner.data)),
        None if is_of(lane, shard, record.hash_key()) => give(&record.data),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::lanes::hash_key;
    use super::super::shards::Sequence;
    use super::*;

    fn record(number: u64, arrived_ms: u64, key: &str) -> Record {
        Record {
            sequence: Sequence(number.to_string()),
            arrived_ms,
            partition_key: key.into(),
            data: number.to_string().into_bytes(),
        }
    }

    fn merged(lane: KeyRange, shards: Vec<(KeyRange, Vec<Record>)>) -> Vec<String> {
        let mut all = Vec::new();
        merge(lane, shards, |data| all.push(String::from_utf8(data.to_vec()).unwrap()));
        all
    }

    #[test]
    fn the_first_to_arrive_comes_first_and_a_shard_keeps_its_order() {
        let one = vec![record(1, 10, "a"), record(2, 5, "a"), record(3, 30, "a")];
        let other = vec![record(4, 10, "b"), record(5, 20, "b")];
        let all = merged(KeyRange::ALL, vec![(KeyRange::ALL, one), (KeyRange::ALL, other)]);
        assert_eq!(all, ["1", "2", "4", "5", "3"]);
    }

    #[test]
    fn a_record_is_of_one_lane() {
        let half = u128::MAX / 2;
        let lanes = [KeyRange { first: 0, last: half }, KeyRange { first: half + 1, last: u128::MAX }];
        let keys: Vec<String> = (0..50).map(|number| format!("k{number}")).collect();
        let records = |range: KeyRange| -> Vec<Record> {
            let own = keys.iter().enumerate().filter(|(_, key)| range.contains(hash_key(key)));
            own.map(|(number, key)| record(number as u64, number as u64, key)).collect()
        };
        let all = |lane| merged(lane, vec![(KeyRange::ALL, records(KeyRange::ALL))]);
        for lane in lanes {
            assert_eq!(
                all(lane),
                merged(lane, vec![(lane, records(lane))]),
                "merged shards, or each its own"
            );
            assert!(!all(lane).is_empty());
        }
        assert_eq!(all(lanes[0]).len() + all(lanes[1]).len(), 50);
    }
}
