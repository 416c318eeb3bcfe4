//! Writing a topic: an epoch is one append a partition, visible whole or not at all.
//!
//! (With several partitions the appends follow one another: each partition's part of an epoch is atomic, and
//! a reader of all of them may see one part before another.)

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use levada_types::{
    CommandLine, ConnectorError, Deed, Epoch, Existing, Held, Output, Sink, SinkFactory, WhenDurable,
};

use super::{EPOCH_HEADER, LogSinkConfig, POSITION_HEADER, published};
use crate::log::{Bounds, Disk, Log, LogError, RecordIn, Start, Storage, Topic, TopicWriter, WriterOptions};
use crate::published::{RowEncoder, Rows};

/// A topic as a sink. It is opened, and created if need be, when it is written.
#[derive(Clone, Debug)]
pub struct LogSink {
    data_dir: PathBuf,
    config: LogSinkConfig,
    existing: Existing,
    storage: Arc<dyn Storage>,
}

impl LogSink {
    /// Writes the topic that `config` names, among those in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>, config: LogSinkConfig, existing: Existing) -> LogSink {
        LogSink { data_dir: data_dir.into(), config, existing, storage: Arc::new(Disk) }
    }

    /// The same, with records on a disk that may fail.
    pub fn on(self, storage: Arc<dyn Storage>) -> LogSink {
        LogSink { storage, ..self }
    }

    /// Creates the topic if there is none, and checks that it may be written.
    ///
    /// # Errors
    /// When it holds records and may not, has another number of partitions, or cannot be created.
    pub fn prepare(&self) -> Result<(), ConnectorError> {
        self.topic().map(drop)
    }

    fn topic(&self) -> Result<Topic, ConnectorError> {
        let topic =
            Log::open(&self.data_dir)?.ensure_topic(&self.config.topic, self.config.topic_config()?)?;
        if let Some(partitions) = self.config.partitions
            && partitions != topic.partitions()
        {
            return Err(ConnectorError::configuration(format!(
                "write topic {} with {partitions} partitions: it has {}",
                topic.name(),
                topic.partitions()
            )));
        }
        if self.existing == Existing::Refuse {
            let mut records = 0;
            for partition in 0..topic.partitions() {
                let bounds = topic.bounds(partition)?;
                records += bounds.next - bounds.first;
            }
            if records > 0 {
                let name = topic.name();
                let plural = if records == 1 { "" } else { "s" };
                return Err(ConnectorError::configuration(format!(
                    "write topic {name}: it already holds {records} record{plural}; write behind them with \
                     --append, or delete it first with `levada topics delete {name} --data {}`",
                    self.data_dir.display()
                )));
            }
        }
        Ok(topic)
    }
}

impl SinkFactory for LogSink {
    fn describe(&self) -> String {
        format!("topic {}", self.config.topic)
    }

    fn outputs(&self) -> Vec<&dyn Output> {
        vec![self]
    }

    fn open(&self, schema: SchemaRef, place: Option<&[u8]>) -> Result<Box<dyn Sink>, ConnectorError> {
        let encoder = RowEncoder::new(&self.describe(), &self.config.key, &schema)?;
        let topic = self.topic()?;
        let writer = topic
            .writers(WriterOptions { storage: Arc::clone(&self.storage), ..WriterOptions::default() })?;
        if let Some(place) = place {
            let turn = place.try_into().map_err(|_| {
                ConnectorError::configuration(format!(
                    "go on in topic {}: the checkpoint does not tell where",
                    self.config.topic
                ))
            })?;
            writer.set_turn(u64::from_le_bytes(turn));
        }
        for (partition, cut) in writer.recoveries() {
            tracing::warn!(topic = self.config.topic, partition, ?cut, "a torn tail was cut off");
        }
        let published = match self.existing {
            Existing::Resume => last_published(&topic)?,
            Existing::Refuse | Existing::Append => Vec::new(),
        };
        Ok(Box::new(OpenTopic { writer, encoder, published, rows: Rows::default() }))
    }
}

impl Output for LogSink {
    fn name(&self) -> String {
        self.config.topic.clone()
    }

    fn full_name(&self) -> String {
        self.describe()
    }

    fn appends(&self) -> bool {
        true
    }

    fn held(&self) -> Result<Option<Held>, ConnectorError> {
        let topic = match Log::open(&self.data_dir)?.topic(&self.config.topic) {
            Err(LogError::NoSuchTopic { .. }) => return Ok(None),
            topic => topic?,
        };
        let mut held = Held { records: Some(0), by_job: true };
        for partition in 0..topic.partitions() {
            let Bounds { first, next } = topic.bounds(partition)?;
            if next == first {
                continue;
            }
            held.records = held.records.map(|records| records + next - first);
            let newest = topic.reader(partition, Start::Offset(next - 1))?.read(1, usize::MAX)?;
            held.by_job &= newest.iter().next().is_none_or(|record| published(&record).is_some());
        }
        Ok(Some(held))
    }

    fn delete(&self) -> Result<bool, ConnectorError> {
        match Log::open(&self.data_dir)?.delete_topic(&self.config.topic) {
            Ok(()) => Ok(true),
            Err(LogError::NoSuchTopic { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn by_hand(&self, deed: Deed) -> Option<CommandLine> {
        let data_dir = self.data_dir.display();
        let (command, options) = match deed {
            Deed::Look => ("levada topics export", format!("--data {data_dir} | head")),
            Deed::Delete | Deed::Clear => ("levada topics delete", format!("--data {data_dir}")),
        };
        Some(CommandLine { command: command.into(), target: self.config.topic.clone(), options })
    }
}

/// The epoch and the place in it of each partition's last record. What is before them in the order of
/// publishing has been published.
fn last_published(topic: &Topic) -> Result<Vec<Option<(u64, u64)>>, ConnectorError> {
    let last = |partition| {
        let Bounds { first, next } = topic.bounds(partition)?;
        if next == first {
            return Ok(None);
        }
        let last = topic.reader(partition, Start::Offset(next - 1))?.read(1, usize::MAX)?;
        let place = last.iter().next().as_ref().and_then(published);
        place.map(Some).ok_or_else(|| {
            let topic = topic.name();
            ConnectorError::configuration(format!(
                "go on in topic {topic}: no job has written the last record of partition {partition}"
            ))
        })
    };
    (0..topic.partitions()).map(last).collect()
}

struct OpenTopic {
    writer: TopicWriter,
    encoder: RowEncoder,
    /// By partition, the last that an earlier run has published; empty if there was none.
    published: Vec<Option<(u64, u64)>>,
    rows: Rows,
}

impl Sink for OpenTopic {
    fn publish(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<(), ConnectorError> {
        let number = epoch.0;
        let epoch = number.to_le_bytes();
        self.encoder.encode(rows, &mut self.rows)?;
        let positions: Vec<[u8; 8]> = (0..self.rows.len() as u64).map(u64::to_le_bytes).collect();
        let headers: Vec<[(&str, &[u8]); 2]> = positions
            .iter()
            .map(|position| [(EPOCH_HEADER, &epoch[..]), (POSITION_HEADER, position)])
            .collect();
        let records: Vec<RecordIn<'_>> = self
            .rows
            .iter()
            .zip(&headers)
            .map(|(row, headers)| RecordIn {
                timestamp_ms: row.timestamp_ms,
                key: row.key,
                headers,
                value: row.value,
            })
            .collect();
        let published = &self.published;
        self.writer.append_where(&records, |partition, place| {
            let last = published.get(partition as usize).copied().flatten();
            last.is_none_or(|last| last < (number, place as u64))
        })?;
        Ok(())
    }

    /// How many records without a key there have been: whose turn it is.
    fn place(&self) -> Vec<u8> {
        self.writer.turn().to_le_bytes().to_vec()
    }

    fn when_durable(&mut self, then: WhenDurable) {
        self.writer.when_durable(|durable| then(durable.map_err(ConnectorError::from)));
    }

    fn close(&mut self) -> Result<(), ConnectorError> {
        Ok(self.writer.sync()?)
    }
}
