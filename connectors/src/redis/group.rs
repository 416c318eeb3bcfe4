//! A member of a consumer group.
//!
//! What a member is given depends on what the others take, so a run could not be repeated from the stream alone. So
//! the member writes down in the server, before it hands entries to the job, which ones it was given and in which
//! order: its *log*, a stream of its own. An offset is a place in this order.
//!
//! ```text
//!  own entries of before that are in no log ─┐
//!  entries that others have left lying ──────┼─► log ──► job, offsets 0, 1, 2, …
//!  new entries ──────────────────────────────┘    │
//!                                                 └─ up to a checkpoint: acknowledged (XACK), and cut off
//!
//!  levada:given:STREAM:GROUP:CONSUMER     id   END-0, where END is how many the member had been given after it
//!                                         ids  the entries' ids, with commas between
//! ```
//!
//! Delivery is exactly once within the member (it goes on from its state, with the same entries in the same order)
//! and at least once for the group: what a member did not acknowledge in time is given to another one too, as the
//! same entry. So a member that was killed and stays away loses nothing but what its own windows still held, which is
//! in its state; and one that comes back repeats what it had begun, though others may have done it by then.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use levada_types::{ConnectorError, Read, RecordReader};
use redis::{Cmd, Connection, RedisResult, Value};

use super::EntryId;
use super::config::Start;
use super::entry::Entry;
use super::server::{Link, StreamInfo, text, together, transaction, unexpected};
use crate::waiting::Waiting;

/// Entries that are taken at once, and an entry of the log tells of.
const MAX_PIECE: usize = 512;

/// How often a member looks for what others have left lying, at least and at most.
const CLAIM_EVERY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// What a member is, for one stream.
#[derive(Clone, Debug)]
pub(super) struct Member {
    stream: String,
    group: String,
    consumer: String,
    claim_after_ms: u64,
    start: Start,
    log: String,
}

/// A piece of the log: the last of its entries has the offset `end` - 1.
struct Piece {
    end: u64,
    ids: Vec<EntryId>,
}

impl Piece {
    fn begin(&self) -> u64 {
        self.end.saturating_sub(self.ids.len() as u64)
    }

    fn of(entry: &Entry) -> RedisResult<Piece> {
        let ids = entry.fields.as_ref().and_then(|fields| std::str::from_utf8(fields.get(1)?).ok());
        let ids =
            ids.and_then(|ids| ids.split(',').map(|id| id.parse().ok()).collect::<Option<Vec<EntryId>>>());
        let ids = ids.ok_or_else(|| unexpected("ids", &Value::Nil))?;
        Ok(Piece { end: entry.id.ms, ids })
    }
}

impl Member {
    pub(super) fn new(
        stream: &str,
        group: &str,
        consumer: &str,
        claim_after_ms: u64,
        start: Start,
    ) -> Member {
        Member {
            stream: stream.into(),
            group: group.into(),
            consumer: consumer.into(),
            claim_after_ms,
            start,
            log: format!("levada:given:{stream}:{group}:{consumer}"),
        }
    }

    /// Makes the group if there is none.
    fn join(&self, link: &mut Link) -> Result<(), ConnectorError> {
        let behind = match self.start {
            Start::Beginning => "0".to_string(),
            Start::End => "$".to_string(),
            Start::AtOrAfter(EntryId { ms, sequence: 0 }) => {
                EntryId { ms: ms.saturating_sub(1), sequence: u64::MAX }.to_string()
            }
            Start::AtOrAfter(EntryId { ms, sequence }) => EntryId { ms, sequence: sequence - 1 }.to_string(),
        };
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(&self.stream).arg(&self.group).arg(behind).arg("MKSTREAM");
        link.ask_patiently(|connection| match create.query::<Value>(connection) {
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            other => other.map(drop),
        })
    }

    /// How many entries it has been given so far.
    pub(super) fn given(&self, link: &mut Link) -> Result<u64, ConnectorError> {
        self.join(link)?;
        Ok(link.ask_patiently(|connection| StreamInfo::ask(connection, &self.log))?.last.ms)
    }

    /// The offset of the first entry that is not acknowledged.
    pub(super) fn first(&self, link: &mut Link) -> Result<u64, ConnectorError> {
        let given = self.given(link)?;
        let first = link.ask_patiently(|connection| self.pieces(connection, "-", "+", 1))?;
        Ok(first.first().map_or(given, Piece::begin))
    }

    /// Pieces of the log.
    fn pieces(
        &self,
        connection: &mut Connection,
        from: &str,
        to: &str,
        count: usize,
    ) -> RedisResult<Vec<Piece>> {
        let mut range = redis::cmd("XRANGE");
        range.arg(&self.log).arg(from).arg(to).arg("COUNT").arg(count);
        range.query::<Value>(connection).and_then(Entry::all)?.iter().map(Piece::of).collect()
    }

    /// Acknowledges what comes before the offset `next`, as far as whole pieces do.
    pub(super) fn acknowledge(&self, link: &mut Link, next: u64) -> Result<(), ConnectorError> {
        const AT_ONCE: usize = 64;
        loop {
            let to = format!("{next}-0");
            let Some(pieces) = link.ask(|connection| self.pieces(connection, "-", &to, AT_ONCE))? else {
                return Ok(());
            };
            let Some(last) = pieces.last() else { return Ok(()) };
            let mut acknowledge = redis::cmd("XACK");
            acknowledge.arg(&self.stream).arg(&self.group);
            for id in pieces.iter().flat_map(|piece| &piece.ids) {
                acknowledge.arg(id.to_string());
            }
            let mut cut = redis::cmd("XTRIM");
            cut.arg(&self.log).arg("MINID").arg("=").arg(format!("{}-0", last.end + 1));
            let done = link.ask(|connection| transaction(connection, &[acknowledge.clone(), cut.clone()]))?;
            if done.is_none() || pieces.len() < AT_ONCE {
                return Ok(());
            }
        }
    }

    fn read_group(&self, count: usize, wait: Duration, from: &str) -> Cmd {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.group).arg(&self.consumer).arg("COUNT").arg(count);
        if !wait.is_zero() {
            read.arg("BLOCK").arg(wait.as_millis().max(1) as u64);
        }
        read.arg("STREAMS").arg(&self.stream).arg(from);
        read
    }
}

/// What the reader is at.
enum Phase {
    /// Gives again what the log tells.
    Log,
    /// Looks for own entries that are in no log, behind this one; those in the log are known.
    Own(EntryId, Option<HashSet<EntryId>>),
    /// Takes what others have left, and what is new.
    New,
}

/// What a look at the server brought.
enum Fetched {
    /// Go on.
    More,
    /// Nothing: there is nothing new for this member.
    End,
    /// Nothing: the server is out of reach.
    Away,
}

/// A member's share of a stream being read.
pub(super) struct MemberReader {
    link: Link,
    member: Member,
    field: Option<String>,
    phase: Phase,
    /// The offset of the next entry.
    next: u64,
    claim_at: Instant,
    /// Taken, and not in the log yet.
    taken: Vec<Entry>,
    waiting: Waiting,
}

impl MemberReader {
    pub(super) fn new(link: Link, member: Member, field: Option<&str>, from: u64) -> MemberReader {
        MemberReader {
            link,
            member,
            field: field.map(Into::into),
            phase: Phase::Log,
            next: from,
            claim_at: Instant::now(),
            taken: Vec::new(),
            waiting: Waiting::default(),
        }
    }

    fn fetch(&mut self, count: usize, wait: Duration) -> Result<Fetched, ConnectorError> {
        if !self.taken.is_empty() {
            return self.write_down();
        }
        let count = count.min(MAX_PIECE);
        match &mut self.phase {
            Phase::Log => self.again(),
            Phase::Own(..) => self.own(count),
            Phase::New => {
                if Instant::now() >= self.claim_at {
                    match self.claim(count)? {
                        Fetched::More => return Ok(Fetched::More),
                        Fetched::Away => return Ok(self.lost_sight()),
                        Fetched::End => {}
                    }
                }
                let read = self.member.read_group(count, wait, ">");
                let read =
                    self.link.ask(|connection| read.query::<Value>(connection).and_then(Entry::of_stream))?;
                match read {
                    None => Ok(self.lost_sight()),
                    Some(entries) if entries.is_empty() => Ok(Fetched::End),
                    Some(entries) => {
                        self.taken = entries;
                        self.write_down()
                    }
                }
            }
        }
    }

    /// After an answer that did not come the server may have given entries that are not known here.
    fn lost_sight(&mut self) -> Fetched {
        self.phase = Phase::Own(EntryId::NONE, None);
        Fetched::Away
    }

    /// The next piece of the log.
    fn again(&mut self) -> Result<Fetched, ConnectorError> {
        let (member, from) = (&self.member, format!("{}-0", self.next + 1));
        let looked = self.link.ask(|connection| {
            let given = StreamInfo::ask(connection, &member.log)?;
            let Some(piece) = member.pieces(connection, &from, "+", 1)?.pop() else {
                return Ok((given, None));
            };
            let ranges: Vec<Cmd> = piece.ids.iter().map(|id| range(&member.stream, *id)).collect();
            let entries: Vec<Entry> = together(connection, &ranges)?
                .into_iter()
                .map(Entry::all)
                .collect::<RedisResult<Vec<_>>>()?
                .into_iter()
                .flatten()
                .collect();
            Ok((given, Some((piece, entries))))
        })?;
        let Some((info, piece)) = looked else { return Ok(Fetched::Away) };
        let Some((piece, entries)) = piece else {
            if info.last.ms != self.next {
                let Member { consumer, log, .. } = member;
                return Err(self.link.damaged(format!(
                    "{consumer} had been given {} entries, and {log} tells of {}; the server has lost some, or the \
                     state is of another time",
                    self.next, info.last.ms
                )));
            }
            self.phase = Phase::Own(EntryId::NONE, None);
            return Ok(Fetched::More);
        };
        let held: HashSet<EntryId> = entries.iter().map(|entry| entry.id).collect();
        if let Some(gone) = piece.ids.iter().find(|id| !held.contains(id)) {
            return Err(self.link.damaged(format!(
                "entry {gone}, which is to be read again, is not there any more: trim the stream later (MAXLEN, MINID)"
            )));
        }
        if piece.begin() > self.next {
            return Err(self
                .link
                .damaged(format!("the entries before {} were acknowledged already", piece.ids[0])));
        }
        let skip = (self.next - piece.begin()) as usize;
        for entry in &entries[skip..] {
            self.waiting.push_with(self.next, |out| entry.write(self.field.as_deref(), out));
            self.next += 1;
        }
        Ok(Fetched::More)
    }

    /// Own entries that are not in the log: an earlier run was given them and did not come to write it down.
    fn own(&mut self, count: usize) -> Result<Fetched, ConnectorError> {
        let Phase::Own(behind, known) = &mut self.phase else { return Ok(Fetched::More) };
        let member = &self.member;
        if known.is_none() {
            let Some(pieces) =
                self.link.ask(|connection| member.pieces(connection, "-", "+", usize::MAX >> 1))?
            else {
                return Ok(Fetched::Away);
            };
            *known = Some(pieces.into_iter().flat_map(|piece| piece.ids).collect());
        }
        let read = member.read_group(count, Duration::ZERO, &behind.to_string());
        let read = self.link.ask(|connection| read.query::<Value>(connection).and_then(Entry::of_stream))?;
        let Some(entries) = read else { return Ok(Fetched::Away) };
        let Some(last) = entries.last() else {
            self.phase = Phase::New;
            return Ok(Fetched::More);
        };
        *behind = last.id;
        let known = known.get_or_insert_default();
        self.taken = entries.into_iter().filter(|entry| !known.contains(&entry.id)).collect();
        self.write_down()
    }

    /// Takes over what others were given long ago and did not acknowledge.
    fn claim(&mut self, count: usize) -> Result<Fetched, ConnectorError> {
        let member = &self.member;
        let claimed = self.link.ask(|connection| claim(connection, member, count))?;
        let Some(entries) = claimed else { return Ok(Fetched::Away) };
        if entries.is_empty() {
            let every = Duration::from_millis(self.member.claim_after_ms / 4);
            self.claim_at = Instant::now() + every.clamp(CLAIM_EVERY.0, CLAIM_EVERY.1);
            return Ok(Fetched::End);
        }
        tracing::info!(
            stream = self.member.stream,
            "took over {} entries that others of the group have left for {} ms",
            entries.len(),
            self.member.claim_after_ms
        );
        self.taken = entries;
        self.write_down()
    }

    /// Writes what was taken to the log; only then it is given.
    fn write_down(&mut self) -> Result<Fetched, ConnectorError> {
        let (gone, there): (Vec<Entry>, Vec<Entry>) =
            std::mem::take(&mut self.taken).into_iter().partition(|entry| entry.fields.is_none());
        if !gone.is_empty() {
            tracing::warn!(
                stream = self.member.stream,
                "{} entries were deleted or trimmed before they could be read, the first of them {}",
                gone.len(),
                gone[0].id
            );
            let mut acknowledge = redis::cmd("XACK");
            acknowledge.arg(&self.member.stream).arg(&self.member.group);
            for entry in &gone {
                acknowledge.arg(entry.id.to_string());
            }
            self.link.ask(|connection| acknowledge.query::<Value>(connection))?;
        }
        let Some(last) = there.last().map(|entry| entry.id) else { return Ok(Fetched::More) };
        let end = self.next + there.len() as u64;
        let ids: Vec<String> = there.iter().map(|entry| entry.id.to_string()).collect();
        let mut add = redis::cmd("XADD");
        add.arg(&self.member.log).arg(format!("{end}-0")).arg("ids").arg(ids.join(","));
        let log = &self.member.log;
        let written = self.link.ask(|connection| {
            // After an answer that did not come it may be there.
            let info = StreamInfo::ask(connection, log)?;
            if info.last.ms >= end {
                let mut newest = redis::cmd("XREVRANGE");
                newest.arg(log).arg("+").arg("-").arg("COUNT").arg(1);
                let newest = newest.query::<Value>(connection).and_then(Entry::all)?;
                let newest = newest.first().map(Piece::of).transpose()?;
                return Ok(newest.is_some_and(|piece| piece.end == end && piece.ids.last() == Some(&last)));
            }
            add.query::<Value>(connection).map(|_| true)
        })?;
        match written {
            None => {
                self.taken = there;
                Ok(Fetched::Away)
            }
            Some(false) => {
                let Member { consumer, group, .. } = &self.member;
                Err(self.link.wrong(format!(
                    "another process is {consumer} in the group {group}: give each member a name of its own"
                )))
            }
            Some(true) => {
                for entry in &there {
                    self.waiting.push_with(self.next, |out| entry.write(self.field.as_deref(), out));
                    self.next += 1;
                }
                Ok(Fetched::More)
            }
        }
    }
}

fn range(stream: &str, id: EntryId) -> Cmd {
    let mut range = redis::cmd("XRANGE");
    range.arg(stream).arg(id.to_string()).arg(id.to_string());
    range
}

/// Makes the member's own what others were given long ago: their entries, at most `count`. (XAUTOCLAIM would take the
/// member's own too.)
fn claim(connection: &mut Connection, member: &Member, count: usize) -> RedisResult<Vec<Entry>> {
    const PAGE: usize = 1000;
    let mut from = "-".to_string();
    loop {
        let mut pending = redis::cmd("XPENDING");
        pending.arg(&member.stream).arg(&member.group).arg("IDLE").arg(member.claim_after_ms);
        pending.arg(&from).arg("+").arg(PAGE);
        let Value::Array(page) = pending.query::<Value>(connection)? else { return Ok(Vec::new()) };
        let mut others = Vec::new();
        for one in &page {
            let Value::Array(fields) = one else { return Err(unexpected("a pending entry", one)) };
            if let [id, consumer, ..] = fields.as_slice()
                && let (Some(id), Some(consumer)) = (text(id), text(consumer))
            {
                from = format!("({id}");
                if consumer != member.consumer && others.len() < count {
                    others.push(id.to_string());
                }
            }
        }
        if !others.is_empty() {
            let mut claim = redis::cmd("XCLAIM");
            claim.arg(&member.stream).arg(&member.group).arg(&member.consumer).arg(member.claim_after_ms);
            claim.arg(others);
            let entries = claim.query::<Value>(connection).and_then(Entry::all)?;
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        if page.len() < PAGE {
            return Ok(Vec::new());
        }
    }
}

impl RecordReader for MemberReader {
    fn read(&mut self, max_records: usize, wait: Duration) -> Result<Read, ConnectorError> {
        let until = Instant::now() + wait;
        loop {
            if self.waiting.fills(max_records) {
                return Ok(Read::Records(self.waiting.take(max_records)));
            }
            let left = until.saturating_duration_since(Instant::now());
            // What is there already is not kept waiting for more.
            let wait = if self.waiting.is_empty() { left } else { Duration::ZERO };
            match self.fetch(max_records - self.waiting.len(), wait)? {
                Fetched::More => {}
                Fetched::End if !self.waiting.is_empty() => {
                    return Ok(Read::Records(self.waiting.take(max_records)));
                }
                Fetched::End => return Ok(Read::CaughtUp),
                Fetched::Away => {
                    self.link.pause(left);
                    return Ok(Read::Nothing);
                }
            }
        }
    }
}
