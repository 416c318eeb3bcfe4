//! The watermark of the job, from what each chunk turned out to hold.
//!
//! ```text
//!   decode (every worker) ──progress of each chunk, to all──► tick (every worker) ──watermark──► steps
//!                                                               └── board, for the epoch planner
//! ```
//!
//! Every worker hears of every chunk and comes to the same watermark at the end of each epoch: the
//! least over all partitions of (greatest event time seen − allowed disorder). A partition that has
//! ended or fallen idle does not hold it back; it never goes down.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use levada_types::EventTime;
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};
use timely::scheduling::activate::Activator;

use super::epochs::{Board, PartitionView};
use crate::metrics::Metrics;

/// What is special about a chunk, other than its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Mark {
    /// Nothing.
    None,
    /// The partition's history ends here.
    HistoryEnd,
    /// The partition has been silent for its idle time.
    Idle,
}

/// What a chunk turned out to hold, told to worker `target`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Progress {
    pub target: usize,
    /// Index over all partitions of the job.
    pub partition: usize,
    /// The least and the greatest event time, if it had rows.
    pub times: Option<(i64, i64)>,
    /// Whether it held records (good or bad).
    pub chunk: bool,
    pub mark: Mark,
}

/// The watermark after an epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tick {
    pub watermark: EventTime,
}

/// What the watermark needs to know of a partition beforehand.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartitionSetup {
    /// Whether its records have event times.
    pub timed: bool,
    /// How far behind the newest a record may come, milliseconds.
    pub out_of_order_ms: i64,
    /// Whether nothing can come after the history: the job is drained and ends, or it is a file.
    pub bounded: bool,
}

/// All partitions' progress and the job's watermark.
pub(super) struct Watermarks {
    setup: Vec<PartitionSetup>,
    view: Rc<Vec<PartitionView>>,
    idle: Vec<bool>,
    watermark: EventTime,
}

impl Watermarks {
    pub(super) fn new(setup: Vec<PartitionSetup>) -> Self {
        let view = Rc::new(setup.iter().map(|s| PartitionView::new(s.timed)).collect());
        let idle = vec![false; setup.len()];
        Watermarks { setup, view, idle, watermark: EventTime::MIN }
    }

    /// Takes an epoch's progress in, and gives the watermark after it.
    pub(super) fn epoch(&mut self, progress: &[Progress]) -> EventTime {
        let view = Rc::make_mut(&mut self.view);
        for told in progress {
            let partition = &mut view[told.partition];
            partition.chunks += u64::from(told.chunk);
            if let Some((min, max)) = told.times {
                partition.min_time = partition.min_time.min(min);
                partition.max_time = partition.max_time.max(max);
            }
            match told.mark {
                Mark::None => self.idle[told.partition] = false,
                Mark::HistoryEnd => partition.ended = true,
                Mark::Idle => self.idle[told.partition] = true,
            }
        }
        let least = (self.view.iter().zip(&self.setup).zip(&self.idle))
            .filter_map(|((view, setup), idle)| {
                if view.ended && (setup.bounded || !setup.timed) {
                    Some(EventTime::MAX)
                } else if *idle {
                    None
                } else if !setup.timed || view.max_time == i64::MIN {
                    Some(EventTime::MIN)
                } else {
                    Some(EventTime(view.max_time).minus_ms(setup.out_of_order_ms))
                }
            })
            .min();
        // With every partition idle nothing moves. A job that has not ended has not passed all time
        // either, even if its only timed partitions are idle and its tables are read.
        if let Some(least) = least
            && (least < EventTime::MAX || self.all_over())
        {
            self.watermark = self.watermark.max(least);
        }
        self.watermark
    }

    fn all_over(&self) -> bool {
        let mut setups = self.view.iter().zip(&self.setup);
        setups.all(|(view, setup)| view.ended && (setup.bounded || !setup.timed))
    }

    pub(super) fn view(&self) -> &Rc<Vec<PartitionView>> {
        &self.view
    }
}

/// Builds the operator that turns progress into ticks, on this worker.
pub(super) fn ticks<'scope>(
    scope: Scope<'scope, u64>,
    progress: Stream<'scope, u64, Vec<Progress>>,
    mut watermarks: Watermarks,
    board: Rc<RefCell<Board>>,
    source: Activator,
    metrics: Arc<Metrics>,
) -> Stream<'scope, u64, Vec<Tick>> {
    let mut builder = OperatorBuilder::new("Tick".into(), scope);
    let mut input = builder.new_input(progress, Exchange::new(|p: &Progress| p.target as u64));
    let (mut output, stream) = builder.new_output::<Vec<Tick>>();
    builder.build(move |_| {
        let mut pending: BTreeMap<u64, (Capability<u64>, Vec<Progress>)> = BTreeMap::new();
        let mut done = 0;
        move |frontiers| {
            input.for_each(|cap, data| {
                let (_, told) = pending.entry(*cap.time()).or_insert_with(|| (cap.retain(0), Vec::new()));
                told.append(data);
            });
            let frontier = frontiers[0].frontier().iter().copied().min().unwrap_or(u64::MAX);
            let mut output = output.activate();
            while let Some(entry) = pending.first_entry() {
                if *entry.key() >= frontier {
                    break;
                }
                let (epoch, (cap, told)) = entry.remove_entry();
                board.borrow_mut().note(done, epoch, watermarks.view());
                let watermark = watermarks.epoch(&told);
                board.borrow_mut().note(epoch, epoch + 1, watermarks.view());
                done = epoch + 1;
                metrics.watermark_ms.store(watermark.0, Relaxed);
                output.give(&cap, &mut vec![Tick { watermark }]);
            }
            if frontier > done && frontier < u64::MAX {
                board.borrow_mut().note(done, frontier, watermarks.view());
                done = frontier;
            }
            source.activate();
        }
    });
    stream
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(partition: usize, max: i64, mark: Mark) -> Progress {
        Progress { target: 0, partition, times: (max >= 0).then_some((max, max)), chunk: max >= 0, mark }
    }

    #[test]
    fn the_slowest_partition_that_is_neither_idle_nor_over_sets_the_pace() {
        let timed = PartitionSetup { timed: true, out_of_order_ms: 10, bounded: false };
        let table = PartitionSetup { timed: false, out_of_order_ms: 0, bounded: false };
        let mut marks = Watermarks::new(vec![timed, timed, table]);
        assert_eq!(marks.epoch(&[told(0, 100, Mark::None)]), EventTime::MIN);
        assert_eq!(marks.epoch(&[told(1, 50, Mark::None)]), EventTime::MIN, "the table is not read yet");
        assert_eq!(marks.epoch(&[told(2, -1, Mark::HistoryEnd)]), EventTime(40));
        assert_eq!(marks.epoch(&[told(1, -1, Mark::Idle)]), EventTime(90));
        assert_eq!(marks.epoch(&[told(1, 60, Mark::None)]), EventTime(90), "it never goes down");
        assert_eq!(marks.epoch(&[told(0, -1, Mark::Idle), told(1, -1, Mark::Idle)]), EventTime(90));
        assert_eq!(marks.epoch(&[told(0, 200, Mark::None)]), EventTime(190));
    }

    #[test]
    fn a_job_that_is_over_has_passed_all_time() {
        let setup = PartitionSetup { timed: true, out_of_order_ms: 0, bounded: true };
        let mut marks = Watermarks::new(vec![setup, setup]);
        assert_eq!(marks.epoch(&[told(0, 5, Mark::HistoryEnd)]), EventTime::MIN);
        assert_eq!(marks.epoch(&[told(1, 3, Mark::None)]), EventTime(3));
        assert_eq!(marks.epoch(&[told(1, -1, Mark::HistoryEnd)]), EventTime::MAX);
    }
}
