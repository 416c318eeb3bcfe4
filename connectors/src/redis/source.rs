//! Streams as a source: unbounded, with a history that ends with each stream's last id when the job begins.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use levada_types::{ConnectorError, Offset, PartitionId, RecordReader, SourceFactory, StartAt};
use redis::Value;

use super::config::Start;
use super::entry::Entry;
use super::gap::{Origin, Place};
use super::group::{Member, MemberReader};
use super::intake::IntakeReader;
use super::reader::StreamReader;
use super::server::{Link, Server, StreamInfo};
use super::{EntryId, Overflow, RedisSourceConfig};

/// Streams of a server as a source. Nothing is asked before it is read.
#[derive(Debug)]
pub struct RedisSource {
    server: Server,
    config: RedisSourceConfig,
    streams: Vec<String>,
    start: Start,
    journal: bool,
    /// Where each stream's history ends, and how many entries they held when that was asked.
    histories: Mutex<Vec<EntryId>>,
    held: AtomicU64,
    dropped: Arc<AtomicU64>,
}

impl RedisSource {
    /// A source of the streams that `config` names; `journal` says whether the run keeps one.
    ///
    /// # Errors
    /// When the configuration is wrong: with which field, and why.
    pub fn new(
        config: &RedisSourceConfig,
        journal: bool,
    ) -> Result<RedisSource, (Option<&'static str>, String)> {
        let streams = config.check()?;
        Ok(RedisSource {
            server: Server::new(&config.url).map_err(|error| (Some("url"), error.to_string()))?,
            start: config.start().map_err(|error| (Some("start"), error.to_string()))?,
            config: config.clone(),
            streams,
            journal,
            histories: Mutex::default(),
            held: AtomicU64::new(0),
            dropped: Arc::default(),
        })
    }

    fn stream(&self, partition: PartitionId) -> Result<&str, ConnectorError> {
        let stream = self.streams.get(partition.0 as usize).map(String::as_str);
        stream.ok_or_else(|| {
            ConnectorError::configuration(format!("read stream {}: there is none", partition.0))
        })
    }

    fn link(&self, stream: &str) -> Link {
        Link::new(&self.server, format!("read stream {stream}"))
    }

    /// What a member of a group is, for one stream.
    fn member(&self, stream: &str) -> Result<Option<Member>, ConnectorError> {
        let (Some(group), Some(consumer)) = (&self.config.group, &self.config.consumer) else {
            return Ok(None);
        };
        let claim_after_ms = self.config.claim_after_ms().map_err(ConnectorError::configuration)?;
        Ok(Some(Member::new(stream, group, consumer, claim_after_ms, self.start)))
    }

    /// Behind which entry a run that begins afresh begins.
    fn place(&self, link: &mut Link, stream: &str) -> Result<Place, ConnectorError> {
        let info = link.ask_patiently(|connection| StreamInfo::ask(connection, stream))?;
        let end = Place { last: info.last, added: info.added, origin: Origin::Seen };
        match self.start {
            Start::Beginning => Ok(Place { last: EntryId::NONE, added: None, origin: Origin::Beginning }),
            Start::End => Ok(end),
            Start::AtOrAfter(id) => {
                let first = link.ask_patiently(|connection| {
                    let mut range = redis::cmd("XRANGE");
                    range.arg(stream).arg(id.to_string()).arg("+").arg("COUNT").arg(1);
                    range.query::<Value>(connection).and_then(Entry::all)
                })?;
                match first.first() {
                    None => Ok(end),
                    Some(first) => {
                        before(link, first.id).map(|last| Place { last, added: None, origin: Origin::Seen })
                    }
                }
            }
        }
    }
}

/// The id before `id` among those that offsets hold.
fn before(link: &Link, id: EntryId) -> Result<EntryId, ConnectorError> {
    let offset = id.offset().map_err(|error| link.wrong(error))?;
    Ok(EntryId::of_offset(offset.saturating_sub(1)))
}

impl SourceFactory for RedisSource {
    fn describe(&self) -> String {
        format!("stream {} at {}", self.streams.join(", "), self.config.url)
    }

    fn partitions(&self) -> Result<Vec<Option<Offset>>, ConnectorError> {
        if self.journal
            && let Some(why) = self.config.unrepeatable()
        {
            return Err(ConnectorError::configuration(format!("read {}: {why}", self.describe())));
        }
        if !self.journal
            && let Some(group) = &self.config.group
        {
            return Err(ConnectorError::configuration(format!(
                "read {} in the group {group}: an entry is acknowledged once a checkpoint holds it; say --state DIR",
                self.describe()
            )));
        }
        let (mut ends, mut histories, mut held) = (Vec::new(), Vec::new(), 0);
        for stream in &self.streams {
            let mut link = self.link(stream);
            if let Some(member) = self.member(stream)? {
                ends.push(Some(Offset(member.given(&mut link)?)));
                continue;
            }
            let info = link.ask_patiently(|connection| StreamInfo::ask(connection, stream))?;
            let end = info.last.offset().map_err(|error| link.wrong(error))?;
            ends.push(Some(Offset(if info.there { end + 1 } else { 0 })));
            histories.push(info.last);
            held += info.length;
        }
        *self.histories.lock().unwrap_or_else(PoisonError::into_inner) = histories;
        self.held.store(held, Relaxed);
        Ok(ends)
    }

    fn records(&self, _ends: &[Option<Offset>]) -> u64 {
        self.held.load(Relaxed)
    }

    fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    fn unbounded(&self) -> bool {
        true
    }

    fn start(&self, partition: PartitionId) -> Result<Option<Offset>, ConnectorError> {
        let stream = self.stream(partition)?;
        let mut link = self.link(stream);
        if let Some(member) = self.member(stream)? {
            return Ok(Some(Offset(member.first(&mut link)?)));
        }
        let mut place = self.place(&mut link, stream)?;
        if place.origin == Origin::Beginning {
            let info = link.ask_patiently(|connection| StreamInfo::ask(connection, stream))?;
            place.last = match info.first {
                Some(first) => before(&link, first)?,
                None => info.last,
            };
        }
        let last = place.last.offset().map_err(|error| link.wrong(error))?;
        Ok(Some(Offset(if place.last == EntryId::NONE { 0 } else { last + 1 })))
    }

    fn open(&self, partition: PartitionId, start: StartAt) -> Result<Box<dyn RecordReader>, ConnectorError> {
        let stream = self.stream(partition)?;
        let mut link = self.link(stream);
        let field = self.config.field.as_deref();
        if let Some(member) = self.member(stream)? {
            let from = match start {
                StartAt::Offset(offset) => offset.0,
                StartAt::Configured => member.first(&mut link)?,
            };
            return Ok(Box::new(MemberReader::new(link, member, field, from)));
        }
        let place = match start {
            StartAt::Configured => self.place(&mut link, stream)?,
            // A stream that had never held anything: whatever it has lost since is known.
            StartAt::Offset(Offset(0)) => {
                Place { last: EntryId::NONE, added: Some(0), origin: Origin::Restored }
            }
            StartAt::Offset(Offset(next)) => {
                Place { last: EntryId::of_offset(next - 1), added: None, origin: Origin::Restored }
            }
        };
        let reader = StreamReader::new(link, stream, field, place);
        if self.config.overflow == Overflow::Block {
            return Ok(Box::new(reader));
        }
        let histories = self.histories.lock().unwrap_or_else(PoisonError::into_inner);
        let history = histories.get(partition.0 as usize).copied().unwrap_or_default();
        let history = history.offset().map_or(u64::MAX, |last| last + 1);
        let dropped = Arc::clone(&self.dropped);
        Ok(Box::new(IntakeReader::start(stream, reader, self.config.intake, history, dropped)?))
    }

    fn checkpointed(&self, next: &[Option<Offset>]) {
        for (stream, next) in self.streams.iter().zip(next) {
            let (Ok(Some(member)), Some(Offset(next))) = (self.member(stream), next) else { continue };
            let mut link = Link::new(&self.server, format!("acknowledge what was read of stream {stream}"));
            if let Err(error) = member.acknowledge(&mut link, *next) {
                tracing::warn!("{error}; it is acknowledged with the next checkpoint");
            }
        }
    }
}
