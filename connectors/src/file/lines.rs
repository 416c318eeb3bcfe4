//! Records out of a stream of bytes, a block at a time: what ends at a line feed.
//!
//! A record is a slice of the block that was read; only the record that straddles two blocks is copied. A
//! carriage return before the line feed is no part of the record, empty lines are skipped but counted, and
//! the last line needs no line feed. In CSV a line feed within quotes does not end a record.
//!
//! Cost: about 10 ns a record of 130 bytes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::BytesMut;
use levada_types::{ConnectorError, RawRecords};
use memchr::memchr;

use super::{Compression, failed};
use crate::codec::csv;

/// The longest record: as much as a topic takes. It bounds what a file without line feeds can cost.
pub const MAX_LINE_BYTES: usize = 16 << 20;
/// How much is asked of the operating system at once.
const BLOCK_BYTES: usize = 1 << 20;
/// The same for an input that somebody may be typing.
const LIVE_BLOCK_BYTES: usize = 64 << 10;
/// The most that one call of [`Lines::next`] gives, whatever number of records was asked for; only records
/// of more than 32 KiB on average get there.
const MAX_CALL_BYTES: usize = 256 << 20;

/// Splits a stream into records.
pub struct Lines {
    input: Box<dyn Read + Send>,
    buffer: BytesMut,
    /// How much of the buffer's first record was searched for its end.
    searched: usize,
    ended: bool,
    /// The number of the next line, from 1.
    line: u64,
    /// The delimiter, if it is CSV.
    csv: Option<u8>,
    /// Whether to take what one read gives rather than to fill a block.
    live: bool,
}

impl Lines {
    /// Records of `input`, which are CSV with this delimiter, or lines.
    pub fn new(input: Box<dyn Read + Send>, csv: Option<u8>) -> Lines {
        Lines { input, buffer: BytesMut::new(), searched: 0, ended: false, line: 1, csv, live: false }
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
        let (mut spans, mut offsets) = (Vec::new(), Vec::new());
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
                self.fill()?;
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
        Ok(RawRecords { data: self.buffer.split_to(at).freeze(), spans, offsets })
    }

    fn fill(&mut self) -> io::Result<()> {
        let length = self.buffer.len();
        self.buffer.resize(length + if self.live { LIVE_BLOCK_BYTES } else { BLOCK_BYTES }, 0);
        let mut filled = length;
        while filled < self.buffer.len() {
            match self.input.read(&mut self.buffer[filled..]) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(count) => {
                    filled += count;
                    if self.live {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.truncate(filled);
                    return Err(error);
                }
            }
        }
        self.buffer.truncate(filled);
        Ok(())
    }
}
