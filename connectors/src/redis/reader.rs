//! Reading a stream by ids.
//!
//! A piece at a time: the entries from the last one read on, that one included, so that its being there shows that
//! nothing behind it has been trimmed (see `gap`). At the stream's end the reader waits in the server (XREAD BLOCK).
//! While the server is away it gives nothing; what it has read already waits with it.
//!
//! Cost: a round trip a piece, of some megabytes; live, two from an entry's coming to its being given.

use std::time::{Duration, Instant};

use levada_types::{ConnectorError, Read, RecordReader};
use redis::{Cmd, Value};

use super::EntryId;
use super::entry::Entry;
use super::gap::Place;
use super::server::{Link, StreamInfo, transaction, unexpected};
use crate::waiting::Waiting;

/// Entries asked for at once.
const MAX_PIECE: usize = 4096;

/// How many bytes of records a piece should have: Redis bounds a reply by the number of entries alone, so the number
/// follows from how long the last ones were.
const PIECE_BYTES: usize = 4 << 20;

/// A stream being read.
pub(super) struct StreamReader {
    link: Link,
    stream: String,
    field: Option<String>,
    place: Place,
    /// Whether the last entry read was there when it was read.
    anchored: bool,
    piece: usize,
    waiting: Waiting,
    /// Whether it has been said that there is no such stream.
    missed: bool,
}

/// What a look at the server brought.
enum Fetched {
    /// More, and whether that was all there is.
    More { end: bool },
    /// Nothing: the stream ends here.
    End,
    /// Nothing: the server is out of reach.
    Away,
}

impl StreamReader {
    pub(super) fn new(link: Link, stream: &str, field: Option<&str>, place: Place) -> StreamReader {
        StreamReader {
            link,
            stream: stream.into(),
            field: field.map(Into::into),
            place,
            anchored: false,
            piece: MAX_PIECE,
            waiting: Waiting::default(),
            missed: false,
        }
    }

    fn fetch(&mut self, count: usize) -> Result<Fetched, ConnectorError> {
        let count = count.min(self.piece);
        if self.anchored && self.place.added.is_some() {
            let range = self.range(count);
            let Some(reply) =
                self.link.ask(|connection| range.query::<Value>(connection).and_then(Entry::all))?
            else {
                return Ok(Fetched::Away);
            };
            if reply.first().is_some_and(|first| first.id == self.place.last) {
                return self.add(&reply[1..], count);
            }
        }
        self.look(count)
    }

    /// The entries from the last one read on, that one included.
    fn range(&self, count: usize) -> Cmd {
        let mut range = redis::cmd("XRANGE");
        range.arg(&self.stream).arg(self.place.last.to_string()).arg("+").arg("COUNT").arg(count + 1);
        range
    }

    /// Reads, and has the server tell in the same moment what it holds.
    fn look(&mut self, count: usize) -> Result<Fetched, ConnectorError> {
        let commands = [StreamInfo::command(&self.stream), self.range(count)];
        let looked = self.link.ask(|connection| {
            let mut results = transaction(connection, &commands)?.unwrap_or_default().into_iter();
            let (Some(info), Some(entries), None) = (results.next(), results.next(), results.next()) else {
                return Err(unexpected("two results", &Value::Nil));
            };
            Ok((StreamInfo::of(info)?, Entry::all(entries)?))
        })?;
        let Some((info, entries)) = looked else { return Ok(Fetched::Away) };
        if !info.there && !self.missed && self.place.last == EntryId::NONE {
            tracing::warn!("there is no stream {} yet; waiting for it", self.stream);
            self.missed = true;
        }
        let anchored = entries.first().is_some_and(|first| first.id == self.place.last);
        if !anchored {
            let last = self.place.last;
            self.place.look(&info).map_err(|gap| self.link.damaged(gap.tell(&self.stream, last)))?;
        }
        self.anchored = anchored;
        let more = &entries[usize::from(anchored)..];
        if more.is_empty() {
            self.place.added = info.added;
        }
        self.add(more, count)
    }

    fn add(&mut self, entries: &[Entry], asked: usize) -> Result<Fetched, ConnectorError> {
        let Some(last) = entries.last() else { return Ok(Fetched::End) };
        let before = self.waiting.bytes();
        for entry in entries {
            let offset = entry.id.offset().map_err(|error| self.link.wrong(error))?;
            self.waiting.push_with(offset, |out| entry.write(self.field.as_deref(), out));
        }
        let bytes = (self.waiting.bytes() - before) / entries.len();
        self.piece = (PIECE_BYTES / bytes.max(1)).clamp(1, MAX_PIECE);
        self.place.advance(last.id, entries.len());
        self.anchored = true;
        Ok(Fetched::More { end: entries.len() < asked })
    }

    /// Waits in the server until there is an entry behind the last one; whether there is, or `None` if the server is
    /// away.
    fn wait(&mut self, most: Duration) -> Result<Option<bool>, ConnectorError> {
        let mut wait = redis::cmd("XREAD");
        wait.arg("COUNT").arg(1).arg("BLOCK").arg(most.as_millis().max(1) as u64);
        wait.arg("STREAMS").arg(&self.stream).arg(self.place.last.to_string());
        self.link.ask(|connection| wait.query::<Value>(connection).map(|reply| reply != Value::Nil))
    }
}

impl RecordReader for StreamReader {
    fn read(&mut self, max_records: usize, wait: Duration) -> Result<Read, ConnectorError> {
        let until = Instant::now() + wait;
        loop {
            if self.waiting.fills(max_records) {
                return Ok(Read::Records(self.waiting.take(max_records)));
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.fetch(max_records - self.waiting.len())? {
                Fetched::More { end: false } => {}
                Fetched::More { end: true } => return Ok(Read::Records(self.waiting.take(max_records))),
                Fetched::End if !self.waiting.is_empty() => {
                    return Ok(Read::Records(self.waiting.take(max_records)));
                }
                Fetched::End if left.is_zero() => return Ok(Read::CaughtUp),
                Fetched::End => match self.wait(left)? {
                    Some(true) => {}
                    Some(false) => return Ok(Read::CaughtUp),
                    None => return Ok(Read::Nothing),
                },
                Fetched::Away => {
                    self.link.pause(left);
                    return Ok(Read::Nothing);
                }
            }
        }
    }
}
