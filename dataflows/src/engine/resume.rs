//! Going on behind a checkpoint of an earlier run.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use levada_types::journal::Recorded;
use levada_types::{ConnectorError, Offset};

use super::checkpoint::{self, Checkpoints, Manifest, Restored};
use super::epochs::Board;
use super::journal;
use super::source::GoOn;
use super::watermark::Watermarks;
use crate::plan::{Plan, SourcePlan};

/// The number of a run that makes checkpoints, and the checkpoint from which it goes on.
#[derive(Clone, Default)]
pub(super) struct GoneOn {
    pub run: u64,
    pub from: Option<Arc<Restored>>,
}

/// For the first process of a run: chooses what it goes on from.
///
/// # Errors
/// When the store cannot be read, and when there is nothing to go on from.
pub(super) fn choose(
    checkpoints: &Checkpoints,
    claim: &checkpoint::Run,
    recorded: &Recorded,
    plan: &Plan,
    histories: &[Vec<Option<Offset>>],
    stop: &AtomicBool,
) -> Result<GoneOn, ConnectorError> {
    let choose = || checkpoint::choose(&*checkpoints.store, claim, recorded);
    let from = checkpoint::at_start(checkpoints, stop, choose)?;
    let bounds = journal::bounds(&recorded.header, plan);
    let names = partition_names(plan, &journal::histories(histories, Some(&bounds)));
    Ok(GoneOn { run: claim.number, from: from.map(|from| Arc::new(from.with_partitions(&names))) })
}

/// For the other ones: what the first one has chosen.
///
/// # Errors
/// When it cannot be read.
pub(super) fn follow(
    checkpoints: &Checkpoints,
    plan: &Plan,
    histories: &[Vec<Option<Offset>>],
    stop: &AtomicBool,
) -> Result<GoneOn, ConnectorError> {
    let (run, from) = checkpoint::at_start(checkpoints, stop, || checkpoint::follow(&*checkpoints.store))?;
    let names = partition_names(plan, histories);
    Ok(GoneOn { run, from: from.map(|from| Arc::new(from.with_partitions(&names))) })
}

/// Has a run go on behind a checkpoint: what is known of the partitions then is known now.
pub(super) fn go_on(manifest: &Manifest, watermarks: &mut Watermarks, board: &mut Board) -> GoOn {
    let places = &manifest.partitions;
    let epoch = manifest.epoch;
    let mut before = watermarks.view().to_vec();
    before.iter_mut().zip(places).for_each(|(view, place)| view.restore(&place.seen_before));
    watermarks.restore(manifest.watermark, places);
    board.note(epoch.saturating_sub(1), epoch, &Rc::new(before));
    board.note(epoch, epoch + 1, watermarks.view());
    GoOn { epoch: epoch + 1, allotted: places.iter().map(|place| place.allotted).collect() }
}

/// Of each partition of the job the source's name and its number there.
pub(super) fn partition_names(plan: &Plan, histories: &[Vec<Option<Offset>>]) -> Vec<(String, u32)> {
    let of = |(source, history): (&SourcePlan, &Vec<_>)| {
        let name = source.name.clone();
        (0..history.len() as u32).map(move |number| (name.clone(), number)).collect::<Vec<_>>()
    };
    plan.sources.iter().zip(histories).flat_map(of).collect()
}
