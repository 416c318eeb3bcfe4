//! A record: what a producer hands over, what a reader gets, and the bytes between.
//!
//! ```text
//!  record  ┌───────────┬──────────────┬────────────┬────────────┬─────┬──────────┬───────┐
//!          │ length u32│ timestamp i64│ key len u32│ headers u16│ key │ headers… │ value │
//!          └───────────┴──────────────┴────────────┴────────────┴─────┴──────────┴───────┘
//!            length counts from the timestamp on; key len 0xffff_ffff: no key; the value takes the rest
//!  header  name len u8 │ value len u32 │ name │ value
//! ```
//!
//! All numbers are little-endian. Fixed widths rather than varints: 12 bytes more a record, and reading one is
//! four loads. Cost: encoding about 25 ns a record of 150 bytes, checking and walking about 15. Nothing is
//! copied to read one: it borrows the block it was read in.

use bytes::Bytes;

use super::frame::{u32_at, u64_at};

/// The longest record, with its key and headers. Large enough for any event; small enough that a reader
/// can hold a few.
pub const MAX_RECORD_BYTES: usize = 16 << 20;
/// The most headers of one record: they are meant for positions and tracing, and are searched linearly.
pub const MAX_HEADERS: usize = 256;
/// The longest header name, in bytes: its length is one byte.
pub const MAX_HEADER_NAME_BYTES: usize = 255;

/// A record without key, headers and value.
pub(super) const RECORD_MIN_BYTES: usize = 4 + RECORD_FIXED_BYTES;
/// Timestamp, key length and header count.
const RECORD_FIXED_BYTES: usize = 14;
const NO_KEY: u32 = u32::MAX;

/// A record as a producer hands it over.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordIn<'a> {
    /// When the event happened, by the producer: milliseconds since the Unix epoch UTC.
    pub timestamp_ms: i64,
    /// What it is about; records of one key stay in one partition.
    pub key: Option<&'a [u8]>,
    /// Name and value; at most [`MAX_HEADERS`].
    pub headers: &'a [(&'a str, &'a [u8])],
    /// The payload.
    pub value: &'a [u8],
}

/// A record that owns its bytes (or shares those of the block it was read in).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the partition.
    pub offset: u64,
    /// When the event happened: milliseconds since the Unix epoch UTC.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// Name and value.
    pub headers: Vec<(String, Bytes)>,
    /// The payload.
    pub value: Bytes,
}

/// A record within a block that was read.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// Its place in the partition.
    pub offset: u64,
    /// When the event happened: milliseconds since the Unix epoch UTC.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The payload.
    pub value: &'a [u8],
    headers: &'a [u8],
    header_count: u16,
    block: &'a Bytes,
}

impl<'a> RecordRef<'a> {
    /// The headers in their order.
    pub fn headers(&self) -> Headers<'a> {
        Headers { bytes: self.headers, left: self.header_count }
    }

    /// The value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(given, _)| *given == name).map(|(_, value)| value)
    }

    /// The payload, sharing the block: the block lives as long as any such part of it.
    pub fn value_bytes(&self) -> Bytes {
        self.block.slice_ref(self.value)
    }

    /// The key, sharing the block.
    pub fn key_bytes(&self) -> Option<Bytes> {
        self.key.map(|key| self.block.slice_ref(key))
    }

    /// An owned record whose bytes share the block.
    pub fn to_record(&self) -> Record {
        Record {
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key_bytes(),
            headers: self
                .headers()
                .map(|(name, value)| (name.to_owned(), self.block.slice_ref(value)))
                .collect(),
            value: self.value_bytes(),
        }
    }
}

/// The headers of a record.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    left: u16,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (name, value, rest) = split_header(self.bytes)?;
        self.bytes = rest;
        Some((std::str::from_utf8(name).ok()?, value))
    }
}

/// How long a record's encoding is, if it breaks no bound.
pub(super) fn encoded_bytes(record: &RecordIn<'_>) -> usize {
    let headers = record.headers.iter().map(|(name, value)| 5 + name.len() + value.len());
    let key = record.key.map_or(0, <[u8]>::len);
    headers.fold(RECORD_MIN_BYTES + key + record.value.len(), usize::saturating_add)
}

/// Appends a record's encoding to `bytes`, or says which bound it breaks and leaves them.
pub(super) fn encode(record: &RecordIn<'_>, bytes: &mut Vec<u8>) -> Result<(), String> {
    let key = record.key.unwrap_or_default();
    let mut length = RECORD_FIXED_BYTES + key.len() + record.value.len();
    for (name, value) in record.headers {
        if name.len() > MAX_HEADER_NAME_BYTES {
            return Err(format!("header name {name:?} is longer than {MAX_HEADER_NAME_BYTES} bytes"));
        }
        length = length.saturating_add(5 + name.len() + value.len());
    }
    if record.headers.len() > MAX_HEADERS {
        return Err(format!("{} headers, and at most {MAX_HEADERS} are allowed", record.headers.len()));
    }
    if length > MAX_RECORD_BYTES {
        return Err(format!(
            "{length} bytes with its key and headers, and at most {MAX_RECORD_BYTES} are allowed"
        ));
    }
    let mut fixed = [0; RECORD_MIN_BYTES];
    fixed[..4].copy_from_slice(&(length as u32).to_le_bytes());
    fixed[4..12].copy_from_slice(&record.timestamp_ms.to_le_bytes());
    fixed[12..16].copy_from_slice(&record.key.map_or(NO_KEY, |key| key.len() as u32).to_le_bytes());
    fixed[16..18].copy_from_slice(&(record.headers.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&fixed);
    bytes.extend_from_slice(key);
    for (name, value) in record.headers {
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(value);
    }
    bytes.extend_from_slice(record.value);
    Ok(())
}

/// Whether the records of a frame fill it exactly, every length within its bounds. After this,
/// [`first_record`] cannot fail on them.
pub(super) fn records_are_sound(mut records: &[u8], count: u32) -> bool {
    for _ in 0..count {
        let Some(parts) = split_record(records) else { return false };
        if parts.header_count != 0 && !headers_are_sound(parts.headers_and_value, parts.header_count) {
            return false;
        }
        records = parts.rest;
    }
    records.is_empty()
}

/// The first record in `records` and what follows it. `block` is what the bytes are part of.
pub(super) fn first_record<'a>(
    records: &'a [u8],
    offset: u64,
    block: &'a Bytes,
) -> Option<(RecordRef<'a>, &'a [u8])> {
    let parts = split_record(records)?;
    let mut value = parts.headers_and_value;
    for _ in 0..parts.header_count {
        value = split_header(value)?.2;
    }
    let headers = &parts.headers_and_value[..parts.headers_and_value.len() - value.len()];
    let record = RecordRef {
        offset,
        timestamp_ms: parts.timestamp_ms,
        key: parts.key,
        value,
        headers,
        header_count: parts.header_count,
        block,
    };
    Some((record, parts.rest))
}

/// How long the first record is with its length, without looking into it.
#[inline]
pub(super) fn first_record_bytes(records: &[u8]) -> Option<usize> {
    Some(u32::from_le_bytes(*records.first_chunk()?) as usize + 4)
}

struct RecordParts<'a> {
    timestamp_ms: i64,
    key: Option<&'a [u8]>,
    header_count: u16,
    headers_and_value: &'a [u8],
    rest: &'a [u8],
}

#[inline]
fn split_record(records: &[u8]) -> Option<RecordParts<'_>> {
    let fixed = records.first_chunk::<RECORD_MIN_BYTES>()?;
    let length = u32_at(fixed, 0) as usize;
    let (record, rest) = records.get(4..)?.split_at_checked(length)?;
    let timestamp_ms = u64_at(fixed, 4) as i64;
    let key_length = u32_at(fixed, 12);
    let header_count = u16::from_le_bytes([fixed[16], fixed[17]]);
    let body = record.get(RECORD_FIXED_BYTES..)?;
    let (key, headers_and_value) = if key_length == NO_KEY {
        (None, body)
    } else {
        let (key, after) = body.split_at_checked(key_length as usize)?;
        (Some(key), after)
    };
    Some(RecordParts { timestamp_ms, key, header_count, headers_and_value, rest })
}

fn headers_are_sound(mut bytes: &[u8], count: u16) -> bool {
    for _ in 0..count {
        match split_header(bytes) {
            Some((name, _, rest)) if std::str::from_utf8(name).is_ok() => bytes = rest,
            _ => return false,
        }
    }
    true
}

/// Name, value and what follows.
fn split_header(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (fixed, rest) = bytes.split_first_chunk::<5>()?;
    let value_length = u32::from_le_bytes([fixed[1], fixed[2], fixed[3], fixed[4]]) as usize;
    let (name, rest) = rest.split_at_checked(usize::from(fixed[0]))?;
    let (value, rest) = rest.split_at_checked(value_length)?;
    Some((name, value, rest))
}
