//! Records sent to a topic at a steady rate, each with the time at which it is sent, and the rows that become of
//! them, as a consumer sees them.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use levada_connectors::log::{Log, RecordIn, Start, TopicWriter, WriterOptions};

use super::BenchError;
use super::cost::thread_cpu_s;

/// The topic that the producer writes.
pub(super) const IN: &str = "latency.in";
/// The topic that the consumer reads.
pub(super) const OUT: &str = "latency.out";
/// How far apart the producer's batches are.
pub(super) const BATCH_EVERY: Duration = Duration::from_millis(1);
/// Longer latencies are told as this.
pub(super) const MOST_US: u64 = 600_000_000;
/// The consumer stops when it has seen nothing for so long after the last record was sent.
pub(super) const QUIET: Duration = Duration::from_millis(300);

/// How far the producer has come.
#[derive(Default)]
pub(super) struct Course {
    pub over: AtomicBool,
    /// When the first record of each second was sent.
    seconds: Mutex<Vec<i64>>,
}

/// What a producer did.
pub(super) struct Sent {
    pub records: u64,
    pub cpu_s: f64,
}

/// A steady stream of records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Records a second.
    pub rate: u64,
    pub seconds: u64,
    /// How many users they are about.
    pub users: u64,
}

/// Sends records; keeps to its rate whether or not the job keeps up.
pub(super) fn produce(data_dir: &Path, load: Load, course: &Course) -> Result<Sent, BenchError> {
    let writer = Log::open(data_dir)?.topic(IN)?.writers(WriterOptions::default())?;
    let (began, mut records) = (Instant::now(), 0);
    let mut due = began;
    let mut second = 0;
    let mut batch = Records::default();
    while began.elapsed() < Duration::from_secs(load.seconds) {
        due += BATCH_EVERY;
        std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
        let target = (began.elapsed().as_secs_f64() * load.rate as f64) as u64;
        let sent_us = now_us();
        let ids = records..target;
        batch.clear();
        for id in ids {
            // Spread over all users, and each of them as often.
            batch.add(id, (id.wrapping_mul(SPREAD)) % load.users, sent_us)?;
        }
        if sent_us / 1_000_000 > second {
            second = sent_us / 1_000_000;
            course.seconds.lock().unwrap_or_else(PoisonError::into_inner).push(sent_us);
        }
        batch.append(&writer)?;
        records = target.max(records);
    }
    Ok(Sent { records, cpu_s: thread_cpu_s() })
}

/// What a consumer saw.
pub(super) struct Seen {
    /// From a record's sending to its row's being there, in microseconds.
    pub us: Histogram<u64>,
    pub cpu_s: f64,
}

/// Sees rows until none comes any more; counts those that began at `from_us` or later. With `windows`, a row
/// begins with the first record of the next second, which is what completes it.
pub(super) fn consume(
    data_dir: &Path,
    windows: bool,
    from_us: i64,
    course: &Course,
) -> Result<Seen, BenchError> {
    let mut reader = Log::open(data_dir)?.topic(OUT)?.reader(0, Start::Beginning)?;
    let mut us =
        Histogram::<u64>::new_with_max(MOST_US, 3).map_err(|error| BenchError::Other(error.to_string()))?;
    loop {
        let over = course.over.load(Relaxed);
        let fetched = reader.read(1 << 16, 16 << 20)?;
        let now = now_us();
        for record in fetched.iter() {
            let Some(sent_us) = sent_us(record.value) else { continue };
            let began_us = if windows {
                let seconds = course.seconds.lock().unwrap_or_else(PoisonError::into_inner);
                seconds.iter().copied().find(|first| first / 1_000_000 > sent_us / 1_000_000)
            } else {
                Some(sent_us)
            };
            if let Some(began_us) = began_us.filter(|began_us| *began_us >= from_us) {
                // The histogram grows to whatever it is given; `saturating_record` would not.
                let _ = us.record(u64::try_from(now - began_us).unwrap_or(0));
            }
        }
        if fetched.is_empty() && !reader.wait(QUIET)? && over {
            return Ok(Seen { us, cpu_s: thread_cpu_s() });
        }
    }
}

/// When a row's record was sent, in microseconds since the Unix epoch UTC: the number behind `"sent_us":`.
pub(super) fn sent_us(value: &[u8]) -> Option<i64> {
    let name = br#""sent_us":"#;
    let at = value.windows(name.len()).rposition(|window| window == name)? + name.len();
    let digits = value[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

pub(super) fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

/// What numbers are multiplied by so that neighbours are far apart.
const SPREAD: u64 = 0x9e37_79b9;

/// Records to be appended at once.
#[derive(Default)]
pub(super) struct Records {
    bytes: Vec<u8>,
    ends: Vec<(usize, i64)>,
}

impl Records {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Adds one of a user, sent at `sent_us`.
    pub fn add(&mut self, id: u64, user: u64, sent_us: i64) -> std::io::Result<()> {
        let amount = id.wrapping_mul(7919) % 50_000;
        write!(
            self.bytes,
            r#"{{"id":{id},"user":"u{user:05}","amount":{}.{:02},"sent_us":{sent_us},"at":{}}}"#,
            amount / 100,
            amount % 100,
            sent_us / 1000
        )?;
        self.ends.push((self.bytes.len(), sent_us / 1000));
        Ok(())
    }

    pub fn append(&self, writer: &TopicWriter) -> Result<(), BenchError> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(end, _)| *end));
        let batch: Vec<RecordIn<'_>> = starts
            .zip(&self.ends)
            .map(|(start, &(end, timestamp_ms))| RecordIn {
                timestamp_ms,
                value: &self.bytes[start..end],
                ..RecordIn::default()
            })
            .collect();
        writer.append(&batch)?;
        Ok(())
    }
}
