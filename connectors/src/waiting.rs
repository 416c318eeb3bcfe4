//! Records that a reader has got and not given yet.

use bytes::Bytes;
use levada_types::RawRecords;

/// Bytes of records that one read gives at most (one record more than fits): only records of more than 64 KiB on
/// average get there. It is counted record by record, so that it does not depend on how they arrived.
const MAX_READ_BYTES: usize = 256 << 20;

/// Records in order, with their offsets.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    data: Vec<u8>,
    spans: Vec<(u32, u32)>,
    offsets: Vec<u64>,
}

#[cfg_attr(not(all(feature = "redis", feature = "kinesis", feature = "sql")), allow(dead_code))]
impl Waiting {
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Whether there is as much as one read gives.
    pub fn fills(&self, max_records: usize) -> bool {
        self.len() >= max_records || self.bytes() >= MAX_READ_BYTES
    }

    /// Adds a record.
    pub fn push(&mut self, offset: u64, record: &[u8]) {
        self.push_with(offset, |out| out.extend_from_slice(record));
    }

    /// Adds the record that `write` appends.
    pub fn push_with(&mut self, offset: u64, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.data.len() as u32;
        write(&mut self.data);
        self.spans.push((start, self.data.len() as u32));
        self.offsets.push(offset);
    }

    /// The first of them.
    pub fn take(&mut self, max_records: usize) -> RawRecords {
        let fits = self.spans.iter().position(|(_, end)| *end as usize >= MAX_READ_BYTES);
        let count = max_records.min(fits.map_or(usize::MAX, |last| last + 1));
        let mut taken = std::mem::take(self);
        if count < taken.len() {
            let (spans, offsets) = (taken.spans.split_off(count), taken.offsets.split_off(count));
            let from = spans.first().map_or(0, |(start, _)| *start);
            self.data = taken.data.split_off(from as usize);
            self.spans = spans.into_iter().map(|(start, end)| (start - from, end - from)).collect();
            self.offsets = offsets;
        }
        RawRecords {
            data: Bytes::from(taken.data),
            spans: taken.spans,
            offsets: taken.offsets,
            ..RawRecords::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_given_in_order_and_cut_where_it_is_asked() {
        let mut waiting = Waiting::default();
        for n in 0..10u64 {
            waiting.push(n, "x".repeat(n as usize).as_bytes());
        }
        let (mut offsets, mut lengths) = (Vec::new(), Vec::new());
        while !waiting.is_empty() {
            let records = waiting.take(3);
            offsets.extend(&records.offsets);
            lengths.extend((0..records.len()).map(|i| records.value(i).len() as u64));
        }
        assert_eq!((offsets, lengths), ((0..10).collect(), (0..10).collect()));
    }
}
