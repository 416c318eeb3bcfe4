//! What a read brought: slices of the blocks that were read, cut at exact record counts.
//!
//! Nothing is copied for a record. A `Fetched` keeps its blocks alive (1 MiB each, or one large frame), and
//! so does every `Bytes` taken from one of its records.

use bytes::Bytes;

use super::record::{RecordRef, first_record};

/// Records that follow each other.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    parts: Vec<Part>,
    records: usize,
    bytes: usize,
}

/// Some records of one frame.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Sound: checked when the frame was opened.
    pub records: Bytes,
    pub first: u64,
    pub count: u32,
}

impl Fetched {
    pub(super) fn push(&mut self, part: Part) {
        self.records += part.count as usize;
        self.bytes += part.records.len();
        self.parts.push(part);
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Whether there are none: the end of the log, for now.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Their encoded size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The offset of the first record.
    pub fn first(&self) -> Option<u64> {
        self.parts.first().map(|part| part.first)
    }

    /// The offset after the last record.
    pub fn next(&self) -> Option<u64> {
        self.parts.last().map(|part| part.first + u64::from(part.count))
    }

    /// The records in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { parts: self.parts.iter(), part: None, rest: &[], offset: 0, left: self.records }
    }
}

impl<'a> IntoIterator for &'a Fetched {
    type Item = RecordRef<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The records of a [`Fetched`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    parts: std::slice::Iter<'a, Part>,
    part: Option<&'a Part>,
    rest: &'a [u8],
    offset: u64,
    left: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = RecordRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordRef<'a>> {
        while self.rest.is_empty() {
            let part = self.parts.next()?;
            (self.part, self.rest, self.offset) = (Some(part), &part.records, part.first);
        }
        let (record, rest) = first_record(self.rest, self.offset, &self.part?.records)?;
        self.rest = rest;
        self.offset += 1;
        self.left -= 1;
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Iter<'_> {}
