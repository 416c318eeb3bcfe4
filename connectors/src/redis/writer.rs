//! The thread that writes a sink's epochs.
//!
//! ```text
//!  worker ──epochs──► queue, at most QUEUE_BYTES ──► thread ──► MULTI · XADD … · EXEC · WATCH fence · GET fence
//! ```
//!
//! As many epochs as wait go in one transaction, of which each is whole. When it is not known whether a transaction
//! was run, because the connection was lost, the last id of each stream tells, and what is not there is sent again.
//!
//! **The fence.** A sink that is opened writes a name of its own to the key `levada:writer:STREAM`. A transaction is
//! run only while that key is untouched since it was last seen to hold this name, so a process that was given up for
//! dead, and wakes up after another one has taken its place, writes nothing. Looking at the key goes with the
//! transaction before, and costs no round trip.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use levada_types::{ConnectorError, WhenDurable};
use redis::{Cmd, Value};

use super::EntryId;
use super::server::{Link, StreamInfo, executed, text, together, unexpected};
use crate::published::Rows;

/// Bytes of rows that wait to be written, beyond which `publish` waits. One epoch is always let in.
const QUEUE_BYTES: usize = 32 << 20;

/// Bytes of rows in a transaction, if they are of several epochs: the server does nothing else meanwhile, some 10 ms.
const TRANSACTION_BYTES: usize = 4 << 20;

/// How long the thread waits before it looks whether it is still wanted.
const LOOK_AROUND: Duration = Duration::from_millis(100);

/// How long a server is asked to wait for its replicas.
const REPLICAS_WITHIN_MS: u64 = 1000;

/// What counts for a row beyond its value and key: its time, its place, its names.
const ROW_BYTES: usize = 64;

/// Where a writer writes.
pub(super) struct Target {
    pub streams: Vec<String>,
    pub max_len: Option<u64>,
    /// So many replicas have a row before it is durable.
    pub replicas: u32,
    pub fence: String,
    pub token: String,
}

/// An epoch, encoded.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub epoch: u64,
    pub rows: Rows,
    /// Each row's stream.
    pub streams: Vec<u32>,
}

impl Encoded {
    fn id(&self, row: usize) -> EntryId {
        EntryId { ms: self.epoch, sequence: row as u64 + 1 }
    }

    fn bytes(&self) -> usize {
        self.rows.bytes() + self.rows.len() * ROW_BYTES
    }
}

enum Item {
    Epoch(Encoded),
    Tell(WhenDurable),
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Of the epochs that wait or are being written.
    bytes: usize,
    failed: Option<ConnectorError>,
    /// Nothing more comes.
    closing: bool,
    /// Nobody wants what waits any more.
    abandoned: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread's handle.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Begins; `last` is the last id of each stream, and nothing up to it is written.
    pub(super) fn start(link: Link, target: Target, last: Vec<EntryId>) -> Result<Writer, ConnectorError> {
        let shared = Arc::new(Shared::default());
        let mut its = Transactions { link, target, last, armed: false, shared: Arc::clone(&shared) };
        let name = format!("write {}", its.target.streams.first().map_or("", String::as_str));
        let thread = std::thread::Builder::new().name(name).spawn(move || its.run());
        let thread = thread.map_err(|error| ConnectorError::outage(format!("start a thread: {error}")))?;
        Ok(Writer { shared, thread: Some(thread) })
    }

    /// Hands over an epoch; waits while too much waits already.
    pub(super) fn write(&self, epoch: Encoded) -> Result<(), ConnectorError> {
        let mut queue = self.shared.lock();
        while queue.bytes > 0 && queue.bytes + epoch.bytes() > QUEUE_BYTES && queue.failed.is_none() {
            queue = self.shared.wait(queue);
        }
        if let Some(error) = &queue.failed {
            return Err(error.clone());
        }
        queue.bytes += epoch.bytes();
        queue.items.push_back(Item::Epoch(epoch));
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Has `then` called when everything handed over so far is written, or cannot be.
    pub(super) fn when_written(&self, then: WhenDurable) {
        let mut queue = self.shared.lock();
        if let Some(error) = queue.failed.clone() {
            drop(queue);
            return then(Err(error));
        }
        if self.thread.is_none() {
            drop(queue);
            return then(Ok(()));
        }
        queue.items.push_back(Item::Tell(then));
        self.shared.changed.notify_all();
    }

    /// Whether it can still write.
    pub(super) fn check(&self) -> Result<(), ConnectorError> {
        self.shared.lock().failed.clone().map_or(Ok(()), Err)
    }

    /// Waits until everything is written, and ends the thread.
    pub(super) fn close(&mut self) -> Result<(), ConnectorError> {
        self.shared.lock().closing = true;
        self.end();
        self.check()
    }

    fn end(&mut self) {
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            let error = ConnectorError::outage("write to Redis: the thread that does it panicked");
            self.shared.lock().failed.get_or_insert(error);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().abandoned = true;
        self.end();
    }
}

/// The thread.
struct Transactions {
    link: Link,
    target: Target,
    /// The last id of each stream that is known to be there.
    last: Vec<EntryId>,
    /// Whether the fence was seen to be ours, and is watched.
    armed: bool,
    shared: Arc<Shared>,
}

/// What came of a transaction.
enum Done {
    /// It was run.
    Written {
        /// Whether the fence was ours after it.
        ours: bool,
        /// How many replicas have it.
        replicas: u64,
    },
    /// Somebody has touched the fence.
    Fenced,
    /// An id was refused.
    Refused,
}

impl Transactions {
    fn run(&mut self) {
        let failed = loop {
            let (epochs, told) = {
                let mut queue = self.shared.lock();
                while queue.items.is_empty() && !queue.closing && !queue.abandoned {
                    queue = self.shared.wait(queue);
                }
                if queue.abandoned {
                    break self.link.wrong("it was not closed");
                }
                if queue.items.is_empty() {
                    return;
                }
                next(&mut queue.items)
            };
            if !epochs.is_empty()
                && let Err(error) = self.write(&epochs)
            {
                told.into_iter().for_each(|then| then(Err(error.clone())));
                break error;
            }
            self.shared.lock().bytes -= epochs.iter().map(Encoded::bytes).sum::<usize>();
            self.shared.changed.notify_all();
            told.into_iter().for_each(|then| then(Ok(())));
        };
        let waiting = {
            let mut queue = self.shared.lock();
            queue.failed = Some(failed.clone());
            std::mem::take(&mut queue.items)
        };
        self.shared.changed.notify_all();
        for item in waiting {
            if let Item::Tell(then) = item {
                then(Err(failed.clone()));
            }
        }
    }

    /// Writes epochs; tries until they are there.
    fn write(&mut self, epochs: &[Encoded]) -> Result<(), ConnectorError> {
        loop {
            if self.shared.lock().abandoned {
                return Err(self.link.wrong("it was not closed"));
            }
            let armed = self.armed && self.link.is_connected();
            if !armed && !self.arm(epochs)? {
                self.link.pause(LOOK_AROUND);
                continue;
            }
            let (additions, last) = self.additions(epochs);
            if additions.is_empty() {
                return self.confirm(self.target.replicas == 0);
            }
            let count = additions.len();
            let mut commands = vec![redis::cmd("MULTI")];
            commands.extend(additions);
            commands.push(redis::cmd("EXEC"));
            commands.push(self.wait_for_replicas());
            commands.extend(self.watch());
            let token = &self.target.token;
            let done = self.link.ask(|connection| {
                let mut replies = together(connection, &commands)?;
                let after = replies.split_off(count + 2);
                let Some(results) = executed(replies)? else { return Ok(Done::Fenced) };
                let mut refused = false;
                for result in results {
                    match result {
                        Value::ServerError(error) if is_refusal(&error) => refused = true,
                        Value::ServerError(error) => return Err(error.into()),
                        _ => {}
                    }
                }
                if refused {
                    return Ok(Done::Refused);
                }
                let [replicas, _, name] = after.as_slice() else {
                    return Err(unexpected("three more replies", &Value::Nil));
                };
                let replicas = if let Value::Int(count) = replicas { *count as u64 } else { 0 };
                Ok(Done::Written { ours: text(name) == Some(token), replicas })
            })?;
            match done {
                // Whether it was run is seen when the fence is looked at.
                None | Some(Done::Fenced) => self.armed = false,
                Some(Done::Refused) => return Err(self.somebody_else()),
                Some(Done::Written { ours, replicas }) => {
                    self.armed = ours;
                    self.last = last;
                    return self.confirm(replicas >= u64::from(self.target.replicas));
                }
            }
        }
    }

    /// The commands that add what is not there yet, and the last id of each stream after them.
    fn additions(&self, epochs: &[Encoded]) -> (Vec<Cmd>, Vec<EntryId>) {
        let mut last = self.last.clone();
        let mut additions = Vec::new();
        for epoch in epochs {
            for (number, (row, stream)) in epoch.rows.iter().zip(&epoch.streams).enumerate() {
                let (id, stream) = (epoch.id(number), *stream as usize);
                if id <= last[stream] {
                    continue;
                }
                last[stream] = id;
                let mut add = redis::cmd("XADD");
                add.arg(&self.target.streams[stream]);
                if let Some(length) = self.target.max_len {
                    add.arg("MAXLEN").arg("~").arg(length);
                }
                add.arg(id.to_string()).arg("value").arg(row.value);
                if let Some(key) = row.key {
                    add.arg("key").arg(key);
                }
                add.arg("time").arg(row.timestamp_ms);
                additions.push(add);
            }
        }
        (additions, last)
    }

    fn watch(&self) -> [Cmd; 2] {
        ["WATCH", "GET"].map(|name| {
            let mut command = redis::cmd(name);
            command.arg(&self.target.fence);
            command
        })
    }

    /// Asks for replicas, or how many there are, which costs nothing.
    fn wait_for_replicas(&self) -> Cmd {
        let mut wait = redis::cmd("WAIT");
        wait.arg(self.target.replicas).arg(REPLICAS_WITHIN_MS);
        wait
    }

    /// Watches the fence, sees that it is ours, and what the streams hold; false if the server is away.
    fn arm(&mut self, epochs: &[Encoded]) -> Result<bool, ConnectorError> {
        let mut commands = vec![redis::cmd("UNWATCH")];
        commands.extend(self.watch());
        commands.extend(self.target.streams.iter().map(|stream| StreamInfo::command(stream)));
        let looked = self.link.ask(|connection| {
            let mut replies = together(connection, &commands)?.into_iter().skip(2);
            let name = replies.next().unwrap_or_default();
            if let Value::ServerError(error) = name {
                return Err(error.into());
            }
            Ok((name, replies.map(StreamInfo::of).collect::<Result<Vec<_>, _>>()?))
        })?;
        let Some((name, infos)) = looked else { return Ok(false) };
        for ((stream, info), last) in self.target.streams.iter().zip(&infos).zip(&self.last) {
            if info.last < *last {
                return Err(self.link.damaged(format!(
                    "stream {stream} ended with {last} and ends with {} now: the server has lost what it had \
                     acknowledged (see `appendfsync`), or somebody has deleted it",
                    info.last
                )));
            }
        }
        match text(&name) {
            Some(name) if name == self.target.token => {}
            Some(_) => {
                return Err(self
                    .link
                    .wrong("another process has begun to write it since, and this one has lost the right"));
            }
            None => {
                return Err(self.link.damaged(format!(
                    "the key {} is not there any more: the server has lost it (see `appendfsync`), or somebody has \
                     deleted it",
                    self.target.fence
                )));
            }
        }
        let newest = |stream: u32| {
            let of =
                |epoch: &Encoded| epoch.streams.iter().rposition(|of| *of == stream).map(|row| epoch.id(row));
            epochs.iter().filter_map(of).max().unwrap_or_default()
        };
        for (number, (info, last)) in (0..).zip(infos.iter().zip(&mut self.last)) {
            if info.last > newest(number).max(*last) {
                return Err(self.somebody_else());
            }
            *last = info.last;
        }
        self.armed = true;
        Ok(true)
    }

    fn somebody_else(&self) -> ConnectorError {
        self.link.wrong(
            "somebody else adds entries to it, and a job's ids can no longer follow; a stream that a job writes is the \
             job's alone",
        )
    }

    /// Waits until enough replicas have what was written.
    fn confirm(&mut self, mut done: bool) -> Result<(), ConnectorError> {
        let mut said = false;
        while !done {
            if self.shared.lock().abandoned {
                return Err(self.link.wrong("it was not closed"));
            }
            // Replicas are waited for by what this connection has written, and it may be a new one.
            let mut touch = redis::cmd("SET");
            touch.arg(format!("{}:confirm", self.target.fence)).arg(1).arg("PX").arg(REPLICAS_WITHIN_MS);
            let commands = [touch, self.wait_for_replicas()];
            let replies = self.link.ask(|connection| together(connection, &commands))?;
            let replicas = match replies.as_deref() {
                Some([_, Value::Int(count)]) => *count as u64,
                Some(other) => {
                    let error = unexpected("a number of replicas", other.last().unwrap_or(&Value::Nil));
                    return Err(self.link.failed(&error));
                }
                None => {
                    self.armed = false;
                    self.link.pause(LOOK_AROUND);
                    continue;
                }
            };
            done = replicas >= u64::from(self.target.replicas);
            if !done && !said {
                tracing::warn!(
                    "{replicas} replicas have what was written to {}, and {} are waited for (`wait_replicas`)",
                    self.target.streams.join(", "),
                    self.target.replicas
                );
                said = true;
            }
        }
        Ok(())
    }
}

/// Epochs for one transaction, and who is to be told after it.
fn next(items: &mut VecDeque<Item>) -> (Vec<Encoded>, Vec<WhenDurable>) {
    let (mut epochs, mut told, mut bytes) = (Vec::new(), Vec::new(), 0);
    while let Some(item) = items.pop_front() {
        match item {
            Item::Epoch(epoch)
                if told.is_empty() && (epochs.is_empty() || bytes + epoch.bytes() <= TRANSACTION_BYTES) =>
            {
                bytes += epoch.bytes();
                epochs.push(epoch);
            }
            Item::Epoch(epoch) => {
                items.push_front(Item::Epoch(epoch));
                break;
            }
            Item::Tell(then) => told.push(then),
        }
    }
    (epochs, told)
}

/// Whether an id was refused because the stream's last one is not before it.
fn is_refusal(error: &redis::ServerError) -> bool {
    error.details().is_some_and(|why| why.contains("equal or smaller"))
}
