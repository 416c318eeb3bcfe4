//! Streams as a sink: what is there before a job writes, and how a row finds its stream and its id.
//!
//! The rows are encoded by the worker that publishes them and handed to a thread (see `writer`), so that a round trip to
//! the server stops no worker.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use levada_types::{
    CommandLine, ConnectorError, Deed, Epoch, Existing, Held, Output, Sink, SinkFactory, WhenDurable,
};
use redis::{Connection, RedisResult, Value};

use super::entry::Entry;
use super::server::{Link, Server, StreamInfo};
use super::writer::{Encoded, Target, Writer};
use super::{EntryId, RedisSinkConfig};
use crate::log::partition_of;
use crate::published::RowEncoder;

/// Streams of a server as a sink. Nothing is asked before it is opened.
#[derive(Clone, Debug)]
pub struct RedisSink {
    server: Server,
    config: RedisSinkConfig,
    existing: Existing,
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

    fn link(&self, doing: &str) -> Link {
        Link::new(&self.server, format!("{doing} {}", self.describe()))
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
            let instead = self.by_hand(Deed::Delete).map_or(String::new(), |line| line.to_string());
            return Err(link.wrong(format!(
                "there was something before (it holds {entries} entr{plural}); write behind it with --append, or delete \
                 it first with `{instead}`"
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
        let RedisSinkConfig { stream, url, .. } = &self.config;
        match self.config.partitions {
            None => format!("stream {stream} at {url}"),
            Some(1) => format!("stream {stream}.0 at {url}"),
            Some(count) => format!("streams {stream}.0 to {stream}.{} at {url}", count - 1),
        }
    }

    fn outputs(&self) -> Vec<&dyn Output> {
        vec![self]
    }

    fn open(&self, schema: SchemaRef, place: Option<&[u8]>) -> Result<Box<dyn Sink>, ConnectorError> {
        let mut link = self.link("write");
        let encoder = RowEncoder::new(&self.describe(), &self.config.key, &schema)?;
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
            encoder,
            turn,
            appends_behind: (self.existing == Existing::Append).then_some(top.ms),
            shift: None,
        }))
    }
}

impl Output for RedisSink {
    fn name(&self) -> String {
        format!("stream {}", self.config.stream)
    }

    fn appends(&self) -> bool {
        true
    }

    fn held(&self) -> Result<Option<Held>, ConnectorError> {
        let mut link = self.link("look at");
        let (mut records, mut by_job, mut there) = (0, true, false);
        for stream in self.config.streams() {
            let (info, newest) = link.ask_patiently(|connection| look(connection, &stream))?;
            records += info.length;
            by_job &= newest.is_none_or(|entry| is_row(&entry));
            there |= info.there;
        }
        Ok(there.then_some(Held { records: Some(records), by_job }))
    }

    fn delete(&self) -> Result<bool, ConnectorError> {
        let mut delete = redis::cmd("DEL");
        delete.arg(self.config.streams());
        let mut link = self.link("delete");
        let deleted = link.ask_patiently(|connection| delete.query::<u64>(connection))?;
        Ok(deleted > 0)
    }

    fn by_hand(&self, deed: Deed) -> Option<CommandLine> {
        let streams = self.config.streams();
        let (command, target, options) = match deed {
            Deed::Look => ("XRANGE", streams.first()?.clone(), "- + COUNT 10"),
            Deed::Delete | Deed::Clear => ("DEL", streams.join(" "), ""),
        };
        let command = format!("redis-cli -u {} {command}", self.config.url);
        Some(CommandLine { command, target, options: options.into() })
    }
}

struct OpenStreams {
    writer: Writer,
    partitions: u32,
    encoder: RowEncoder,
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
        let mut encoded = Encoded { epoch: epoch.0 + shift, ..Encoded::default() };
        self.encoder.encode(rows, &mut encoded.rows)?;
        for row in encoded.rows.iter() {
            encoded.streams.push(match row.key {
                Some(key) => partition_of(key, self.partitions),
                None => {
                    self.turn += 1;
                    ((self.turn - 1) % u64::from(self.partitions)) as u32
                }
            });
        }
        self.writer.write(encoded)
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
