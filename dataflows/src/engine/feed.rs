//! Feeds: how the records of a partition that this worker owns reach the source operator.
//!
//! ```text
//!   history, where reading only copies:   reader ──► source operator, on the worker itself
//!   all else, and what comes live:        reader ──► feeder thread ──AHEAD chunks──► source operator
//!                                                      └─ wakes the process's source operators
//! ```
//!
//! A thread hides waiting. Where there is nothing to wait for, as in a local file, it would only take a core
//! from the workers, and a chunk would have to travel from that core's cache to theirs.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Relaxed, SeqCst},
    fence,
};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};
use levada_types::{Batch, ConnectorError, Offset, RawRecords, Read, RecordReader};

use super::clock::Stopwatch;

/// Chunks read ahead of the dataflow, a partition: enough to hide the reading, little enough memory.
const AHEAD: usize = 4;

/// How long a feeder waits for records before it looks around: whether to stop, whether idle.
const LOOK_AROUND: Duration = Duration::from_millis(50);
/// It waits that long at least.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// What a feed hands over.
#[derive(Debug)]
pub(super) enum Fed {
    /// Records: of the history, exactly as many as fit a chunk until its last.
    Chunk(RawRecords),
    /// The history has been read.
    HistoryEnd,
    /// Nothing came for the partition's idle time.
    Idle,
    /// The partition cannot be read.
    Failed(ConnectorError),
}

/// What a feed is to do.
pub(super) struct FeedPlan {
    /// For people.
    pub name: String,
    /// Where the history ends; `None` where reading finds out.
    pub history_end: Option<Offset>,
    /// Whether an earlier run has read it to its end.
    pub history_over: bool,
    /// Whether to stop at the end of the history.
    pub until_drained: bool,
    /// Whether live epochs of earlier runs come after it, before anything new is waited for.
    pub recorded: bool,
    /// After how long a silence to say so.
    pub idle: Option<Duration>,
    /// Set when the job is to stop.
    pub stop: Arc<AtomicBool>,
    /// Wakes the source operator.
    pub wake: Arc<dyn Fn() + Send + Sync>,
}

/// A partition being read.
pub(super) enum Feed {
    /// By the worker.
    Here(Box<Reading>),
    /// By a thread.
    Thread(Feeder),
    /// To its end.
    Over,
}

impl Feed {
    /// Begins to read. A thread, where there is one, wakes the source after a message that it waits for, and
    /// ends when the job is to stop, the feed is dropped or the partition is over.
    pub(super) fn start(reader: Box<dyn RecordReader>, plan: FeedPlan) -> Result<Feed, ConnectorError> {
        let history = History { end: plan.history_end, rest: None, over: plan.history_over };
        if history.over && !plan.lives_on() {
            return Ok(Feed::Over);
        }
        let at_once = reader.at_once();
        let reading = Reading { reader, plan, history };
        if at_once { Ok(Feed::Here(Box::new(reading))) } else { Feeder::start(reading).map(Feed::Thread) }
    }

    /// The next message, if there is one now; otherwise the source is woken when there is.
    pub(super) fn take(&mut self) -> Option<Fed> {
        let reading = match self {
            Feed::Thread(feeder) => return feeder.take(),
            Feed::Over => return None,
            Feed::Here(reading) => reading,
        };
        let fed = match reading.history.next(&mut *reading.reader, Duration::ZERO) {
            Ok(fed) => fed,
            Err(error) => Some(Fed::Failed(error)),
        };
        match &fed {
            Some(Fed::Chunk(_)) => return fed,
            Some(Fed::HistoryEnd) if reading.plan.lives_on() => {}
            Some(_) => {
                *self = Feed::Over;
                return fed;
            }
            None => {}
        }
        if fed.is_some() && reading.plan.recorded {
            return fed;
        }
        // From here on there is something to wait for.
        match self.go_live() {
            Ok(()) => fed,
            Err(error) => Some(Fed::Failed(error)),
        }
    }

    /// The next `count` records after the history, which were there in an earlier run, in one piece or several.
    /// Waits for them; nothing if the job is to stop meanwhile.
    pub(super) fn exactly(&mut self, count: usize) -> Result<Option<Vec<RawRecords>>, ConnectorError> {
        let mut pieces = Vec::new();
        let mut missing = count;
        while missing > 0 {
            let next = match self {
                Feed::Here(reading) => match reading.history.rest.take() {
                    Some(rest) => Some(rest),
                    None => match reading.reader.read(missing, Duration::ZERO)? {
                        Read::Records(records) => Some(records),
                        Read::Nothing | Read::CaughtUp | Read::End => None,
                    },
                },
                Feed::Thread(feeder) => match feeder.records() {
                    Ok(Some(records)) => Some(records),
                    Ok(None) => return Ok(None),
                    Err(Some(error)) => return Err(error),
                    Err(None) => None,
                },
                Feed::Over => None,
            };
            let Some(records) = next else {
                let has = count - missing;
                return Err(ConnectorError::configuration(format!(
                    "read {} again: {has} records are there of {count} that an earlier run took",
                    self.name()
                )));
            };
            let (records, rest) = split(records, missing);
            let rest = (!rest.is_empty()).then_some(rest);
            match self {
                Feed::Here(reading) => reading.history.rest = rest,
                Feed::Thread(feeder) => feeder.rest = rest,
                Feed::Over => {}
            }
            missing -= records.len();
            pieces.push(records);
        }
        Ok(Some(pieces))
    }

    /// For people.
    fn name(&self) -> &str {
        match self {
            Feed::Here(reading) => &reading.plan.name,
            Feed::Thread(feeder) => &feeder.name,
            Feed::Over => "a source that has ended",
        }
    }

    /// Waits for what comes from now on, on a thread.
    pub(super) fn go_live(&mut self) -> Result<(), ConnectorError> {
        match std::mem::replace(self, Feed::Over) {
            Feed::Here(reading) => *self = Feed::Thread(Feeder::start(*reading)?),
            other => *self = other,
        }
        Ok(())
    }
}

/// A partition's reader, and how far it is.
pub(super) struct Reading {
    reader: Box<dyn RecordReader>,
    plan: FeedPlan,
    history: History,
}

impl FeedPlan {
    /// Whether the partition is read on after its history.
    fn lives_on(&self) -> bool {
        !self.until_drained && self.history_end.is_some()
    }
}

/// The history of a partition, chunk by chunk.
struct History {
    end: Option<Offset>,
    /// What was read beyond it.
    rest: Option<RawRecords>,
    over: bool,
}

impl History {
    /// The next chunk, or that there is none; nothing if none came within `wait`.
    ///
    /// A file's reader never says "nothing"; a topic's history ends where nothing more is there, or where a
    /// record written since the job began turns up.
    fn next(&mut self, reader: &mut dyn RecordReader, wait: Duration) -> Result<Option<Fed>, ConnectorError> {
        if self.over {
            return Ok(Some(Fed::HistoryEnd));
        }
        match reader.read(Batch::MAX_ROWS, wait)? {
            Read::Records(records) => {
                let Some(Offset(end)) = self.end else { return Ok(Some(Fed::Chunk(records))) };
                let of_history = records.offsets.partition_point(|&offset| offset < end);
                self.over = records.offsets.last().is_some_and(|&last| last + 1 >= end);
                let (history, rest) = split(records, of_history);
                self.rest = (!rest.is_empty()).then_some(rest);
                Ok(Some(if history.is_empty() { Fed::HistoryEnd } else { Fed::Chunk(history) }))
            }
            Read::Nothing => Ok(None),
            Read::CaughtUp if self.end.is_none() => Ok(None),
            Read::CaughtUp | Read::End => {
                self.over = true;
                Ok(Some(Fed::HistoryEnd))
            }
        }
    }
}

/// A feeder's receiving end.
pub(super) struct Feeder {
    name: String,
    receiver: Receiver<Fed>,
    /// What was received and is not to be handed over yet.
    rest: Option<RawRecords>,
    stop: Arc<AtomicBool>,
    /// Whether the source found nothing when it last looked, and is to be woken.
    starving: Arc<AtomicBool>,
    /// Set when nobody receives any more: the thread may have nothing to send by which it would notice.
    dropped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feeder {
    fn start(mut reading: Reading) -> Result<Feeder, ConnectorError> {
        let (sender, receiver) = bounded(AHEAD);
        let (starving, dropped) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let to = Outlet {
            sender,
            stop: Arc::clone(&reading.plan.stop),
            dropped: Arc::clone(&dropped),
            awaited: Arc::clone(&starving),
            wake: Arc::clone(&reading.plan.wake),
        };
        let name = reading.plan.name.clone();
        let stop = Arc::clone(&reading.plan.stop);
        let thread = std::thread::Builder::new().name(format!("feed {name}")).spawn(move || {
            if let Err(error) = reading.feed(&to) {
                to.send(Fed::Failed(error));
            }
        });
        let thread = thread.map_err(|error| ConnectorError::outage(format!("start a thread: {error}")))?;
        Ok(Feeder { name, receiver, rest: None, stop, starving, dropped, thread: Some(thread) })
    }

    /// Waits for records: none if the job is to stop, and no error but `None` where none will come.
    fn records(&mut self) -> Result<Option<RawRecords>, Option<ConnectorError>> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        loop {
            match self.receiver.recv_timeout(LOOK_AROUND) {
                Ok(Fed::Chunk(records)) => return Ok(Some(records)),
                Ok(Fed::HistoryEnd | Fed::Idle) => {}
                Ok(Fed::Failed(error)) => return Err(Some(error)),
                Err(RecvTimeoutError::Timeout) if self.stop.load(Relaxed) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return if self.stop.load(Relaxed) { Ok(None) } else { Err(None) };
                }
            }
        }
    }

    fn take(&mut self) -> Option<Fed> {
        if let Some(rest) = self.rest.take() {
            return Some(Fed::Chunk(rest));
        }
        self.receiver.try_recv().ok().or_else(|| {
            self.starving.store(true, SeqCst);
            // Either the feeder sees that somebody waits, or what it sent before is seen here.
            fence(SeqCst);
            self.receiver.try_recv().ok()
        })
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        // Dropping the receiver first lets a feeder that waits for room go.
        let (_, receiver) = bounded(0);
        self.receiver = receiver;
        self.dropped.store(true, Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a feeder thread panicked");
        }
    }
}

struct Outlet {
    sender: Sender<Fed>,
    stop: Arc<AtomicBool>,
    dropped: Arc<AtomicBool>,
    awaited: Arc<AtomicBool>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Outlet {
    /// Whether nothing is wanted any more, as the job is to stop or has failed.
    fn is_over(&self) -> bool {
        self.stop.load(Relaxed) || self.dropped.load(Relaxed)
    }

    /// Hands over; false when nobody wants more.
    fn send(&self, mut fed: Fed) -> bool {
        loop {
            if self.is_over() {
                return false;
            }
            match self.sender.send_timeout(fed, LOOK_AROUND) {
                Ok(()) => {
                    fence(SeqCst);
                    if self.awaited.swap(false, SeqCst) {
                        (self.wake)();
                    }
                    return true;
                }
                Err(SendTimeoutError::Timeout(back)) => fed = back,
                Err(SendTimeoutError::Disconnected(_)) => return false,
            }
        }
    }
}

impl Reading {
    /// What a thread does: what is left of the history, then what comes live.
    fn feed(&mut self, to: &Outlet) -> Result<(), ConnectorError> {
        let told_already = self.history.over;
        while !self.history.over {
            match self.history.next(&mut *self.reader, LOOK_AROUND)? {
                Some(Fed::HistoryEnd) => break,
                Some(fed) => {
                    if !to.send(fed) {
                        return Ok(());
                    }
                }
                None => {
                    if to.is_over() {
                        return Ok(());
                    }
                }
            }
        }
        if !told_already && !to.send(Fed::HistoryEnd) || !self.plan.lives_on() {
            return Ok(());
        }
        if let Some(rest) = self.history.rest.take()
            && !to.send(Fed::Chunk(rest))
        {
            return Ok(());
        }
        self.live(to)
    }

    fn live(&mut self, to: &Outlet) -> Result<(), ConnectorError> {
        let mut silence = Stopwatch::start();
        let mut said = false;
        loop {
            // A shorter silence than that is told of when it is over.
            let idle = self.plan.idle.filter(|_| !said);
            let wait = idle.map_or(LOOK_AROUND, |idle| {
                LOOK_AROUND.min(idle.saturating_sub(silence.elapsed()).max(SHORTEST_WAIT))
            });
            match self.reader.read(Batch::MAX_ROWS, wait)? {
                Read::Records(records) => {
                    if !to.send(Fed::Chunk(records)) {
                        return Ok(());
                    }
                    silence = Stopwatch::start();
                    said = false;
                }
                read @ (Read::Nothing | Read::CaughtUp) => {
                    if to.is_over() {
                        return Ok(());
                    }
                    // What is out of reach is not silent.
                    let silent = matches!(read, Read::CaughtUp) && !said;
                    if silent && self.plan.idle.is_some_and(|idle| silence.elapsed() >= idle) {
                        said = true;
                        if !to.send(Fed::Idle) {
                            return Ok(());
                        }
                    }
                }
                Read::End => return Ok(()),
            }
        }
    }
}

/// The first `count` records and the others.
fn split(mut records: RawRecords, count: usize) -> (RawRecords, RawRecords) {
    if count >= records.len() {
        return (records, RawRecords::default());
    }
    let rest = records.split_off(count);
    (records, rest)
}
