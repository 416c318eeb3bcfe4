//! One shard being read: an iterator, and the records that were fetched and not taken yet.
//!
//! An iterator lives for five minutes; where it has ended, another one is got behind the last record. Kinesis deletes
//! records by their age and leaves no trace of it. So a cursor knows up to which moment it has read everything: while
//! that is younger than what the stream keeps, nothing can be missing. When it is not, the record that was read last is
//! asked for once more: if it is still there, so is all behind it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use levada_types::{ConnectorError, SourceLag};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, Failure, Patience, now_ms};
use super::lanes::KeyRange;
use super::positions::Place;
use super::shards::{Fetched, Record, Sequence};

/// The shortest time between two reads of a shard, which answers five a second.
const APART: Duration = Duration::from_millis(200);

/// Where an iterator begins.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Begin {
    /// With this record, which has to be there.
    At(Sequence),
    After(Sequence),
    /// With what arrived then, milliseconds since the Unix epoch.
    Since(u64),
    Earliest,
}

/// What is to be read, and how.
pub(super) struct Reading<'a> {
    pub client: &'a Client,
    /// Finishes the sentence "failed to …".
    pub what: &'a str,
    pub retention_ms: u64,
    pub poll: Duration,
    pub lag: &'a SourceLag,
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
        self.patience.until().map_or(self.due, |until| until.max(self.due))
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
        let asked_ms = now_ms();
        match self.ask(reading, asked_ms) {
            Ok(fetched) => {
                self.patience.worked(&format!("shard {}", self.shard));
                self.came(reading, fetched, asked_ms)
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

    fn ask(&mut self, reading: &Reading<'_>, now_ms: u64) -> Result<Fetched, Failure> {
        if is_too_old(self.seen_ms, now_ms, reading.retention_ms)
            && self.anchor.is_none()
            && let Begin::After(last) = &self.begin
        {
            (self.anchor, self.iterator) = (Some(last.clone()), None);
        }
        let iterator = match self.iterator.clone() {
            Some(iterator) => iterator,
            None => {
                let Iterator { shard_iterator } = match self.iterator(reading, &self.anchor) {
                    // Clocks differ.
                    Err(Failure::Invalid(_)) if matches!(self.begin, Begin::Since(ms) if ms + 300_000 > now_ms) =>
                    {
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
        reading.client.call("GetRecords", &arguments)
    }

    fn of_shard(&self, reading: &Reading<'_>) -> Value {
        json!({ "StreamName": reading.client.stream, "ShardId": self.shard })
    }

    fn iterator(&self, reading: &Reading<'_>, anchor: &Option<Sequence>) -> Result<Iterator, Failure> {
        let mut arguments = self.of_shard(reading);
        let (kind, number) = match (anchor, &self.begin) {
            (Some(anchor), _) => ("AT_SEQUENCE_NUMBER", Some(anchor)),
            (None, Begin::At(first)) => ("AT_SEQUENCE_NUMBER", Some(first)),
            (None, Begin::After(last)) => ("AFTER_SEQUENCE_NUMBER", Some(last)),
            (None, Begin::Since(_)) => ("AT_TIMESTAMP", None),
            (None, Begin::Earliest) => ("TRIM_HORIZON", None),
        };
        arguments["ShardIteratorType"] = kind.into();
        if let Some(number) = number {
            arguments["StartingSequenceNumber"] = number.0.as_str().into();
        }
        if let (None, Begin::Since(ms)) = (anchor, &self.begin) {
            arguments["Timestamp"] = json!(*ms as f64 / 1000.0);
        }
        reading.client.call("GetShardIterator", &arguments)
    }

    fn came(
        &mut self,
        reading: &Reading<'_>,
        fetched: Fetched,
        asked_ms: u64,
    ) -> Result<bool, ConnectorError> {
        let Fetched { mut records, next_shard_iterator, millis_behind_latest } = fetched;
        if let Some(anchor) = &self.anchor
            && (!records.is_empty() || next_shard_iterator.is_none() || millis_behind_latest == 0)
        {
            if records.first().is_none_or(|first| first.sequence != *anchor) {
                return Err(self.gone(reading, "the last record that was read is not there any more"));
            }
            records.remove(0);
            self.anchor = None;
        }
        let came = !records.is_empty();
        self.at_tip = !came && millis_behind_latest == 0;
        self.ended = next_shard_iterator.is_none();
        self.iterator = next_shard_iterator;
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
            _ if self.at_tip && !self.ended => asked_ms,
            Some(last) => last.arrived_ms,
            None => self.seen_ms,
        };
        self.due = Instant::now() + if came { APART.min(reading.poll) } else { reading.poll };
        reading.lag.set(&self.shard, if self.ended && !came { None } else { Some(millis_behind_latest) });
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
