//! Files: JSON lines and CSV, plain or compressed, as source and sink.
//!
//! A source's files are its partitions, in the order given; a record's offset is the number of the line it
//! begins on, from 1. A sink writes beside its target and takes the target's place when it closes, so that
//! nobody ever sees half a file.

mod blocks;
mod compression;
mod config;
mod lines;
mod sink;
mod source;
#[cfg(test)]
mod tests;

pub use compression::Compression;
pub use config::{FileSinkConfig, FileSourceConfig};
pub use lines::{Lines, MAX_LINE_BYTES};
pub use sink::FileSink;
pub use source::FileSource;

use std::io;
use std::path::Path;

use levada_types::{Blame, ConnectorError};

/// What the operating system or a decompressor said, in terms of what to do about it.
fn failed(action: &str, path: &Path, error: &io::Error) -> ConnectorError {
    use io::ErrorKind::{
        InvalidData, InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied, UnexpectedEof,
    };
    let blame = match error.kind() {
        NotFound | PermissionDenied | IsADirectory | NotADirectory => Blame::Configuration,
        InvalidData | InvalidInput | UnexpectedEof => Blame::Damage,
        // What zstd says has no operating system's number.
        _ if error.raw_os_error().is_none() => Blame::Damage,
        _ => Blame::Outage,
    };
    ConnectorError { blame, message: format!("{action} {}: {error}", path.display()) }
}
