//! The port by which the engine reads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::{ConnectorError, Offset, PartitionId};

/// A configured source: knows its partitions and opens a reader for each.
pub trait SourceFactory: Send + Sync {
    /// Where the records come from, for people: `topic flights.departures`, `file a.jsonl`.
    fn describe(&self) -> String;

    /// How many partitions there are now, and for each where its history ends: the offset up to
    /// which a backfill reads. `None` for an input whose end is found by reading (a file). One that goes on after an
    /// end that is found by reading gives the greatest offset, and its reader says [`Read::CaughtUp`] there, in every
    /// run at the same place.
    ///
    /// # Errors
    /// When the outside system cannot be asked.
    fn partitions(&self) -> Result<Vec<Option<Offset>>, ConnectorError>;

    /// How many partitions there are by now, where it has been noticed that these are more than
    /// [`Self::partitions`] told last. Asked every now and then; does not wait.
    fn more_partitions(&self) -> Option<usize> {
        None
    }

    /// How many records the histories hold that end there, to show how far a run is; 0 where that is not known.
    fn records(&self, ends: &[Option<Offset>]) -> u64 {
        ends.iter().flatten().map(|end| end.0).sum()
    }

    /// Counts the records that were dropped, by a source that is configured to drop what it cannot hold.
    fn dropped(&self) -> Arc<AtomicU64> {
        Arc::default()
    }

    /// How far its readers are behind, where the outside system tells.
    fn lag(&self) -> Arc<SourceLag> {
        Arc::default()
    }

    /// Whether records may still arrive after the history: false for a file.
    fn unbounded(&self) -> bool;

    /// The offset that [`StartAt::Configured`] means now; `None` where there is but one beginning.
    ///
    /// # Errors
    /// When the outside system cannot be asked.
    fn start(&self, _partition: PartitionId) -> Result<Option<Offset>, ConnectorError> {
        Ok(None)
    }

    /// Opens `partition`. Called once a run and partition, on the process that owns it.
    ///
    /// # Errors
    /// When the partition cannot be opened.
    fn open(&self, partition: PartitionId, start: StartAt) -> Result<Box<dyn RecordReader>, ConnectorError>;

    /// Hears, after each checkpoint, what it holds: for each partition the offset before which no record will be
    /// asked for again, `None` where none was read. Called on the first process, on a thread that may wait; what
    /// goes wrong there costs nothing but what is told to other systems (lag, acknowledgements).
    fn checkpointed(&self, _next: &[Option<Offset>]) {}
}

/// What readers tell of themselves, for people.
#[derive(Debug, Default)]
pub struct SourceLag {
    behind_ms: Mutex<BTreeMap<String, u64>>,
    throttled: AtomicU64,
}

impl SourceLag {
    /// Notes that the reader of `part` (a shard) is so many milliseconds behind the newest record; `None` when it reads
    /// that no more.
    pub fn set(&self, part: &str, behind_ms: Option<u64>) {
        let mut all = self.behind_ms.lock().unwrap_or_else(PoisonError::into_inner);
        match (behind_ms, all.get_mut(part)) {
            (Some(behind_ms), Some(known)) => *known = behind_ms,
            (Some(behind_ms), None) => drop(all.insert(part.into(), behind_ms)),
            (None, _) => drop(all.remove(part)),
        }
    }

    /// Notes that a read was refused because too much is read.
    pub fn throttled(&self) {
        self.throttled.fetch_add(1, Relaxed);
    }

    /// How far behind the reader of each part is, in milliseconds.
    pub fn behind_ms(&self) -> BTreeMap<String, u64> {
        self.behind_ms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many reads were refused because too much is read.
    pub fn throttles(&self) -> u64 {
        self.throttled.load(Relaxed)
    }
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// Where the job file says (by default the beginning).
    Configured,
    /// At this offset, after a restore.
    Offset(Offset),
}

/// Called when records may have arrived. Cheap, callable from any thread.
pub type ReaderWaker = Arc<dyn Fn() + Send + Sync>;

/// Reads one partition in order.
pub trait RecordReader: Send {
    /// Whether reading the history is little more than copying what is at hand, so that the worker that needs
    /// it does it itself. Otherwise, and for what comes live, the reader gets a thread of its own.
    fn at_once(&self) -> bool {
        false
    }

    /// Up to `max_records` further records. Blocks at most `wait` when there are none yet.
    ///
    /// Where a read is cut depends on `max_records` alone, never on how the records were produced nor on how
    /// they arrive, as long as enough of them are there: while it is not caught up, a reader gives as many as
    /// were asked for or nothing. The engine relies on it to cut a history the same way each time.
    ///
    /// # Errors
    /// When the partition cannot be read on.
    fn read(&mut self, max_records: usize, wait: Duration) -> Result<Read, ConnectorError>;
}

/// What a read brought.
#[derive(Clone, Debug)]
pub enum Read {
    /// At least one record.
    Records(RawRecords),
    /// Nothing within the wait, though there may be records already: the system is slow, or out of reach.
    Nothing,
    /// There is none now: all that the partition holds has been read. There may be more later.
    CaughtUp,
    /// Nothing, and there never will be.
    End,
}

/// Some consecutive records of a partition as bytes, undecoded.
///
/// The records are slices of `data`, so reading copies nothing per record.
#[derive(Clone, Debug, Default)]
pub struct RawRecords {
    /// The bytes that the spans point into.
    pub data: Bytes,
    /// Start and end of each record's value in `data`.
    pub spans: Vec<(u32, u32)>,
    /// Each record's offset, growing.
    pub offsets: Vec<u64>,
    /// Start and end of each record's headers in `data`, as [`push_header`] writes them. Empty where nobody asked for
    /// headers (see [`DecoderFactory::wants_headers`](crate::DecoderFactory::wants_headers)).
    pub headers: Vec<(u32, u32)>,
}

impl RawRecords {
    /// How many records there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
    /// The bytes of record `i`; empty if there is no such record.
    pub fn value(&self, i: usize) -> &[u8] {
        self.slice(self.spans.get(i))
    }
    /// The headers of record `i`, in their order.
    pub fn headers(&self, i: usize) -> RecordHeaders<'_> {
        RecordHeaders { rest: self.slice(self.headers.get(i)) }
    }
    /// Takes the records from `count` on away.
    #[must_use]
    pub fn split_off(&mut self, count: usize) -> RawRecords {
        fn tail<T>(all: &mut Vec<T>, count: usize) -> Vec<T> {
            all.split_off(count.min(all.len()))
        }
        RawRecords {
            data: self.data.clone(),
            spans: tail(&mut self.spans, count),
            offsets: tail(&mut self.offsets, count),
            headers: tail(&mut self.headers, count),
        }
    }

    fn slice(&self, span: Option<&(u32, u32)>) -> &[u8] {
        span.and_then(|&(a, b)| self.data.get(a as usize..b as usize)).unwrap_or_default()
    }
}

/// Appends a header to the bytes of a record's headers: the lengths of name and value, each 4 bytes, then both.
pub fn push_header(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    // A record has at most some megabytes.
    out.extend_from_slice(&(name.len() as u32).to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

/// The names and values of a record's headers.
#[derive(Clone, Debug)]
pub struct RecordHeaders<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for RecordHeaders<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name_bytes, rest) = self.rest.split_first_chunk::<4>()?;
        let (value_bytes, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_at_checked(u32::from_le_bytes(*name_bytes) as usize)?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*value_bytes) as usize)?;
        self.rest = rest;
        Some((name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_split_with_their_headers() {
        let mut data = b"ab".to_vec();
        push_header(b"k", b"", &mut data);
        push_header(b"", b"value", &mut data);
        let end = data.len() as u32;
        let mut first = RawRecords {
            data: data.into(),
            spans: vec![(0, 1), (1, 2)],
            offsets: vec![7, 9],
            headers: vec![(2, 2), (2, end)],
        };
        let rest = first.split_off(1);
        assert_eq!((first.len(), first.value(0), first.headers(0).count()), (1, &b"a"[..], 0));
        assert_eq!((rest.offsets.as_slice(), rest.value(0)), (&[9][..], &b"b"[..]));
        let headers: Vec<_> = rest.headers(0).collect();
        assert_eq!(headers, [(&b"k"[..], &b""[..]), (b"", b"value")]);
        assert!(first.split_off(5).is_empty() && first.headers(3).next().is_none());
    }
}
