//! A stream as a source: how its hash keys are divided into lanes, and where each begins.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use levada_types::{
    ConnectorError, DecoderFactory, Offset, PartitionId, RecordReader, SourceFactory, SourceLag, StartAt,
};

use super::KinesisSourceConfig;
use super::client::{Client, now_ms, patiently};
use super::config::{FanOutConfig, Start};
use super::fan_out::FanOut;
use super::lane::{LaneReader, Settings, begin};
use super::lanes::{KeyRange, divide, one_each};
use super::positions::{Entry, Positions};
use super::shards::{self, Shard, Summary};
use crate::codec::json::JsonFormat;

/// A stream of Kinesis as a source: unbounded, with a history that ends where it was read to when the job began. Nothing
/// is asked before it is read.
pub struct KinesisSource {
    config: KinesisSourceConfig,
    /// Made when it is first needed.
    client: Mutex<Option<Arc<Client>>>,
    start: Start,
    poll: Duration,
    /// Where the positions are kept; without it a run cannot go on.
    positions: Option<Positions>,
    lag: Arc<SourceLag>,
    /// The consumer, once it is registered.
    fan_out: Mutex<Option<Arc<FanOut>>>,
    /// How the stream was when it was last looked at.
    seen: Mutex<Option<Seen>>,
}

#[derive(Clone)]
struct Seen {
    summary: Summary,
    shards: Vec<Shard>,
    /// When, in milliseconds: what arrived later is no history.
    now_ms: u64,
}

impl KinesisSource {
    /// The source `name` of a job, which reads the stream that `config` names; `state` is the folder in which it keeps
    /// where its records stand, if it is to go on from there.
    ///
    /// # Errors
    /// When the configuration is wrong: with which field, and why.
    pub fn new(
        name: &str,
        config: &KinesisSourceConfig,
        state: Option<&Path>,
    ) -> Result<KinesisSource, (Option<&'static str>, String)> {
        config.check()?;
        Ok(KinesisSource {
            config: config.clone(),
            client: Mutex::default(),
            start: config.start().map_err(|why| (Some("start"), why))?,
            poll: Duration::from_millis(config.poll_ms().map_err(|why| (Some("poll"), why))?),
            positions: state.map(|state| Positions::new(state, name)),
            lag: Arc::default(),
            fan_out: Mutex::default(),
            seen: Mutex::default(),
        })
    }

    /// What decodes the records: JSON, the one format that names its fields.
    pub fn decoder(&self) -> Arc<dyn DecoderFactory> {
        JsonFormat::shared()
    }

    fn what(&self) -> String {
        format!("read {}", self.describe())
    }

    fn client(&self) -> Result<Arc<Client>, ConnectorError> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*client {
            return Ok(Arc::clone(client));
        }
        let KinesisSourceConfig { stream, region, endpoint, credentials, .. } = &self.config;
        let made = Client::new(stream, region.as_deref(), endpoint.as_deref(), credentials.as_ref());
        Ok(Arc::clone(client.insert(Arc::new(made.map_err(|failure| failure.error(&self.what()))?))))
    }

    fn look(&self) -> Result<Seen, ConnectorError> {
        let (what, client) = (self.what(), self.client()?);
        let now_ms = now_ms();
        let summary = patiently(&what, || shards::summary(&client))?;
        let shards = patiently(&what, || shards::list(&client))?;
        let seen = Seen { summary, shards, now_ms };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen.clone());
        Ok(seen)
    }

    /// How the stream was when the job began: all lanes see the same.
    fn seen(&self) -> Result<Seen, ConnectorError> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.map_or_else(|| self.look(), Ok)
    }

    /// The lanes of a job that begins.
    fn lanes(&self, seen: &Seen) -> Vec<KeyRange> {
        let open: Vec<KeyRange> =
            seen.shards.iter().filter(|shard| shard.open).map(|shard| shard.range).collect();
        match self.config.lanes {
            None => one_each(&open).unwrap_or_else(|| divide(open.len() as u32, &open)),
            Some(count) => divide(count, &open),
        }
    }

    /// How a lane begins afresh.
    fn beginning(&self, lane: u32, seen: &Seen) -> Result<Entry, ConnectorError> {
        let lanes = self.lanes(seen);
        let keys = lanes.get(lane as usize).copied().ok_or_else(|| {
            ConnectorError::configuration(format!("{}: there is no lane {lane}", self.what()))
        })?;
        let (since_ms, open_only) = match self.start {
            Start::Earliest => (None, false),
            Start::Latest => (Some(seen.now_ms), true),
            Start::Time(ms) => (Some(u64::try_from(ms).unwrap_or(0)), false),
        };
        Ok(begin(keys, seen.summary.created_ms(), &seen.shards, since_ms, open_only, seen.now_ms))
    }

    fn settings(&self, seen: &Seen) -> Result<Settings, ConnectorError> {
        Ok(Settings {
            client: self.client()?,
            what: self.what(),
            poll: self.poll,
            retention_ms: seen.summary.retention_ms(),
            lag: Arc::clone(&self.lag),
            fan_out: self.config.fan_out.as_ref().map(|config| self.fan_out(config, seen)).transpose()?,
        })
    }

    /// The consumer that all lanes are.
    fn fan_out(&self, config: &FanOutConfig, seen: &Seen) -> Result<Arc<FanOut>, ConnectorError> {
        let mut fan_out = self.fan_out.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fan_out) = &*fan_out {
            return Ok(Arc::clone(fan_out));
        }
        let client = self.client()?;
        let what = format!("{} as consumer {}", self.what(), config.consumer);
        let register = || FanOut::register(Arc::clone(&client), &seen.summary.arn, &config.consumer);
        Ok(Arc::clone(fan_out.insert(Arc::new(patiently(&what, register)?))))
    }
}

impl SourceFactory for KinesisSource {
    fn describe(&self) -> String {
        format!("stream {} of Kinesis", self.config.stream)
    }

    /// The history ends where the readers find no more, and what is not known beforehand is the greatest offset.
    fn partitions(&self) -> Result<Vec<Option<Offset>>, ConnectorError> {
        let seen = self.look()?;
        let before = match &self.positions {
            Some(positions) => positions.lanes()?,
            None => None,
        };
        let count = match (self.config.lanes, before) {
            (None, Some(before)) => before as usize,
            _ => self.lanes(&seen).len(),
        };
        Ok(vec![Some(Offset(u64::MAX)); count])
    }

    fn records(&self, _ends: &[Option<Offset>]) -> u64 {
        0
    }

    fn lag(&self) -> Arc<SourceLag> {
        Arc::clone(&self.lag)
    }

    fn unbounded(&self) -> bool {
        true
    }

    fn start(&self, PartitionId(lane): PartitionId) -> Result<Option<Offset>, ConnectorError> {
        let Some(positions) = &self.positions else { return Ok(Some(Offset(0))) };
        let seen = self.seen()?;
        let entry = self.beginning(lane, &seen)?;
        Ok(Some(Offset(positions.begin(lane, self.lanes(&seen).len() as u32, entry)?)))
    }

    fn open(
        &self,
        PartitionId(lane): PartitionId,
        start: StartAt,
    ) -> Result<Box<dyn RecordReader>, ConnectorError> {
        let seen = self.seen()?;
        let settings = self.settings(&seen)?;
        let (Some(positions), StartAt::Offset(Offset(offset))) = (&self.positions, start) else {
            let entry = self.beginning(lane, &seen)?;
            return Ok(Box::new(LaneReader::afresh(settings, seen.shards, entry)));
        };
        let opened = positions.open(lane, offset)?;
        if opened.last.lane.created_ms != seen.summary.created_ms() {
            return Err(ConnectorError::configuration(format!(
                "{}: it was made anew since, and what was read before is not there any more; begin afresh (--fresh)",
                self.what()
            )));
        }
        Ok(Box::new(LaneReader::new(settings, seen.shards, opened, offset)))
    }
}
