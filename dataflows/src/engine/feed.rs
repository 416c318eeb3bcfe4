//! Feeders: a thread for each partition that this worker owns, reading ahead.
//!
//! ```text
//!   reader ──► feeder thread ──bounded channel, AHEAD chunks──► source operator
//!                └─ wakes the process's source operators
//! ```

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Relaxed, SeqCst},
    fence,
};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};
use levada_types::{Batch, ConnectorError, Offset, RawRecords, Read, RecordReader};

use super::clock::Stopwatch;

/// Chunks read ahead of the dataflow, a partition: enough to hide the reading, little enough memory.
const AHEAD: usize = 4;

/// How long a feeder waits for records before it looks around: whether to stop, whether idle.
const LOOK_AROUND: Duration = Duration::from_millis(50);

/// What a feeder hands over.
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

/// A feeder's receiving end.
pub(super) struct Feed {
    receiver: Receiver<Fed>,
    /// Whether the source found nothing when it last looked, and is to be woken.
    starving: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a feeder is to do.
pub(super) struct FeedPlan {
    /// Where the history ends; `None` where reading finds out.
    pub history_end: Option<Offset>,
    /// Whether to stop at the end of the history.
    pub until_drained: bool,
    /// After how long a silence to say so.
    pub idle: Option<Duration>,
}

impl Feed {
    /// Starts the thread. It calls `wake` after a message that somebody waits for, and ends when `stop` is set, the feed is
    /// dropped or the partition is over.
    pub(super) fn start(
        name: &str,
        mut reader: Box<dyn RecordReader>,
        plan: FeedPlan,
        stop: Arc<AtomicBool>,
        wake: impl Fn() + Send + 'static,
    ) -> std::io::Result<Feed> {
        let (sender, receiver) = bounded(AHEAD);
        let starving = Arc::new(AtomicBool::new(true));
        let awaited = Arc::clone(&starving);
        let thread = std::thread::Builder::new().name(format!("feed {name}")).spawn(move || {
            let to = Outlet { sender, stop, awaited, wake: &wake };
            if let Err(error) = feed(&mut *reader, &plan, &to) {
                to.send(Fed::Failed(error));
            }
        })?;
        Ok(Feed { receiver, starving, thread: Some(thread) })
    }

    /// The next message, if there is one now; otherwise the feeder will wake the source when there is.
    pub(super) fn take(&self) -> Option<Fed> {
        self.receiver.try_recv().ok().or_else(|| {
            self.starving.store(true, SeqCst);
            // Either the feeder sees that somebody waits, or what it sent before is seen here.
            fence(SeqCst);
            self.receiver.try_recv().ok()
        })
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // Dropping the receiver first lets a feeder that waits for room go.
        let (_, receiver) = bounded(0);
        self.receiver = receiver;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a feeder thread panicked");
        }
    }
}

struct Outlet<'a, W: Fn()> {
    sender: Sender<Fed>,
    stop: Arc<AtomicBool>,
    awaited: Arc<AtomicBool>,
    wake: &'a W,
}

impl<W: Fn()> Outlet<'_, W> {
    /// Hands over; false when nobody wants more.
    fn send(&self, mut fed: Fed) -> bool {
        loop {
            if self.stop.load(Relaxed) {
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

fn feed<W: Fn()>(
    reader: &mut dyn RecordReader,
    plan: &FeedPlan,
    to: &Outlet<'_, W>,
) -> Result<(), ConnectorError> {
    // A file's reader never says "nothing"; a topic's history ends where nothing more is there,
    // or where a record written since the job began turns up.
    let mut live_rest = None;
    loop {
        match reader.read(Batch::MAX_ROWS, LOOK_AROUND)? {
            Read::Records(records) => {
                let of_history = match plan.history_end {
                    Some(Offset(end)) => records.offsets.partition_point(|&offset| offset < end),
                    None => records.len(),
                };
                let last = records.offsets.last().copied();
                let (history, rest) = split(records, of_history);
                if !history.is_empty() && !to.send(Fed::Chunk(history)) {
                    return Ok(());
                }
                let over =
                    plan.history_end.is_some_and(|Offset(end)| last.is_some_and(|last| last + 1 >= end));
                if over || !rest.is_empty() {
                    live_rest = (!rest.is_empty()).then_some(rest);
                    break;
                }
            }
            Read::Nothing if plan.history_end.is_some() => break,
            Read::Nothing => {
                if to.stop.load(Relaxed) {
                    return Ok(());
                }
            }
            Read::End => break,
        }
    }
    if !to.send(Fed::HistoryEnd) || plan.until_drained || plan.history_end.is_none() {
        return Ok(());
    }
    if let Some(rest) = live_rest
        && !to.send(Fed::Chunk(rest))
    {
        return Ok(());
    }
    let mut silence = Stopwatch::start();
    let mut said = false;
    loop {
        match reader.read(Batch::MAX_ROWS, LOOK_AROUND)? {
            Read::Records(records) => {
                if !to.send(Fed::Chunk(records)) {
                    return Ok(());
                }
                silence = Stopwatch::start();
                said = false;
            }
            Read::Nothing => {
                if to.stop.load(Relaxed) {
                    return Ok(());
                }
                if !said && plan.idle.is_some_and(|idle| silence.elapsed() >= idle) {
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

/// The first `count` records and the others.
fn split(records: RawRecords, count: usize) -> (RawRecords, RawRecords) {
    if count >= records.len() {
        return (records, RawRecords::default());
    }
    let RawRecords { data, mut spans, mut offsets } = records;
    let rest =
        RawRecords { data: data.clone(), spans: spans.split_off(count), offsets: offsets.split_off(count) };
    (RawRecords { data, spans, offsets }, rest)
}
