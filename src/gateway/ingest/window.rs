//! Which requests a topic's newest records came with.
//!
//! A request with a key that wrote to several partitions is known in each by its *share* there. So one that a crash
//! has torn is completed when it is repeated: what is there is found, and only the rest is appended. The window of a
//! partition is its newest records, however they got there, so what is known is the same before and after a
//! restart. Memory: about 100 bytes a share, so 100 MB a partition at worst with a window of a million records.

use std::collections::{HashMap, VecDeque};

use levada_connectors::log::{LogError, RecordRef, Start, Topic};
use xxhash_rust::xxh3::xxh3_128;

use super::{KEY_HEADER, REQUEST_HEADER};

/// How much is read at once when a topic is opened.
const READ_BYTES: usize = 4 << 20;

/// A request's key, and what was asked with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// As the client wrote it.
    pub text: String,
    /// A hash of the whole request: another one with the same key is a mistake.
    pub fingerprint: u64,
}

impl RequestKey {
    /// What stands for the text in memory.
    pub fn hash(&self) -> u128 {
        xxh3_128(self.text.as_bytes())
    }

    /// The value of [`REQUEST_HEADER`].
    pub fn mark(&self, place: u32, of: u32) -> [u8; 16] {
        let mut mark = [0; 16];
        mark[..8].copy_from_slice(&self.fingerprint.to_le_bytes());
        mark[8..12].copy_from_slice(&place.to_le_bytes());
        mark[12..].copy_from_slice(&of.to_le_bytes());
        mark
    }
}

/// What a partition got of a request: the offsets `first` up to but without `next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The offset of its first record.
    pub first: u64,
    /// The offset after its last one.
    pub next: u64,
    /// That of the request.
    pub fingerprint: u64,
}

/// The shares among the newest records of a partition.
#[derive(Debug)]
pub struct Window {
    records: u64,
    shares: HashMap<u128, Share>,
    /// The first offset and the request of each share, in their order.
    order: VecDeque<(u64, u128)>,
}

impl Window {
    /// Of the newest so many records; none yet.
    pub fn new(records: u64) -> Window {
        Window { records, shares: HashMap::new(), order: VecDeque::new() }
    }

    /// What the partition has of a request.
    pub fn find(&self, request: u128) -> Option<Share> {
        self.shares.get(&request).copied()
    }

    /// The partition has got this.
    pub fn add(&mut self, request: u128, share: Share) {
        self.shares.insert(request, share);
        self.order.push_back((share.first, request));
    }

    /// The partition ends with `next` now: what is no longer among the newest is forgotten.
    pub fn move_to(&mut self, next: u64) {
        while let Some((first, request)) = self.order.front().copied()
            && first + self.records < next
        {
            self.order.pop_front();
            if self.shares.get(&request).is_some_and(|share| share.first == first) {
                self.shares.remove(&request);
            }
        }
    }
}

/// The windows of a topic's partitions, out of its records.
///
/// # Errors
/// When a partition cannot be read.
pub fn read(topic: &Topic, records: u64) -> Result<Vec<Window>, LogError> {
    (0..topic.partitions()).map(|partition| read_partition(topic, partition, records)).collect()
}

fn read_partition(topic: &Topic, partition: u32, records: u64) -> Result<Window, LogError> {
    let mut window = Window::new(records);
    let bounds = topic.bounds(partition)?;
    let from = bounds.next.saturating_sub(records).max(bounds.first);
    let mut reader = topic.reader(partition, Start::Offset(from))?;
    loop {
        let fetched = reader.read(usize::MAX, READ_BYTES)?;
        if fetched.is_empty() {
            break;
        }
        for record in fetched.iter() {
            // A share is one append, so if its first record is here, all of it is.
            if let Some((request, share)) = begun(&record) {
                window.add(request, share);
            }
        }
    }
    window.move_to(bounds.next);
    Ok(window)
}

/// The share that a record is the first of.
fn begun(record: &RecordRef<'_>) -> Option<(u128, Share)> {
    let key = record.header(KEY_HEADER)?;
    let mark: &[u8; 16] = record.header(REQUEST_HEADER)?.try_into().ok()?;
    let (fingerprint, rest) = mark.split_first_chunk::<8>()?;
    let (place, of) = rest.split_first_chunk::<4>()?;
    let of = u32::from_le_bytes(of.try_into().ok()?);
    (*place == [0; 4]).then(|| {
        let (first, next) = (record.offset, record.offset + u64::from(of));
        (xxh3_128(key), Share { first, next, fingerprint: u64::from_le_bytes(*fingerprint) })
    })
}

#[cfg(test)]
mod tests {
    use levada_connectors::log::{Log, RecordIn, TopicConfig, WriterOptions};

    use super::*;

    #[test]
    fn what_is_read_is_what_was_known() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path()).unwrap();
        let topic = log.create_topic("t", TopicConfig::default()).unwrap();
        let writer = topic.writer(0, WriterOptions::default()).unwrap();
        let mut known = Window::new(10);
        let keys: Vec<RequestKey> = (0..30u64)
            .map(|number| RequestKey { text: format!("key {}", number % 25), fingerprint: number })
            .collect();
        for (number, key) in keys.iter().enumerate() {
            let of = number as u32 % 4;
            let marks: Vec<[u8; 16]> = (0..of).map(|place| key.mark(place, of)).collect();
            let headers: Vec<[(&str, &[u8]); 2]> = marks
                .iter()
                .map(|mark| [(KEY_HEADER, key.text.as_bytes()), (REQUEST_HEADER, &mark[..])])
                .collect();
            let mut records: Vec<RecordIn<'_>> =
                headers.iter().map(|headers| RecordIn { headers, ..RecordIn::default() }).collect();
            if records.is_empty() {
                records.push(RecordIn::default());
            }
            let appended = writer.append(&records).unwrap();
            if of > 0 {
                let share =
                    Share { first: appended.first, next: appended.next, fingerprint: key.fingerprint };
                known.add(key.hash(), share);
            }
            known.move_to(appended.next);
            let read = read(&topic, 10).unwrap().pop().unwrap();
            assert_eq!(read.shares, known.shares, "{number}");
            assert!(known.shares.len() <= 10 && known.order.len() <= 10);
        }
        assert_eq!(known.find(keys[29].hash()).map(|share| share.fingerprint), Some(29));
        assert_eq!(known.find(keys[24].hash()), None);
    }
}
