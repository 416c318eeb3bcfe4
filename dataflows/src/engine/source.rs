//! The source operator: cuts epochs, and hands out chunks of records to be decoded.
//!
//! One a worker, with one output a source. It holds one capability an output, at the epoch that is
//! open. First it reads the history, cut by the planner; then, unless the job ends there, it goes on
//! live, cut by the clock.
//!
//! Back pressure: while `in_flight` epochs are open nothing more is read: feeders fill their bounded
//! channels and wait, and so do the sources behind them.
//!
//! Alignment: a live partition that is known to be further ahead of the slowest in event time than is allowed is not
//! read until that has caught up, so that what a step holds back for the watermark has a bound: what lies between them,
//! and what was taken before it was known, at most some 4,096 records of a partition in each epoch in flight. The
//! history is read in step by the planner in any case, and what was recorded as it was recorded. What a job makes of its
//! records does not depend on it, only when it reads them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use levada_types::journal::{Recorded, Taken};
use levada_types::{Batch, RawRecords};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::{Scope, Stream};

use super::Shared;
use super::checkpoint::Trigger;
use super::clock::{Alarm, Stopwatch, live_epoch, until_after};
use super::epochs::{Board, LAG, Planner};
use super::feed::{Fed, Feed};
use super::watermark::Mark;
use crate::metrics::Metrics;
use crate::plan::EpochSettings;

/// Bytes that a live epoch takes at most; what is more waits for the next.
const LIVE_EPOCH_BYTES: usize = 64 << 20;

/// Chunks of the history that wait for a worker to decode them, a worker: enough that none runs dry while
/// another is busy with something else, and so few that they are still in the cache.
const DECODE_AHEAD: usize = 2;

/// How long a job goes on closing an epoch each interval after the last input.
const LINGER: Duration = Duration::from_secs(1);

/// How far behind the epochs that other workers may still open a job that is stopped makes its last checkpoint:
/// more than their clocks differ. (If they differ more, the checkpoint is only not the last word.)
const CLOSING_EPOCHS: u64 = 1000;

/// How long a job without input sleeps between epochs.
const IDLE_EPOCH: Duration = Duration::from_millis(100);

/// Some records of a partition, on their way to the worker that decodes them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RawChunk {
    pub target: usize,
    /// Whether the target is of the process that read it, which then counts what waits for decoding.
    pub stays: bool,
    /// Index over all partitions of the job.
    pub partition: usize,
    /// How many came from the partition before it.
    pub number: usize,
    #[serde(with = "raw")]
    pub records: RawRecords,
    pub mark: Mark,
    /// Whether it was cut by the clock, and is to be written down.
    pub live: bool,
}

/// Records as bincode sees them. Only runs between processes.
mod raw {
    use super::*;

    pub(super) fn serialize<S: Serializer>(records: &RawRecords, to: S) -> Result<S::Ok, S::Error> {
        (&records.data[..], &records.spans, &records.offsets, &records.headers).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<RawRecords, D::Error> {
        let (data, spans, offsets, headers) = <(Vec<u8>, _, _, _)>::deserialize(from)?;
        Ok(RawRecords { data: Bytes::from(data), spans, offsets, headers })
    }
}

/// A partition that this worker reads.
pub(super) struct OwnPartition {
    /// Index over all partitions of the job.
    pub partition: usize,
    /// Its source's index in the plan.
    pub source: usize,
    pub feed: Feed,
    /// Whether the end of its history has been handed out.
    pub ended: bool,
}

/// What the operator is made of.
pub(super) struct SourceSetup {
    /// How many sources the plan has.
    pub sources: usize,
    /// How many partitions the job has.
    pub partitions: usize,
    pub own: Vec<OwnPartition>,
    pub settings: EpochSettings,
    pub until_drained: bool,
    /// Whether what decides the output is written down.
    pub journal: bool,
    /// What earlier runs wrote down: their live epochs come after the history.
    pub recorded: Option<Arc<Recorded>>,
    /// Where this run goes on, if not with the first epoch.
    pub from: Option<GoOn>,
    /// Begins checkpoints, on the worker that does.
    pub checkpoints: Option<Arc<Trigger>>,
    pub board: Rc<RefCell<Board>>,
    pub probe: ProbeHandle<u64>,
    pub stop: Arc<AtomicBool>,
    pub shared: Arc<Shared>,
    pub metrics: Arc<Metrics>,
}

/// Where a run goes on.
#[derive(Clone, Debug)]
pub(super) struct GoOn {
    /// The first epoch.
    pub epoch: u64,
    /// How many chunks of each partition's history earlier runs have planned for.
    pub allotted: Vec<u64>,
}

/// Builds the operator on this worker; gives one stream a source, and the operator's address.
pub(super) fn sources<'scope>(
    scope: Scope<'scope, u64>,
    setup: SourceSetup,
) -> (Vec<Stream<'scope, u64, Vec<RawChunk>>>, Rc<[usize]>) {
    let mut builder = OperatorBuilder::new("Source".into(), scope);
    let (mut outputs, streams): (Vec<_>, Vec<_>) =
        (0..setup.sources).map(|_| builder.new_output::<Vec<RawChunk>>()).unzip();
    let address = builder.operator_info().address;
    let activator = scope.activator_for(Rc::clone(&address));
    let again = scope.activator_for(Rc::clone(&address));
    let peers = scope.peers();
    let first = scope.index() - scope.index() % setup.shared.decoding.workers();
    builder.build_reschedule(move |caps| {
        let chunks = setup.settings.backfill_chunks;
        let (first_epoch, planner) = match setup.from.clone() {
            None => (0, Planner::new(setup.partitions, chunks)),
            Some(GoOn { epoch, allotted }) => (epoch, Planner::restored(allotted, chunks)),
        };
        // A job that goes on at its very end has nothing more to tell.
        let last_mark = first_epoch.checked_sub(1);
        let mut source = Source {
            caps,
            epoch: 0,
            phase: Phase::History,
            since_mark: Stopwatch::start(),
            heard_at_mark: 0,
            last_mark,
            marked: false,
            took: Duration::ZERO,
            ahead: 0,
            due: None,
            planner,
            sent: vec![0; setup.partitions],
            open: VecDeque::new(),
            bytes: 0,
            taken: vec![0; setup.partitions],
            alarm: Alarm::new(activator),
            // One worker alone decodes what it has just read.
            decode_ahead: if peers == 1 { 1 } else { DECODE_AHEAD },
            dealer: Dealer { peers, first, shared: Arc::clone(&setup.shared) },
            setup,
        };
        source.advance(first_epoch);
        move |_| {
            let mut out: Vec<(usize, RawChunk)> = Vec::new();
            // What is sent carries the capability of the epoch in which it was taken, so it leaves
            // before the epoch moves on.
            loop {
                let go_on = source.turn(&mut out);
                for (index, chunk) in out.drain(..) {
                    outputs[index].activate().give(&source.caps[index], &mut vec![chunk]);
                }
                match go_on {
                    Turn::Again => {}
                    Turn::NextEpoch(epoch) => source.advance(epoch),
                    Turn::Wait => break,
                    Turn::LetDecode => {
                        again.activate();
                        break;
                    }
                    Turn::Over => {
                        source.caps.clear();
                        source.setup.own.clear();
                        break;
                    }
                }
            }
            // Stays for as long as it has epochs to see finished.
            !source.open.is_empty()
        }
    });
    (streams, address)
}

enum Phase {
    History,
    /// The live epochs of earlier runs, from this one on.
    Recorded(usize),
    Live,
    /// The job was stopped while it was live: waiting until every other worker has closed its last epoch, for a
    /// checkpoint behind all of them.
    Closing,
    Over,
}

enum Turn {
    /// Call again now.
    Again,
    /// Close this epoch, open that one, call again.
    NextEpoch(u64),
    /// Call again when something has changed.
    Wait,
    /// Call again when the others have had their turn.
    LetDecode,
    /// Close the input.
    Over,
}

struct Source {
    setup: SourceSetup,
    caps: Vec<Capability<u64>>,
    epoch: u64,
    phase: Phase,
    since_mark: Stopwatch,
    /// What the board had heard when the last checkpoint began.
    heard_at_mark: u64,
    /// The epoch of the last checkpoint.
    last_mark: Option<u64>,
    /// Whether there has been one in this run.
    marked: bool,
    /// How long the last epoch took that was finished.
    took: Duration,
    /// How far the numbers of live epochs are ahead of the clock's.
    ahead: u64,
    /// Chunks of each own partition still to come in this epoch of the history.
    due: Option<Vec<u32>>,
    planner: Planner,
    /// Chunks sent, a partition.
    sent: Vec<usize>,
    /// Epochs that hold something and are not finished everywhere.
    open: VecDeque<(u64, Stopwatch)>,
    /// Taken in this live epoch, in bytes,
    bytes: usize,
    /// and in records of each partition.
    taken: Vec<usize>,
    alarm: Alarm,
    decode_ahead: usize,
    dealer: Dealer,
}

/// Chooses who decodes.
struct Dealer {
    peers: usize,
    /// The first worker of this process.
    first: usize,
    shared: Arc<Shared>,
}

impl Dealer {
    /// The worker for a partition's chunk `number`: the processes take turns, and within this one it is whoever
    /// has the least to do. What a job gives does not depend on it.
    fn deal(&self, partition: usize, number: usize) -> (usize, bool) {
        let turn = (partition + number) % self.peers;
        let here = self.first..self.first + self.shared.decoding.workers();
        if !here.contains(&turn) {
            return (turn, false);
        }
        let (worker, _) = self.shared.decoding.least();
        self.shared.decoding.add(worker);
        (self.first + worker, true)
    }
}

impl Source {
    fn turn(&mut self, out: &mut Vec<(usize, RawChunk)>) -> Turn {
        self.note_finished();
        // An epoch of which a part is missing must not seem complete to another process.
        if self.setup.shared.has_failed() {
            return Turn::Wait;
        }
        if self.setup.stop.load(Relaxed) {
            match self.phase {
                Phase::History | Phase::Recorded(_) if self.setup.journal => {
                    // What is cut by the data or by the journal would be cut otherwise; it comes again.
                    self.setup.shared.abandon();
                    return Turn::Wait;
                }
                Phase::Live if self.setup.checkpoints.is_some() => {
                    self.phase = Phase::Closing;
                    return Turn::NextEpoch(self.epoch + CLOSING_EPOCHS);
                }
                Phase::Closing => {}
                _ => self.phase = Phase::Over,
            }
        }
        match self.phase {
            Phase::History => self.history(out),
            Phase::Recorded(next) => self.recorded(next, out),
            Phase::Live => self.live(out),
            Phase::Closing => {
                if self.setup.board.borrow().frontier < self.epoch {
                    return Turn::Wait;
                }
                self.phase = Phase::Over;
                Turn::Again
            }
            Phase::Over => self.over(out),
        }
    }

    /// Ends with a checkpoint, unless nothing has come since the last one.
    fn over(&mut self, out: &mut Vec<(usize, RawChunk)>) -> Turn {
        let Some(trigger) = self.setup.checkpoints.clone() else { return Turn::Over };
        let ends_behind = self.last_mark.is_none_or(|last| last < self.epoch.saturating_sub(1));
        if ends_behind && self.last_mark != Some(self.epoch) && self.setup.journal {
            self.mark(&trigger, out);
            return Turn::Again;
        }
        Turn::Over
    }

    /// Has the open epoch end with a checkpoint, if it is time for one.
    fn mark_if_due(&mut self, out: &mut Vec<(usize, RawChunk)>) {
        let Some(trigger) = self.setup.checkpoints.clone() else { return };
        let news = self.setup.board.borrow().heard != self.heard_at_mark;
        // Epochs of a history may take long, and several are opened at once: the next one to be opened may be far
        // away.
        let opened_rarely = self.took * self.setup.settings.in_flight as u32 >= trigger.every();
        let history = matches!(self.phase, Phase::History);
        let since = match history && (opened_rarely || !self.marked) {
            true => Duration::MAX,
            false => self.since_mark.elapsed(),
        };
        if trigger.is_due(since, news || history) {
            self.mark(&trigger, out);
        }
    }

    /// Has an epoch of its own end with a checkpoint, once the history has been read: what it has led to is a lot,
    /// and now nobody waits yet.
    fn mark_end_of_history(&mut self, out: &mut Vec<(usize, RawChunk)>) -> bool {
        let Some(trigger) = self.setup.checkpoints.clone() else { return false };
        let news = self.setup.board.borrow().heard != self.heard_at_mark;
        if self.setup.until_drained || !trigger.is_due(Duration::MAX, news) {
            return false;
        }
        self.opened();
        self.mark(&trigger, out);
        true
    }

    fn mark(&mut self, trigger: &Trigger, out: &mut Vec<(usize, RawChunk)>) {
        trigger.begin();
        self.since_mark = Stopwatch::start();
        self.last_mark = Some(self.epoch);
        self.marked = true;
        let mut board = self.setup.board.borrow_mut();
        self.heard_at_mark = board.heard;
        board.allotted.insert(self.epoch, self.planner.allotted().to_vec());
        // It goes the way of a chunk, so that it is heard of with the chunks of its epoch.
        let mark = RawChunk {
            target: self.dealer.first,
            stays: false,
            partition: 0,
            number: 0,
            records: RawRecords::default(),
            mark: Mark::Checkpoint,
            live: false,
        };
        out.push((0, mark));
    }

    fn history(&mut self, out: &mut Vec<(usize, RawChunk)>) -> Turn {
        let due = match self.due.take() {
            Some(due) => due,
            None => {
                if self.open.len() as u64 >= self.setup.settings.in_flight {
                    return Turn::Wait;
                }
                let known = match self.epoch.checked_sub(LAG) {
                    Some(epoch) => self.setup.board.borrow().after(epoch),
                    None => Some(self.setup.board.borrow().start()),
                };
                let Some(known) = known else { return Turn::Wait };
                let Some(plan) = self.planner.plan(&known) else {
                    if self.mark_end_of_history(out) {
                        return Turn::NextEpoch(self.epoch + 1);
                    }
                    self.phase = if self.setup.until_drained {
                        Phase::Over
                    } else {
                        Phase::Recorded(self.first_recorded())
                    };
                    return Turn::Again;
                };
                self.opened();
                self.mark_if_due(out);
                self.setup.own.iter().map(|own| plan[own.partition]).collect()
            }
        };
        let due = self.due.insert(due);
        let mut waiting = false;
        for (own, due) in self.setup.own.iter_mut().zip(due.iter_mut()) {
            // After the end of its history a partition waits for the others, and what it has live waits too.
            while *due > 0 && !own.ended {
                if self.setup.shared.decoding.least().1 >= self.decode_ahead {
                    return Turn::LetDecode;
                }
                let (records, mark) = match own.feed.take() {
                    None => {
                        waiting = true;
                        break;
                    }
                    Some(Fed::Chunk(records)) => (records, Mark::None),
                    Some(Fed::HistoryEnd) => (RawRecords::default(), Mark::HistoryEnd),
                    Some(Fed::Idle) => (RawRecords::default(), Mark::Idle),
                    Some(Fed::Failed(error)) => {
                        self.setup.shared.fail(error.into());
                        return Turn::Wait;
                    }
                };
                *due -= 1;
                own.ended = mark == Mark::HistoryEnd;
                out.push((own.source, chunk(own, records, mark, false, &mut self.sent, &self.dealer)));
            }
        }
        if waiting {
            return Turn::Wait;
        }
        self.due = None;
        Turn::NextEpoch(self.epoch + 1)
    }

    /// The place of the first recorded epoch that is not behind this run already.
    fn first_recorded(&self) -> usize {
        let recorded = self.setup.recorded.as_ref();
        recorded.map_or(0, |recorded| recorded.epochs.partition_point(|cut| cut.epoch < self.epoch))
    }

    /// An epoch of an earlier run, cut where it was cut then.
    fn recorded(&mut self, next: usize, out: &mut Vec<(usize, RawChunk)>) -> Turn {
        let recorded = self.setup.recorded.clone();
        let Some(cut) = recorded.as_ref().and_then(|recorded| recorded.epochs.get(next)) else {
            for own in &mut self.setup.own {
                if let Err(error) = own.feed.go_live() {
                    self.setup.shared.fail(error.into());
                    return Turn::Wait;
                }
            }
            self.phase = Phase::Live;
            self.setup.shared.live_from.fetch_min(self.epoch, Relaxed);
            // The clock may have been put back meanwhile, or the interval be another.
            self.ahead = self.epoch.saturating_sub(live_epoch(self.setup.settings.interval_ms));
            return Turn::Again;
        };
        if self.epoch < cut.epoch {
            return Turn::NextEpoch(cut.epoch);
        }
        if self.open.len() as u64 >= self.setup.settings.in_flight {
            return Turn::Wait;
        }
        self.opened();
        self.mark_if_due(out);
        for own in &mut self.setup.own {
            let taken = cut.taken.iter().filter(|(partition, _)| *partition == own.partition);
            for taken in taken.flat_map(|(_, taken)| taken) {
                let pieces = match *taken {
                    Taken::Idle => Ok(Some(vec![RawRecords::default()])),
                    Taken::Records(count) => own.feed.exactly(count),
                };
                let pieces = match pieces {
                    Ok(Some(pieces)) => pieces,
                    Ok(None) => {
                        // Half an epoch would be another one.
                        out.clear();
                        self.setup.shared.abandon();
                        return Turn::Wait;
                    }
                    Err(error) => {
                        self.setup.shared.fail(error.into());
                        return Turn::Wait;
                    }
                };
                let mark = if *taken == Taken::Idle { Mark::Idle } else { Mark::None };
                for records in pieces {
                    out.push((own.source, chunk(own, records, mark, false, &mut self.sent, &self.dealer)));
                }
            }
        }
        self.phase = Phase::Recorded(next + 1);
        Turn::NextEpoch(self.epoch + 1)
    }

    fn live(&mut self, out: &mut Vec<(usize, RawChunk)>) -> Turn {
        let interval = self.setup.settings.interval_ms;
        let now = live_epoch(interval) + self.ahead;
        if now > self.epoch {
            return Turn::NextEpoch(now);
        }
        let is_open = self.open.back().is_some_and(|(epoch, _)| *epoch == self.epoch);
        let may_take = is_open || (self.open.len() as u64) < self.setup.settings.in_flight;
        let mut took = false;
        if may_take {
            let aligned = self.setup.settings.align_ms.is_some();
            for own in &mut self.setup.own {
                if self.setup.board.borrow().ahead.get(own.partition) == Some(&true) {
                    // The end of an epoch that has brought the slowest on wakes the source.
                    continue;
                }
                while self.bytes < LIVE_EPOCH_BYTES {
                    // How far on that would be is not known yet.
                    if aligned && self.taken[own.partition] >= Batch::MAX_ROWS {
                        break;
                    }
                    let (records, mark) = match own.feed.take() {
                        None => break,
                        Some(Fed::Chunk(records)) => (records, Mark::None),
                        Some(Fed::HistoryEnd) => (RawRecords::default(), Mark::HistoryEnd),
                        Some(Fed::Idle) => (RawRecords::default(), Mark::Idle),
                        Some(Fed::Failed(error)) => {
                            self.setup.shared.fail(error.into());
                            return Turn::Wait;
                        }
                    };
                    self.bytes += records.data.len();
                    self.taken[own.partition] += records.len();
                    out.push((own.source, chunk(own, records, mark, true, &mut self.sent, &self.dealer)));
                    took = true;
                }
            }
        }
        if took && !is_open {
            self.opened();
        }
        if may_take {
            self.mark_if_due(out);
        }
        // The epoch must close soon if anybody's holds something; otherwise it may take its time.
        if took {
            self.setup.shared.note_busy(self.epoch);
        }
        let lingers = LINGER.as_millis() as u64 / interval.max(1);
        let busy = self.epoch <= self.setup.shared.busy_epoch().saturating_add(lingers);
        self.alarm.within(if busy {
            until_after(self.epoch.saturating_sub(self.ahead), interval)
        } else {
            IDLE_EPOCH
        });
        Turn::Wait
    }

    fn advance(&mut self, epoch: u64) {
        for cap in &mut self.caps {
            cap.downgrade(&epoch);
        }
        self.epoch = epoch;
        self.bytes = 0;
        self.taken.fill(0);
    }

    fn opened(&mut self) {
        self.open.push_back((self.epoch, Stopwatch::start()));
        self.setup.metrics.in_flight.store(self.open.len() as u64, Relaxed);
    }

    fn note_finished(&mut self) {
        while let Some((epoch, watch)) = self.open.front() {
            if self.setup.probe.less_equal(epoch) {
                break;
            }
            self.setup.metrics.epoch.fetch_max(*epoch, Relaxed);
            self.setup.metrics.epochs.fetch_add(1, Relaxed);
            self.took = watch.elapsed();
            if let Ok(mut histogram) = self.setup.metrics.epoch_us.lock() {
                // The histogram grows to whatever it is given.
                let _ = histogram.record(watch.elapsed().as_micros() as u64);
            }
            self.open.pop_front();
            self.setup.metrics.in_flight.store(self.open.len() as u64, Relaxed);
        }
    }
}

fn chunk(
    own: &OwnPartition,
    records: RawRecords,
    mark: Mark,
    live: bool,
    sent: &mut [usize],
    dealer: &Dealer,
) -> RawChunk {
    let number = sent[own.partition];
    sent[own.partition] += 1;
    let (target, stays) = dealer.deal(own.partition, number);
    RawChunk { target, stays, partition: own.partition, number, records, mark, live }
}
