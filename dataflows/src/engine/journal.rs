//! The journal at work: what is recorded of a live run, and how a later one takes it up.
//!
//! ```text
//!   tick of worker 0 ──epoch's cut──► thread: append, sync ──► durable ──► sinks publish the epoch
//! ```
//!
//! A run that finds a journal reads the same history (which the data alone cuts into the same epochs), then the
//! recorded epochs, cut where they were cut, and then goes on live. It gets the same bytes again; the sinks know
//! what of them they have published.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crossbeam_channel::{Sender, unbounded};
use levada_types::journal::{EpochCut, JournalHeader, PartitionBounds, Recorded, Taken};
use levada_types::{Blame, ConnectorError, Journal, JournalWriter, Offset, PartitionId};
use timely::scheduling::SyncActivator;

use super::clock::beginning;
use super::watermark::{Mark, Progress};
use super::{EngineError, Run, Shared, checkpoint};
use crate::plan::Plan;

/// The journal of a job.
#[derive(Clone)]
pub struct JobJournal {
    /// Where it is kept.
    pub journal: Arc<dyn Journal>,
    /// The job, as a hash of all that decides what it computes.
    pub job: u64,
    /// Whether it may be another one than that of which the journal is, and go on behind its last checkpoint.
    pub changed: bool,
}

impl fmt::Debug for JobJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobJournal({})", self.journal.describe())
    }
}

/// A journal that has begun, to be written on.
pub(super) struct Begun {
    writer: Box<dyn JournalWriter>,
    /// How it began.
    pub header: JournalHeader,
    /// The number under which the run makes checkpoints, if it does.
    pub claim: Option<checkpoint::Run>,
    /// It need not hold this epoch any more, nor what is before it.
    pub trim: Arc<AtomicU64>,
}

/// Begins the journal, or takes up what stands in it: for the process that has worker 0.
pub(super) fn begin(
    journal: &JobJournal,
    plan: &Plan,
    how: &Run,
    histories: &[Vec<Option<Offset>>],
) -> Result<Begun, EngineError> {
    let refused = EngineError::Journal;
    let mut writer = journal.journal.writer().map_err(refused)?;
    if let Some(mut recorded) = journal.journal.recorded().map_err(refused)? {
        if recorded.header.job != journal.job && journal.changed {
            recorded.header = change(journal, &recorded, plan, how, &mut *writer)?;
        }
        check(journal, &recorded.header, plan, how.until_drained, histories).map_err(refused)?;
        let header = grown(&recorded.header, plan, histories);
        let claim = claim(plan, how, header.begun, false)?;
        if header != recorded.header {
            writer.grow(&recorded, &header).map_err(refused)?;
        }
        return Ok(Begun { writer, header, claim, trim: Arc::default() });
    }
    let mut partitions = Vec::new();
    for (source, history) in plan.sources.iter().zip(histories) {
        for (number, &end) in history.iter().enumerate() {
            let start = source.reader.start(PartitionId(number as u32))?;
            partitions.push(PartitionBounds { source: source.name.clone(), start, end, later: false });
        }
    }
    let begun = beginning();
    let header = JournalHeader { job: journal.job, begun, until_drained: how.until_drained, partitions };
    let claim = claim(plan, how, begun, true)?;
    let behind = match (&how.checkpoints, &claim) {
        (Some(checkpoints), Some(claim)) => {
            let first = || checkpoint::begin(checkpoints, claim.number, begun);
            checkpoint::at_start(checkpoints, &how.stop, first).map_err(EngineError::Checkpoint)?
        }
        _ => None,
    };
    writer.begin(&header, behind).map_err(refused)?;
    Ok(Begun { writer, header, claim, trim: Arc::default() })
}

/// Takes the number under which the run makes checkpoints, if it is to make some.
fn claim(plan: &Plan, how: &Run, begun: u64, new: bool) -> Result<Option<checkpoint::Run>, EngineError> {
    let Some(checkpoints) = &how.checkpoints else { return Ok(None) };
    let who = checkpoint::Who { name: &plan.name, begun, new };
    let claim = checkpoint::at_start(checkpoints, &how.stop, || {
        if new {
            checkpoint::is_free(&*checkpoints.store)?;
        }
        checkpoint::Run::take(&*checkpoints.store, who)
    });
    claim.map(Some).map_err(EngineError::Checkpoint)
}

/// Begins the journal anew, for a job that was changed, behind the last checkpoint of the former one.
fn change(
    journal: &JobJournal,
    recorded: &Recorded,
    plan: &Plan,
    how: &Run,
    writer: &mut dyn JournalWriter,
) -> Result<JournalHeader, EngineError> {
    let refused = |why: String| {
        let message = format!("go on from {} with another job: {why}", journal.journal.describe());
        EngineError::Journal(ConnectorError::configuration(message))
    };
    let newest = match &how.checkpoints {
        Some(checkpoints) => checkpoint::newest(&*checkpoints.store).map_err(EngineError::Checkpoint)?,
        None => None,
    };
    let contents = newest.ok_or_else(|| refused("there is no checkpoint".into()))?;
    contents.may_change(recorded, plan).map_err(refused)?;
    let old = &recorded.header;
    let partitions = bounds(old, plan).into_iter().flatten().collect();
    let header = JournalHeader { job: journal.job, partitions, ..old.clone() };
    writer.begin(&header, Some(contents.manifest.epoch)).map_err(EngineError::Journal)?;
    Ok(header)
}

/// What stands in the journal of a run that has begun.
pub(super) fn recorded(
    journal: &JobJournal,
    plan: &Plan,
    how: &Run,
    histories: &[Vec<Option<Offset>>],
) -> Result<Recorded, ConnectorError> {
    let recorded = journal.journal.recorded()?.ok_or_else(|| {
        ConnectorError::configuration(format!("read {}: it has not begun", journal.journal.describe()))
    })?;
    check(journal, &recorded.header, plan, how.until_drained, histories)?;
    Ok(recorded)
}

/// Whether this is the run that the journal is of.
fn check(
    journal: &JobJournal,
    header: &JournalHeader,
    plan: &Plan,
    until_drained: bool,
    histories: &[Vec<Option<Offset>>],
) -> Result<(), ConnectorError> {
    let refused = |why: String| {
        let place = journal.journal.describe();
        Err(ConnectorError { blame: Blame::Configuration, message: format!("go on from {place}: {why}") })
    };
    if header.job != journal.job {
        return refused(
            "the job was another then; give this one a folder of its own, or begin afresh".into(),
        );
    }
    if header.until_drained != until_drained {
        let (was, is) = if until_drained { ("live", "to end") } else { ("to end", "to go on live") };
        return refused(format!("the job ran {was} with its history, and is {is} with it now"));
    }
    for (source, history) in plan.sources.iter().zip(histories) {
        let before = header.partitions.iter().filter(|bounds| bounds.source == source.name).count();
        if before > history.len() {
            let (name, now) = (&source.name, history.len());
            return refused(format!("source `{name}` had {before} partitions, and has {now}"));
        }
    }
    Ok(())
}

/// The header with the partitions that the sources have got since. A job that ends with its history goes on with
/// those that had one.
fn grown(header: &JournalHeader, plan: &Plan, histories: &[Vec<Option<Offset>>]) -> JournalHeader {
    let mut partitions = Vec::new();
    for (source, history) in plan.sources.iter().zip(histories) {
        let before = header.partitions.iter().filter(|bounds| bounds.source == source.name);
        partitions.extend(before.cloned());
        let count = header.partitions.iter().filter(|bounds| bounds.source == source.name).count();
        let new = history.len().saturating_sub(count);
        if new == 0 {
            continue;
        }
        let (name, what, now) = (&source.name, source.reader.describe(), history.len());
        if header.until_drained {
            tracing::warn!(
                "{what} has {now} partitions now; source `{name}` reads the {count} that it had, whose history this is"
            );
            continue;
        }
        tracing::info!("{what} has {now} partitions now; source `{name}` reads the {new} new ones too");
        // From their first record on: all of it came after what has been read.
        let bounds = PartitionBounds {
            source: source.name.clone(),
            start: Some(Offset(0)),
            end: Some(Offset(0)),
            later: true,
        };
        partitions.extend(std::iter::repeat_n(bounds, new));
    }
    JournalHeader { partitions, ..header.clone() }
}

/// Where each source's partitions begin and where their histories end.
pub(super) fn bounds(header: &JournalHeader, plan: &Plan) -> Vec<Vec<PartitionBounds>> {
    let of = |name: &str| header.partitions.iter().filter(|bounds| bounds.source == name).cloned().collect();
    plan.sources.iter().map(|source| of(&source.name)).collect()
}

/// The histories of the partitions that a journal knows, where there is one: a source may have got further ones since
/// it was looked at, or, with a job that ends, since its journal began.
pub(super) fn histories<'h>(
    found: &'h [Vec<Option<Offset>>],
    bounds: Option<&[Vec<PartitionBounds>]>,
) -> Cow<'h, [Vec<Option<Offset>>]> {
    let Some(bounds) = bounds else { return Cow::Borrowed(found) };
    let known = |(history, bounds): (&Vec<_>, &Vec<_>)| history.iter().take(bounds.len()).copied().collect();
    Cow::Owned(found.iter().zip(bounds).map(known).collect())
}

/// What an epoch took of the partitions, if anything of it is live.
pub(super) fn cut(epoch: u64, progress: &[Progress]) -> Option<EpochCut> {
    if !progress.iter().any(|told| told.live) {
        return None;
    }
    let mut taken: BTreeMap<usize, BTreeMap<usize, Vec<Taken>>> = BTreeMap::new();
    for told in progress.iter().filter(|told| told.mark != Mark::Checkpoint) {
        let of_chunk = taken.entry(told.partition).or_default().entry(told.number).or_default();
        if told.records > 0 {
            of_chunk.push(Taken::Records(told.records));
        }
        if told.mark == Mark::Idle {
            of_chunk.push(Taken::Idle);
        }
    }
    let taken =
        taken.into_iter().map(|(partition, chunks)| (partition, chunks.into_values().flatten().collect()));
    Some(EpochCut { epoch, taken: taken.collect() })
}

/// Writes epochs down, and knows which of them are durable.
pub(super) struct Recorder {
    cuts: Sender<EpochCut>,
    /// The first epoch that is not known to be durable.
    durable: Arc<AtomicU64>,
}

impl Recorder {
    /// A thread that waits for the disk; wakes `ticks` when something has become durable.
    pub(super) fn start(
        Begun { mut writer, header, trim, .. }: Begun,
        shared: Arc<Shared>,
        ticks: SyncActivator,
    ) -> Result<Recorder, EngineError> {
        let spawner = Arc::clone(&shared);
        let over = Arc::clone(&shared);
        writer.end_with(Arc::new(move || over.has_failed()));
        let (cuts, waiting) = unbounded::<EpochCut>();
        let durable = Arc::new(AtomicU64::new(0));
        let done = Arc::clone(&durable);
        let write = move || {
            while let Ok(first) = waiting.recv() {
                let epochs: Vec<EpochCut> = std::iter::once(first).chain(waiting.try_iter()).collect();
                let last = epochs.last().map_or(0, |cut| cut.epoch);
                match writer.append(&epochs) {
                    Ok(()) => done.store(last + 1, SeqCst),
                    // It gave up because the job has ended.
                    Err(_) if shared.has_failed() => return,
                    Err(error) => shared.fail(EngineError::Journal(error)),
                }
                // A worker that is gone needs no waking.
                let _ = ticks.activate();
                let held = trim.swap(0, SeqCst);
                if held > 0
                    && let Err(error) = writer.trim(&header, held)
                {
                    shared.fail(EngineError::Journal(error));
                }
                if shared.has_failed() {
                    return;
                }
            }
        };
        spawner.spawn("journal".into(), write)?;
        Ok(Recorder { cuts, durable })
    }

    /// Has an epoch written down.
    pub(super) fn record(&self, cut: EpochCut) {
        // The thread has ended only if the job has failed.
        let _ = self.cuts.send(cut);
    }

    /// Whether an epoch that was to be written down is durable.
    pub(super) fn is_durable(&self, epoch: u64) -> bool {
        epoch < self.durable.load(SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_has_all_partitions_in_the_order_in_which_they_gave() {
        let told = |partition, number, records, mark, live| Progress {
            target: 0,
            partition,
            number,
            rows: None,
            chunk: records > 0,
            records,
            mark,
            live,
            next: None,
        };
        assert_eq!(cut(4, &[told(0, 3, 5, Mark::None, false)]), None, "history");
        let progress = [
            told(2, 8, 7, Mark::None, true),
            told(0, 4, 0, Mark::Idle, true),
            told(0, 5, 3, Mark::None, true),
            told(0, 3, 5, Mark::None, true),
            told(0, 0, 0, Mark::Checkpoint, false),
        ];
        let expected =
            vec![(0, vec![Taken::Records(5), Taken::Idle, Taken::Records(3)]), (2, vec![Taken::Records(7)])];
        assert_eq!(cut(9, &progress), Some(EpochCut { epoch: 9, taken: expected }));
    }
}
