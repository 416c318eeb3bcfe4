//! The watermark of the job, from what each chunk turned out to hold.
//!
//! ```text
//!   decode (every worker) ──progress of each chunk, to all──► tick (every worker) ──watermark──► steps
//!                                                               └── board, for the epoch planner
//! ```
//!
//! Every worker hears of every chunk and comes to the same watermark at the end of each epoch: the
//! least over all partitions of (greatest event time seen − allowed disorder), which is what a
//! partition *promises*. A partition that has ended or fallen idle does not hold it back; it never
//! goes down.
//!
//! A row that is before what its own partition had promised is behind. The chunk that it was decoded
//! with tells what the rows before it in the chunk promised; the tick tells what was promised before
//! the chunk, of those few chunks for which it matters. So which rows are behind depends on what
//! stands in the partition alone, not on how it was cut into chunks and epochs.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use levada_types::{EventTime, Origin};
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};
use timely::scheduling::activate::Activator;

use super::checkpoint::{Part, PartitionPlace, ProgressPart};
use super::epochs::{Board, PartitionView};
use super::journal::{self, Begun, Recorder};
use super::{EngineError, Shared};
use crate::host::Tick;
use crate::metrics::Metrics;

/// What is special about a chunk, other than its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mark {
    /// Nothing.
    None,
    /// The partition's history ends here.
    HistoryEnd,
    /// The partition has been silent for its idle time.
    Idle,
    /// Nothing of a partition: the epoch ends with a checkpoint.
    Checkpoint,
}

/// What a chunk turned out to hold, told to worker `target`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub target: usize,
    /// Index over all partitions of the job.
    pub partition: usize,
    /// How many chunks came from the partition before it.
    pub number: usize,
    /// What rows it had, if any.
    pub rows: Option<Span>,
    /// Whether it held records (good or bad).
    pub chunk: bool,
    /// How many.
    pub records: usize,
    pub mark: Mark,
    /// Whether it was cut by the clock, and is to be written down.
    pub live: bool,
    /// The offset behind its last record, if it held any.
    pub next: Option<u64>,
}

/// The rows of a chunk: where they come from, and their least and their greatest event time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Span {
    pub origin: Origin,
    pub least: i64,
    pub greatest: i64,
}

/// What the watermark needs to know of a partition beforehand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartitionSetup {
    /// Whether its records have event times.
    pub timed: bool,
    /// How far behind the newest a record may come, milliseconds.
    pub out_of_order_ms: i64,
    /// Whether nothing can come after the history: the job is drained and ends, or it is a file.
    pub bounded: bool,
    /// Whether it is newer than the job: it has no history, and counts from its first record on.
    pub later: bool,
}

impl PartitionSetup {
    /// Before what time nothing is expected any more once `newest` has been seen.
    fn promise(self, newest: i64) -> EventTime {
        if self.timed { EventTime(newest).minus_ms(self.out_of_order_ms) } else { EventTime::MIN }
    }
}

/// All partitions' progress and the job's watermark.
pub(crate) struct Watermarks {
    setup: Vec<PartitionSetup>,
    view: Rc<Vec<PartitionView>>,
    idle: Vec<bool>,
    /// The offset of each partition's next record, if one has been read.
    next: Vec<Option<u64>>,
    watermark: EventTime,
}

impl Watermarks {
    pub(crate) fn new(setup: Vec<PartitionSetup>) -> Self {
        let view =
            |setup: &PartitionSetup| PartitionView { ended: setup.later, ..PartitionView::new(setup.timed) };
        let view = Rc::new(setup.iter().map(view).collect());
        let idle = setup.iter().map(|setup| setup.later).collect();
        let next = vec![None; setup.len()];
        Watermarks { setup, view, idle, next, watermark: EventTime::MIN }
    }

    /// Goes on from where a checkpoint was made.
    pub(super) fn restore(&mut self, watermark: EventTime, places: &[PartitionPlace]) {
        self.watermark = watermark;
        let view = Rc::make_mut(&mut self.view);
        for (index, place) in places.iter().enumerate() {
            view[index].restore(&place.seen);
            self.idle[index] = place.idle;
            self.next[index] = place.next;
        }
    }

    /// How far the partitions are; `before` is what was known an epoch ago.
    fn place(&self, names: &[(String, u32)], before: &[PartitionView], allotted: &[u64]) -> ProgressPart {
        let place = |(index, (source, number)): (usize, &(String, u32))| PartitionPlace {
            source: source.clone(),
            number: *number,
            next: self.next[index],
            idle: self.idle[index],
            allotted: allotted.get(index).copied().unwrap_or_default(),
            seen: self.view[index].seen(),
            seen_before: before[index].seen(),
        };
        let partitions = names.iter().enumerate().map(place).collect();
        ProgressPart { watermark: self.watermark, partitions }
    }

    /// Takes an epoch's progress in, told in any order, and gives what the epoch's end tells.
    pub(crate) fn epoch(&mut self, mut progress: Vec<Progress>) -> Tick {
        progress.sort_by_key(|told| (told.partition, told.number));
        let mut promises = BTreeMap::new();
        let mut checkpoint = false;
        let view = Rc::make_mut(&mut self.view);
        for told in progress {
            if told.mark == Mark::Checkpoint {
                checkpoint = true;
                continue;
            }
            let partition = &mut view[told.partition];
            self.next[told.partition] = told.next.or(self.next[told.partition]);
            partition.chunks += u64::from(told.chunk);
            if let Some(rows) = told.rows {
                let promise = self.setup[told.partition].promise(partition.max_time);
                if rows.least < promise.0 {
                    promises.insert(rows.origin, promise);
                }
                partition.min_time = partition.min_time.min(rows.least);
                partition.max_time = partition.max_time.max(rows.greatest);
            }
            match told.mark {
                Mark::None => self.idle[told.partition] = false,
                Mark::HistoryEnd => partition.ended = true,
                Mark::Idle => self.idle[told.partition] = true,
                Mark::Checkpoint => {}
            }
        }
        self.watermark = self.watermark.max(self.least());
        Tick { watermark: self.watermark, promises: Arc::new(promises), checkpoint }
    }

    /// The least promise of the partitions that count. With every partition idle, the greatest that
    /// any of them has reached: nobody is expected to send what lies behind it.
    fn least(&self) -> EventTime {
        let each = || self.view.iter().zip(&self.setup).zip(&self.idle);
        if each().all(|((view, setup), _)| view.ended && (setup.bounded || !setup.timed)) {
            return EventTime::MAX;
        }
        let least = self.slowest().map(|(_, reached)| reached);
        least.or_else(|| self.furthest()).unwrap_or(EventTime::MIN)
    }

    /// The first partition of those that have promised the least, and that: of those that count.
    fn slowest(&self) -> Option<(usize, EventTime)> {
        let each = self.view.iter().zip(&self.setup).zip(&self.idle).enumerate();
        let active =
            each.filter(
                |(_, ((view, setup), idle))| {
                    if setup.timed { !(**idle || view.ended && setup.bounded) } else { !view.ended }
                },
            );
        active
            .map(|(index, ((view, setup), _))| (index, setup.promise(view.max_time)))
            .min_by_key(|slow| slow.1)
    }

    fn furthest(&self) -> Option<EventTime> {
        let timed = self.view.iter().zip(&self.setup).filter(|(_, setup)| setup.timed);
        timed.map(|(view, setup)| setup.promise(view.max_time)).max()
    }

    /// The partition for which the others wait.
    fn waits_for(&self) -> Option<usize> {
        let (slowest, reached) = self.slowest()?;
        (Some(reached) < self.furthest()).then_some(slowest)
    }

    /// Of each partition whether its newest record is more than `align_ms` ahead of the slowest partition's. One that is
    /// idle or has ended keeps nobody waiting; one that has given nothing yet does.
    pub(super) fn ahead(&self, align_ms: i64) -> Vec<bool> {
        let counts = |index: &usize| {
            let (setup, view) = (&self.setup[*index], &self.view[*index]);
            setup.timed && !self.idle[*index] && !(view.ended && setup.bounded)
        };
        let slowest = (0..self.view.len()).filter(counts).map(|index| self.view[index].max_time).min();
        let limit = slowest.map_or(i64::MAX, |slowest| slowest.saturating_add(align_ms));
        let each = self.view.iter().zip(&self.setup);
        each.map(|(view, setup)| setup.timed && view.max_time > limit).collect()
    }

    pub(super) fn view(&self) -> &Rc<Vec<PartitionView>> {
        &self.view
    }
}

/// What the end of an epoch gives.
pub(super) struct TickStreams<'scope> {
    pub ticks: Stream<'scope, u64, Vec<Tick>>,
    /// Carries nothing; passes an epoch once what it took in is durable.
    pub durable: Stream<'scope, u64, Vec<()>>,
    /// How far the partitions are when a checkpoint is made: on worker 0.
    pub state: Stream<'scope, u64, Vec<Part>>,
}

/// What the ticks are made with.
pub(super) struct TickSetup {
    pub watermarks: Watermarks,
    pub board: Rc<RefCell<Board>>,
    /// How far a partition may be ahead of the slowest.
    pub align_ms: Option<i64>,
    /// The first epoch of this run.
    pub first: u64,
    /// To be woken when more is known.
    pub source: Activator,
    pub metrics: Arc<Metrics>,
    /// Live epochs are to be written there.
    pub journal: Option<Begun>,
    /// The partitions' sources and their numbers there, on the worker that tells them in checkpoints.
    pub places: Option<Vec<(String, u32)>>,
    pub shared: Arc<Shared>,
}

/// Builds the operator that turns progress into ticks, on this worker.
pub(super) fn ticks<'scope>(
    scope: Scope<'scope, u64>,
    progress: Stream<'scope, u64, Vec<Progress>>,
    setup: TickSetup,
) -> Result<TickStreams<'scope>, EngineError> {
    let TickSetup { mut watermarks, board, align_ms, first, source, metrics, journal, places, shared } =
        setup;
    let mut builder = OperatorBuilder::new("Tick".into(), scope);
    let mut input = builder.new_input(progress, Exchange::new(|p: &Progress| p.target as u64));
    let (mut output, ticks) = builder.new_output::<Vec<Tick>>();
    let (_durable, durable) = builder.new_output::<Vec<()>>();
    let (mut state_out, state) = builder.new_output::<Vec<Part>>();
    let me = scope.worker().sync_activator_for(builder.operator_info().address.to_vec());
    let recorder = match journal {
        Some(writer) => Some(Recorder::start(writer, shared, me)?),
        None => None,
    };
    builder.build(move |_| {
        let mut pending: BTreeMap<u64, ([Capability<u64>; 3], Vec<Progress>)> = BTreeMap::new();
        // Epochs that are being written down; their capabilities keep the sinks waiting.
        let mut written: VecDeque<Capability<u64>> = VecDeque::new();
        let mut done = first;
        move |frontiers| {
            input.for_each(|cap, data| {
                let new = || ([cap.retain(0), cap.retain(1), cap.retain(2)], Vec::new());
                let (_, told) = pending.entry(*cap.time()).or_insert_with(new);
                told.append(data);
            });
            if let Some(recorder) = &recorder {
                while written.front().is_some_and(|cap| recorder.is_durable(*cap.time())) {
                    written.pop_front();
                }
            }
            let frontier = frontiers[0].frontier().iter().copied().min().unwrap_or(u64::MAX);
            let mut output = output.activate();
            let mut state_out = state_out.activate();
            while let Some(entry) = pending.first_entry() {
                if *entry.key() >= frontier {
                    break;
                }
                let (epoch, ([cap, durable, state], told)) = entry.remove_entry();
                if let Some(recorder) = &recorder
                    && let Some(cut) = journal::cut(epoch, &told)
                {
                    recorder.record(cut);
                    written.push_back(durable);
                }
                let mut board = board.borrow_mut();
                board.note(done, epoch, watermarks.view());
                board.heard += told.iter().filter(|told| told.mark != Mark::Checkpoint).count() as u64;
                let before = Rc::clone(watermarks.view());
                let tick = watermarks.epoch(told);
                board.note(epoch, epoch + 1, watermarks.view());
                let allotted = board.allotted.remove(&epoch);
                if let Some(align_ms) = align_ms {
                    board.ahead = watermarks.ahead(align_ms);
                    metrics.note_ahead(&board.ahead);
                }
                drop(board);
                if let Some(names) = &places
                    && tick.checkpoint
                {
                    let place = watermarks.place(names, &before, &allotted.unwrap_or_default());
                    state_out.give(&state, &mut vec![Part::Progress(place)]);
                }
                done = epoch + 1;
                metrics.watermark_ms.store(tick.watermark.0, Relaxed);
                metrics.waits_for.store(watermarks.waits_for().unwrap_or(usize::MAX), Relaxed);
                output.give(&cap, &mut vec![tick]);
            }
            if frontier > done && frontier < u64::MAX {
                board.borrow_mut().note(done, frontier, watermarks.view());
                done = frontier;
            }
            board.borrow_mut().frontier = frontier;
            source.activate();
        }
    });
    Ok(TickStreams { ticks, durable, state })
}

#[cfg(test)]
mod tests {
    use levada_types::{Offset, PartitionId};

    use super::*;

    fn told(partition: usize, max: i64, mark: Mark) -> Progress {
        let rows = (max >= 0).then_some(Span { origin: Origin::default(), least: max, greatest: max });
        Progress {
            target: 0,
            partition,
            number: 0,
            rows,
            chunk: max >= 0,
            records: 1,
            mark,
            live: false,
            next: None,
        }
    }

    fn watermark(marks: &mut Watermarks, told: Vec<Progress>) -> EventTime {
        marks.epoch(told).watermark
    }

    #[test]
    fn the_slowest_partition_that_is_neither_idle_nor_over_sets_the_pace() {
        let timed = PartitionSetup { timed: true, out_of_order_ms: 10, bounded: false, later: false };
        let table = PartitionSetup { timed: false, out_of_order_ms: 0, bounded: false, later: false };
        let mut marks = Watermarks::new(vec![timed, timed, table]);
        assert_eq!(marks.waits_for(), None, "nobody is further on");
        assert_eq!(watermark(&mut marks, vec![told(0, 100, Mark::None)]), EventTime::MIN);
        assert_eq!(marks.waits_for(), Some(1));
        assert_eq!(
            watermark(&mut marks, vec![told(1, 50, Mark::None)]),
            EventTime::MIN,
            "the table is not read yet"
        );
        assert_eq!(marks.waits_for(), Some(2));
        assert_eq!(watermark(&mut marks, vec![told(2, -1, Mark::HistoryEnd)]), EventTime(40));
        assert_eq!(marks.waits_for(), Some(1));
        assert_eq!(watermark(&mut marks, vec![told(1, -1, Mark::Idle)]), EventTime(90));
        assert_eq!(watermark(&mut marks, vec![told(1, 60, Mark::None)]), EventTime(90), "it never goes down");
        assert_eq!(
            watermark(&mut marks, vec![told(0, -1, Mark::Idle), told(1, 95, Mark::None)]),
            EventTime(90)
        );
        assert_eq!(
            watermark(&mut marks, vec![told(1, -1, Mark::Idle)]),
            EventTime(90),
            "all idle: the furthest counts"
        );
        assert_eq!(watermark(&mut marks, vec![told(0, 200, Mark::None)]), EventTime(190));
    }

    #[test]
    fn who_is_far_ahead_of_the_slowest_is_known() {
        let timed = PartitionSetup { timed: true, out_of_order_ms: 10, bounded: false, later: false };
        let file = PartitionSetup { bounded: true, ..timed };
        let table = PartitionSetup { timed: false, out_of_order_ms: 0, bounded: false, later: false };
        let mut marks = Watermarks::new(vec![timed, timed, table, file]);
        let mut ahead = |progress: Vec<Progress>| {
            marks.epoch(progress);
            marks
                .ahead(100)
                .iter()
                .enumerate()
                .filter(|(_, ahead)| **ahead)
                .map(|(index, _)| index)
                .collect::<Vec<_>>()
        };
        assert_eq!(ahead(vec![]), [0; 0]);
        assert_eq!(
            ahead(vec![told(0, 5, Mark::None), told(2, 900, Mark::None)]),
            [0],
            "the others have given nothing"
        );
        assert_eq!(ahead(vec![told(1, 20, Mark::None), told(3, 30, Mark::None)]), [0; 0]);
        assert_eq!(ahead(vec![told(0, 120, Mark::None)]), [0; 0], "no more than that");
        assert_eq!(ahead(vec![told(0, 121, Mark::None)]), [0]);
        assert_eq!(ahead(vec![told(1, -1, Mark::Idle)]), [0; 0]);
        assert_eq!(ahead(vec![told(0, 131, Mark::None)]), [0]);
        assert_eq!(ahead(vec![told(3, -1, Mark::HistoryEnd)]), [0; 0]);
        assert_eq!(ahead(vec![told(1, 21, Mark::None)]), [0], "it is there again");
        assert_eq!(
            ahead(vec![told(0, -1, Mark::Idle), told(1, -1, Mark::Idle)]),
            [0; 0],
            "nobody is waited for"
        );
    }

    #[test]
    fn a_job_that_is_over_has_passed_all_time() {
        let setup = PartitionSetup { timed: true, out_of_order_ms: 0, bounded: true, later: false };
        let mut marks = Watermarks::new(vec![setup, setup]);
        assert_eq!(watermark(&mut marks, vec![told(0, 5, Mark::HistoryEnd)]), EventTime::MIN);
        assert_eq!(watermark(&mut marks, vec![told(1, 3, Mark::None)]), EventTime(3));
        assert_eq!(watermark(&mut marks, vec![told(1, -1, Mark::HistoryEnd)]), EventTime::MAX);
    }

    #[test]
    fn a_chunk_is_told_what_was_promised_before_it() {
        let setup = PartitionSetup { timed: true, out_of_order_ms: 10, bounded: false, later: false };
        let mut marks = Watermarks::new(vec![setup, PartitionSetup { timed: false, ..setup }, setup]);
        let told = |partition: usize, number: u64, least: i64, greatest: i64| {
            let place = PartitionId(partition as u32);
            let origin = Origin { source: 0, partition: place, offset: Offset(8 * number) };
            let rows = Some(Span { origin, least, greatest });
            Progress {
                target: 0,
                partition,
                number: number as usize,
                rows,
                chunk: true,
                records: 1,
                mark: Mark::None,
                live: false,
                next: None,
            }
        };
        let promises = |marks: &mut Watermarks, progress: Vec<Progress>| -> Vec<(u32, u64, i64)> {
            let tick = marks.epoch(progress);
            tick.promises.iter().map(|(at, to)| (at.partition.0, at.offset.0, to.0)).collect()
        };
        // The chunks of a partition see one another in their order, whatever was heard of first.
        let first = vec![told(0, 2, 55, 60), told(0, 1, 80, 90), told(0, 0, -5, 70), told(2, 0, 7, 8)];
        assert_eq!(promises(&mut marks, first), [(0, 16, 80)], "60 was promised before 80 came");
        // And those of earlier epochs. What is just at the promise is in time.
        let second = vec![told(0, 3, 80, 100), told(0, 4, 89, 89), told(2, 1, -3, 30)];
        assert_eq!(promises(&mut marks, second), [(0, 32, 90), (2, 8, -2)]);
        // A table promises nothing, nor does a partition that is idle promise less.
        let table = vec![
            told(1, 0, 9, 9),
            told(1, 1, 1, 1),
            Progress { rows: None, mark: Mark::Idle, ..told(0, 5, 0, 0) },
        ];
        assert_eq!(promises(&mut marks, table), []);
        assert_eq!(promises(&mut marks, vec![told(0, 6, 89, 89)]), [(0, 48, 90)]);
    }

    #[test]
    fn what_comes_last_of_a_partition_counts_whoever_tells_it_last() {
        let setup = PartitionSetup { timed: true, out_of_order_ms: 0, bounded: false, later: false };
        let mut marks = Watermarks::new(vec![setup, setup]);
        let other = told(1, 9, Mark::None);
        let idle = Progress { number: 1, ..told(0, -1, Mark::Idle) };
        assert_eq!(watermark(&mut marks, vec![idle, told(0, 5, Mark::None), other]), EventTime(9));
    }
}
