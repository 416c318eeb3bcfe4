//! A topic followed: one tailer a partition encodes every new record once, for all streams.
//!
//! ```text
//!   Topic::subscribe ──wakes──► tailer ──reads, encodes──► ring of the partition ──wakes──► streams
//! ```
//!
//! A feed lives while a stream holds it; nobody watching costs nothing. It begins at the end of the topic:
//! what came before is in the log, where streams read it themselves. When a partition cannot be followed any
//! more (deleted, damaged), the feed fails: its streams end, their clients come back with their cursors, and a
//! new feed is opened.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use levada_connectors::log::{Fetched, Log, LogError, Reader, Start, Subscription, Topic};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::envelope::write_envelope;
use super::ring::Ring;

/// A tailer reads this much at once.
const READ_BYTES: usize = 1 << 20;
const READ_RECORDS: usize = 8192;
/// However many partitions share the bound of a topic, each gets this.
const MIN_RING_BYTES: usize = 64 << 10;
/// Without a notification a tailer looks this often: for appends that were noticed by nobody.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// The same where the operating system refused to watch the folder.
const POLL_EVERY: Duration = Duration::from_millis(250);

/// A topic that is being followed.
#[derive(Debug)]
pub struct Feed {
    topic: Topic,
    rings: Vec<RwLock<Ring>>,
    listeners: Mutex<Vec<Arc<Notify>>>,
    failed: AtomicBool,
    tailers: Mutex<Vec<AbortHandle>>,
}

impl Feed {
    /// The topic.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Whether it cannot go on.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// What one partition's ring has, while it stands still.
    pub fn with_ring<T>(&self, partition: usize, look: impl FnOnce(&Ring) -> T) -> Option<T> {
        let ring = self.rings.get(partition)?;
        Some(look(&ring.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The bytes in its rings, and how many records the rings lag behind the topic.
    ///
    /// # Errors
    /// When a partition cannot be read.
    pub fn state(&self) -> Result<(usize, u64), LogError> {
        let (mut bytes, mut lag) = (0, 0);
        for partition in 0..self.topic.partitions() {
            let end = self.topic.bounds(partition)?.next;
            if let Some((held, next)) = self.with_ring(partition as usize, |ring| (ring.bytes(), ring.next()))
            {
                bytes += held;
                lag += end.saturating_sub(next);
            }
        }
        Ok((bytes, lag))
    }

    /// Wakes `notify` whenever there is more, until the listener is dropped.
    pub fn listen(self: &Arc<Self>, notify: &Arc<Notify>) -> Listener {
        lock(&self.listeners).push(Arc::clone(notify));
        Listener { feed: Arc::clone(self), notify: Arc::clone(notify) }
    }

    fn wake_all(&self) {
        for listener in lock(&self.listeners).iter() {
            listener.notify_one();
        }
    }

    fn fail(&self, error: &LogError) {
        tracing::warn!(topic = self.topic.name(), %error, "a topic cannot be followed any more");
        self.failed.store(true, Ordering::Release);
        self.wake_all();
    }

    /// Starts following. Blocks a little.
    fn open(
        topic: Topic,
        ring_bytes: usize,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Arc<Feed>, LogError> {
        let limit = (ring_bytes / topic.partitions().max(1) as usize).max(MIN_RING_BYTES.min(ring_bytes));
        let (mut rings, mut tails) = (Vec::new(), Vec::new());
        for partition in 0..topic.partitions() {
            let wake = Arc::new(Notify::new());
            let waker = Arc::clone(&wake);
            let heard = topic.subscribe(partition, move || waker.notify_one());
            if let Err(error) = &heard {
                tracing::warn!(topic = topic.name(), partition, %error, "a partition is polled instead");
            }
            let reader = topic.reader(partition, Start::End)?;
            rings.push(RwLock::new(Ring::new(reader.position(), limit)));
            tails.push(Tailer { partition, reader, wake, heard: heard.ok() });
        }
        let feed = Arc::new(Feed {
            topic,
            rings,
            listeners: Mutex::default(),
            failed: AtomicBool::new(false),
            tailers: Mutex::default(),
        });
        for tailer in tails {
            let task = runtime.spawn(tailer.run(Arc::downgrade(&feed)));
            lock(&feed.tailers).push(task.abort_handle());
        }
        Ok(feed)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        for tailer in lock(&self.tailers).drain(..) {
            tailer.abort();
        }
    }
}

/// A stream's ear on a feed, and its hold on it.
#[derive(Debug)]
pub struct Listener {
    feed: Arc<Feed>,
    notify: Arc<Notify>,
}

impl Listener {
    /// What it listens to.
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut listeners = lock(&self.feed.listeners);
        if let Some(place) = listeners.iter().position(|other| Arc::ptr_eq(other, &self.notify)) {
            listeners.swap_remove(place);
        }
    }
}

/// Follows one partition.
struct Tailer {
    partition: u32,
    reader: Reader,
    wake: Arc<Notify>,
    heard: Option<Subscription>,
}

impl Tailer {
    async fn run(self, feed: Weak<Feed>) {
        let Tailer { partition, mut reader, wake, heard } = self;
        let pause = if heard.is_some() { LOOK_EVERY } else { POLL_EVERY };
        loop {
            let Some(topic) = feed.upgrade().map(|feed| feed.topic.name().to_owned()) else { return };
            let read = tokio::task::spawn_blocking(move || {
                let frames = reader
                    .read(READ_RECORDS, READ_BYTES)
                    .map(|fetched| encode_frames(&topic, partition, &fetched));
                (reader, frames)
            });
            let Ok((back, frames)) = read.await else { return };
            reader = back;
            let Some(feed) = feed.upgrade() else { return };
            match frames {
                Err(error) => return feed.fail(&error),
                Ok(frames) if frames.is_empty() => {
                    drop(feed);
                    // Whether woken or not, look: that is what a lost notification costs.
                    let _ = tokio::time::timeout(pause, wake.notified()).await;
                }
                Ok(frames) => {
                    if let Some(ring) = feed.rings.get(partition as usize) {
                        let mut ring = ring.write().unwrap_or_else(PoisonError::into_inner);
                        frames.into_iter().for_each(|frame| ring.push(frame));
                    }
                    feed.wake_all();
                }
            }
        }
    }
}

/// Each record as the `data` of an event and the blank line that ends it; all share one block.
fn encode_frames(topic: &str, partition: u32, fetched: &Fetched) -> Vec<Bytes> {
    let (mut block, mut ends) = (Vec::with_capacity(fetched.bytes() * 2), Vec::with_capacity(fetched.len()));
    for record in fetched {
        write_data(&mut block, topic, partition, &record);
        ends.push(block.len());
    }
    let mut rest = BytesMut::from(Bytes::from(block));
    let mut start = 0;
    ends.into_iter()
        .map(|end| {
            let frame = rest.split_to(end - start).freeze();
            start = end;
            frame
        })
        .collect()
}

/// The lines of an event that hold a record.
pub fn write_data(
    out: &mut Vec<u8>,
    topic: &str,
    partition: u32,
    record: &levada_connectors::log::RecordRef<'_>,
) {
    out.extend_from_slice(b"data: ");
    write_envelope(out, topic, partition, record);
    out.extend_from_slice(b"\n\n");
}

/// The feeds that are open.
#[derive(Debug)]
pub struct Feeds {
    log: Log,
    ring_bytes: usize,
    open: tokio::sync::Mutex<HashMap<String, Weak<Feed>>>,
}

impl Feeds {
    /// None open yet; a topic's rings will hold `ring_bytes`.
    pub fn new(log: Log, ring_bytes: usize) -> Feeds {
        Feeds { log, ring_bytes, open: tokio::sync::Mutex::default() }
    }

    /// The feed of a topic; None when there is no such topic (yet).
    ///
    /// # Errors
    /// When the topic cannot be read, or no topic can have that name.
    pub async fn get(&self, name: &str) -> Result<Option<Arc<Feed>>, LogError> {
        let mut open = self.open.lock().await;
        if let Some(feed) = open.get(name).and_then(Weak::upgrade).filter(|feed| !feed.has_failed()) {
            return Ok(Some(feed));
        }
        open.retain(|_, feed| feed.strong_count() > 0);
        let (log, bytes, wanted) = (self.log.clone(), self.ring_bytes, name.to_owned());
        let runtime = tokio::runtime::Handle::current();
        let opening = tokio::task::spawn_blocking(move || match log.topic(&wanted) {
            Ok(topic) => Feed::open(topic, bytes, &runtime).map(Some),
            Err(LogError::NoSuchTopic { .. }) => Ok(None),
            Err(error) => Err(error),
        });
        // The task can only fail with the runtime, and then there is nobody left to answer.
        let Ok(feed) = opening.await else { return Ok(None) };
        let feed = feed?;
        if let Some(feed) = &feed {
            open.insert(name.to_owned(), Arc::downgrade(feed));
        }
        Ok(feed)
    }

    /// Those that are open now.
    pub async fn all(&self) -> Vec<Arc<Feed>> {
        self.open.lock().await.values().filter_map(Weak::upgrade).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
