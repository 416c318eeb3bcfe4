//! The reader that writes what it reads.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use levada_types::{
    ConnectorError, Offset, PartitionId, Read, RecordReader, SourceFactory, StartAt, parse_duration_ms,
};
use serde_json::json;

use super::ClockSourceConfig;
use crate::codec::timestamp;
use crate::log::{Log, RecordIn, TopicConfig, TopicWriter, WriterOptions};
use crate::topic::{LogSource, LogSourceConfig, StartFrom};

/// The shortest time between two ticks: each is a sync of the disk.
const LEAST_EVERY_MS: i64 = 100;

/// A clock.
#[derive(Clone, Debug)]
pub struct ClockSource {
    data_dir: PathBuf,
    topic: String,
    retain_ms: Option<u64>,
    every: Duration,
    /// The field of a tick that is its time.
    field: String,
    ticks: LogSource,
}

impl ClockSource {
    /// The clock `name` of a job, over topics in `data_dir`; `field` is the column of its event time.
    ///
    /// # Errors
    /// The field of the settings, and what is wrong with it.
    pub fn new(
        data_dir: impl Into<PathBuf>,
        job: &str,
        name: &str,
        config: &ClockSourceConfig,
        field: &str,
    ) -> Result<ClockSource, (&'static str, String)> {
        let every_ms = parse_duration_ms(&config.every).map_err(|problem| ("every", problem))?;
        if every_ms < LEAST_EVERY_MS {
            return Err(("every", format!("a clock ticks at most every {LEAST_EVERY_MS} ms")));
        }
        let retain = config.retain.as_deref().map(parse_duration_ms).transpose();
        let retain_ms = retain.map_err(|problem| ("retain", problem))?.and_then(|ms| u64::try_from(ms).ok());
        let (data_dir, topic) = (data_dir.into(), config.topic(job, name));
        let start = LogSourceConfig { topic: topic.clone(), start: StartFrom::Beginning };
        let ticks = LogSource::new(&data_dir, &start).map_err(|error| ("topic", error.to_string()))?;
        let every = Duration::from_millis(every_ms.unsigned_abs());
        Ok(ClockSource { data_dir, topic, retain_ms, every, field: field.to_owned(), ticks })
    }

    /// The topic is there before the first tick.
    fn ensure(&self) -> Result<(), ConnectorError> {
        let config = TopicConfig { retain_ms: self.retain_ms, ..TopicConfig::default() };
        let topic = Log::open(&self.data_dir)?.ensure_topic(&self.topic, config)?;
        match topic.partitions() {
            1 => Ok(()),
            n => Err(ConnectorError::configuration(format!(
                "tick: topic {} has {n} partitions, and a clock one",
                self.topic
            ))),
        }
    }
}

impl SourceFactory for ClockSource {
    fn describe(&self) -> String {
        self.ticks.describe()
    }

    fn partitions(&self) -> Result<Vec<Option<Offset>>, ConnectorError> {
        self.ensure()?;
        self.ticks.partitions()
    }

    fn unbounded(&self) -> bool {
        true
    }

    fn start(&self, partition: PartitionId) -> Result<Option<Offset>, ConnectorError> {
        self.ensure()?;
        self.ticks.start(partition)
    }

    fn open(&self, partition: PartitionId, start: StartAt) -> Result<Box<dyn RecordReader>, ConnectorError> {
        self.ensure()?;
        let reader = self.ticks.open(partition, start)?;
        Ok(Box::new(ClockReader { clock: self.clone(), reader, writer: None, next: None }))
    }
}

struct ClockReader {
    clock: ClockSource,
    reader: Box<dyn RecordReader>,
    /// There is none before the job is live: until then nothing is written.
    writer: Option<TopicWriter>,
    /// When the next tick is due.
    next: Option<Instant>,
}

impl RecordReader for ClockReader {
    fn at_once(&self) -> bool {
        self.reader.at_once()
    }

    fn read(&mut self, max_records: usize, wait: Duration) -> Result<Read, ConnectorError> {
        let read = self.reader.read(max_records, Duration::ZERO)?;
        // Only who waits for more is live.
        if wait.is_zero() || max_records == 0 || !matches!(read, Read::CaughtUp) {
            return Ok(read);
        }
        let now = Instant::now();
        let next = *self.next.get_or_insert(now);
        if let Some(left) = next.checked_duration_since(now).filter(|left| !left.is_zero()) {
            return self.reader.read(max_records, wait.min(left));
        }
        self.next = Some(now + self.clock.every);
        self.tick()?;
        self.reader.read(max_records, wait)
    }
}

impl ClockReader {
    fn tick(&mut self) -> Result<(), ConnectorError> {
        if self.writer.is_none() {
            let topic = Log::open(&self.clock.data_dir)?.topic(&self.clock.topic)?;
            self.writer = Some(topic.writers(WriterOptions::default())?);
        }
        let Some(writer) = &self.writer else { return Ok(()) };
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let mut text = Vec::new();
        timestamp::write(now_ms, &mut text);
        let field = &self.clock.field;
        let value = json!({ field: String::from_utf8_lossy(&text) }).to_string();
        writer.append(&[RecordIn {
            timestamp_ms: now_ms,
            value: value.as_bytes(),
            ..RecordIn::default()
        }])?;
        Ok(writer.sync()?)
    }
}
