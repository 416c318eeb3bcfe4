//! A lane being read: the shards that have some of its keys, one generation after the other.
//!
//! ```text
//!  shard ─► cursor ─┐
//!  shard ─► cursor ─┼─ merge ─► written down ─► waiting ─► the job
//!  …                │  (by the time of arrival)
//!  a shard's end ───┴─► its children, once all their parents are read
//! ```
//!
//! Three things a lane does, in this order: what an earlier run had written down it reads again and hands over as it was
//! then; what was in the stream when the job began is its history, merged when every shard has shown its next record or
//! its end; then it is live, and hands over what comes. Where the history ended is written down as well, so that it ends
//! there again.
//!
//! Cost: one read of a shard brings up to 10 MiB, and is one entry of the positions, synced; live, a quarter of a
//! second from an event's arrival (`poll`).

mod again;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use levada_types::{ConnectorError, Read, RecordReader, SourceLag};

use super::client::{Client, Failure, Patience, now_ms, pause};
use super::cursor::{Cursor, Reading};
use super::fan_out::FanOut;
use super::lanes::KeyRange;
use super::merge::{merge, next};
use super::positions::{Entry, LaneOf, Opened, Part, Place, Scribe};
use super::shards::{self, Shard};
use crate::waiting::Waiting;

/// A lane that is at the tip says so in its positions so often, in parts of the time that the stream keeps records.
const SAY_REACHED: u64 = 48;
/// How long to wait for a shard's children to be told.
const CHILDREN_WITHIN: Duration = Duration::from_millis(200);

/// How a lane reads.
#[derive(Clone)]
pub(super) struct Settings {
    pub client: Arc<Client>,
    /// Finishes the sentence "failed to …".
    pub what: String,
    pub poll: Duration,
    pub retention_ms: u64,
    pub lag: Arc<SourceLag>,
    pub fan_out: Option<Arc<FanOut>>,
}

impl Settings {
    /// How a shard with the keys `shard` is read by a lane with the keys `lane`: it is subscribed to where it is no other
    /// lane's as well.
    fn reading(&self, lane: KeyRange, shard: KeyRange) -> Reading<'_> {
        Reading {
            client: &self.client,
            what: &self.what,
            retention_ms: self.retention_ms,
            poll: self.poll,
            lag: &self.lag,
            fan_out: self.fan_out.as_deref().filter(|_| lane.covers(shard)),
        }
    }
}

/// What a lane has done to get on.
enum Step {
    /// Something; there may be more.
    More,
    /// Nothing: there is nothing until then, at least.
    Wait(Instant),
}

/// A lane being read.
pub(super) struct LaneReader {
    settings: Settings,
    lane: LaneOf,
    shards: Vec<Shard>,
    /// Shards that are being read, by their ids.
    cursors: BTreeMap<String, Cursor>,
    /// Those that were read to their end, and are still listed.
    done: BTreeMap<String, Place>,
    /// Those of them whose children are not listed yet.
    childless: BTreeSet<String>,
    list_at: Instant,
    patience: Patience,
    /// What is to be read again, and how many of its first records were asked for by nobody.
    again: VecDeque<Entry>,
    skip: u64,
    /// Where every shard is to be when that is done.
    then: Option<BTreeMap<String, Place>>,
    scribe: Option<Scribe>,
    /// The offset of the next record.
    next: u64,
    /// While the history is not over: what arrived later is none.
    history_until: Option<u64>,
    /// Whether the end of the history is to be told.
    at_end: bool,
    /// Whether it was.
    live: bool,
    said_ms: u64,
    waiting: Waiting,
}

/// How a lane begins in a stream as it is.
pub(super) fn begin(
    keys: KeyRange,
    created_ms: u64,
    shards: &[Shard],
    since_ms: Option<u64>,
    open_only: bool,
    now_ms: u64,
) -> Entry {
    let own: Vec<&Shard> = shards.iter().filter(|shard| shard.range.overlaps(keys)).collect();
    let mut at = BTreeMap::new();
    for shard in &own {
        let is_listed = |parent: &String| own.iter().any(|shard| shard.id == *parent);
        let place = Place { since_ms, done: open_only && !shard.open, ..Place::default() };
        if open_only || !shard.parents.iter().any(is_listed) {
            at.insert(shard.id.clone(), place);
        }
    }
    Entry {
        from: 0,
        end: 0,
        parts: Vec::new(),
        lane: LaneOf { created_ms, keys },
        at,
        history_until: Some(now_ms),
        ends_history: false,
    }
}

impl LaneReader {
    /// Reads on where `last` was written down, from `offset` on, after what is to be read `again`.
    pub fn new(settings: Settings, shards: Vec<Shard>, opened: Opened, offset: u64) -> LaneReader {
        let Opened { scribe, again, last } = opened;
        LaneReader { scribe: Some(scribe), ..LaneReader::of(settings, shards, again, last, offset) }
    }

    /// Reads from the beginning that `entry` is, and writes nothing down.
    pub fn afresh(settings: Settings, shards: Vec<Shard>, entry: Entry) -> LaneReader {
        LaneReader::of(settings, shards, Vec::new(), entry, 0)
    }

    fn of(settings: Settings, shards: Vec<Shard>, again: Vec<Entry>, last: Entry, offset: u64) -> LaneReader {
        LaneReader {
            settings,
            shards,
            cursors: BTreeMap::new(),
            done: BTreeMap::new(),
            childless: BTreeSet::new(),
            list_at: Instant::now(),
            patience: Patience::default(),
            skip: again.first().map_or(0, |first| offset.saturating_sub(first.from)),
            live: last.history_until.is_none() && !again.iter().any(|entry| entry.ends_history),
            next: last.end,
            history_until: last.history_until,
            then: Some(last.at),
            lane: last.lane,
            again: again.into(),
            scribe: None,
            at_end: false,
            said_ms: now_ms(),
            waiting: Waiting::default(),
        }
    }

    fn step(&mut self) -> Result<Step, ConnectorError> {
        if let Some(entry) = self.again.front() {
            let entry = entry.clone();
            return self.read_again(&entry);
        }
        if let Some(at) = self.then.take() {
            self.go_on(at);
        }
        if self.settle()? || self.cut()? {
            return Ok(Step::More);
        }
        let all_at_tip = self.childless.is_empty() && self.cursors.values().all(|c| self.is_at_tip(c));
        if self.history_until.is_some() && all_at_tip {
            self.history_until = None;
            self.at_end = true;
            self.write(Vec::new(), self.next, true)?;
            return Ok(Step::More);
        }
        if all_at_tip {
            self.say_reached()?;
        }
        self.fetch()
    }

    /// Whether a shard has nothing more of the history, or, live, nothing more for now.
    fn is_at_tip(&self, cursor: &Cursor) -> bool {
        match (cursor.buffer.front(), self.history_until) {
            (Some(head), Some(until)) => head.arrived_ms > until,
            (Some(_), None) => false,
            (None, _) => cursor.at_tip && !cursor.ended,
        }
    }

    /// Fetches of the shard that is furthest behind of those that may be asked.
    fn fetch(&mut self) -> Result<Step, ConnectorError> {
        let now = Instant::now();
        let history = self.history_until.is_some();
        let wanted: Vec<&str> = {
            let mut wanted: Vec<&Cursor> = self.cursors.values().collect();
            wanted.retain(|cursor| {
                cursor.buffer.is_empty() && !cursor.ended && !(history && self.is_at_tip(cursor))
            });
            wanted.sort_by_key(|cursor| cursor.seen_ms);
            wanted.into_iter().map(|cursor| cursor.shard.as_str()).collect()
        };
        let due =
            wanted.iter().find(|shard| self.cursors[**shard].due() <= now).map(|shard| (*shard).to_string());
        let Some(shard) = due else {
            let next = wanted.iter().map(|shard| self.cursors[*shard].due());
            let children = (!self.childless.is_empty()).then_some(self.list_at);
            let next = next.chain(children).min().unwrap_or(now + self.settings.poll);
            return Ok(Step::Wait(next));
        };
        self.fetch_of(&shard)?;
        Ok(Step::More)
    }

    fn fetch_of(&mut self, shard: &str) -> Result<bool, ConnectorError> {
        let Some(cursor) = self.cursors.get_mut(shard) else { return Ok(false) };
        cursor.fetch(&self.settings.reading(self.lane.keys, cursor.range))
    }

    /// How many of each cursor's records can be merged now: live, all of them; of a history, as long as every shard
    /// has shown its next record or that there is none.
    fn mergeable(&self) -> Vec<usize> {
        let cursors: Vec<&Cursor> = self.cursors.values().collect();
        let mut counts = vec![0; cursors.len()];
        if self.history_until.is_some() && !self.childless.is_empty() {
            return counts;
        }
        loop {
            let head = |number: usize| cursors[number].buffer.get(counts[number]);
            let knows = |number: usize| {
                head(number).is_some() || counts[number] == 0 && self.is_at_tip(cursors[number])
            };
            if self.history_until.is_some() && !(0..cursors.len()).all(knows) {
                return counts;
            }
            let until = self.history_until.unwrap_or(u64::MAX);
            let heads = (0..cursors.len()).map(|number| head(number).filter(|head| head.arrived_ms <= until));
            let Some(least) = next(heads) else { return counts };
            counts[least] += 1;
        }
    }

    /// Merges what was fetched, writes it down, and lets it be handed over; whether there was something.
    fn cut(&mut self) -> Result<bool, ConnectorError> {
        let counts = self.mergeable();
        let (mut taken, mut parts) = (Vec::new(), Vec::new());
        for (cursor, count) in self.cursors.values_mut().zip(counts) {
            let records = cursor.take(count);
            if let (Some(first), Some(last)) = (records.first(), records.last()) {
                parts.push(Part {
                    shard: cursor.shard.clone(),
                    first: first.sequence.clone(),
                    last: last.sequence.clone(),
                });
                taken.push((cursor.range, records));
            }
        }
        if parts.is_empty() {
            return Ok(false);
        }
        let (mut end, waiting) = (self.next, &mut self.waiting);
        merge(self.lane.keys, taken, |data| {
            waiting.push(end, data);
            end += 1;
        });
        // What is all of other lanes is read again, if need be, without having been written down.
        if end > self.next {
            self.write(parts, end, false)?;
        }
        Ok(true)
    }

    fn write(&mut self, parts: Vec<Part>, end: u64, ends_history: bool) -> Result<(), ConnectorError> {
        let from = std::mem::replace(&mut self.next, end);
        let Some(scribe) = &mut self.scribe else { return Ok(()) };
        let reading = self.cursors.iter().map(|(shard, cursor)| (shard.clone(), cursor.place().clone()));
        let done = self.done.iter().map(|(shard, place)| (shard.clone(), place.clone()));
        let entry = Entry {
            from,
            end,
            parts,
            lane: self.lane.clone(),
            at: reading.chain(done).collect(),
            history_until: self.history_until,
            ends_history,
        };
        self.said_ms = now_ms();
        scribe.write(&entry, self.said_ms.saturating_sub(self.settings.retention_ms))
    }

    /// Writes down that all was read, where nothing has come for long: otherwise it would seem, after a stop, as if
    /// something could have been deleted since.
    fn say_reached(&mut self) -> Result<(), ConnectorError> {
        let every = (self.settings.retention_ms / SAY_REACHED).max(1_000);
        if now_ms() < self.said_ms + every {
            return Ok(());
        }
        self.cursors.values_mut().for_each(Cursor::reached);
        self.write(Vec::new(), self.next, false)
    }

    /// Has the children of shards that were read to their end read; whether there are new ones.
    fn settle(&mut self) -> Result<bool, ConnectorError> {
        let over = |cursor: &Cursor| cursor.ended && cursor.buffer.is_empty();
        let ended: Vec<String> =
            self.cursors.values().filter(|cursor| over(cursor)).map(|cursor| cursor.shard.clone()).collect();
        for shard in &ended {
            if let Some(cursor) = self.cursors.remove(shard) {
                let place = Place { done: true, ..cursor.place().clone() };
                self.done.insert(shard.clone(), place);
                self.childless.insert(shard.clone());
                tracing::debug!(shard, "a shard was read to its end");
            }
        }
        if self.childless.is_empty() || ended.is_empty() && Instant::now() < self.list_at {
            return Ok(false);
        }
        let Settings { client, what, .. } = &self.settings;
        match shards::list(client) {
            Ok(shards) => {
                self.patience.worked("Kinesis");
                self.shards = shards;
            }
            Err(Failure::Throttled(why) | Failure::Outage(why)) => {
                self.patience.failed(&format!("failed to {what}: {why}"));
                self.list_at = self.patience.until().unwrap_or_else(Instant::now);
                return Ok(false);
            }
            Err(failure) => return Err(failure.error(what)),
        }
        self.list_at = Instant::now() + CHILDREN_WITHIN;
        self.done.retain(|id, _| self.shards.iter().any(|shard| shard.id == *id));
        let has_child = |id: &String| {
            let mut own = self.shards.iter().filter(|shard| shard.range.overlaps(self.lane.keys));
            own.any(|shard| shard.parents.contains(id))
        };
        self.childless.retain(|id| !has_child(id));
        Ok(self.begin_children())
    }

    /// Begins the shards whose parents were all read; whether there are some.
    fn begin_children(&mut self) -> bool {
        let own = |shard: &&Shard| shard.range.overlaps(self.lane.keys);
        let own: Vec<&Shard> = self.shards.iter().filter(own).collect();
        let mut begun = false;
        for shard in &own {
            if self.cursors.contains_key(&shard.id) || self.done.contains_key(&shard.id) {
                continue;
            }
            let parents: Vec<&String> =
                shard.parents.iter().filter(|id| own.iter().any(|shard| shard.id == **id)).collect();
            let places: Option<Vec<&Place>> = parents.iter().map(|id| self.done.get(*id)).collect();
            let Some(places) = places.filter(|places| !places.is_empty()) else { continue };
            let place = Place {
                since_ms: places.iter().filter_map(|place| place.since_ms).max(),
                reached_ms: places.iter().map(|place| place.reached_ms).min().unwrap_or_default(),
                ..Place::default()
            };
            tracing::info!(shard = shard.id, from = ?parents, "a new shard is read");
            self.cursors.insert(shard.id.clone(), Cursor::behind(&shard.id, shard.range, place));
            begun = true;
        }
        begun
    }
}

impl RecordReader for LaneReader {
    fn read(&mut self, max_records: usize, wait: Duration) -> Result<Read, ConnectorError> {
        let until = Instant::now() + wait;
        loop {
            let ready = self.live || self.at_end;
            if self.waiting.fills(max_records) || ready && !self.waiting.is_empty() {
                return Ok(Read::Records(self.waiting.take(max_records)));
            }
            if self.at_end {
                (self.at_end, self.live) = (false, true);
                return Ok(Read::CaughtUp);
            }
            let now = Instant::now();
            match self.step()? {
                Step::More => {}
                Step::Wait(next) if next < until => pause(next.saturating_duration_since(now)),
                Step::Wait(_) => {
                    pause(until.saturating_duration_since(now));
                    let knows = self.live
                        && self.childless.is_empty()
                        && self.cursors.values().all(|cursor| cursor.at_tip && !cursor.is_away());
                    return Ok(if knows { Read::CaughtUp } else { Read::Nothing });
                }
            }
        }
    }
}
