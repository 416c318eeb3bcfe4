//! Streams as a sink: what is there before a job writes, and how a row finds its stream and its id.
//!
//! The rows are encoded by the worker that publishes them and handed to a thread (see `writer`), so that a round trip to
//! the server stops no worker.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{SchemaRef, TimestampMillisecondType};
use levada_types::{ConnectorError, Epoch, Existing, Sink, SinkFactory, TIME_COLUMN, WhenDurable};
use redis::{Connection, RedisResult, Value};

use super::entry::Entry;
use super::server::{Link, Server, StreamInfo};
use super::writer::{Rows, Target, Writer};
use super::{EntryId, RedisSinkConfig};
use crate::codec::Encoder;
use crate::codec::json::JsonEncoder;
use crate::log::partition_of;
use crate::topic::{Keys, LogSinkConfig};

/// Streams of a server as a sink. Nothing is asked before it is opened.
#[derive(Clone, Debug)]
pub struct RedisSink {
    server: Server,
    config: RedisSinkConfig,
    existing: Existing,
}

/// What a sink's streams hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How many entries.
    pub entries: u64,
    /// A stream whose newest entry no job has written.
    pub foreign: Option<String>,
}

impl RedisSink {
    /// Writes the streams that `config` names.
    ///
    /// # Errors
    /// When the configuration is wrong: with which field, and why.
    pub fn new(
        config: RedisSinkConfig,
        existing: Existing,
    ) -> Result<RedisSink, (Option<&'static str>, String)> {
        config.check()?;
        let server = Server::new(&config.url).map_err(|error| (Some("url"), error.to_string()))?;
        Ok(RedisSink { server, config, existing })
    }

    /// The streams, with their server, for people.
    pub fn name(&self) -> String {
        let RedisSinkConfig { stream, url, .. } = &self.config;
        match self.config.partitions {
            None => format!("stream {stream} at {url}"),
            Some(1) => format!("stream {stream}.0 at {url}"),
            Some(count) => format!("streams {stream}.0 to {stream}.{} at {url}", count - 1),
        }
    }

    fn link(&self, doing: &str) -> Link {
        Link::new(&self.server, format!("{doing} {}", self.name()))
    }

    /// What the streams hold.
    ///
    /// # Errors
    /// When the server cannot be asked, or there is something else under a name.
    pub fn held(&self) -> Result<Held, ConnectorError> {
        let mut link = self.link("look at");
        let mut held = Held::default();
        for stream in self.config.streams() {
            let (info, newest) = link.ask_patiently(|connection| look(connection, &stream))?;
            held.entries += info.length;
            if newest.is_some_and(|entry| !is_row(&entry)) {
                held.foreign.get_or_insert(stream);
            }
        }
        Ok(held)
    }

    /// Deletes the streams, and what tells who writes them; says how many entries they held.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses, or no job has written what is there.
    pub fn delete(&self) -> Result<u64, ConnectorError> {
        let Held { entries, foreign } = self.held()?;
        let mut link = self.link("delete");
        if let Some(stream) = foreign {
            return Err(link.wrong(format!(
                "no job has written what is in stream {stream}; if it is to go, `redis-cli DEL {stream}`"
            )));
        }
        let mut delete = redis::cmd("DEL");
        delete.arg(self.config.streams()).arg(fence(&self.config.stream));
        link.ask_patiently(|connection| delete.query::<Value>(connection))?;
        Ok(entries)
    }

    /// The last id of each stream, if the sink may write behind it.
    fn last_ids(&self, link: &mut Link) -> Result<Vec<EntryId>, ConnectorError> {
        let streams = self.config.streams();
        let mut last = Vec::new();
        let mut entries = 0;
        for stream in &streams {
            let (info, newest) = link.ask_patiently(|connection| look(connection, stream))?;
            if self.existing == Existing::Resume && newest.is_some_and(|entry| !is_row(&entry)) {
                return Err(link.wrong(format!("no job has written the last entry of stream {stream}")));
            }
            entries += info.length;
            last.push(info.last);
        }
        if self.existing == Existing::Refuse && last.iter().any(|last| *last > EntryId::NONE) {
            let plural = if entries == 1 { "y" } else { "ies" };
            return Err(link.wrong(format!(
                "there was something before (it holds {entries} entr{plural}); write behind it with --append, or delete \
                 it first with `redis-cli DEL {}`",
                streams.join(" ")
            )));
        }
        Ok(last)
    }
}

/// The key that tells who may write a sink's streams.
fn fence(stream: &str) -> String {
    format!("levada:writer:{stream}")
}

/// A name that nobody else has.
fn token() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{}-{:016x}{:016x}", std::process::id(), random(), random())
}

/// A stream, and its newest entry.
fn look(connection: &mut Connection, stream: &str) -> RedisResult<(StreamInfo, Option<Entry>)> {
    let info = StreamInfo::ask(connection, stream)?;
    let mut newest = redis::cmd("XREVRANGE");
    newest.arg(stream).arg("+").arg("-").arg("COUNT").arg(1);
    Ok((info, newest.query::<Value>(connection).and_then(Entry::all)?.pop()))
}

/// Whether a job has written an entry.
fn is_row(entry: &Entry) -> bool {
    let fields = entry.fields.as_deref().unwrap_or_default();
    let has = |name: &str| fields.iter().step_by(2).any(|field| field == name.as_bytes());
    has("value") && has("time")
}

impl SinkFactory for RedisSink {
    fn describe(&self) -> String {
        self.name()
    }

    fn open(&self, schema: SchemaRef, place: Option<&[u8]>) -> Result<Box<dyn Sink>, ConnectorError> {
        let mut link = self.link("write");
        let values = JsonEncoder::new(&schema)?;
        let names = LogSinkConfig {
            topic: self.config.stream.clone(),
            key: self.config.key.clone(),
            ..LogSinkConfig::default()
        };
        let keys = Keys::new(&names, &schema)?;
        if schema.fields().first().is_none_or(|field| field.name() != TIME_COLUMN) {
            return Err(link.wrong(format!("the rows have no {TIME_COLUMN}")));
        }
        let turn = match place.map(|place| place.try_into().map(u64::from_le_bytes)) {
            None => 0,
            Some(Ok(turn)) => turn,
            Some(Err(_)) => return Err(link.wrong("the checkpoint does not tell where")),
        };
        self.last_ids(&mut link)?;
        // From now on nobody else may write; what was written before is there to be read.
        let (fence, token) = (fence(&self.config.stream), token());
        let mut take = redis::cmd("SET");
        take.arg(&fence).arg(&token);
        link.ask_patiently(|connection| take.query::<Value>(connection))?;
        let last = self.last_ids(&mut link)?;
        let top = last.iter().max().copied().unwrap_or_default();
        let target = Target {
            streams: self.config.streams(),
            max_len: self.config.max_len,
            replicas: self.config.wait_replicas.unwrap_or(0),
            fence,
            token,
        };
        Ok(Box::new(OpenStreams {
            partitions: target.streams.len() as u32,
            writer: Writer::start(link, target, last)?,
            values,
            keys,
            turn,
            appends_behind: (self.existing == Existing::Append).then_some(top.ms),
            shift: None,
        }))
    }
}

struct OpenStreams {
    writer: Writer,
    partitions: u32,
    values: JsonEncoder,
    keys: Keys,
    /// How many rows without a key have been dealt to the streams.
    turn: u64,
    /// Where what is there is to stay: the epoch of its last entry.
    appends_behind: Option<u64>,
    /// What is added to each epoch, so that it comes after what was there.
    shift: Option<u64>,
}

impl Sink for OpenStreams {
    fn publish(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<(), ConnectorError> {
        let shift = *self.shift.get_or_insert(match self.appends_behind {
            Some(last) if epoch.0 <= last => last + 1 - epoch.0,
            _ => 0,
        });
        let mut prepared = Rows { epoch: epoch.0 + shift, ..Rows::default() };
        for batch in rows {
            self.values.encode(batch, b"", &mut prepared.values, &mut prepared.value_ends);
            self.keys.encode(batch, &mut prepared.keys, &mut prepared.key_ends)?;
            prepared.times.extend_from_slice(batch.column(0).as_primitive::<TimestampMillisecondType>().values());
        }
        for row in 0..prepared.times.len() {
            let stream = match prepared.key(row) {
                Some(key) => partition_of(key, self.partitions),
                None => {
                    self.turn += 1;
                    ((self.turn - 1) % u64::from(self.partitions)) as u32
                }
            };
            prepared.streams.push(stream);
        }
        self.writer.write(prepared)
    }

    /// How many rows without a key there have been: whose turn it is.
    fn place(&self) -> Vec<u8> {
        self.turn.to_le_bytes().to_vec()
    }

    fn when_durable(&mut self, then: WhenDurable) {
        self.writer.when_written(then);
    }

    fn check(&mut self) -> Result<(), ConnectorError> {
        self.writer.check()
    }

    fn close(&mut self) -> Result<(), ConnectorError> {
        self.writer.close()
    }
}
