//! Several topics out of one stream of records, or a file for each; a thousand records of each are held at most.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use levada_types::ConnectorError;

use super::{APPEND_RECORDS, Destination, Event};

/// A topic that a simulation fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    /// `platform.events`
    pub name: &'static str,
    /// Whether it gets as many partitions as were asked for, or one.
    pub spread: bool,
}

/// An event and the number of its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub(crate) topic: usize,
    pub(crate) event: Event,
}

/// Fills the topics. Gives how many records each got.
///
/// # Errors
/// When one holds records already, or cannot be written.
pub fn fill(
    to: &Destination,
    topics: &[Topic],
    partitions: u32,
    records: impl Iterator<Item = Record>,
) -> Result<Vec<(&'static str, u64)>, ConnectorError> {
    let mut fillings = Vec::with_capacity(topics.len());
    for topic in topics {
        let filling = to.fresh_topic(topic.name, if topic.spread { partitions } else { 1 })?;
        fillings.push((filling, Vec::with_capacity(APPEND_RECORDS), 0));
    }
    for Record { topic, event } in records {
        let (filling, held, count) = &mut fillings[topic];
        held.push(event);
        *count += 1;
        if held.len() == APPEND_RECORDS {
            filling.append(held)?;
            held.clear();
        }
    }
    let mut filled = Vec::with_capacity(topics.len());
    for (topic, (filling, held, count)) in topics.iter().zip(fillings) {
        filling.append(&held)?;
        filling.finish()?;
        filled.push((topic.name, count));
    }
    Ok(filled)
}

/// Writes a file for each topic, `NAME.jsonl` with a record a line, into a folder that is created if there is
/// none. Gives how many records each got.
///
/// # Errors
/// When they cannot be written.
pub fn write(
    folder: &Path,
    topics: &[Topic],
    records: impl Iterator<Item = Record>,
) -> io::Result<Vec<(&'static str, u64)>> {
    fs::create_dir_all(folder)?;
    let mut files = Vec::with_capacity(topics.len());
    for topic in topics {
        files.push((BufWriter::new(File::create(folder.join(format!("{}.jsonl", topic.name)))?), 0));
    }
    for Record { topic, event } in records {
        let (file, count) = &mut files[topic];
        file.write_all(&event.value)?;
        file.write_all(b"\n")?;
        *count += 1;
    }
    let mut written = Vec::with_capacity(topics.len());
    for (topic, (mut file, count)) in topics.iter().zip(files) {
        file.flush()?;
        written.push((topic.name, count));
    }
    Ok(written)
}
