//! A source whose records are handed over once their schemas are known.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use levada_types::{
    ConnectorError, Offset, PartitionId, RawRecords, Read, RecordReader, SourceFactory, SourceLag, StartAt,
};

use super::{Registry, wire};
use crate::codec::metadata::{self, MetadataColumns};

/// Any source, its records in Confluent's wire format.
pub struct RegistrySource {
    source: Arc<dyn SourceFactory>,
    registry: Arc<Registry>,
    metadata: Arc<MetadataColumns>,
}

impl RegistrySource {
    /// `source`, whose records have schemas of `registry`, and stand behind what `metadata` asks for.
    pub fn new(
        source: Arc<dyn SourceFactory>,
        registry: Arc<Registry>,
        metadata: Arc<MetadataColumns>,
    ) -> RegistrySource {
        RegistrySource { source, registry, metadata }
    }
}

impl SourceFactory for RegistrySource {
    fn describe(&self) -> String {
        self.source.describe()
    }

    fn partitions(&self) -> Result<Vec<Option<Offset>>, ConnectorError> {
        self.source.partitions()
    }

    fn more_partitions(&self) -> Option<usize> {
        self.source.more_partitions()
    }

    fn records(&self, ends: &[Option<Offset>]) -> u64 {
        self.source.records(ends)
    }

    fn dropped(&self) -> Arc<AtomicU64> {
        self.source.dropped()
    }

    fn lag(&self) -> Arc<SourceLag> {
        self.source.lag()
    }

    fn unbounded(&self) -> bool {
        self.source.unbounded()
    }

    fn start(&self, partition: PartitionId) -> Result<Option<Offset>, ConnectorError> {
        self.source.start(partition)
    }

    fn open(&self, partition: PartitionId, start: StartAt) -> Result<Box<dyn RecordReader>, ConnectorError> {
        let reader = self.source.open(partition, start)?;
        let (registry, metadata) = (Arc::clone(&self.registry), Arc::clone(&self.metadata));
        Ok(Box::new(RegistryReader { reader, registry, metadata, held: None }))
    }

    fn checkpointed(&self, next: &[Option<Offset>]) {
        self.source.checkpointed(next);
    }
}

/// A partition of one. It may have to wait for the registry, so it is never read on a worker.
pub(super) struct RegistryReader {
    pub reader: Box<dyn RecordReader>,
    pub registry: Arc<Registry>,
    /// What stands before each value.
    pub metadata: Arc<MetadataColumns>,
    /// Records that were read and of which not all schemas are known.
    pub held: Option<RawRecords>,
}

impl RegistryReader {
    /// Whether the schemas of all records are known; asks for those that are not.
    fn knows(&self, records: &RawRecords) -> Result<bool, ConnectorError> {
        let mut last = None;
        for id in (0..records.len()).filter_map(|i| wire::id(metadata::value(&self.metadata, records, i))) {
            if last != Some(id) && !self.registry.learn(id)? {
                return Ok(false);
            }
            last = Some(id);
        }
        Ok(true)
    }
}

impl RecordReader for RegistryReader {
    fn read(&mut self, max_records: usize, wait: Duration) -> Result<Read, ConnectorError> {
        let until = Instant::now() + wait;
        let mut records = match self.held.take() {
            Some(held) => held,
            None => match self.reader.read(max_records, wait)? {
                Read::Records(records) => records,
                other => return Ok(other),
            },
        };
        while !self.knows(&records)? {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.held = Some(records);
                return Ok(Read::Nothing);
            }
            std::thread::park_timeout(self.registry.pause().min(left));
        }
        if records.len() > max_records {
            self.held = Some(records.split_off(max_records));
        }
        Ok(Read::Records(records))
    }
}
