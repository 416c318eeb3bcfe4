//! Compressed files: which kind one is, reading it, writing it.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use flate2::read::{DeflateDecoder, MultiGzDecoder};
use flate2::write::GzEncoder;
use flate2::{Compression as Level, Crc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip; `.gz`.
    Gzip,
    /// Zstandard; `.zst`.
    Zstd,
    /// A zip archive with one file in it; `.zip`. For reading only.
    Zip,
}

impl Compression {
    /// By the file name's ending.
    pub fn of(path: &Path) -> Compression {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Compression::Gzip,
            Some("zst") => Compression::Zstd,
            Some("zip") => Compression::Zip,
            _ => Compression::None,
        }
    }

    /// The plain bytes of a file.
    pub(super) fn reader(self, input: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
        const BLOCK: usize = 256 << 10;
        Ok(match self {
            Compression::None => Box::new(input),
            Compression::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(BLOCK, input))),
            Compression::Zstd => {
                Box::new(zstd::Decoder::with_buffer(BufReader::with_capacity(BLOCK, input))?)
            }
            Compression::Zip => Box::new(ZipReader::open(input)?),
        })
    }
}

/// A file being written.
pub(super) enum Output {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
    Zstd(zstd::Encoder<'static, BufWriter<File>>),
}

impl Output {
    pub fn new(compression: Compression, file: File) -> io::Result<Output> {
        let file = BufWriter::with_capacity(256 << 10, file);
        Ok(match compression {
            Compression::None => Output::Plain(file),
            Compression::Gzip => Output::Gzip(GzEncoder::new(file, Level::default())),
            Compression::Zstd => Output::Zstd(zstd::Encoder::new(file, 0)?),
            Compression::Zip => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "zip can only be read"));
            }
        })
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Output::Plain(output) => output.write_all(bytes),
            Output::Gzip(output) => output.write_all(bytes),
            Output::Zstd(output) => output.write_all(bytes),
        }
    }

    /// Writes all that comes of `input`.
    pub fn copy(&mut self, input: &mut impl Read) -> io::Result<u64> {
        match self {
            Output::Plain(output) => io::copy(input, output),
            Output::Gzip(output) => io::copy(input, output),
            Output::Zstd(output) => io::copy(input, output),
        }
    }

    /// The file with all that can be read of it so far, not yet synced.
    pub fn flushed(&mut self) -> io::Result<File> {
        let file = match self {
            Output::Plain(output) => output,
            Output::Gzip(output) => output.get_mut(),
            Output::Zstd(output) => output.get_mut(),
        };
        file.flush()?;
        file.get_ref().try_clone()
    }

    /// Everything written; the file, not yet synced.
    pub fn finish(self) -> io::Result<File> {
        let file = match self {
            Output::Plain(output) => output,
            Output::Gzip(output) => output.finish()?,
            Output::Zstd(output) => output.finish()?,
        };
        file.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

/// The one file in a zip archive (APPNOTE 6.3.3: deflated or stored; no encryption, not beyond 4 GiB).
struct ZipReader {
    data: Box<dyn Read + Send>,
    crc: Crc,
    expected: u32,
    left: u64,
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

impl ZipReader {
    fn open(mut input: impl Read) -> io::Result<ZipReader> {
        let mut archive = Vec::new();
        input.read_to_end(&mut archive)?;
        let u16_at = |at: usize| Some(u16::from_le_bytes(*archive.get(at..)?.first_chunk()?));
        let u32_at = |at: usize| Some(u32::from_le_bytes(*archive.get(at..)?.first_chunk()?));
        // The directory's end is the last thing in the archive, but for a comment.
        let end =
            memchr::memmem::rfind(&archive, b"PK\x05\x06").ok_or_else(|| invalid("it is no zip archive"))?;
        let files = u16_at(end + 10);
        if files != Some(1) {
            return Err(invalid(format!("it holds {} files instead of one", files.unwrap_or_default())));
        }
        let entry = || -> Option<_> {
            let directory = u32_at(end + 16)? as usize;
            if archive.get(directory..directory + 4)? != b"PK\x01\x02" {
                return None;
            }
            let encrypted = u16_at(directory + 8)? & 1 == 1;
            let (method, crc) = (u16_at(directory + 10)?, u32_at(directory + 16)?);
            let (packed, plain) = (u32_at(directory + 20)? as usize, u32_at(directory + 24)?);
            let local = u32_at(directory + 42)? as usize;
            let start = local + 30 + usize::from(u16_at(local + 26)?) + usize::from(u16_at(local + 28)?);
            archive.get(start..start.checked_add(packed)?)?;
            Some((encrypted, method, crc, start..start + packed, plain))
        };
        let (encrypted, method, expected, place, plain) =
            entry().ok_or_else(|| invalid("its directory is damaged"))?;
        if encrypted {
            return Err(invalid("it is encrypted"));
        }
        archive.truncate(place.end);
        archive.drain(..place.start);
        let packed = io::Cursor::new(archive);
        let data: Box<dyn Read + Send> = match method {
            0 => Box::new(packed),
            8 => Box::new(DeflateDecoder::new(packed)),
            other => return Err(invalid(format!("its compression method {other} is not read here"))),
        };
        Ok(ZipReader { data, crc: Crc::new(), expected, left: u64::from(plain) })
    }
}

impl Read for ZipReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.data.read(buffer)?;
        self.crc.update(buffer.get(..count).unwrap_or_default());
        self.left =
            self.left.checked_sub(count as u64).ok_or_else(|| invalid("it is longer than it says"))?;
        if count == 0 && !buffer.is_empty() && (self.left > 0 || self.crc.sum() != self.expected) {
            return Err(invalid("its checksum is wrong"));
        }
        Ok(count)
    }
}
