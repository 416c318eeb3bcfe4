//! What the log promises, tried: against a plain vector, torn and flipped byte by byte, with a disk that
//! fails, and with writers killed at random moments.

mod crash;
mod damage;
mod faults;
mod follow;
mod model;
mod topics;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;

/// Long enough for any machine; only ever reached by a test that fails.
const PATIENCE: Duration = Duration::from_secs(120);
/// Tells a test that it runs as another one's child process, and gives it the log's folder.
const CHILD: &str = "LEVADA_LOG_TEST_CHILD";

fn new_topic(config: TopicConfig) -> (tempfile::TempDir, Topic) {
    let folder = tempfile::tempdir().unwrap();
    let topic = Log::open(folder.path()).unwrap().create_topic("t", config).unwrap();
    (folder, topic)
}

fn small_segments(segment_bytes: u64) -> TopicConfig {
    TopicConfig { segment_bytes, ..TopicConfig::default() }
}

fn never() -> WriterOptions {
    WriterOptions::synced(SyncPolicy::Never)
}

fn value(value: &[u8]) -> RecordIn<'_> {
    RecordIn { value, ..RecordIn::default() }
}

/// Everything from where the reader is to the end, in uneven reads.
fn rest(reader: &mut Reader) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for size in (1..).map(|turn| turn * 7 % 50 + 1) {
        let fetched = reader.read(size, usize::MAX)?;
        if fetched.is_empty() {
            break;
        }
        records.extend(fetched.iter().map(|record| record.to_record()));
    }
    Ok(records)
}

fn values(topic: &Topic) -> Result<Vec<Vec<u8>>> {
    let records = rest(&mut topic.reader(0, Start::Beginning)?)?;
    Ok(records.into_iter().map(|record| record.value.to_vec()).collect())
}

/// Runs one test of this executable as another process on the log in `folder`.
fn child(test: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("log::tests::{test}"), "--nocapture", "--test-threads=1"])
        .env(CHILD, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The topic that the parent has made, when this is a child process.
fn in_child() -> Option<Topic> {
    let folder = std::env::var_os(CHILD)?;
    Some(Log::open(folder).unwrap().topic("t").unwrap())
}

/// What a child says after `word`, line by line. A line cut off by a kill was not said.
fn said<'c>(child: &'c mut Child, word: &'static str) -> impl Iterator<Item = String> + use<'c> {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap());
    std::iter::from_fn(move || {
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some((_, said)) = line.strip_suffix('\n')?.rsplit_once(word) {
                return Some(said.trim().to_owned());
            }
        }
    })
}

/// Numbers that look random and can be had again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        xxhash_rust::xxh3::xxh3_64(&self.0.to_le_bytes()) % bound
    }
}
