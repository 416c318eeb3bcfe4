//! Where a backfill's epochs are cut: by the data alone.
//!
//! A history is read in chunks of [`levada_types::Batch::MAX_ROWS`] records, counted from its start,
//! so a chunk holds the same records however they were produced. An epoch is a number of chunks,
//! given one after another to the partition that is furthest behind in event time, so that topics
//! of different density stay aligned and little waits for the watermark.
//!
//! Every worker runs the same planner on the same knowledge, so none has to be told: what the chunks
//! of epoch `e - LAG` and before turned out to hold is known to all when epoch `e` is planned.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::checkpoint::Seen;

/// How many epochs back the knowledge is from which an epoch is planned. One would make every worker
/// wait for all others at each epoch's end; two let decoding and planning overlap.
pub(super) const LAG: u64 = 2;

/// What is known of a partition's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartitionView {
    /// Whether its records have event times; one without is a table and is read first.
    pub timed: bool,
    /// Chunks decoded so far.
    pub chunks: u64,
    /// The least event time seen, milliseconds.
    pub min_time: i64,
    /// The greatest.
    pub max_time: i64,
    /// Whether its history has been read to the end.
    pub ended: bool,
}

impl PartitionView {
    pub(super) fn new(timed: bool) -> Self {
        PartitionView { timed, chunks: 0, min_time: i64::MAX, max_time: i64::MIN, ended: false }
    }

    /// What a checkpoint keeps of it.
    pub(super) fn seen(&self) -> Seen {
        let PartitionView { timed: _, chunks, min_time, max_time, ended } = *self;
        Seen { chunks, min_time, max_time, ended }
    }

    /// Takes up what a checkpoint kept.
    pub(super) fn restore(&mut self, seen: &Seen) {
        let Seen { chunks, min_time, max_time, ended } = *seen;
        *self = PartitionView { timed: self.timed, chunks, min_time, max_time, ended };
    }
}

/// Decides how many chunks of each partition an epoch takes.
#[derive(Clone, Debug)]
pub(super) struct Planner {
    allotted: Vec<u64>,
    budget: usize,
}

impl Planner {
    /// A planner for so many partitions, with `budget` chunks an epoch.
    pub(super) fn new(partitions: usize, budget: usize) -> Self {
        Planner { allotted: vec![0; partitions], budget: budget.max(1) }
    }

    /// One that goes on where another had allotted so many chunks of each partition.
    pub(super) fn restored(allotted: Vec<u64>, budget: usize) -> Self {
        Planner { allotted, budget: budget.max(1) }
    }

    /// How many chunks of each partition have been planned for.
    pub(super) fn allotted(&self) -> &[u64] {
        &self.allotted
    }

    /// The chunks of each partition for the next epoch; `None` once all histories have ended.
    pub(super) fn plan(&mut self, view: &[PartitionView]) -> Option<Vec<u32>> {
        if view.iter().all(|partition| partition.ended) {
            return None;
        }
        let mut epoch = vec![0; view.len()];
        for _ in 0..self.budget {
            let next = (0..view.len())
                .filter(|&i| !view[i].ended)
                .min_by_key(|&i| (self.reached(&view[i], i), self.allotted[i], i));
            if let Some(i) = next {
                epoch[i] += 1;
                self.allotted[i] += 1;
            }
        }
        Some(epoch)
    }

    /// The event time that partition `i` will have reached, as far as can be told.
    fn reached(&self, view: &PartitionView, i: usize) -> i128 {
        if !view.timed || view.chunks == 0 || view.max_time < view.min_time {
            return i128::MIN;
        }
        let span = i128::from(view.max_time) - i128::from(view.min_time);
        let chunk = (span / i128::from(view.chunks)).max(1);
        i128::from(view.max_time) + chunk * i128::from(self.allotted[i].saturating_sub(view.chunks))
    }
}

/// What a worker knows after each epoch, for its own planner.
#[derive(Debug)]
pub(super) struct Board {
    start: Rc<Vec<PartitionView>>,
    views: BTreeMap<u64, Rc<Vec<PartitionView>>>,
    /// What the planner had allotted when an epoch was planned, of epochs that end with a checkpoint.
    pub allotted: BTreeMap<u64, Vec<u64>>,
    /// How many chunks and marks have been heard of.
    pub heard: u64,
    /// No source anywhere opens an epoch before this one any more.
    pub frontier: u64,
    /// The partitions that are so far ahead of the slowest one that they wait for it; empty if none may have to.
    pub ahead: Vec<bool>,
}

impl Board {
    /// A board on which nothing but the start is known.
    pub(super) fn new(start: Rc<Vec<PartitionView>>) -> Self {
        Board {
            start,
            views: BTreeMap::new(),
            allotted: BTreeMap::new(),
            heard: 0,
            frontier: 0,
            ahead: Vec::new(),
        }
    }

    /// What was known before the first epoch.
    pub(super) fn start(&self) -> Rc<Vec<PartitionView>> {
        Rc::clone(&self.start)
    }

    /// Notes what is known after the epochs `from..to`, which brought nothing new among themselves.
    pub(super) fn note(&mut self, from: u64, to: u64, view: &Rc<Vec<PartitionView>>) {
        // Live epochs are numbered by the clock and never planned: only the newest few matter.
        let from = from.max(to.saturating_sub(4 * LAG));
        for epoch in from..to {
            self.views.insert(epoch, Rc::clone(view));
        }
        while self.views.len() > 8 * LAG as usize {
            self.views.pop_first();
        }
    }

    /// What was known after `epoch`, if that has been reached.
    pub(super) fn after(&self, epoch: u64) -> Option<Rc<Vec<PartitionView>>> {
        self.views.get(&epoch).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(chunks: u64, min_time: i64, max_time: i64) -> PartitionView {
        PartitionView { timed: true, chunks, min_time, max_time, ended: false }
    }

    #[test]
    fn tables_come_first_and_sparse_topics_are_not_outrun() {
        let table = PartitionView::new(false);
        let fresh = PartitionView::new(true);
        assert_eq!(Planner::new(3, 4).plan(&[table, fresh, fresh]), Some(vec![2, 1, 1]));

        let done = PartitionView { ended: true, ..table };
        let mut planner = Planner { allotted: vec![1, 1, 1], budget: 11 };
        // One chunk of the dense topic is an hour, one of the sparse one ten hours.
        let dense = view(1, 0, 3_600_000);
        let sparse = view(1, 0, 36_000_000);
        assert_eq!(planner.plan(&[done, dense, sparse]), Some(vec![0, 10, 1]));
        let ended = PartitionView { ended: true, ..dense };
        assert_eq!(planner.plan(&[done, ended, ended]), None);
    }
}
