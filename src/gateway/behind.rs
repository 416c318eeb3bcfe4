//! What is older than a topic's ring, read from the log and encoded for one stream; and the ids of events.

use std::fmt::Write as _;

use levada_connectors::log::{LogError, Reader, Start, Topic};

use super::cursor::CursorText;
use super::feed::{Feed, write_data};

/// A client that is behind reads the log in pieces of this size.
const FALLBACK_BYTES: usize = 256 << 10;
const FALLBACK_RECORDS: usize = 4096;

/// The events from `wanted` on that one read of the log gives, and the reader behind them.
pub fn read_log(
    feed: &Feed,
    partition: u32,
    reader: Option<Reader>,
    wanted: u64,
    text: &CursorText,
) -> Result<(Reader, Vec<u8>), LogError> {
    let topic: &Topic = feed.topic();
    let mut reader = match reader {
        Some(reader) if reader.position() == wanted => reader,
        _ => topic.reader(partition, Start::Offset(wanted))?,
    };
    let fetched = reader.read(FALLBACK_RECORDS, FALLBACK_BYTES)?;
    let mut chunk = Vec::with_capacity(fetched.bytes() * 2);
    for record in &fetched {
        write_id(&mut chunk, text, record.offset + 1);
        write_data(&mut chunk, topic.name(), partition, &record);
    }
    Ok((reader, chunk))
}

/// The id of an event: the cursor after it.
pub fn write_id(chunk: &mut Vec<u8>, text: &CursorText, next: u64) {
    let mut line = String::with_capacity(64);
    // Writing to a string cannot fail.
    let _ = writeln!(line, "id: {}", text.at(next));
    chunk.extend_from_slice(line.as_bytes());
}
