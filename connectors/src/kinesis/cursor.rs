//! One shard being read: an iterator or a subscription, and the records that were fetched and not taken yet.
//!
//! Both live for five minutes; where one has ended, another one is got behind the last record. Kinesis deletes
//! records by their age and leaves no trace of it. So a cursor knows up to which moment it has read everything: while
//! that is younger than what the stream keeps, nothing can be missing. When it is not, the record that was read last is
//! asked for once more: if it is still there, so is all behind it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use levada_types::{ConnectorError, SourceLag};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, Failure, Patience, now_ms};
use super::fan_out::{FanOut, Subscription, Told};
use super::lanes::KeyRange;
use super::positions::Place;
use super::shards::{Fetched, Record, Sequence};

/// The shortest time between two reads of a shard, which answers five a second.
const APART: Duration = Duration::from_millis(200);

/// A time up to so long after now may be one of a clock that is ahead, in milliseconds.
const AHEAD_MS: u64 = 300_000;

/// Where an iterator or a subscription begins.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Begin {
    /// With this record, which has to be there.
    At(Sequence),
    After(Sequence),
    /// With what arrived then, milliseconds since the Unix epoch.
    Since(u64),
    Earliest,
}

impl Begin {
    /// What AWS calls it, and the record that it names.
    fn kind(&self) -> (&'static str, Option<&Sequence>) {
        match self {
            Begin::At(first) => ("AT_SEQUENCE_NUMBER", Some(first)),
            Begin::After(last) => ("AFTER_SEQUENCE_NUMBER", Some(last)),
            Begin::Since(_) => ("AT_TIMESTAMP", None),
            Begin::Earliest => ("TRIM_HORIZON", None),
        }
    }

    /// Seconds since the Unix epoch, of a beginning that is a time.
    fn seconds(&self) -> Option<f64> {
        if let Begin::Since(ms) = self { Some(*ms as f64 / 1000.0) } else { None }
    }
}

/// What is to be read, and how.
pub(super) struct Reading<'a> {
    pub client: &'a Client,
    /// Finishes the sentence "failed to …".
    pub what: &'a str,
    pub retention_ms: u64,
    pub poll: Duration,
    pub lag: &'a SourceLag,
    /// Where the shard is subscribed to instead of polled.
    pub fan_out: Option<&'a FanOut>,
}

/// What came, by whichever way.
struct Came {
    records: Vec<Record>,
    behind_ms: u64,
    /// Whether there will never be more.
    ends: bool,
    /// All that had arrived by then has been looked at, in milliseconds.
    asked_ms: u64,
}

/// A shard being read.
pub(super) struct Cursor {
    pub shard: String,
    pub range: KeyRange,
    /// Fetched, in order.
    pub buffer: VecDeque<Record>,
    /// Whether there was nothing more when it was last asked.
    pub at_tip: bool,
    /// Whether there will never be more than what is in the buffer.
    pub ended: bool,
    /// All that had arrived before this was fetched, in milliseconds; 0 if that is not known.
    pub seen_ms: u64,
    /// Where it was when it was last written down.
    place: Place,
    begin: Begin,
    /// The last record that was fetched, if it has to be there still.
    anchor: Option<Sequence>,
    iterator: Option<String>,
    subscription: Option<Subscription>,
    /// Behind what the next subscription begins: what the last event that was taken said.
    continuation: Option<Sequence>,
    /// When it was last looked what the subscription has told.
    heard: Instant,
    due: Instant,
    patience: Patience,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Iterator {
    shard_iterator: String,
}

impl Cursor {
    /// One that begins behind `place`.
    pub fn behind(shard: &str, range: KeyRange, place: Place) -> Cursor {
        let begin = match (&place.after, place.since_ms) {
            (Some(after), _) => Begin::After(after.clone()),
            (None, Some(since_ms)) => Begin::Since(since_ms),
            (None, None) => Begin::Earliest,
        };
        Cursor {
            shard: shard.into(),
            range,
            buffer: VecDeque::new(),
            at_tip: false,
            ended: false,
            seen_ms: place.reached_ms,
            place,
            begin,
            anchor: None,
            iterator: None,
            subscription: None,
            continuation: None,
            heard: Instant::now(),
            due: Instant::now(),
            patience: Patience::default(),
        }
    }

    /// One that reads again from this record on.
    pub fn again(shard: &str, range: KeyRange, first: &Sequence) -> Cursor {
        Cursor { begin: Begin::At(first.clone()), ..Cursor::behind(shard, range, Place::default()) }
    }

    /// When it may be asked next.
    pub fn due(&self) -> Instant {
        let told = self.subscription.as_ref().is_some_and(Subscription::has_more);
        let due = if told { self.heard } else { self.due };
        self.patience.until().map_or(due, |until| until.max(due))
    }

    /// Whether it was asked in vain.
    pub fn is_away(&self) -> bool {
        self.patience.until().is_some()
    }

    /// Where it is, as it was last written down.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Takes the first `count` records, and notes that it is behind them.
    pub fn take(&mut self, count: usize) -> Vec<Record> {
        let taken: Vec<Record> = self.buffer.drain(..count).collect();
        if let Some(last) = taken.last() {
            self.place.after = Some(last.sequence.clone());
            self.place.reached_ms = last.arrived_ms;
        }
        self.reached();
        taken
    }

    /// Notes how far it is where nothing waits.
    pub fn reached(&mut self) {
        if self.buffer.is_empty() {
            self.place.reached_ms = self.place.reached_ms.max(self.seen_ms);
        }
    }

    /// Goes on from `place`, which is what was written down last, after it has been read again up to there.
    pub fn go_on(&mut self, place: &Place) {
        self.place = place.clone();
        self.seen_ms = self.seen_ms.max(place.reached_ms);
    }

    /// Fetches what is next, unless it is too early or Kinesis is away; whether something came.
    ///
    /// # Errors
    /// When it cannot be read on, or what should be there is gone.
    pub fn fetch(&mut self, reading: &Reading<'_>) -> Result<bool, ConnectorError> {
        if self.ended || self.due() > Instant::now() {
            return Ok(false);
        }
        let came = match reading.fan_out {
            None => self.ask(reading, now_ms()).map(Some),
            Some(fan_out) => self.hear(fan_out, reading),
        };
        match came {
            Ok(None) => Ok(false),
            Ok(Some(came)) => {
                self.patience.worked(&format!("shard {}", self.shard));
                self.came(reading, came)
            }
            Err(Failure::ExpiredIterator) => {
                self.iterator = None;
                Ok(false)
            }
            Err(Failure::Throttled(why)) => {
                reading.lag.throttled();
                self.patience.failed(&self.failed(reading, &why));
                Ok(false)
            }
            Err(Failure::Outage(why)) => {
                self.patience.failed(&self.failed(reading, &why));
                Ok(false)
            }
            Err(Failure::Invalid(why)) if matches!(self.begin, Begin::At(_) | Begin::After(_)) => {
                Err(self.gone(reading, &why))
            }
            Err(failure) => Err(failure.error(&format!("{}, shard {}", reading.what, self.shard))),
        }
    }

    fn failed(&self, reading: &Reading<'_>, why: &str) -> String {
        format!("failed to {}, shard {}: {why}", reading.what, self.shard)
    }

    /// Has the record that was read last asked for once more, if it may be gone: whether a new beginning is needed.
    fn anchors(&mut self, reading: &Reading<'_>, now_ms: u64) -> bool {
        if is_too_old(self.seen_ms, now_ms, reading.retention_ms)
            && self.anchor.is_none()
            && let Begin::After(last) = &self.begin
        {
            self.anchor = Some(last.clone());
            return true;
        }
        false
    }

    /// Asks for records.
    fn ask(&mut self, reading: &Reading<'_>, now_ms: u64) -> Result<Came, Failure> {
        if self.anchors(reading, now_ms) {
            self.iterator = None;
        }
        let iterator = match self.iterator.clone() {
            Some(iterator) => iterator,
            None => {
                let Iterator { shard_iterator } = match self.iterator(reading) {
                    // Clocks differ.
                    Err(Failure::Invalid(_)) if self.is_ahead(now_ms) => {
                        let mut arguments = self.of_shard(reading);
                        arguments["ShardIteratorType"] = "LATEST".into();
                        reading.client.call("GetShardIterator", &arguments)?
                    }
                    other => other?,
                };
                shard_iterator
            }
        };
        let arguments = json!({ "ShardIterator": iterator });
        self.iterator = Some(iterator);
        let fetched: Fetched = reading.client.call("GetRecords", &arguments)?;
        let Fetched { records, next_shard_iterator, millis_behind_latest } = fetched;
        let ends = next_shard_iterator.is_none();
        self.iterator = next_shard_iterator;
        Ok(Came { records, behind_ms: millis_behind_latest, ends, asked_ms: now_ms })
    }

    /// Takes what a subscription has told, if it has; subscribes if there is none.
    fn hear(&mut self, fan_out: &FanOut, reading: &Reading<'_>) -> Result<Option<Came>, Failure> {
        let now_ms = now_ms();
        if self.anchors(reading, now_ms) {
            self.subscription = None;
        }
        let subscription = match &mut self.subscription {
            Some(subscription) => subscription,
            none => none.insert(
                fan_out.subscribe(&self.shard, position(&self.anchor, &self.continuation, &self.begin))?,
            ),
        };
        self.heard = Instant::now();
        let (told, asked_ms, has_told) = (subscription.next(), subscription.asked_ms, subscription.has_told);
        match told {
            None => {
                // It wakes whoever waits.
                self.due = self.heard + reading.poll;
                return Ok(None);
            }
            Some(Told::Event(event)) => {
                let ends = event.ends();
                if event.continuation_sequence_number.is_some() {
                    self.continuation = event.continuation_sequence_number;
                }
                let behind_ms = event.millis_behind_latest;
                return Ok(Some(Came { records: event.records, behind_ms, ends, asked_ms }));
            }
            Some(Told::Over) if has_told => {
                tracing::debug!(shard = self.shard, "a subscription is over, and renewed")
            }
            Some(Told::Over) => {
                return self.unsubscribed(Failure::Outage("SubscribeToShard: it told nothing".into()));
            }
            // Clocks differ: what is there by then is asked for when it is then.
            Some(Told::Failed(Failure::Invalid(why))) if self.is_ahead(now_ms) => {
                return self.unsubscribed(Failure::Outage(why));
            }
            Some(Told::Failed(failure)) => return self.unsubscribed(failure),
        }
        self.subscription = None;
        Ok(None)
    }

    fn unsubscribed<T>(&mut self, failure: Failure) -> Result<T, Failure> {
        self.subscription = None;
        Err(failure)
    }

    /// Whether it begins with what comes, by a clock that may be ahead of that of Kinesis.
    fn is_ahead(&self, now_ms: u64) -> bool {
        matches!(self.begin, Begin::Since(ms) if ms + AHEAD_MS > now_ms)
    }

    fn of_shard(&self, reading: &Reading<'_>) -> Value {
        json!({ "StreamName": reading.client.stream, "ShardId": self.shard })
    }

    fn iterator(&self, reading: &Reading<'_>) -> Result<Iterator, Failure> {
        let anchor = self.anchor.clone().map(Begin::At);
        let begin = anchor.as_ref().unwrap_or(&self.begin);
        let mut arguments = self.of_shard(reading);
        let (kind, number) = begin.kind();
        arguments["ShardIteratorType"] = kind.into();
        if let Some(number) = number {
            arguments["StartingSequenceNumber"] = number.0.as_str().into();
        }
        if let Some(seconds) = begin.seconds() {
            arguments["Timestamp"] = json!(seconds);
        }
        reading.client.call("GetShardIterator", &arguments)
    }

    fn came(&mut self, reading: &Reading<'_>, came: Came) -> Result<bool, ConnectorError> {
        let Came { mut records, behind_ms, ends, asked_ms } = came;
        if let Some(anchor) = &self.anchor
            && (!records.is_empty() || ends || behind_ms == 0)
        {
            if records.first().is_none_or(|first| first.sequence != *anchor) {
                return Err(self.gone(reading, "the last record that was read is not there any more"));
            }
            records.remove(0);
            self.anchor = None;
        }
        let came = !records.is_empty();
        self.at_tip = !came && behind_ms == 0;
        self.ended = ends;
        if ends {
            self.subscription = None;
        }
        if let Some(last) = records.last() {
            self.begin = match &self.begin {
                // Until its first record was seen.
                Begin::At(first) if records[0].sequence != *first => {
                    return Err(self.gone(reading, &format!("record {first} is not there any more")));
                }
                _ => Begin::After(last.sequence.clone()),
            };
        }
        self.seen_ms = match records.last() {
            _ if self.at_tip && !self.ended => self.seen_ms.max(asked_ms),
            Some(last) => last.arrived_ms,
            None => self.seen_ms,
        };
        self.due = Instant::now() + if came { APART.min(reading.poll) } else { reading.poll };
        reading.lag.set(&self.shard, if self.ended && !came { None } else { Some(behind_ms) });
        self.buffer.extend(records);
        Ok(came)
    }

    /// What should be there is not.
    pub fn gone(&self, reading: &Reading<'_>, why: &str) -> ConnectorError {
        ConnectorError::damage(format!(
            "{}, shard {}: {why}; the stream keeps records for {} hours, and a job goes on from its inputs: records \
             may have been deleted before they were read, so have the stream keep them longer, and begin afresh \
             (--fresh)",
            reading.what,
            self.shard,
            reading.retention_ms / 3_600_000
        ))
    }
}

/// Where a subscription begins: with the anchor, behind what the one before it told, or where the cursor does.
fn position(anchor: &Option<Sequence>, continuation: &Option<Sequence>, begin: &Begin) -> Value {
    let begin = match (anchor, continuation) {
        (Some(anchor), _) => &Begin::At(anchor.clone()),
        (None, Some(last)) => &Begin::After(last.clone()),
        (None, None) => begin,
    };
    let (kind, number) = begin.kind();
    let mut position = json!({ "Type": kind });
    if let Some(number) = number {
        position["SequenceNumber"] = number.0.as_str().into();
    }
    if let Some(seconds) = begin.seconds() {
        position["Timestamp"] = json!(seconds);
    }
    position
}

/// Whether records that arrived after `seen_ms` may have been deleted by now.
fn is_too_old(seen_ms: u64, now_ms: u64, retention_ms: u64) -> bool {
    seen_ms > 0 && seen_ms + retention_ms < now_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_older_than_the_stream_keeps_it_may_be_gone() {
        let day = 86_400_000;
        assert!(!is_too_old(0, 10 * day, day), "of what was never read nothing is known");
        assert!(!is_too_old(9 * day, 10 * day, day));
        assert!(is_too_old(9 * day - 1, 10 * day, day));
    }

    #[test]
    fn a_cursor_is_where_its_last_record_was_taken() {
        let record = |number: u64| Record {
            sequence: Sequence(number.to_string()),
            arrived_ms: number,
            partition_key: "k".into(),
            data: Vec::new(),
        };
        let mut cursor = Cursor::behind("shard", KeyRange::ALL, Place::default());
        cursor.buffer.extend([record(3), record(5)]);
        cursor.seen_ms = 9;
        assert_eq!(cursor.take(1).len(), 1);
        let at = |after: u64, reached_ms| Place {
            after: Some(Sequence(after.to_string())),
            reached_ms,
            ..Place::default()
        };
        assert_eq!(*cursor.place(), at(3, 3));
        cursor.take(1);
        assert_eq!(*cursor.place(), at(5, 9));
    }
}
