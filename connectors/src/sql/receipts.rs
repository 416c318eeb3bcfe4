//! What a run was handed, written down before the job sees it.
//!
//! A job's journal counts records. Were some of them deleted, a later run would take others in their place, and compute
//! something else. So the rows that were handed over are kept in a topic of the state folder, and a run that reads them again
//! compares:
//!
//! ```text
//!  STATE/receipts/SOURCE/    a record, JSON:
//!    of      what was read: a hash of the table, its column, the condition and the columns of a record
//!    rows    the numbers of the rows, as ranges of consecutive ones: [[1, 4096], [4099, 4099]]
//!    hash    of the records, in their order
//! ```
//!
//! The newest [`KEPT`] are kept. What is older is behind the oldest checkpoint by far, and would only not be compared.
//! A receipt costs some 80 bytes where numbers are without gaps, and one sync of the disk a read.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use levada_types::{ConnectorError, RawRecords};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::log::{Log, LogError, RecordIn, Start, Topic, TopicConfig, Writer, WriterOptions};

/// How many receipts are kept at least.
const KEPT: u64 = 1 << 16;
/// After so many it is looked whether some can be trimmed.
const TRIM_EVERY: u64 = 1024;
/// A segment is trimmed whole.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Bytes read at a time.
const READ_BYTES: usize = 4 << 20;

/// The receipts of one source.
#[derive(Clone, Debug)]
pub(super) struct Receipts {
    folder: PathBuf,
    source: String,
    of: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Receipt {
    of: u64,
    rows: VecDeque<(u64, u64)>,
    hash: u64,
}

impl Receipts {
    /// Those of `source` in a job's state folder, where `of` is what it reads.
    pub fn new(state: &Path, source: &str, of: u64) -> Receipts {
        Receipts { folder: state.join("receipts"), source: source.into(), of }
    }

    /// Forgets all: the job begins afresh.
    pub fn begin(&self) -> Result<(), ConnectorError> {
        match Log::open(&self.folder)?.delete_topic(&self.source) {
            Ok(()) | Err(LogError::NoSuchTopic { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What was handed over from the row `next` on, and where to write what further is.
    pub fn open(&self, next: u64) -> Result<(Book, Expected), ConnectorError> {
        let config = TopicConfig { segment_bytes: SEGMENT_BYTES, ..TopicConfig::default() };
        let topic = Log::open(&self.folder)?.ensure_topic(&self.source, config)?;
        let writer = topic.writer(0, WriterOptions::default())?;
        if let Some(cut) = writer.recovery() {
            tracing::warn!(source = self.source, ?cut, "a torn tail of the receipts was cut off");
        }
        let mut expected = Expected::default();
        for receipt in self.read(&topic)? {
            expected.add(receipt, next);
        }
        let last = expected.last();
        Ok((Book { writer, of: self.of, last, written: 0 }, expected))
    }

    fn read(&self, topic: &Topic) -> Result<Vec<Receipt>, ConnectorError> {
        let mut reader = topic.reader(0, Start::Beginning)?;
        let mut receipts = Vec::new();
        loop {
            let fetched = reader.read(usize::MAX, READ_BYTES)?;
            if fetched.is_empty() {
                return Ok(receipts);
            }
            for record in &fetched {
                let receipt: Receipt = serde_json::from_slice(record.value).map_err(|error| {
                    ConnectorError::damage(format!(
                        "understand receipt {} of source {} in {}: {error}",
                        record.offset,
                        self.source,
                        self.folder.display()
                    ))
                })?;
                // Those of a job that read something else tell nothing of this one.
                if receipt.of == self.of {
                    receipts.push(receipt);
                }
            }
        }
    }
}

/// Where receipts are written.
pub(super) struct Book {
    writer: Writer,
    of: u64,
    /// The last row that has one.
    last: Option<u64>,
    written: u64,
}

impl Book {
    /// Writes down what of these records is new; durable on return.
    pub fn write(&mut self, records: &RawRecords) -> Result<(), ConnectorError> {
        let mut receipt = Receipt { of: self.of, ..Receipt::default() };
        for (index, &row) in records.offsets.iter().enumerate().filter(|(_, row)| Some(**row) > self.last) {
            receipt.hash = xxh3_64_with_seed(records.value(index), receipt.hash);
            match receipt.rows.back_mut() {
                Some((_, last)) if *last + 1 == row => *last = row,
                _ => receipt.rows.push_back((row, row)),
            }
        }
        let Some((_, last)) = receipt.rows.back().copied() else { return Ok(()) };
        let value = serde_json::to_vec(&receipt)
            .map_err(|error| ConnectorError::outage(format!("write a receipt down: {error}")))?;
        self.writer.append_durable(&[RecordIn { value: &value, ..RecordIn::default() }])?;
        self.last = Some(last);
        self.written += 1;
        if self.written.is_multiple_of(TRIM_EVERY) {
            self.writer.trim(self.writer.bounds().next.saturating_sub(KEPT))?;
        }
        Ok(())
    }
}

/// The rows that are to come again, in their order.
#[derive(Debug, Default)]
pub(super) struct Expected {
    receipts: VecDeque<Receipt>,
    /// Whether the first receipt tells also of rows that do not come again: the hash of the others is not known.
    cut: bool,
    /// Of the first receipt, what has come: the first row, and the hash so far.
    first: Option<u64>,
    hash: u64,
}

/// What is wrong with a table that is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// This row is not there any more.
    Gone(u64),
    /// This row was not there.
    New(u64),
    /// Of the rows from one to another, one is not as it was.
    Other(u64, u64),
}

impl Expected {
    /// Adds a receipt, which tells of rows behind those of the ones before, less the rows before `next`.
    fn add(&mut self, mut receipt: Receipt, next: u64) {
        let all = receipt.rows.clone();
        receipt.rows.retain(|(_, last)| *last >= next);
        let Some((first, _)) = receipt.rows.front_mut() else { return };
        *first = next.max(*first);
        self.cut |= receipt.rows != all;
        self.receipts.push_back(receipt);
    }

    /// The last row that is to come again.
    pub fn last(&self) -> Option<u64> {
        self.receipts.back()?.rows.back().map(|(_, last)| *last)
    }

    /// Compares with a row that has come.
    pub fn take(&mut self, row: u64, record: &[u8]) -> Result<(), Changed> {
        let Some(receipt) = self.receipts.front_mut() else { return Ok(()) };
        let Some((next, last)) = receipt.rows.front_mut() else { return Ok(()) };
        if row != *next {
            return Err(if row < *next { Changed::New(row) } else { Changed::Gone(*next) });
        }
        let first = *self.first.get_or_insert(row);
        self.hash = xxh3_64_with_seed(record, self.hash);
        if *next < *last {
            *next += 1;
            return Ok(());
        }
        receipt.rows.pop_front();
        if !receipt.rows.is_empty() {
            return Ok(());
        }
        let same = self.cut || self.hash == receipt.hash;
        self.receipts.pop_front();
        (self.cut, self.first, self.hash) = (false, None, 0);
        if same { Ok(()) } else { Err(Changed::Other(first, row)) }
    }

    /// Says that all rows up to this one have come.
    pub fn end(&self, to: u64) -> Result<(), Changed> {
        let next = self.receipts.front().and_then(|receipt| receipt.rows.front()).map(|(next, _)| *next);
        next.filter(|next| *next <= to).map_or(Ok(()), |next| Err(Changed::Gone(next)))
    }
}

impl Changed {
    /// For people, of a table whose rows have their numbers in `column`.
    pub fn tell(self, column: &str) -> String {
        let what = match self {
            Changed::Gone(row) => {
                format!("the row with `{column}` {row} was read before, and is not there any more")
            }
            Changed::New(row) => {
                format!("a row with `{column}` {row} was not there when the rows around it were read before")
            }
            Changed::Other(first, last) if first == last => {
                format!("the row with `{column}` {first} is not what it was when it was read before")
            }
            Changed::Other(first, last) => format!(
                "one of the rows with `{column}` {first} to {last} is not what it was when they were read before"
            ),
        };
        format!(
            "{what}; a job goes on from its inputs, so have the table keep its rows as they are, and begin afresh (--fresh)"
        )
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Rows whose record is their number.
    fn records(rows: &[u64]) -> RawRecords {
        let mut records = RawRecords { offsets: rows.to_vec(), ..RawRecords::default() };
        let mut data = Vec::new();
        for row in rows {
            let start = data.len() as u32;
            data.extend_from_slice(row.to_string().as_bytes());
            records.spans.push((start, data.len() as u32));
        }
        records.data = Bytes::from(data);
        records
    }

    fn take(expected: &mut Expected, rows: &[u64]) -> Result<(), Changed> {
        rows.iter().try_for_each(|row| expected.take(*row, row.to_string().as_bytes()))
    }

    #[test]
    fn rows_that_are_read_again_are_compared_with_those_of_before() {
        let folder = tempfile::tempdir().unwrap();
        let receipts = Receipts::new(folder.path(), "feedback", 7);
        let (mut book, expected) = receipts.open(0).unwrap();
        assert_eq!(expected.last(), None);
        book.write(&records(&[1, 2, 3, 7])).unwrap();
        book.write(&records(&[9, 10])).unwrap();
        drop(book);
        let open = |next| receipts.open(next).unwrap().1;

        let mut all = open(0);
        assert_eq!(all.last(), Some(10));
        assert_eq!(take(&mut all, &[1, 2, 3, 7]), Ok(()));
        assert_eq!((all.end(8), all.end(9)), (Ok(()), Err(Changed::Gone(9))));
        assert_eq!(take(&mut all, &[9, 10, 11]), Ok(()));
        assert_eq!((all.last(), all.end(u64::MAX)), (None, Ok(())));

        assert_eq!(take(&mut open(0), &[1, 3]), Err(Changed::Gone(2)));
        assert_eq!(take(&mut open(0), &[1, 2, 3, 5]), Err(Changed::New(5)));
        let mut changed = open(0);
        assert_eq!(take(&mut changed, &[1, 2, 3]), Ok(()));
        assert_eq!(changed.take(7, b"8"), Err(Changed::Other(1, 7)));
        // From a checkpoint on: of a receipt that is cut only the numbers are compared.
        let mut rest = open(3);
        assert_eq!(rest.take(3, b"other"), Ok(()));
        assert_eq!(take(&mut rest, &[7]), Ok(()));
        assert_eq!((rest.take(9, b"9"), rest.take(10, b"11")), (Ok(()), Err(Changed::Other(9, 10))));
        assert_eq!(take(&mut open(10), &[10, 12]), Ok(()));
        assert_eq!(open(11).last(), None);

        // What was read again has its receipt already.
        let (mut book, _) = receipts.open(2).unwrap();
        book.write(&records(&[2, 3, 7, 9, 10, 12])).unwrap();
        drop(book);
        let mut all = open(10);
        assert_eq!((take(&mut all, &[10]), all.last()), (Ok(()), Some(12)));
        // Those of another job tell nothing, and one that begins afresh has none.
        assert_eq!(Receipts::new(folder.path(), "feedback", 8).open(0).unwrap().1.last(), None);
        receipts.begin().unwrap();
        assert_eq!(open(0).last(), None);
    }
}
