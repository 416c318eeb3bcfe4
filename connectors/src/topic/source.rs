//! Reading a topic.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use levada_types::{
    ConnectorError, Offset, PartitionId, RawRecords, Read, RecordReader, SourceFactory, StartAt, push_header,
};

use super::LogSourceConfig;
use crate::codec::metadata::{self, Known, MetadataColumns};
use crate::log::{Fetched, Log, LogError, Reader, RecordRef, Start, Topic};

/// The most that one read gives, whatever number of records was asked for; only records of more than 32 KiB
/// on average get there.
const MAX_READ_BYTES: usize = 256 << 20;

/// A topic as a source: unbounded, with a known history. It is opened when it is read.
#[derive(Clone, Debug)]
pub struct LogSource {
    data_dir: PathBuf,
    topic: String,
    start: Start,
    headers: bool,
    metadata: Arc<MetadataColumns>,
}

impl LogSource {
    /// A source of the topic that `config` names, among those in `data_dir`.
    ///
    /// # Errors
    /// When the start is no timestamp.
    pub fn new(data_dir: impl Into<PathBuf>, config: &LogSourceConfig) -> Result<LogSource, ConnectorError> {
        Ok(LogSource {
            data_dir: data_dir.into(),
            topic: config.topic.clone(),
            start: config.start.start()?,
            headers: false,
            metadata: Arc::default(),
        })
    }

    /// Whether its records bring their headers.
    #[must_use]
    pub fn with_headers(self, headers: bool) -> LogSource {
        LogSource { headers, ..self }
    }

    /// The same source, whose records also tell what is asked for here; see
    /// [`with_metadata`](crate::codec::metadata::with_metadata).
    #[must_use]
    pub fn telling(self, metadata: &MetadataColumns) -> LogSource {
        LogSource { metadata: Arc::new(metadata.clone()), ..self }
    }

    fn topic(&self) -> Result<Topic, ConnectorError> {
        let topic = Log::open(&self.data_dir)?.topic(&self.topic);
        topic.map_err(|error| {
            let missing = matches!(error, LogError::NoSuchTopic { .. });
            let mut error = ConnectorError::from(error);
            if missing {
                error.message += &format!("; `levada topics create {}` makes it", self.topic);
            }
            error
        })
    }
}

impl SourceFactory for LogSource {
    fn describe(&self) -> String {
        format!("topic {}", self.topic)
    }

    fn partitions(&self) -> Result<Vec<Option<Offset>>, ConnectorError> {
        let topic = self.topic()?;
        (0..topic.partitions()).map(|partition| Ok(Some(Offset(topic.bounds(partition)?.next)))).collect()
    }

    fn unbounded(&self) -> bool {
        true
    }

    fn start(&self, partition: PartitionId) -> Result<Option<Offset>, ConnectorError> {
        Ok(Some(Offset(self.topic()?.reader(partition.0, self.start)?.position())))
    }

    fn open(&self, partition: PartitionId, start: StartAt) -> Result<Box<dyn RecordReader>, ConnectorError> {
        let start = match start {
            StartAt::Configured => self.start,
            StartAt::Offset(offset) => Start::Offset(offset.0),
        };
        let topic = self.topic()?;
        let reader = topic.reader(partition.0, start)?;
        Ok(Box::new(LogReader {
            reader,
            topic,
            partition: partition.0,
            headers: self.headers,
            metadata: Arc::clone(&self.metadata),
        }))
    }
}

struct LogReader {
    reader: Reader,
    topic: Topic,
    headers: bool,
    partition: u32,
    metadata: Arc<MetadataColumns>,
}

impl RecordReader for LogReader {
    fn at_once(&self) -> bool {
        true
    }

    fn read(&mut self, max_records: usize, wait: Duration) -> Result<Read, ConnectorError> {
        let fetched = self.fetch(max_records, wait);
        if fetched.as_ref().map_or(true, Fetched::is_empty) && !wait.is_zero() {
            // Of a topic that is gone nothing ever comes, or an error that does not say so.
            self.topic.check_current()?;
        }
        let fetched = fetched?;
        Ok(if fetched.is_empty() { Read::CaughtUp } else { Read::Records(self.raw(&fetched)) })
    }
}

impl LogReader {
    fn fetch(&mut self, max_records: usize, wait: Duration) -> Result<Fetched, LogError> {
        let fetched = self.reader.read(max_records, MAX_READ_BYTES)?;
        if fetched.is_empty() && max_records > 0 && !wait.is_zero() && self.reader.wait(wait)? {
            return self.reader.read(max_records, MAX_READ_BYTES);
        }
        Ok(fetched)
    }

    /// The values one after another: they stand in several blocks, with keys and headers between them. Copying
    /// costs 5 ns a record of 130 bytes, a thirtieth of what decoding it costs.
    fn raw(&self, fetched: &Fetched) -> RawRecords {
        let mut data = Vec::with_capacity(fetched.bytes());
        let mut spans = Vec::with_capacity(fetched.len());
        let mut offsets = Vec::with_capacity(fetched.len());
        let mut headers = Vec::new();
        for record in fetched {
            let start = data.len() as u32;
            metadata::write(&self.metadata, &record, self.partition, &mut data);
            data.extend_from_slice(record.value);
            let end = data.len() as u32;
            spans.push((start, end));
            offsets.push(record.offset);
            if self.headers {
                record.headers().for_each(|(name, value)| push_header(name.as_bytes(), value, &mut data));
                headers.push((end, data.len() as u32));
            }
        }
        RawRecords { data: data.into(), spans, offsets, headers }
    }
}

impl Known for RecordRef<'_> {
    fn key(&self) -> Option<&[u8]> {
        self.key
    }

    fn timestamp_ms(&self) -> i64 {
        self.timestamp_ms
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().filter(|(given, _)| *given == name).last().map(|(_, value)| value)
    }
}
