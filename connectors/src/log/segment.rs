//! A segment: one file of frames that follow each other, and how to look at it.
//!
//! ```text
//!  BASE.log   ┌──────────────┬────────────┬──────────┬──────────────┬──────────┬────────┬────────┬───
//!             │ "levadlog" 8 │ version u8 │ zero × 3 │ checksum u32 │ base u64 │ salt u64 │ frame │ …
//!             └──────────────┴────────────┴──────────┴──────────────┴──────────┴────────┴────────┴───
//! ```
//!
//! The file's name is the offset of its first record in 20 digits, so that names sort as offsets do. The
//! header's checksum seeds those of the frames; the salt stands for topic and partition. A segment is
//! created under another name, synced and renamed, so a header is never torn; and the segment before is
//! synced first, so only the last one can have a torn tail.
//!
//! In: a file. Out: its frames by position, through blocks of 1 MiB, and, where there is no frame, whether
//! that is a tail still being written (or torn by a crash) or damage.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::error::{LogError, Result};
use super::frame::{
    self, FRAME_HEADER_BYTES, FrameHeader, MAX_FRAME_BYTES, PREFIX_BYTES, Parsed, u32_at, u64_at,
};
use super::record::records_are_sound;
use super::storage::{Storage, StoredFile, write_all_at};

/// The format that this release writes and reads.
pub(super) const FORMAT_VERSION: u8 = 1;
pub(super) const SEGMENT_HEADER_BYTES: u64 = 32;
/// How much is read at once: long enough to make the call's price vanish, short enough to stay in cache.
const BLOCK_BYTES: usize = 1 << 20;
/// Enough for a consumer that is done with a read, which may span two blocks, before the next one.
const KEEP_BLOCKS: usize = 3;
const MAGIC: &[u8; 8] = b"levadlog";

/// The path of the segment that begins at `base`.
pub(super) fn segment_path(folder: &Path, base: u64) -> PathBuf {
    folder.join(format!("{base:020}.log"))
}

/// The offsets at which the folder's segments begin, ascending.
pub(super) fn list_segments(folder: &Path) -> Result<Vec<u64>> {
    let mut bases = Vec::new();
    for entry in fs::read_dir(folder).map_err(LogError::io("list", folder))? {
        let name = entry.map_err(LogError::io("list", folder))?.file_name();
        bases.extend(name.to_str().and_then(segment_base));
    }
    bases.sort_unstable();
    Ok(bases)
}

fn segment_base(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// A segment as its writer holds it.
#[derive(Debug)]
pub(super) struct NewSegment {
    pub file: Box<dyn StoredFile>,
    pub seed: u32,
}

/// Creates a segment, whole or not at all, and makes it durable. A failure to sync comes back in the
/// inner result: it is for the caller to treat like any failed sync.
pub(super) fn create_segment(
    storage: &dyn Storage,
    folder: &Path,
    base: u64,
    salt: u64,
) -> Result<std::result::Result<NewSegment, io::Error>> {
    let path = segment_path(folder, base);
    let draft = path.with_extension("tmp");
    let (header, seed) = segment_header(base, salt);
    let file = storage.create(&draft).map_err(LogError::io("create", &draft))?;
    if let Err(error) = write_all_at(file.as_ref(), &header, 0) {
        // Only tidying: the next opening removes what is left of it.
        let _ = storage.remove(&draft);
        return Err(LogError::io("write", &draft)(error));
    }
    if let Err(error) = file.sync() {
        return Ok(Err(error));
    }
    storage.rename(&draft, &path).map_err(LogError::io("name", &path))?;
    Ok(storage.sync_folder(folder).map(|()| NewSegment { file, seed }))
}

fn segment_header(base: u64, salt: u64) -> ([u8; SEGMENT_HEADER_BYTES as usize], u32) {
    let mut header = [0; SEGMENT_HEADER_BYTES as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8] = FORMAT_VERSION;
    header[16..24].copy_from_slice(&base.to_le_bytes());
    header[24..32].copy_from_slice(&salt.to_le_bytes());
    let checksum = crc32c::crc32c(&header);
    header[12..16].copy_from_slice(&checksum.to_le_bytes());
    (header, checksum)
}

/// What stands at a position of a segment.
#[derive(Debug)]
pub(super) enum At {
    /// A whole frame; [`Segment::records`] gives its records.
    Frame(FrameHeader),
    /// The end of the file.
    End,
    /// Something that is no frame, or not yet one.
    Stop {
        reason: &'static str,
        /// How long the file was.
        length: u64,
    },
}

/// A segment opened for reading, with the block read last.
#[derive(Debug)]
pub(super) struct Segment {
    pub base: u64,
    pub path: PathBuf,
    pub seed: u32,
    file: File,
    block: Bytes,
    block_start: u64,
    /// Earlier blocks, to be read into again when nobody uses them any more.
    used: VecDeque<Bytes>,
}

impl Segment {
    /// Opens the segment that begins at `base`; `None` when there is none.
    pub fn open(folder: &Path, base: u64) -> Result<Option<Segment>> {
        let path = segment_path(folder, base);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::io("open", &path)(error)),
        };
        let mut segment =
            Segment { base, path, seed: 0, file, block: Bytes::new(), block_start: 0, used: VecDeque::new() };
        let found = segment.read_at(0, SEGMENT_HEADER_BYTES as usize, Vec::new())?;
        segment.seed = u32_at(&found, 12);
        let damaged = |reason: &str| Err(LogError::damaged(&segment.path, 0, reason));
        if found.len() < SEGMENT_HEADER_BYTES as usize || !found.starts_with(MAGIC) {
            return damaged("this is no segment of a levada log");
        }
        if found[8] != FORMAT_VERSION {
            return damaged(&format!(
                "its format version is {}, and this release reads version {FORMAT_VERSION}",
                found[8]
            ));
        }
        let (expected, _) = segment_header(base, u64_at(&found, 24));
        if found != expected {
            return damaged("the segment's header does not match its checksum and name");
        }
        Ok(Some(segment))
    }

    pub fn length(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(LogError::io("measure", &self.path))?.len())
    }

    /// Whether the file has been deleted while it is open here.
    pub fn is_deleted(&self) -> Result<bool> {
        Ok(self.file.metadata().map_err(LogError::io("measure", &self.path))?.nlink() == 0)
    }

    /// What stands at `position`, where a frame should begin with offset `expected`.
    pub fn frame_at(&mut self, position: u64, expected: u64) -> Result<At> {
        let mut fresh = false;
        loop {
            let parsed = frame::parse(self.in_block(position), self.seed, expected);
            let (wanted, reason) = match parsed {
                Parsed::Frame(header) => return Ok(At::Frame(header)),
                Parsed::Needs(wanted) => (wanted as u64, "the file ends within the frame"),
                Parsed::Bad(reason) => (FRAME_HEADER_BYTES as u64, reason),
            };
            let length = self.length()?;
            let left = length.saturating_sub(position);
            if left == 0 {
                return Ok(At::End);
            }
            // What was read earlier may since have been completed, or cut and overwritten: only fresh
            // bytes tell that there is no frame.
            let hopeless = left < wanted || matches!(parsed, Parsed::Bad(_));
            if fresh && hopeless {
                return Ok(At::Stop { reason, length });
            }
            self.load(position, left.min(wanted.max(BLOCK_BYTES as u64)) as usize)?;
            fresh = true;
        }
    }

    /// The records of the frame that [`Segment::frame_at`] has just found at `position`.
    pub fn records(&self, position: u64, header: &FrameHeader) -> Result<Bytes> {
        let start = position.saturating_sub(self.block_start) as usize;
        let (from, to) = (start + FRAME_HEADER_BYTES, start + header.frame_bytes);
        match self.block.get(from..to) {
            Some(records) if records_are_sound(records, header.count) => Ok(self.block.slice(from..to)),
            _ => Err(LogError::damaged(&self.path, position, "the frame's records do not fill it")),
        }
    }

    /// Whether the bytes at `position`, where [`Segment::frame_at`] found none, are damage: then a whole
    /// frame stands somewhere behind them, at the position returned. Otherwise they are a tail that is
    /// still being written or was torn by a crash.
    ///
    /// Looks at every byte behind `position`, so it costs about 1 ns a byte: only for the rare stop.
    pub fn frame_behind(&self, position: u64, expected: u64) -> Result<Option<u64>> {
        let length = self.length()?;
        let mut start = position + 1;
        while start + (FRAME_HEADER_BYTES as u64) <= length {
            let block = self.read_at(start, BLOCK_BYTES + FRAME_HEADER_BYTES - 1, Vec::new())?;
            for (index, header) in block.windows(FRAME_HEADER_BYTES).enumerate() {
                let at = start + index as u64;
                let base = u64_at(header, 8);
                // Each lost byte can have held less than one record.
                if base <= expected || base - expected > at - position {
                    continue;
                }
                let frame_bytes = u64::from(u32_at(header, 0)) + PREFIX_BYTES as u64;
                if frame_bytes > MAX_FRAME_BYTES as u64 || at + frame_bytes > length {
                    continue;
                }
                if matches!(
                    frame::parse(&self.read_at(at, frame_bytes as usize, Vec::new())?, self.seed, base),
                    Parsed::Frame(_)
                ) {
                    return Ok(Some(at));
                }
            }
            start += BLOCK_BYTES as u64;
        }
        Ok(None)
    }

    fn in_block(&self, position: u64) -> &[u8] {
        let start = position.checked_sub(self.block_start).and_then(|start| usize::try_from(start).ok());
        start.and_then(|start| self.block.get(start..)).unwrap_or_default()
    }

    /// Reads the block that begins at `position`.
    fn load(&mut self, position: u64, bytes: usize) -> Result<()> {
        let buffer = self.free_buffer(bytes);
        let block = Bytes::from(self.read_at(position, bytes, buffer)?);
        self.used.push_back(std::mem::replace(&mut self.block, block));
        if self.used.len() > KEEP_BLOCKS {
            self.used.pop_front();
        }
        self.block_start = position;
        Ok(())
    }

    /// A buffer whose records nobody holds any more, or a new one. Fresh memory costs about as much as
    /// reading into it. Never a much larger one: whoever keeps a record keeps its whole buffer.
    fn free_buffer(&mut self, bytes: usize) -> Vec<u8> {
        let free = self.used.iter().position(|block| block.is_unique() && block.len() / 2 <= bytes);
        let Some(mut block) = free.and_then(|index| self.used.remove(index)) else { return Vec::new() };
        // Turning it into a vector copies its bytes, so that there are none.
        block.clear();
        let mut buffer = Vec::from(block);
        buffer.clear();
        buffer
    }

    /// `bytes` bytes from `position` on, in `buffer`; fewer only at the end of the file, and more if the
    /// buffer has room.
    fn read_at(&self, position: u64, bytes: usize, buffer: Vec<u8>) -> Result<Vec<u8>> {
        let mut found = buffer;
        found.reserve_exact(bytes);
        while found.len() < bytes {
            let at = position + found.len() as u64;
            match rustix::io::pread(&self.file, rustix::buffer::spare_capacity(&mut found), at) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(LogError::io("read", &self.path)(error.into())),
            }
        }
        Ok(found)
    }
}
