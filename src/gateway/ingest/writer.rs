//! The writer of a topic: one thread, before it a bounded queue.
//!
//! ```text
//!  requests ─► queue ─► thread ─► known already? ─► append what is missing ─► when durable ─► answers
//! ```
//!
//! The thread does not wait for the disk: it appends one request after the other, and the log's group commit tells
//! each of them when its records are durable. Cost: a few microseconds a request.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use levada_connectors::log::{LogError, RecordIn, SyncPolicy, TopicWriter, partition_of};
use tokio::sync::oneshot;

use super::events::Event;
use super::window::{RequestKey, Share, Window};
use super::{KEY_HEADER, REQUEST_HEADER};

/// The most requests that wait before the writer of a topic; further ones are sent away.
pub const QUEUE_REQUESTS: usize = 1024;
/// How often the disk is asked at most: clients wait for it, so oftener than for a job's output.
pub const SYNC: SyncPolicy = SyncPolicy::Interval(Duration::from_millis(1));

/// The records of a request, to be appended.
#[derive(Debug)]
pub struct Append {
    /// What the events point into.
    pub body: Bytes,
    /// The events.
    pub events: Vec<Event>,
    /// The request's key, if it has one.
    pub key: Option<RequestKey>,
}

/// Where a request's records are, durably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// By partition: its number, the first offset and the one after the last.
    pub parts: Vec<(u32, u64, u64)>,
    /// Whether some of it was there before.
    pub repeated: bool,
}

/// Why a request's records were not appended.
#[derive(Debug)]
pub enum NotAppended {
    /// The key was used for another request.
    KeyReused,
    /// The log refused.
    Log(LogError),
}

/// What becomes of a request.
pub type Outcome = Result<Appended, NotAppended>;

type Job = (Append, oneshot::Sender<Outcome>);

/// The queue before a topic's writer.
#[derive(Debug)]
pub struct Queue {
    sender: Mutex<Option<SyncSender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    windows: Arc<Mutex<Vec<Window>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// When the operating system refuses it.
    pub fn start(writers: TopicWriter, windows: Vec<Window>) -> std::io::Result<Queue> {
        let (sender, receiver) = sync_channel(QUEUE_REQUESTS);
        let windows = Arc::new(Mutex::new(windows));
        let known = Arc::clone(&windows);
        let thread = std::thread::Builder::new().name("levada-ingest".to_owned());
        let thread = thread.spawn(move || write(&writers, &receiver, &known))?;
        Ok(Queue { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)), windows })
    }

    /// Whether a request with this key was appended, or a part of it.
    pub fn knows(&self, key: &RequestKey) -> bool {
        let found = |share: &Share| share.fingerprint == key.fingerprint;
        lock(&self.windows).iter().any(|window| window.find(key.hash()).as_ref().is_some_and(found))
    }

    /// Puts a request into the queue; `None` when that is full, or the gateway stops.
    pub fn push(&self, append: Append) -> Option<oneshot::Receiver<Outcome>> {
        let (answer, outcome) = oneshot::channel();
        match lock(&self.sender).as_ref()?.try_send((append, answer)) {
            Ok(()) => Some(outcome),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }

    /// Waits until what is in the queue is written and durable, and ends the thread.
    pub fn close(&self) {
        drop(lock(&self.sender).take());
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of a topic ended with a panic");
        }
    }
}

/// The thread: until the queue is closed and empty. Dropping the writers makes all durable.
fn write(writers: &TopicWriter, receiver: &Receiver<Job>, windows: &Mutex<Vec<Window>>) {
    let mut turn = 0;
    while let Ok((append, answer)) = receiver.recv() {
        let written = append.write(writers, &mut lock(windows), &mut turn);
        match written {
            Ok(appended) => when_durable(writers, appended, answer),
            // A client that has gone away wants no answer.
            Err(error) => drop(answer.send(Err(error))),
        }
    }
}

impl Append {
    fn write(
        &self,
        writers: &TopicWriter,
        windows: &mut [Window],
        turn: &mut u64,
    ) -> Result<Appended, NotAppended> {
        let request = self.key.as_ref().map(|key| (key, key.hash()));
        if let Some((key, hash)) = request
            && windows
                .iter()
                .filter_map(|window| window.find(hash))
                .any(|share| share.fingerprint != key.fingerprint)
        {
            return Err(NotAppended::KeyReused);
        }
        let mut appended = Appended { parts: Vec::new(), repeated: false };
        let shares = self.shares(writers.partitions(), request.map(|(_, hash)| hash), turn);
        for ((partition, share), window) in (0..).zip(shares).zip(windows) {
            if share.is_empty() {
                continue;
            }
            if let Some(known) = request.and_then(|(_, hash)| window.find(hash)) {
                appended.parts.push((partition, known.first, known.next));
                appended.repeated = true;
                continue;
            }
            let writer = writers.partition(partition).map_err(NotAppended::Log)?;
            let done = self.append(&share, |records| writer.append(records)).map_err(NotAppended::Log)?;
            if let Some((key, hash)) = request {
                let share = Share { first: done.first, next: done.next, fingerprint: key.fingerprint };
                window.add(hash, share);
            }
            window.move_to(done.next);
            appended.parts.push((partition, done.first, done.next));
        }
        Ok(appended)
    }

    /// Which events each partition gets. With a key that depends on the request alone, so that a repetition finds
    /// what is there.
    fn shares(&self, partitions: u32, request: Option<u128>, turn: &mut u64) -> Vec<Vec<&Event>> {
        let mut shares = vec![Vec::new(); partitions as usize];
        for event in &self.events {
            let partition = match (&event.key, request) {
                _ if partitions == 1 => 0,
                (Some(key), _) => partition_of(key, partitions),
                (None, Some(request)) => {
                    ((request as u64).wrapping_add(event.index as u64) % u64::from(partitions)) as u32
                }
                (None, None) => {
                    *turn += 1;
                    ((*turn - 1) % u64::from(partitions)) as u32
                }
            };
            if let Some(share) = shares.get_mut(partition as usize) {
                share.push(event);
            }
        }
        shares
    }

    /// Hands the records of some events to `append`.
    fn append<T>(&self, share: &[&Event], append: impl FnOnce(&[RecordIn<'_>]) -> T) -> T {
        let of = share.len() as u32;
        let marks: Vec<Option<(&str, [u8; 16])>> = (0..of)
            .map(|place| self.key.as_ref().map(|key| (key.text.as_str(), key.mark(place, of))))
            .collect();
        let headers: Vec<Vec<(&str, &[u8])>> = share
            .iter()
            .zip(&marks)
            .map(|(event, mark)| {
                let own = event.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
                let marks = mark.iter().flat_map(|(key, mark)| {
                    [(KEY_HEADER, key.as_bytes()), (REQUEST_HEADER, mark.as_slice())]
                });
                own.chain(marks).collect()
            })
            .collect();
        let records: Vec<RecordIn<'_>> = share
            .iter()
            .zip(&headers)
            .map(|(event, headers)| RecordIn {
                timestamp_ms: event.time_ms,
                key: event.key.as_deref(),
                headers,
                value: self.body.get(event.value.clone()).unwrap_or_default(),
            })
            .collect();
        append(&records)
    }
}

/// Answers once all parts are on the disk, or one cannot be.
fn when_durable(writers: &TopicWriter, appended: Appended, answer: oneshot::Sender<Outcome>) {
    let parts = appended.parts.clone();
    let waiting = Arc::new(Mutex::new((parts.len(), Some((answer, appended)))));
    for (partition, _, next) in parts {
        let waiting = Arc::clone(&waiting);
        let then = move |durable: Result<(), LogError>| {
            let mut state = lock(&waiting);
            let (missing, answer) = &mut *state;
            *missing -= 1;
            if (*missing == 0 || durable.is_err())
                && let Some((answer, appended)) = answer.take()
            {
                // A client that has gone away wants no answer.
                drop(answer.send(durable.map(|()| appended).map_err(NotAppended::Log)));
            }
        };
        match writers.partition(partition) {
            Ok(writer) => writer.when_durable(next, then),
            Err(error) => then(Err(error)),
        }
    }
}
