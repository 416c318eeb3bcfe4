//! A stream of events to one client: a cursor over the topics' rings and logs.
//!
//! ```text
//!             ┌ offset in the ring ──────► frames of the ring ─┐
//!   partition ┤                                                ├─► chunk (64 KiB) ─► client, at its own pace
//!             └ older than the ring ─► reads the log, encodes ─┘
//! ```
//!
//! The stream holds, for every partition, the offset of the next record; whether that comes from the ring or
//! from the log is decided anew each time, so there is nothing between history and live that could be lost or
//! sent twice. It makes a chunk when the client has taken the last one: a slow client costs one chunk and no
//! queue. Partitions take turns. Every event carries the cursor after it as its `id`.
//!
//! Besides records (`event` absent: `message`) there is `event: control`, a JSON object whose `kind` is
//! `opened` (first of all: the cursor, whether it resumed exactly and, if not, why), `appeared` (a topic that
//! was waited for), `gap` (retention overtook a slow client) or `failed` (the stream ends after it).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use levada_connectors::log::{Bounds, LogError, Reader};
use serde_json::{Value, json};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use super::Shared;
use super::begin::{Begin, Jump, first_offsets};
use super::behind::{read_log, write_id};
use super::cursor::{Cursor, CursorText, cursor_name, cursor_text};
use super::feed::Listener;
use super::metrics::OfTopic;
use super::ring::Look;

/// A chunk is sent once it has this much.
const CHUNK_BYTES: usize = 64 << 10;
/// How often a topic that is not there yet is looked for.
const APPEAR_EVERY: Duration = Duration::from_millis(250);
/// How soon a client should come back; it may wait longer.
const RETRY_MS: u32 = 1000;

/// A topic of a stream.
struct Place {
    name: String,
    /// What the cursor calls it: the name, and when it was created.
    in_cursor: String,
    from: Begin,
    label: OfTopic,
    /// None while there is no such topic.
    listener: Option<Listener>,
    /// The next record's offset, by partition.
    next: Vec<u64>,
    /// By partition: the reader of the log, while it is behind the ring.
    behind: Vec<Option<Reader>>,
}

/// The state of a stream.
pub struct Events {
    shared: Arc<Shared>,
    places: Vec<Place>,
    cursor: Option<Cursor>,
    notify: Arc<Notify>,
    stopping: tokio::sync::watch::Receiver<bool>,
    /// What to send before anything else.
    urgent: Option<String>,
    /// Which topic and partition has its turn.
    turn: (usize, usize),
    ends: bool,
    _permit: OwnedSemaphorePermit,
    _counted: StreamCount,
}

/// Counts a stream as long as it is there.
struct StreamCount(Arc<Shared>);

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.0.metrics.streams.dec();
    }
}

impl Events {
    /// A stream of these topics. The topics that are there are opened; the others are waited for.
    ///
    /// # Errors
    /// When a topic cannot be read.
    pub async fn open(
        shared: Arc<Shared>,
        topics: Vec<(String, Begin)>,
        cursor: Option<Cursor>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Events, LogError> {
        shared.metrics.streams.inc();
        let counted = StreamCount(Arc::clone(&shared));
        let stopping = shared.stopping.subscribe();
        let places = topics
            .into_iter()
            .map(|(name, from)| Place {
                label: OfTopic { topic: name.clone() },
                in_cursor: name.clone(),
                name,
                from,
                listener: None,
                next: Vec::new(),
                behind: Vec::new(),
            })
            .collect();
        let mut events = Events {
            shared,
            places,
            cursor,
            notify: Arc::new(Notify::new()),
            stopping,
            urgent: None,
            turn: (0, 0),
            ends: false,
            _permit: permit,
            _counted: counted,
        };
        let mut jumps = Vec::new();
        for index in 0..events.places.len() {
            jumps.extend(events.look_for(index).await?.unwrap_or_default());
        }
        // A topic that comes later is new: all of it came after the client asked.
        let waiting: Vec<&str> = events.waiting().map(|place| place.name.as_str()).collect();
        let mut opened = json!({ "kind": "opened", "cursor": events.cursor_text(), "waiting": waiting });
        if events.cursor.is_some() {
            opened["resumed"] = jumps.is_empty().into();
            if !jumps.is_empty() {
                events.shared.metrics.not_resumed.inc();
            }
        }
        if !jumps.is_empty() {
            opened["jumps"] = jumps.into();
        }
        for place in events.places.iter_mut().filter(|place| place.listener.is_none()) {
            place.from = Begin::Beginning;
        }
        let text = format!("retry: {RETRY_MS}\n{}", events.control(&opened));
        events.urgent = Some(text);
        Ok(events)
    }

    /// The chunks, until the gateway stops or a topic fails.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + Sync + 'static {
        unfold(self, |mut events| async move {
            let chunk = events.chunk().await?;
            Some((Ok(chunk), events))
        })
    }

    fn waiting(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| place.listener.is_none())
    }

    fn cursor_text(&self) -> String {
        cursor_text(self.places.iter().map(|place| (place.in_cursor.as_str(), place.next.as_slice())))
    }

    fn control(&self, what: &Value) -> String {
        format!("event: control\nid: {}\ndata: {what}\n\n", self.cursor_text())
    }

    /// Opens a topic if it is there, and finds where to begin; None while it is not there.
    async fn look_for(&mut self, index: usize) -> Result<Option<Vec<Value>>, LogError> {
        let Some(place) = self.places.get_mut(index) else { return Ok(None) };
        let Some(feed) = self.shared.feeds.get(&place.name).await? else { return Ok(None) };
        let listener = feed.listen(&self.notify);
        let (topic, from) = (feed.topic().clone(), place.from);
        place.in_cursor = cursor_name(&place.name, topic.created_ms());
        let known = self.cursor.as_ref().and_then(|cursor| cursor.topic(&place.name)).cloned();
        let (next, jumps) = blocking(move || first_offsets(&topic, from, known.as_ref())).await?;
        place.behind = next.iter().map(|_| None).collect();
        place.next = next;
        let jumps = jumps.into_iter().map(|jump| jump.to_json(&place.name)).collect();
        place.listener = Some(listener);
        Ok(Some(jumps))
    }

    /// The next piece to send; None when the stream ends.
    async fn chunk(&mut self) -> Option<Bytes> {
        let heartbeat = Instant::now() + self.shared.heartbeat;
        loop {
            if let Some(text) = self.urgent.take() {
                return Some(Bytes::from(text));
            }
            if self.ends || *self.stopping.borrow() {
                return None;
            }
            let chunk = match self.gather().await {
                Ok(chunk) => chunk,
                Err(error) => {
                    self.fail(&error);
                    continue;
                }
            };
            if !chunk.is_empty() {
                return Some(chunk.into());
            }
            if self.urgent.is_some() || self.ends {
                continue;
            }
            let waits = self.waiting().next().is_some();
            let until = if waits { heartbeat.min(Instant::now() + APPEAR_EVERY) } else { heartbeat };
            tokio::select! {
                () = self.notify.notified() => {}
                _ = self.stopping.changed() => {}
                () = tokio::time::sleep_until(until) => {
                    if Instant::now() >= heartbeat {
                        return Some(Bytes::from_static(b": heartbeat\n\n"));
                    }
                    self.look_for_waiting().await;
                }
            }
        }
    }

    async fn look_for_waiting(&mut self) {
        for index in 0..self.places.len() {
            if self.places.get(index).is_none_or(|place| place.listener.is_some()) {
                continue;
            }
            match self.look_for(index).await {
                Ok(Some(jumps)) => {
                    let name = self.places.get(index).map(|place| place.name.as_str());
                    let appeared = json!({ "kind": "appeared", "topic": name, "jumps": jumps });
                    let text = self.control(&appeared);
                    self.urgent.get_or_insert_default().push_str(&text);
                }
                Ok(None) => {}
                Err(error) => return self.fail(&error),
            }
        }
    }

    fn fail(&mut self, error: &LogError) {
        tracing::warn!(%error, "an event stream ends");
        let text = self.control(&json!({ "kind": "failed", "reason": "the topic cannot be read any more" }));
        self.urgent.get_or_insert_default().push_str(&text);
        self.ends = true;
    }

    /// A chunk of what there is, beginning with whose turn it is; empty when there is nothing.
    async fn gather(&mut self) -> Result<Vec<u8>, LogError> {
        let turns: Vec<(usize, usize)> = (0..)
            .zip(&self.places)
            .flat_map(|(t, place)| (0..place.next.len()).map(move |p| (t, p)))
            .collect();
        let begin = turns.iter().position(|turn| *turn >= self.turn).unwrap_or(0);
        let mut chunk = Vec::new();
        for &(topic, partition) in turns.iter().cycle().skip(begin).take(turns.len()) {
            let room = CHUNK_BYTES.saturating_sub(chunk.len());
            if room == 0 {
                self.turn = (topic, partition);
                break;
            }
            self.turn = (topic, partition + 1);
            // A partition may take half of what is left, so that a busy one does not fill every chunk.
            if !self.take_from_ring(topic, partition, room.div_ceil(2), &mut chunk) {
                if !chunk.is_empty() {
                    self.turn = (topic, partition);
                    break;
                }
                chunk = self.take_from_log(topic, partition).await?;
                if !chunk.is_empty() {
                    break;
                }
            }
        }
        Ok(chunk)
    }

    /// Takes frames from the ring; false when the partition's offset is older than that.
    fn take_from_ring(&mut self, topic: usize, partition: usize, room: usize, chunk: &mut Vec<u8>) -> bool {
        let text = self.around(topic, partition);
        let Some(place) = self.places.get_mut(topic) else { return true };
        let (Some(listener), Some(next)) = (&place.listener, place.next.get_mut(partition)) else {
            return true;
        };
        if listener.feed().has_failed() {
            self.ends = true;
            return true;
        }
        let before = (*next, chunk.len());
        let in_ring = listener.feed().with_ring(partition, |ring| match ring.look(*next) {
            Look::Behind => false,
            Look::Frames(frames) => {
                for frame in frames {
                    *next += 1;
                    write_id(chunk, &text, *next);
                    chunk.extend_from_slice(frame);
                    if chunk.len() - before.1 >= room {
                        break;
                    }
                }
                true
            }
        });
        if in_ring == Some(true)
            && let Some(behind) = place.behind.get_mut(partition)
        {
            *behind = None;
        }
        let events = *next - before.0;
        if events > 0 {
            self.shared.metrics.events_sent.get_or_create(&place.label).inc_by(events);
            let bytes = (chunk.len() - before.1) as u64;
            self.shared.metrics.sent_bytes.get_or_create(&place.label).inc_by(bytes);
        }
        in_ring.unwrap_or(true)
    }

    /// Reads what is older than the ring. The bytes of one read of the log, encoded.
    async fn take_from_log(&mut self, topic: usize, partition: usize) -> Result<Vec<u8>, LogError> {
        let text = self.around(topic, partition);
        let Some(place) = self.places.get_mut(topic) else { return Ok(Vec::new()) };
        let (Some(listener), Some(next)) = (&place.listener, place.next.get_mut(partition)) else {
            return Ok(Vec::new());
        };
        let metrics = &self.shared.metrics;
        metrics.ring_fallback_reads.get_or_create(&place.label).inc();
        let reader = place.behind.get_mut(partition).and_then(Option::take);
        let feed = Arc::clone(listener.feed());
        let wanted = *next;
        let read = blocking(move || read_log(&feed, partition as u32, reader, wanted, &text)).await;
        match read {
            Ok((reader, chunk)) => {
                let position = reader.position();
                // Below the ring there are records, or the log has lost some.
                self.ends |= position == wanted;
                metrics.events_sent.get_or_create(&place.label).inc_by(position - wanted);
                metrics.sent_bytes.get_or_create(&place.label).inc_by(chunk.len() as u64);
                *next = position;
                if let Some(behind) = place.behind.get_mut(partition) {
                    *behind = Some(reader);
                }
                Ok(chunk)
            }
            Err(LogError::OffsetOutOfRange { first, next: end, .. }) if first > wanted => {
                *next = first;
                let held = Bounds { first, next: end };
                let jump =
                    Jump { partition: partition as u32, wanted, held, another: false }.to_json(&place.name);
                metrics.not_resumed.inc();
                let gap = json!({ "kind": "gap", "resumed": false, "jumps": [jump] });
                self.urgent = Some(self.control(&gap));
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    fn around(&self, topic: usize, partition: usize) -> CursorText {
        let places = self.places.iter().map(|place| (place.in_cursor.as_str(), place.next.as_slice()));
        CursorText::around(places, topic, partition)
    }
}

/// Runs what reads files off the threads that serve.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(LogError::Io {
            action: "read",
            path: std::path::PathBuf::from("topics"),
            source: std::io::Error::other(error),
        }),
    }
}
