//! The frame: one append, checksummed as a whole.
//!
//! A call to `append` becomes one frame, and a frame is either whole or not there. That is what makes an
//! epoch of a sink atomic across a crash without a commit marker.
//!
//! ```text
//!  frame   ┌───────────┬───────────┬─────────────┬───────────┬───────────┬──────────────────┬─────────┐
//!          │ length u32│ crc32c u32│ base off u64│ count u32 │ zero  u32 │ max timestamp i64│ records…│
//!          └───────────┴───────────┴─────────────┴───────────┴───────────┴──────────────────┴─────────┘
//!                        length counts from here on ↑ (the base offset), and so does the checksum,
//!                        which is seeded with the segment's (a frame copied from elsewhere is no frame here)
//! ```
//!
//! All numbers are little-endian. In: the [records](super::record) of one call. Out: bytes for one write, and
//! from bytes again what frame they are, if any. The checksum costs under 10 ns a record of 150 bytes.

use super::error::{LogError, Result};
use super::record::{self, RECORD_MIN_BYTES, RecordIn};

/// The longest frame, so the most that one append can make visible at once. A reader must hold a whole
/// frame to check it, so this bounds its memory.
pub const MAX_FRAME_BYTES: usize = 64 << 20;

/// Length and checksum.
pub(super) const PREFIX_BYTES: usize = 8;
/// Everything before the first record.
pub(super) const FRAME_HEADER_BYTES: usize = PREFIX_BYTES + 24;

/// Builds frames, reusing its buffer. The base offset is not known until the writer's lock is held, so
/// the header is filled in last by [`FrameBuilder::seal`].
#[derive(Debug, Default)]
pub(super) struct FrameBuilder {
    bytes: Vec<u8>,
    count: u32,
    max_timestamp_ms: i64,
}

impl FrameBuilder {
    /// Encodes the records of one append.
    pub fn encode<'r, 'a: 'r>(
        &mut self,
        records: impl ExactSizeIterator<Item = &'r RecordIn<'a>>,
    ) -> Result<()> {
        self.bytes.clear();
        self.bytes.resize(FRAME_HEADER_BYTES, 0);
        self.max_timestamp_ms = i64::MIN;
        let total = records.len();
        self.count = u32::try_from(total).map_err(|_| too_large(total))?;
        for (index, record) in records.enumerate() {
            record::encode(record, &mut self.bytes).map_err(|reason| LogError::Record { index, reason })?;
            self.max_timestamp_ms = self.max_timestamp_ms.max(record.timestamp_ms);
            if self.bytes.len() > MAX_FRAME_BYTES {
                return Err(too_large(total));
            }
        }
        Ok(())
    }

    /// Fills in the header and returns the bytes to write.
    pub fn seal(&mut self, seed: u32, base_offset: u64) -> &[u8] {
        let length = (self.bytes.len() - PREFIX_BYTES) as u32;
        self.bytes[..4].copy_from_slice(&length.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&base_offset.to_le_bytes());
        self.bytes[16..20].copy_from_slice(&self.count.to_le_bytes());
        self.bytes[20..24].copy_from_slice(&0_u32.to_le_bytes());
        self.bytes[24..32].copy_from_slice(&self.max_timestamp_ms.to_le_bytes());
        let checksum = crc32c::crc32c_append(seed, &self.bytes[PREFIX_BYTES..]);
        self.bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        &self.bytes
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    pub fn max_timestamp_ms(&self) -> i64 {
        self.max_timestamp_ms
    }

    /// How long the frame will be.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How much memory it keeps.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

fn too_large(records: usize) -> LogError {
    LogError::FrameTooLarge { records, limit: MAX_FRAME_BYTES }
}

/// What a frame says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// The whole frame, prefix included.
    pub frame_bytes: usize,
    pub base_offset: u64,
    pub count: u32,
    pub max_timestamp_ms: i64,
}

impl FrameHeader {
    /// The offset after the frame's last record.
    pub fn next_offset(&self) -> u64 {
        self.base_offset.saturating_add(u64::from(self.count))
    }
}

/// What stands at the beginning of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A whole frame with the right checksum.
    Frame(FrameHeader),
    /// As far as these bytes go it may be a frame; this many bytes would tell.
    Needs(usize),
    /// Whatever follows, this is no frame.
    Bad(&'static str),
}

/// Looks for a frame at the beginning of `bytes`, which should begin at offset `expected`.
pub(super) fn parse(bytes: &[u8], seed: u32, expected: u64) -> Parsed {
    let Some(header) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
        return Parsed::Needs(FRAME_HEADER_BYTES);
    };
    let length = u32_at(header, 0) as usize;
    if !(FRAME_HEADER_BYTES - PREFIX_BYTES..=MAX_FRAME_BYTES - PREFIX_BYTES).contains(&length) {
        return Parsed::Bad("the frame's length is out of bounds");
    }
    if u64_at(header, 8) != expected {
        return Parsed::Bad("the frame's offset does not follow the one before");
    }
    let count = u32_at(header, 16);
    if count == 0 || count as usize > length / RECORD_MIN_BYTES {
        return Parsed::Bad("the frame's record count does not fit its length");
    }
    let frame_bytes = length + PREFIX_BYTES;
    let Some(frame) = bytes.get(..frame_bytes) else {
        return Parsed::Needs(frame_bytes);
    };
    if crc32c::crc32c_append(seed, &frame[PREFIX_BYTES..]) != u32_at(header, 4) {
        return Parsed::Bad("the frame's checksum does not match its bytes");
    }
    Parsed::Frame(FrameHeader {
        frame_bytes,
        base_offset: expected,
        count,
        max_timestamp_ms: u64_at(header, 24) as i64,
    })
}

/// Reads a number at a place that the caller knows to be within the bytes.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |found| u32::from_le_bytes(*found))
}

/// Reads a number at a place that the caller knows to be within the bytes.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |found| u64::from_le_bytes(*found))
}
