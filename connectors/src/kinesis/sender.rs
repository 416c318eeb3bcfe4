//! The thread that puts records: up to 500 at once, in the order of each key.
//!
//! PutRecords refuses records one by one, and puts the others, so two records of one key in a request could change
//! places. Hence a request has at most one record of each key, and a record is not sent before the one before it of its
//! key was acknowledged or set aside. Of what waits, the first [`WINDOW`] records are looked through for those that may go:
//!
//! ```text
//!  queue   a1 a2 b1 c1 b2 …      request 1   a1 b1 c1      a1 refused, throttled
//!                                request 2   a1 b2         …
//!                                request 3   a2
//! ```
//!
//! In: records, in their order. Out: what became of them, in the two topics of [`crate::delivered`]; and how far it has
//! come, for those who wait. Nothing here is a function of the job's inputs alone.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use levada_types::{ConnectorError, WhenDurable};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, Failure, Patience, now_ms};
use crate::delivered::{Place, note};
use crate::log::Writer;

/// What one request holds at most, and one record of it: data and key.
const REQUEST_RECORDS: usize = 500;
const REQUEST_BYTES: usize = 5 << 20;
pub(super) const RECORD_BYTES: usize = 1 << 20;
/// The most records that wait, and the most bytes of them: then the job waits.
const QUEUE_RECORDS: usize = 10_000;
const QUEUE_BYTES: usize = 16 << 20;
/// How many of the first that wait may go before others: what a crash repeats at most.
const WINDOW: usize = 2 * REQUEST_RECORDS;
/// How long the last records may take when the job ends, while they are not acknowledged.
const FINISH_WITHIN: Duration = Duration::from_secs(30);

/// A record to be put.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub place: Place,
    pub partition_key: String,
    pub data: Vec<u8>,
}

impl Outgoing {
    fn bytes(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }
}

/// The records that wait, and how far the thread has come.
#[derive(Default)]
struct State {
    /// In order; whether each is done with.
    queue: VecDeque<(Outgoing, bool)>,
    queued_bytes: usize,
    /// How many were queued, and how many of the first of them are done with.
    queued: u64,
    done: u64,
    /// The place of the last record before which, itself included, all is done with.
    place: Option<Place>,
    waiting: Vec<(u64, WhenDurable)>,
    failed: Option<ConnectorError>,
    /// Since when nothing more comes.
    closing: Option<Instant>,
}

/// What the sink and the thread share.
#[derive(Default)]
pub(super) struct Sender {
    state: Mutex<State>,
    changed: Condvar,
}

/// Where the thread writes.
pub(super) struct Target {
    pub client: Client,
    /// Finishes the sentence "failed to …".
    pub what: String,
    pub delivered: Writer,
    pub undelivered: Writer,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Put {
    records: Vec<PutOne>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutOne {
    error_code: Option<String>,
    error_message: Option<String>,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    /// For good, with the reason.
    Refused(String),
    Again,
}

impl Sender {
    /// One that is done with all rows up to `place`.
    pub fn after(place: Option<Place>) -> Arc<Sender> {
        let state = Mutex::new(State { place, ..State::default() });
        Arc::new(Sender { state, changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues records; waits for room.
    pub fn push(&self, records: impl Iterator<Item = Outgoing>) -> Result<(), ConnectorError> {
        for record in records {
            let mut state = self.lock();
            while state.failed.is_none()
                && !state.queue.is_empty()
                && (state.queue.len() >= QUEUE_RECORDS || state.queued_bytes + record.bytes() > QUEUE_BYTES)
            {
                self.changed.notify_all();
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            state.queued_bytes += record.bytes();
            state.queued += 1;
            state.queue.push_back((record, false));
        }
        self.changed.notify_all();
        Ok(())
    }

    /// The place of the last record before which all is done with.
    pub fn place(&self) -> Option<Place> {
        self.lock().place
    }

    /// Whether what is queued can still be put.
    pub fn check(&self) -> Result<(), ConnectorError> {
        self.lock().failed.clone().map_or(Ok(()), Err)
    }

    /// Calls `then` once everything queued so far is done with, or cannot be.
    pub fn when_done(&self, then: WhenDurable) {
        let mut state = self.lock();
        let outcome = match &state.failed {
            Some(error) => Err(error.clone()),
            None if state.done >= state.queued => Ok(()),
            None => {
                let queued = state.queued;
                state.waiting.push((queued, then));
                return;
            }
        };
        drop(state);
        then(outcome);
    }

    /// No more comes: the thread ends once all is done with, or [`FINISH_WITHIN`] after.
    pub fn close(&self) {
        self.lock().closing = Some(Instant::now());
        self.changed.notify_all();
    }

    /// The thread.
    pub fn run(&self, target: &Target) {
        let (mut patience, mut most) = (Patience::default(), REQUEST_RECORDS);
        loop {
            let sent = self.put(target, &mut patience, &mut most);
            let sent = sent.and_then(|more| self.in_time(&patience, target).map(|()| more));
            match sent {
                Ok(true) => self.pause(&patience),
                Ok(false) => return,
                Err(error) => {
                    tracing::error!("{error}; the sink has stopped");
                    self.settle(|state| state.failed = Some(error));
                    return;
                }
            }
        }
    }

    /// Puts what may go now, at most so many records; false when there will be none.
    fn put(
        &self,
        target: &Target,
        patience: &mut Patience,
        most: &mut usize,
    ) -> Result<bool, ConnectorError> {
        let Some((chosen, request)) = self.choose(target, *most) else { return Ok(false) };
        let fates = match target.client.call::<Put>("PutRecords", &request) {
            Ok(put) if put.records.len() == chosen.len() => {
                *most = REQUEST_RECORDS;
                put.records.into_iter().map(PutOne::fate).collect::<Vec<_>>()
            }
            Ok(_) => {
                return Err(
                    Failure::Outage("PutRecords: the answer is of other records".into()).error(&target.what)
                );
            }
            // One of them is not as Kinesis wants it: alone it will show.
            Err(Failure::Invalid(why)) if chosen.len() == 1 => vec![(Fate::Refused(why), None)],
            Err(Failure::Invalid(_)) => {
                *most = 1;
                return Ok(true);
            }
            Err(Failure::Throttled(why) | Failure::Outage(why)) => {
                patience.failed(&format!("failed to {}: {why}", target.what));
                return Ok(true);
            }
            Err(failure) => return Err(failure.error(&target.what)),
        };
        let again: Vec<&String> = fates.iter().filter_map(|(_, why)| why.as_ref()).collect();
        match again.first() {
            None => patience.worked(&target.what),
            Some(why) => {
                let (count, of) = (again.len(), chosen.len());
                patience.failed(&format!("failed to {}: {count} of {of} records: {why}", target.what));
            }
        }
        self.note(target, &chosen, fates.into_iter().map(|(fate, _)| fate).collect())?;
        Ok(true)
    }

    /// Waits for records; gives the places in the queue of those that may go, and the request for them.
    fn choose(&self, target: &Target, most: usize) -> Option<(Vec<usize>, Value)> {
        let mut state = self.lock();
        while state.queue.is_empty() {
            if state.closing.is_some() {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let chosen = choose(&state.queue, most);
        let one = |number: &usize| {
            let record = &state.queue[*number].0;
            json!({ "PartitionKey": record.partition_key, "Data": STANDARD.encode(&record.data) })
        };
        let records: Vec<Value> = chosen.iter().map(one).collect();
        Some((chosen, json!({ "StreamName": target.client.stream, "Records": records })))
    }

    /// Notes what became of records, and how far all is done with.
    fn note(&self, target: &Target, chosen: &[usize], fates: Vec<Fate>) -> Result<(), ConnectorError> {
        let now = now_ms() as i64;
        let mut refused = Vec::new();
        {
            let state = self.lock();
            for (number, fate) in chosen.iter().zip(&fates) {
                if let Fate::Refused(reason) = fate {
                    let record = &state.queue[*number].0;
                    let data = String::from_utf8_lossy(&record.data);
                    let key = &record.partition_key;
                    let letter = json!({ "reason": reason, "partition_key": key, "data": data });
                    refused.push((record.place, letter.to_string()));
                    tracing::warn!("failed to {}: a record was refused: {reason}", target.what);
                }
            }
        }
        for (place, letter) in refused {
            note(&target.undelivered, place, now, &letter, true)?;
        }
        let mut behind = None;
        self.settle(|state| {
            for (number, fate) in chosen.iter().zip(&fates) {
                state.queue[*number].1 = *fate != Fate::Again;
            }
            let mut records = 0u64;
            while let Some((record, _)) = state.queue.pop_front_if(|(_, done)| *done) {
                state.queued_bytes -= record.bytes();
                state.place = Some(record.place);
                records += 1;
            }
            state.done += records;
            behind = state.place.filter(|_| records > 0).map(|place| (place, records));
        });
        match behind {
            None => Ok(()),
            Some((place, records)) => {
                note(&target.delivered, place, now, &json!({ "records": records }).to_string(), false)
            }
        }
    }

    fn settle(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let (mut due, mut later) = (Vec::new(), Vec::new());
        for (queued, then) in std::mem::take(&mut state.waiting) {
            let is_due = queued <= state.done || state.failed.is_some();
            if is_due { due.push((queued, then)) } else { later.push((queued, then)) }
        }
        state.waiting = later;
        let (done, failed) = (state.done, state.failed.clone());
        drop(state);
        self.changed.notify_all();
        for (queued, then) in due {
            then(if queued <= done { Ok(()) } else { failed.clone().map_or(Ok(()), Err) });
        }
    }

    /// Waits before the next attempt, as long as there is time.
    fn pause(&self, patience: &Patience) {
        let mut state = self.lock();
        while let Some(until) = patience.until() {
            let left = until.saturating_duration_since(Instant::now());
            let left =
                state.closing.map_or(left, |since| left.min(FINISH_WITHIN.saturating_sub(since.elapsed())));
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether a job that ends has still time for its last records.
    fn in_time(&self, patience: &Patience, target: &Target) -> Result<(), ConnectorError> {
        let state = self.lock();
        match state.closing {
            Some(since) if patience.until().is_some() && since.elapsed() >= FINISH_WITHIN => {
                Err(ConnectorError::outage(format!(
                    "{}: the last {} records were not taken within {} seconds; with --state, they are sent when the job \
                     goes on",
                    target.what,
                    state.queued - state.done,
                    FINISH_WITHIN.as_secs()
                )))
            }
            _ => Ok(()),
        }
    }
}

impl PutOne {
    /// What became of it, and why it is to be sent again.
    fn fate(self) -> (Fate, Option<String>) {
        let Some(code) = self.error_code else { return (Fate::Acknowledged, None) };
        let why = format!("{code}: {}", self.error_message.unwrap_or_default());
        match code.as_str() {
            "InvalidArgumentException" | "ValidationException" => (Fate::Refused(why), None),
            _ => (Fate::Again, Some(why)),
        }
    }
}

/// Which of the records that wait may go together: of each key the first that is not done with.
fn choose(queue: &VecDeque<(Outgoing, bool)>, most: usize) -> Vec<usize> {
    let (mut chosen, mut keys, mut bytes) = (Vec::new(), HashSet::new(), 0);
    for (number, (record, _)) in queue.iter().enumerate().take(WINDOW).filter(|(_, (_, done))| !done) {
        if chosen.len() >= most || bytes + record.bytes() > REQUEST_BYTES && !chosen.is_empty() {
            break;
        }
        if keys.insert(record.partition_key.as_str()) {
            chosen.push(number);
            bytes += record.bytes();
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(records: &[(&str, usize, bool)]) -> VecDeque<(Outgoing, bool)> {
        let record = |(number, (key, bytes, done)): (usize, &(&str, usize, bool))| {
            let place = (1, number as u64);
            (Outgoing { place, partition_key: (*key).into(), data: vec![0; *bytes] }, *done)
        };
        records.iter().enumerate().map(record).collect()
    }

    #[test]
    fn of_each_key_the_first_that_is_not_done_with_may_go() {
        let waiting =
            queue(&[("a", 1, false), ("a", 1, false), ("b", 1, true), ("b", 1, false), ("c", 1, false)]);
        assert_eq!(choose(&waiting, 500), [0, 3, 4]);
        assert_eq!(choose(&waiting, 1), [0]);
    }

    #[test]
    fn a_request_is_no_longer_than_kinesis_takes() {
        let keys: Vec<String> = (0..WINDOW + 10).map(|number| number.to_string()).collect();
        let small: Vec<_> = keys.iter().map(|key| (key.as_str(), 1, false)).collect();
        assert_eq!(choose(&queue(&small), REQUEST_RECORDS).len(), REQUEST_RECORDS);
        let large: Vec<_> = keys.iter().take(8).map(|key| (key.as_str(), RECORD_BYTES - 1, false)).collect();
        assert_eq!(choose(&queue(&large), REQUEST_RECORDS), [0, 1, 2, 3, 4]);
        let done: Vec<_> = keys.iter().map(|key| (key.as_str(), 1, true)).collect();
        assert!(choose(&queue(&done), REQUEST_RECORDS).is_empty(), "beyond the window nothing goes");
    }
}
