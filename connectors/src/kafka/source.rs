//! Reading a topic of Kafka.
//!
//! While a reader has not come to where its partition ended when it was opened, it gathers until it has as many
//! records as it was asked for, so that a history is cut the same way each time. Then it is live, and hands over
//! what has come. (That it is told the end is not enough: where there is always more, it never is.)
//!
//! Offsets have gaps: where transactions were ended or aborted, and where a topic was compacted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use levada_types::{
    ConnectorError, Offset, PartitionId, RawRecords, Read, RecordReader, SourceFactory, StartAt, push_header,
};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::KafkaSourceConfig;
use super::client::{Connection, Place};
use super::partition::{Message, Partition, Record};
use super::watch::Watch;
use crate::codec::metadata::{self, Known, MetadataColumns};
use crate::log::Start;

/// The most that one read gives, whatever number of records was asked for; only records of more than 32 KiB
/// on average get there.
const MAX_READ_BYTES: usize = 256 << 20;

/// A topic of Kafka as a source: unbounded, with a known history. It is connected to when it is read.
#[derive(Clone)]
pub struct KafkaSource {
    place: Place,
    start: Start,
    group: Option<String>,
    headers: bool,
    metadata: Arc<MetadataColumns>,
    /// One for all partitions, made when it is first needed.
    connection: Arc<Mutex<Option<Arc<Connection>>>>,
    /// The member of the group that says how far the job is.
    member: Arc<Mutex<Option<BaseConsumer<Watch>>>>,
}

impl KafkaSource {
    /// A source of the topic that `config` names.
    ///
    /// # Errors
    /// When the start is no timestamp, or a property is one that levada sets.
    pub fn new(config: &KafkaSourceConfig) -> Result<KafkaSource, ConnectorError> {
        let place = Place {
            brokers: config.brokers.clone(),
            topic: config.topic.clone(),
            properties: config.properties.clone(),
        };
        place.check()?;
        let start = config.start.start()?;
        Ok(KafkaSource {
            place,
            start,
            group: config.group.clone(),
            headers: false,
            metadata: Arc::default(),
            connection: Arc::default(),
            member: Arc::default(),
        })
    }

    /// Whether its records bring their headers.
    #[must_use]
    pub fn with_headers(self, headers: bool) -> KafkaSource {
        KafkaSource { headers, ..self }
    }

    /// The same source, whose records also tell what is asked for here; see
    /// [`with_metadata`](crate::codec::metadata::with_metadata).
    #[must_use]
    pub fn telling(self, metadata: &MetadataColumns) -> KafkaSource {
        KafkaSource { metadata: Arc::new(metadata.clone()), ..self }
    }

    fn connection(&self) -> Result<Arc<Connection>, ConnectorError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        match &*connection {
            Some(connection) => Ok(Arc::clone(connection)),
            None => Ok(Arc::clone(connection.insert(Arc::new(self.place.connect()?)))),
        }
    }

    fn configured(&self, connection: &Connection, partition: u32) -> Result<u64, ConnectorError> {
        let (first, next) = connection.bounds("read", partition)?;
        Ok(match self.start {
            Start::Beginning => first,
            Start::End => next,
            Start::Offset(offset) => offset.clamp(first, next.max(first)),
            Start::Time(ms) => connection.offset_at(partition, ms)?.unwrap_or(next),
        })
    }
}

impl SourceFactory for KafkaSource {
    fn describe(&self) -> String {
        self.place.describe()
    }

    fn partitions(&self) -> Result<Vec<Option<Offset>>, ConnectorError> {
        let connection = self.connection()?;
        let count = connection.count("read")?.ok_or_else(|| {
            self.place.failed("read", &KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition))
        })?;
        connection.watch.expect(count);
        (0..count).map(|partition| Ok(Some(Offset(connection.bounds("read", partition)?.1)))).collect()
    }

    fn more_partitions(&self) -> Option<usize> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.as_ref()?.watch.more_partitions()
    }

    fn unbounded(&self) -> bool {
        true
    }

    fn start(&self, partition: PartitionId) -> Result<Option<Offset>, ConnectorError> {
        let connection = self.connection()?;
        Ok(Some(Offset(self.configured(&connection, partition.0)?)))
    }

    fn open(&self, partition: PartitionId, start: StartAt) -> Result<Box<dyn RecordReader>, ConnectorError> {
        let connection = self.connection()?;
        let offset = match start {
            StartAt::Configured => self.configured(&connection, partition.0)?,
            StartAt::Offset(offset) => offset.0,
        };
        let (_, end) = connection.bounds("read", partition.0)?;
        let queue = Partition::start(Arc::clone(&connection), partition.0, offset)?;
        Ok(Box::new(KafkaReader {
            connection,
            partition: partition.0,
            metadata: Arc::clone(&self.metadata),
            queue,
            gathered: Gathered::default(),
            headers: self.headers,
            course: Course::new(offset, end),
        }))
    }

    fn checkpointed(&self, next: &[Option<Offset>]) {
        let Some(group) = &self.group else { return };
        if let Err(error) = self.commit(group, next) {
            tracing::warn!(group, "failed to tell the lag of {}: {error}", self.place.describe());
        }
    }
}

impl KafkaSource {
    fn commit(&self, group: &str, next: &[Option<Offset>]) -> Result<(), String> {
        let mut member = self.member.lock().unwrap_or_else(PoisonError::into_inner);
        let member = match &*member {
            Some(member) => member,
            None => {
                let mut config = self.place.config();
                config.set("group.id", group).set("enable.auto.commit", "false");
                let made =
                    self.place.client(&config, &Watch::of(&self.place)).map_err(|error| error.to_string())?;
                &*member.insert(made)
            }
        };
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(next) {
            if let Some(Offset(offset)) = offset {
                let offset = rdkafka::Offset::Offset(*offset as i64);
                offsets
                    .add_partition_offset(&self.place.topic, partition, offset)
                    .map_err(|error| error.to_string())?;
            }
        }
        if offsets.count() == 0 {
            return Ok(());
        }
        member.commit(&offsets, CommitMode::Sync).map_err(|error| error.to_string())
    }
}

/// Records that were taken off the queue and not given yet.
#[derive(Default)]
struct Gathered {
    data: Vec<u8>,
    spans: Vec<(u32, u32)>,
    offsets: Vec<u64>,
    /// If they are asked for.
    headers: Vec<(u32, u32)>,
}

struct KafkaReader {
    connection: Arc<Connection>,
    partition: u32,
    metadata: Arc<MetadataColumns>,
    queue: Partition,
    gathered: Gathered,
    headers: bool,
    course: Course,
}

/// How far a reader is.
struct Course {
    /// Whether nothing has come since the end was told.
    at_end: bool,
    /// Whether what there was has been read, so that what comes is handed over as it comes.
    live: bool,
    /// Where the partition ended when it was opened. Behind its last record may be the ends of transactions, so that
    /// only being told the end says that it is reached.
    end: u64,
    /// The offset that is wanted next.
    next: u64,
}

impl Course {
    fn new(offset: u64, end: u64) -> Course {
        Course { at_end: false, live: offset >= end, end, next: offset }
    }

    fn record(&mut self, offset: u64) {
        self.at_end = false;
        self.next = offset + 1;
        self.live |= self.next >= self.end;
    }

    fn told_end(&mut self) {
        (self.at_end, self.live) = (true, true);
    }

    /// Whether to hand over so many records of those that were asked for, rather than wait for more.
    fn hands_over(&self, gathered: usize, asked: usize) -> bool {
        gathered >= asked || gathered > 0 && (self.at_end || self.live)
    }
}

impl RecordReader for KafkaReader {
    fn read(&mut self, max_records: usize, wait: Duration) -> Result<Read, ConnectorError> {
        let until = Instant::now() + wait;
        loop {
            self.connection.watch.check()?;
            let full = self.gathered.data.len() >= MAX_READ_BYTES;
            if full || self.course.hands_over(self.gathered.len(), max_records) {
                return Ok(Read::Records(self.gathered.take(max_records)));
            }
            let left = until.saturating_duration_since(Instant::now());
            let came = self.take(max_records - self.gathered.len(), left)?;
            if !came && until <= Instant::now() {
                break;
            }
        }
        let knows = self.course.at_end && !self.connection.watch.is_away(self.partition);
        Ok(if knows { Read::CaughtUp } else { Read::Nothing })
    }
}

impl KafkaReader {
    /// Takes what is there off the queue, up to so many records; whether something was.
    fn take(&mut self, count: usize, wait: Duration) -> Result<bool, ConnectorError> {
        let (gathered, course) = (&mut self.gathered, &mut self.course);
        let (headers, metadata, partition) = (self.headers, &*self.metadata, self.partition);
        let mut came = false;
        let mut trouble = None;
        self.queue.take(count, wait, |message| {
            came = true;
            match message {
                Message::Record(record) => {
                    gathered.push(record.offset(), |data| {
                        metadata::write(metadata, &record, partition, data);
                        data.extend_from_slice(record.value());
                    });
                    if headers {
                        gathered.push_headers(|out| {
                            record.headers(|name, value| push_header(name, value, out));
                        });
                    }
                    course.record(record.offset());
                }
                Message::End(_) => course.told_end(),
                Message::Trouble(code) => trouble = Some(code),
            }
        });
        match trouble {
            None => Ok(came),
            Some(code) => self.trouble(code).map(|()| came),
        }
    }

    fn trouble(&self, code: RDKafkaErrorCode) -> Result<(), ConnectorError> {
        use RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange, UnknownTopic, UnknownTopicOrPartition};
        let place = &self.connection.place;
        match code {
            AutoOffsetReset | OffsetOutOfRange => {
                let (first, next) = self.connection.bounds("read", self.partition)?;
                Err(ConnectorError::configuration(format!(
                    "read {}: record {} of partition {} was to be next, and those from {first} to {next} are there; a \
                     job goes on from its inputs, so keep them",
                    place.describe(),
                    self.course.next,
                    self.partition
                )))
            }
            // A broker that has just started may not know yet.
            UnknownTopic | UnknownTopicOrPartition => match self.connection.count("read")? {
                Some(count) if count > self.partition => Ok(()),
                _ => Err(ConnectorError::configuration(format!(
                    "read {}: it was deleted while it was read",
                    place.describe()
                ))),
            },
            code => {
                let error = place.failed("read", &KafkaError::MessageConsumption(code));
                match error.blame {
                    levada_types::Blame::Outage => {
                        tracing::warn!(partition = self.partition, "{error}; it is tried again");
                        Ok(())
                    }
                    _ => Err(error),
                }
            }
        }
    }
}

impl Known for Record<'_> {
    fn key(&self) -> Option<&[u8]> {
        Record::key(self)
    }

    fn timestamp_ms(&self) -> i64 {
        Record::timestamp_ms(self)
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        Record::header(self, name)
    }
}

impl Gathered {
    fn len(&self) -> usize {
        self.spans.len()
    }

    fn push(&mut self, offset: u64, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.data.len() as u32;
        write(&mut self.data);
        self.spans.push((start, self.data.len() as u32));
        self.offsets.push(offset);
    }

    /// The headers of the record that was pushed last.
    fn push_headers(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.data.len() as u32;
        write(&mut self.data);
        self.headers.push((start, self.data.len() as u32));
    }

    /// The first `count` records. (More are there only if fewer are asked for than the time before.)
    fn take(&mut self, count: usize) -> RawRecords {
        let Gathered { data, spans, offsets, headers } = std::mem::take(self);
        let mut taken = RawRecords { data: data.into(), spans, offsets, headers };
        if count < taken.len() {
            let rest = taken.split_off(count);
            for i in 0..rest.len() {
                let offset = rest.offsets.get(i).copied().unwrap_or_default();
                self.push(offset, |data| data.extend_from_slice(rest.value(i)));
                if let Some(&(start, end)) = rest.headers.get(i) {
                    let bytes = rest.data.get(start as usize..end as usize).unwrap_or_default();
                    self.push_headers(|out| out.extend_from_slice(bytes));
                }
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_behind_what_there_was_is_handed_over_as_it_comes_though_no_end_is_told() {
        let mut course = Course::new(5, 8);
        for offset in [5, 6] {
            course.record(offset);
            assert!(!course.hands_over(2, 3), "a history is gathered");
            assert!(course.hands_over(3, 3));
        }
        // Where there is always more nobody ever tells the end.
        for offset in [7, 9] {
            course.record(offset);
            assert!(course.hands_over(1, 4096) && !course.hands_over(0, 4096));
        }
        assert!(!course.at_end);
    }

    #[test]
    fn the_end_may_be_behind_the_last_record() {
        let mut course = Course::new(0, 3);
        course.record(0);
        assert!(!course.hands_over(1, 2));
        // The others are the ends of transactions.
        course.told_end();
        assert!(course.at_end && course.hands_over(1, 2));
        assert!(Course::new(3, 3).hands_over(1, 2), "there was nothing");
    }
}
