//! Making checkpoints: what the operators hand over becomes files, and a manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crossbeam_channel::{Receiver, Sender, unbounded};
use levada_types::{CheckpointStore, ConnectorError, EventTime, Offset, SourceFactory, StateChanges};
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::{Capability, Concatenate};
use timely::dataflow::{Scope, Stream};
use timely::scheduling::SyncActivator;

use super::load;
use super::manifest::{Manifest, PartitionPlace, StateFile, VERSION, is_savepoint, manifests};
use super::state;
use super::state::Encoder;
use super::{Checkpoints, Done, Trigger};
use crate::engine::clock::unix_ms;
use crate::engine::{EngineError, Shared};
use crate::metrics::{Metrics, count};

/// A share of a checkpoint, handed over at the end of its epoch.
#[derive(Clone, Debug)]
pub(in crate::engine) enum Part {
    /// How far the partitions are, and with them the job's time: from worker 0.
    Progress(ProgressPart),
    /// What a step changed, in one go or in several.
    Step(String, Vec<StateChanges>),
    /// Where a sink goes on; what it has published is durable.
    Sink(String, Vec<u8>),
}

/// How far the partitions are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::engine) struct ProgressPart {
    pub watermark: EventTime,
    pub partitions: Vec<PartitionPlace>,
}

/// A worker's share of a checkpoint, when it is durable.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Share {
    progress: Option<ProgressPart>,
    sinks: Vec<(String, Vec<u8>)>,
    /// The worker's files, if its steps had changed anything.
    files: Vec<StateFile>,
    /// The steps of which they hold all that there is on this worker.
    whole: Vec<String>,
    /// Of their bytes, those that had not changed, about.
    unchanged: u64,
}

/// Sets of changes that weigh more than this, and than what they change, become one with it.
const COMPACT_BYTES: u64 = 4 << 20;
/// Files that a checkpoint is made of at most, before they become one.
const MAX_FILES: usize = 64;

/// Builds, on this worker, what writes its share and, on worker 0, what commits the whole.
pub(in crate::engine) fn checkpoints<'scope>(
    scope: Scope<'scope, u64>,
    parts: Vec<Stream<'scope, u64, Vec<Part>>>,
    store: Arc<dyn CheckpointStore>,
    committer: Option<Committer>,
    shared: Arc<Shared>,
) -> Result<(), EngineError> {
    let me = scope.index();
    let mut builder = OperatorBuilder::new("Checkpoint".into(), scope);
    let mut input = builder.new_input(scope.concatenate(parts), Pipeline);
    let (mut output, shares) = builder.new_output::<Vec<Share>>();
    let wake = scope.worker().sync_activator_for(builder.operator_info().address.to_vec());
    let writer = Writer::start(me, store, Arc::clone(&shared), wake)?;
    let failed = Arc::clone(&shared);
    builder.build(move |_| {
        let mut pending: BTreeMap<u64, (Capability<u64>, Vec<Part>)> = BTreeMap::new();
        let mut writing: BTreeMap<u64, Capability<u64>> = BTreeMap::new();
        move |frontiers| {
            input.for_each(|cap, parts| {
                let (_, told) = pending.entry(*cap.time()).or_insert_with(|| (cap.retain(0), Vec::new()));
                told.append(parts);
            });
            let frontier = frontiers[0].frontier().iter().copied().min().unwrap_or(u64::MAX);
            while let Some(entry) = pending.first_entry()
                && *entry.key() < frontier
                && !failed.has_failed()
            {
                let (epoch, (cap, parts)) = entry.remove_entry();
                writing.insert(epoch, cap);
                // The thread has ended only if the job has failed.
                let _ = writer.parts.send((epoch, parts));
            }
            while let Ok((epoch, share)) = writer.shares.try_recv() {
                if let Some(cap) = writing.remove(&epoch) {
                    output.activate().give(&cap, &mut vec![share]);
                }
            }
        }
    });

    let mut builder = OperatorBuilder::new("Commit".into(), scope);
    let mut input = builder.new_input(shares, Exchange::new(|_: &Share| 0));
    let commit = committer.map(|committer| committer.start(Arc::clone(&shared))).transpose()?;
    builder.build(move |_| {
        let mut pending: BTreeMap<u64, Vec<Share>> = BTreeMap::new();
        move |frontiers| {
            input.for_each(|cap, shares| pending.entry(*cap.time()).or_default().append(shares));
            let frontier = frontiers[0].frontier().iter().copied().min().unwrap_or(u64::MAX);
            while let Some(entry) = pending.first_entry()
                && *entry.key() < frontier
                && !shared.has_failed()
            {
                let (epoch, shares) = entry.remove_entry();
                if let Some(commit) = &commit {
                    let _ = commit.send((epoch, shares));
                }
            }
        }
    });
    Ok(())
}

/// A worker's thread that encodes its shares and waits for the disk.
struct Writer {
    parts: Sender<(u64, Vec<Part>)>,
    shares: Receiver<(u64, Share)>,
}

impl Writer {
    fn start(
        me: usize,
        store: Arc<dyn CheckpointStore>,
        shared: Arc<Shared>,
        wake: SyncActivator,
    ) -> Result<Writer, EngineError> {
        let (parts, waiting) = unbounded::<(u64, Vec<Part>)>();
        let (done, shares) = unbounded();
        let ending = Arc::clone(&shared);
        shared.spawn(format!("checkpoint {me}"), move || {
            for (epoch, parts) in waiting {
                match write(&*store, epoch, me, parts) {
                    Ok(share) => drop(done.send((epoch, share))),
                    Err(error) => return ending.fail(EngineError::Checkpoint(error)),
                }
                // A worker that is gone needs no waking.
                let _ = wake.activate();
            }
        })?;
        Ok(Writer { parts, shares })
    }
}

fn write(
    store: &dyn CheckpointStore,
    epoch: u64,
    me: usize,
    parts: Vec<Part>,
) -> Result<Share, ConnectorError> {
    let mut share = Share::default();
    // Apart, so that the one is of no more use when all is told again.
    let (mut whole, mut changed) = (Encoder::default(), Encoder::default());
    for part in parts {
        match part {
            Part::Progress(progress) => share.progress = Some(progress),
            Part::Sink(name, place) => share.sinks.push((name, place)),
            Part::Step(_, changes) if changes.iter().all(StateChanges::is_empty) => {}
            Part::Step(name, changes) => {
                let changes = state::merged(changes);
                let unchanged = changes.size() * changes.unchanged() / changes.len().max(1);
                share.unchanged += unchanged as u64;
                (if changes.is_whole() { &mut whole } else { &mut changed }).step(&name, changes);
            }
        }
    }
    share.whole = whole.steps();
    let now = unix_ms();
    for (what, encoder) in [("whole-", whole), ("", changed)] {
        if encoder.entries() > 0 {
            share.files.push(put(store, format!("state-{epoch:020}-{what}{me}-{now:x}"), encoder)?);
        }
    }
    Ok(share)
}

/// Writes a file of state. Its name says when, so that no later run writes another under the same name, which an
/// older manifest may name.
fn put(store: &dyn CheckpointStore, name: String, encoder: Encoder) -> Result<StateFile, ConnectorError> {
    let (entries, steps) = (encoder.entries(), encoder.steps());
    let file = encoder.finish();
    store.put(&name, &file.parts)?;
    Ok(StateFile { name, bytes: file.bytes, crc: file.crc, entries, steps })
}

/// Commits checkpoints: writes their manifests, keeps the newest, deletes what no manifest names.
pub(in crate::engine) struct Committer {
    pub how: Checkpoints,
    pub name: String,
    pub job: u64,
    /// When its journal was begun.
    pub journal_ms: u64,
    pub steps: BTreeMap<String, u64>,
    /// Each source, to be told, and how many partitions it has.
    pub sources: Vec<(Arc<dyn SourceFactory>, usize)>,
    /// What the checkpoint from which the run goes on is made of.
    pub files: Vec<StateFile>,
    pub trigger: Arc<Trigger>,
    /// The journal need not hold this epoch any more, nor what is before it.
    pub trim: Arc<AtomicU64>,
    pub metrics: Arc<Metrics>,
}

impl Committer {
    /// Goes on with the files of a checkpoint.
    pub(in crate::engine) fn go_on(&mut self, from: &Manifest) {
        self.files = known(from, &self.steps);
    }

    /// A thread that waits for the store.
    fn start(mut self, shared: Arc<Shared>) -> Result<Sender<(u64, Vec<Share>)>, EngineError> {
        let (shares, waiting) = unbounded::<(u64, Vec<Share>)>();
        let ending = Arc::clone(&shared);
        shared.spawn("checkpoints".into(), move || {
            for (epoch, shares) in waiting {
                if let Err(error) = self.commit(epoch, shares) {
                    return ending.fail(EngineError::Checkpoint(error));
                }
            }
        })?;
        Ok(shares)
    }

    fn commit(&mut self, epoch: u64, mut shares: Vec<Share>) -> Result<(), ConnectorError> {
        let Some(progress) = shares.iter_mut().find_map(|share| share.progress.take()) else { return Ok(()) };
        let told_whole = |step: &str| shares.iter().all(|share| share.whole.iter().any(|name| name == step));
        forget_steps(&mut self.files, told_whole);
        let unchanged = shares.iter().map(|share| share.unchanged).sum::<u64>() as usize;
        let mut files: Vec<StateFile> =
            shares.iter_mut().flat_map(|share| std::mem::take(&mut share.files)).collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let hex = |place: Vec<u8>| place.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let sinks = shares.into_iter().flat_map(|share| share.sinks).map(|(name, place)| (name, hex(place)));
        let bytes = files.iter().map(|file| file.bytes).sum::<u64>() as usize;
        self.files.append(&mut files);
        let mut manifest = Manifest {
            version: VERSION,
            name: self.name.clone(),
            job: self.job,
            journal_ms: self.journal_ms,
            epoch,
            made_ms: unix_ms(),
            savepoint: None,
            watermark: progress.watermark,
            partitions: progress.partitions,
            steps: self.steps.clone(),
            sinks: sinks.collect(),
            files: self.files.clone(),
        };
        self.put(&manifest)?;
        let Done { took, names } = self.trigger.done();
        let told = &self.metrics.checkpoints;
        count(&told.made, 1);
        count(&told.bytes, bytes - unchanged);
        count(&told.compacted_bytes, unchanged);
        told.epoch.store(epoch, SeqCst);
        told.made_ms.store(manifest.made_ms, SeqCst);
        told.took_ns.store(took.as_nanos() as u64, SeqCst);
        for name in names {
            self.put(&Manifest { savepoint: Some(name), ..manifest.clone() })?;
        }
        self.tell(&manifest);
        if self.is_worth_compacting() {
            self.compact(&mut manifest)?;
        }
        self.prune(epoch)
    }

    fn put(&self, manifest: &Manifest) -> Result<(), ConnectorError> {
        let bytes = manifest.encode();
        let bytes = bytes.map_err(|error| ConnectorError::outage(format!("write a manifest: {error}")))?;
        self.how.store.put(&manifest.file_name(), &[bytes.into()])
    }

    fn tell(&self, manifest: &Manifest) {
        let mut places = manifest.partitions.iter().map(|partition| partition.next.map(Offset));
        for (source, partitions) in &self.sources {
            source.checkpointed(&places.by_ref().take(*partitions).collect::<Vec<_>>());
        }
    }

    /// Whether all other files weigh more than those of the epoch that wrote the most, which hold the most of what
    /// there is.
    fn is_worth_compacting(&self) -> bool {
        let mut epochs: BTreeMap<Option<u64>, u64> = BTreeMap::new();
        for file in &self.files {
            *epochs.entry(epoch_of(&file.name)).or_default() += file.bytes;
        }
        let all: u64 = epochs.values().sum();
        let largest = epochs.into_values().max().unwrap_or(0);
        self.files.len() > MAX_FILES || all - largest > largest.max(COMPACT_BYTES)
    }

    /// Makes one file of all.
    fn compact(&mut self, manifest: &mut Manifest) -> Result<(), ConnectorError> {
        let store = &*self.how.store;
        let restored = load::read(store, &manifest.file_name())?
            .map_err(|why| ConnectorError::damage(format!("read {} again: {why}", manifest.file_name())))?;
        let mut encoder = Encoder::default();
        for (step, files) in restored.steps() {
            encoder.step(step, state::newest(files));
        }
        let all = put(store, format!("state-{:020}-all-{:x}", manifest.epoch, unix_ms()), encoder)?;
        count(&self.metrics.checkpoints.compacted_bytes, all.bytes as usize);
        self.files = vec![all];
        manifest.files = self.files.clone();
        self.put(manifest)
    }

    /// Deletes what is older than those to be kept.
    fn prune(&self, newest: u64) -> Result<(), ConnectorError> {
        let store = &*self.how.store;
        let names = store.list()?;
        let checkpoints: Vec<&String> = manifests(&names).filter(|name| !is_savepoint(name)).collect();
        let excess = checkpoints.len().saturating_sub(self.how.keep.max(1));
        for name in &checkpoints[..excess] {
            store.delete(name)?;
        }
        let oldest = delete_unnamed(store, newest)?;
        // The journal has to hold what came after the oldest checkpoint from which a run may go on.
        if let Some(oldest) = oldest {
            self.trim.fetch_max(oldest, SeqCst);
        }
        Ok(())
    }
}

/// The files of a checkpoint as they count for these steps. What one has told that is another now, or none, does not.
fn known(from: &Manifest, steps: &BTreeMap<String, u64>) -> Vec<StateFile> {
    let same = |step: &str| steps.contains_key(step) && steps.get(step) == from.steps.get(step);
    let mut files = from.files.clone();
    forget_steps(&mut files, |step| !same(step));
    files
}

/// Leaves what files tell of these steps out of account, and files that tell nothing else.
fn forget_steps(files: &mut Vec<StateFile>, these: impl Fn(&str) -> bool) {
    // What is in a file that does not tell, nobody knows.
    files.retain_mut(|file| {
        let told = !file.steps.is_empty();
        file.steps.retain(|step| !these(step));
        !(told && file.steps.is_empty())
    });
}

/// Deletes the files of state up to epoch `newest` that no manifest names; gives the epoch of the oldest
/// checkpoint. Nothing, if a manifest cannot be read: what it names is not known.
pub(super) fn delete_unnamed(
    store: &dyn CheckpointStore,
    newest: u64,
) -> Result<Option<u64>, ConnectorError> {
    let names = store.list()?;
    let mut wanted = BTreeSet::new();
    let mut oldest = None;
    for name in manifests(&names) {
        let Some(bytes) = store.get(name)? else { continue };
        let Ok(manifest) = Manifest::decode(&bytes) else { return Ok(None) };
        if !is_savepoint(name) {
            oldest.get_or_insert(manifest.epoch);
        }
        wanted.extend(manifest.files.into_iter().map(|file| file.name));
    }
    for name in names.iter().filter(|name| epoch_of(name).is_some_and(|epoch| epoch <= newest)) {
        if !wanted.contains(name) {
            store.delete(name)?;
        }
    }
    Ok(oldest)
}

/// The epoch of a file of state; `None` of any other name.
fn epoch_of(name: &str) -> Option<u64> {
    name.strip_prefix("state-")?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::example;
    use super::*;

    #[test]
    fn what_another_step_told_is_forgotten() {
        let file = |name: &str, steps: &[&str]| StateFile {
            name: name.into(),
            bytes: 1,
            crc: 1,
            entries: 1,
            steps: steps.iter().map(|step| step.to_string()).collect(),
        };
        let from = Manifest {
            steps: [("a", 1), ("b", 2), ("c", 3)].map(|(name, is)| (name.to_string(), is)).into(),
            files: vec![file("1", &["a", "b"]), file("2", &["b", "c"]), file("3", &["c"]), file("4", &[])],
            ..example()
        };
        // One is the same, one another, one is there no more.
        let now = [("a", 1), ("b", 4)].map(|(name, is)| (name.to_string(), is)).into();
        assert_eq!(known(&from, &now), [file("1", &["a"]), file("4", &[])]);
        assert_eq!(known(&from, &from.steps), from.files);
    }
}
