//! Records out of a stream of bytes, a block at a time: what ends at a line feed.
//!
//! A record is a slice of the block that was read; only the record that straddles two blocks is copied. A
//! carriage return before the line feed is no part of the record, empty lines are skipped but counted, and
//! the last line needs no line feed. In CSV a line feed within quotes does not end a record.
//!
//! A block is read for about what a call will give, straight into memory that nobody has zeroed; what is left
//! over moves to the next block, as a rule a few per cent of it.
//!
//! Cost: about 25 ns a record of 130 bytes, half of it the operating system's copying.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use levada_types::{Batch, ConnectorError, RawRecords};
use memchr::memchr;

use super::blocks::Blocks;
use super::{Compression, failed};
use crate::codec::csv;

/// The longest record: as much as a topic takes. It bounds what a file without line feeds can cost.
pub const MAX_LINE_BYTES: usize = 16 << 20;
/// The least and the most that is asked of the operating system at once, unless what is asked for has already
/// turned out to be more.
const BLOCK_BYTES: std::ops::RangeInclusive<usize> = 64 << 10..=4 << 20;
/// How long records are until some were seen.
const RECORD_BYTES: usize = 128;
/// The most that one call of [`Lines::next`] gives, whatever number of records was asked for; only records
/// of more than 32 KiB on average get there.
const MAX_CALL_BYTES: usize = 256 << 20;

/// Splits a stream into records.
pub struct Lines {
    input: Box<dyn Read + Send>,
    buffer: Bytes,
    blocks: Blocks,
    /// How much of the buffer's first record was searched for its end.
    searched: usize,
    ended: bool,
    /// The number of the next line, from 1.
    line: u64,
    /// The delimiter, if it is CSV.
    csv: Option<u8>,
    /// Whether to take what one read gives rather than to fill a block.
    live: bool,
    /// How long the records of the last call were on average.
    record_bytes: usize,
}

impl Lines {
    /// Records of `input`, which are CSV with this delimiter, or lines.
    pub fn new(input: Box<dyn Read + Send>, csv: Option<u8>) -> Lines {
        Lines {
            input,
            buffer: Bytes::new(),
            blocks: Blocks::default(),
            searched: 0,
            ended: false,
            line: 1,
            csv,
            live: false,
            record_bytes: RECORD_BYTES,
        }
    }

    /// Lines of `input`, which may be a pipe: a line can be had as soon as it is there.
    pub fn live(input: Box<dyn Read + Send>) -> Lines {
        Lines { live: true, ..Lines::new(input, None) }
    }

    /// Lines of a file, decompressed by its name's ending.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Lines, ConnectorError> {
        let input = File::open(path).and_then(|file| Compression::of(path).reader(file));
        Ok(Lines::new(input.map_err(|error| failed("read", path, &error))?, None))
    }

    /// The next `max_records` records; fewer only at the end (or beyond 256 MiB), none after it. The offsets
    /// are the numbers of the lines that the records begin on.
    ///
    /// # Errors
    /// When the input cannot be read, or a line is longer than [`MAX_LINE_BYTES`].
    pub fn next(&mut self, max_records: usize) -> io::Result<RawRecords> {
        let room = max_records.min(Batch::MAX_ROWS);
        let (mut spans, mut offsets) = (Vec::with_capacity(room), Vec::with_capacity(room));
        let mut at = 0;
        while spans.len() < max_records {
            let rest = self.buffer.get(at..).unwrap_or_default();
            let end = match self.csv {
                Some(delimiter) => csv::record_end(rest, delimiter),
                None => memchr(b'\n', rest.get(self.searched..).unwrap_or_default())
                    .map(|end| end + self.searched),
            };
            let length = end.unwrap_or(rest.len());
            if length > MAX_LINE_BYTES {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("line {} is longer than {} MiB", self.line, MAX_LINE_BYTES >> 20),
                ));
            }
            if end.is_none() && !self.ended {
                if at > MAX_CALL_BYTES && !spans.is_empty() {
                    break;
                }
                self.searched = rest.len();
                self.fill(max_records)?;
                continue;
            }
            self.searched = 0;
            if rest.is_empty() {
                break;
            }
            let mut record = rest.get(..length).unwrap_or_default();
            let lines = 1 + if self.csv.is_some() { memchr::memchr_iter(b'\n', record).count() } else { 0 };
            let start = if self.line == 1 && record.starts_with(b"\xef\xbb\xbf") { at + 3 } else { at };
            record = record.strip_suffix(b"\r").unwrap_or(record);
            if start < at + record.len() {
                spans.push((start as u32, (at + record.len()) as u32));
                offsets.push(self.line);
            }
            self.line += lines as u64;
            at = (at + length + 1).min(self.buffer.len());
        }
        if !spans.is_empty() {
            self.record_bytes = at.div_ceil(spans.len());
        }
        Ok(RawRecords { data: self.buffer.split_to(at), spans, offsets, ..RawRecords::default() })
    }

    /// Reads on, for a call that is to give so many records. The new block begins with what there is.
    fn fill(&mut self, max_records: usize) -> io::Result<()> {
        let length = self.buffer.len();
        // A little more than it will probably take. Where that was not enough, a good part of what there is
        // already, so that no byte is moved often.
        let expected = max_records.saturating_mul(self.record_bytes + self.record_bytes / 16);
        let (least, most) = BLOCK_BYTES.into_inner();
        let wanted = expected.saturating_sub(length).clamp(least, most).max(length / 2);
        let wanted = if self.live { least } else { wanted };
        let mut block = self.blocks.take(length + wanted);
        block.extend_from_slice(&self.buffer);
        let done = if self.live {
            block.resize(length + wanted, 0);
            let done = read_once(&mut self.input, &mut block[length..]);
            block.truncate(length + done.as_ref().copied().unwrap_or(0));
            self.ended = matches!(done, Ok(0));
            done
        } else {
            let done = (&mut self.input).take(wanted as u64).read_to_end(&mut block);
            self.ended = done.as_ref().is_ok_and(|count| *count < wanted);
            done
        };
        self.buffer = self.blocks.lend(block);
        done.map(drop)
    }
}

/// One read, begun again when a signal interrupts it.
fn read_once(input: &mut dyn Read, block: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(block) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
