//! Making checkpoints: what the operators hand over becomes files, and a manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use levada_types::{CheckpointStore, ConnectorError, EventTime, Offset, SourceFactory, StateChanges};
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::{Capability, Concatenate};
use timely::dataflow::{Scope, Stream};
use timely::scheduling::SyncActivator;

use super::claim;
use super::load::{self, Files, Restored};
use super::manifest::{
    self, Manifest, PartitionPlace, StateFile, VERSION, epoch_of, of_run, run_of, savepoints,
};
use super::patience::Patience;
use super::state;
use super::state::{Encoded, Encoder};
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

/// What writes checkpoints on this worker.
pub(in crate::engine) struct Writing {
    pub store: Arc<dyn CheckpointStore>,
    /// The run's number.
    pub run: u64,
    /// What commits them, on worker 0.
    pub committer: Option<Committer>,
    /// Whether the job is to stop.
    pub stop: Arc<AtomicBool>,
}

/// What the names of files of state begin with.
const STATE: &str = "state-";
/// Sets of changes that weigh more than this, and than what they change, become one with it.
const COMPACT_BYTES: u64 = 4 << 20;
/// Files that a checkpoint is made of at most, before they become one.
const MAX_FILES: usize = 64;

/// Builds, on this worker, what writes its share and, on worker 0, what commits the whole.
pub(in crate::engine) fn checkpoints<'scope>(
    scope: Scope<'scope, u64>,
    parts: Vec<Stream<'scope, u64, Vec<Part>>>,
    writing: Writing,
    shared: Arc<Shared>,
) -> Result<(), EngineError> {
    let Writing { store, run, committer, stop } = writing;
    let me = scope.index();
    let mut builder = OperatorBuilder::new("Checkpoint".into(), scope);
    let mut input = builder.new_input(scope.concatenate(parts), Pipeline);
    let (mut output, shares) = builder.new_output::<Vec<Share>>();
    let wake = scope.worker().sync_activator_for(builder.operator_info().address.to_vec());
    let names = Names { me, run };
    let patience = Patience::new(Arc::clone(&shared), Arc::clone(&stop));
    let writer = Writer::start(names, store, patience, wake)?;
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
    let commit =
        committer.map(|committer| committer.start(Patience::new(Arc::clone(&shared), stop))).transpose()?;
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

/// Whose a file of state is.
#[derive(Clone, Copy)]
struct Names {
    me: usize,
    run: u64,
}

/// A worker's thread that encodes its shares and waits for the disk.
struct Writer {
    parts: Sender<(u64, Vec<Part>)>,
    shares: Receiver<(u64, Share)>,
}

impl Writer {
    fn start(
        names: Names,
        store: Arc<dyn CheckpointStore>,
        patience: Patience,
        wake: SyncActivator,
    ) -> Result<Writer, EngineError> {
        let (parts, waiting) = unbounded::<(u64, Vec<Part>)>();
        let (done, shares) = unbounded();
        let shared = Arc::clone(&patience.shared);
        shared.spawn(format!("checkpoint {}", names.me), move || {
            for (epoch, parts) in waiting {
                match write(&*store, &patience, epoch, names, parts) {
                    Ok(share) => drop(done.send((epoch, share))),
                    Err(error) => return patience.end(&*store, error),
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
    patience: &Patience,
    epoch: u64,
    Names { me, run }: Names,
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
                let changes = state::merged(changes).map_err(ConnectorError::damage)?;
                let unchanged = changes.size() * changes.unchanged() / changes.len().max(1);
                share.unchanged += unchanged as u64;
                (if changes.is_whole() { &mut whole } else { &mut changed }).step(&name, changes);
            }
        }
    }
    share.whole = whole.steps();
    for (what, encoder) in [("whole-", whole), ("", changed)] {
        if encoder.entries() > 0 {
            let name = of_run(&format!("{STATE}{epoch:020}-{what}{me}"), run);
            share.files.push(put(store, patience, name, encoder)?);
        }
    }
    Ok(share)
}

/// Writes a file of state. Its name says the run, so that no other one writes another under the same name, which an
/// older manifest may name.
fn put(
    store: &dyn CheckpointStore,
    patience: &Patience,
    name: String,
    encoder: Encoder,
) -> Result<StateFile, ConnectorError> {
    let (entries, steps) = (encoder.entries(), encoder.steps());
    let Encoded { parts, bytes, crc } = encoder.finish();
    patience.insist(store, || store.put(&name, &parts))?;
    Ok(StateFile { name, bytes, crc, entries, steps })
}

/// Commits checkpoints: writes their manifests, keeps the newest, deletes what no manifest names.
pub(in crate::engine) struct Committer {
    pub how: Checkpoints,
    pub name: String,
    pub job: u64,
    /// The beginning of the job that its journal is of.
    pub begun: u64,
    /// The run's number.
    pub run: u64,
    pub steps: BTreeMap<String, u64>,
    /// Each source, to be told, and how many partitions it has.
    pub sources: Vec<(Arc<dyn SourceFactory>, usize)>,
    /// What the last checkpoint is made of; at first the one from which the run goes on.
    pub files: Vec<StateFile>,
    /// Those of them that a run of before wrote, until this one has made a checkpoint: a run that was only thought dead
    /// may delete them.
    pub at_hand: Files,
    pub trigger: Arc<Trigger>,
    /// The journal need not hold this epoch any more, nor what is before it.
    pub trim: Arc<AtomicU64>,
    pub metrics: Arc<Metrics>,
}

impl Committer {
    /// Goes on with the files of a checkpoint.
    pub(in crate::engine) fn go_on(&mut self, from: &Restored) {
        self.files = known(&from.manifest, &self.steps);
        self.at_hand = from.files.clone();
    }

    /// A thread that waits for the store.
    fn start(mut self, patience: Patience) -> Result<Sender<(u64, Vec<Share>)>, EngineError> {
        let (shares, waiting) = unbounded::<(u64, Vec<Share>)>();
        let shared = Arc::clone(&patience.shared);
        shared.spawn("checkpoints".into(), move || {
            for (epoch, shares) in waiting {
                if let Err(error) = self.commit(&patience, epoch, shares) {
                    return patience.end(&*self.how.store, error);
                }
            }
        })?;
        Ok(shares)
    }

    fn commit(
        &mut self,
        patience: &Patience,
        epoch: u64,
        mut shares: Vec<Share>,
    ) -> Result<(), ConnectorError> {
        let Some(progress) = shares.iter_mut().find_map(|share| share.progress.take()) else { return Ok(()) };
        let told_whole = |step: &str| shares.iter().all(|share| share.whole.iter().any(|name| name == step));
        forget_steps(&mut self.files, told_whole);
        let unchanged = shares.iter().map(|share| share.unchanged).sum::<u64>() as usize;
        let mut files: Vec<StateFile> =
            shares.iter_mut().flat_map(|share| std::mem::take(&mut share.files)).collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let store = Arc::clone(&self.how.store);
        let mut names = patience.insist(&*store, || self.names(&files))?;
        let hex = |place: Vec<u8>| place.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let sinks = shares.into_iter().flat_map(|share| share.sinks).map(|(name, place)| (name, hex(place)));
        let bytes = files.iter().map(|file| file.bytes).sum::<u64>() as usize;
        self.files.append(&mut files);
        let mut manifest = Manifest {
            version: VERSION,
            name: self.name.clone(),
            job: self.job,
            begun: self.begun,
            run: self.run,
            epoch,
            made_ms: unix_ms(),
            savepoint: None,
            watermark: progress.watermark,
            partitions: progress.partitions,
            steps: self.steps.clone(),
            sinks: sinks.collect(),
            files: self.files.clone(),
        };
        let is_first = self.files.iter().any(|file| run_of(&file.name) != self.run);
        if is_first {
            self.compact(patience, &mut manifest)?;
        }
        self.at_hand.clear();
        self.put(patience, &manifest)?;
        names.push(manifest.file_name());
        let Done { took, names: wanted } = self.trigger.done();
        let told = &self.metrics.checkpoints;
        count(&told.made, 1);
        count(&told.bytes, bytes - unchanged);
        count(&told.compacted_bytes, unchanged);
        told.epoch.store(epoch, SeqCst);
        told.made_ms.store(manifest.made_ms, SeqCst);
        told.took_ns.store(took.as_nanos() as u64, SeqCst);
        for name in wanted {
            let savepoint = Manifest { savepoint: Some(name), ..manifest.clone() };
            self.keep(patience, &savepoint)?;
            names.push(savepoint.file_name());
        }
        self.tell(&manifest);
        if self.is_worth_compacting() {
            self.compact(patience, &mut manifest)?;
            self.put(patience, &manifest)?;
        }
        patience.insist(&*store, || self.prune(&names, epoch))
    }

    /// The names of all files, unless a later run has begun: then it is its turn.
    fn names(&self, files: &[StateFile]) -> Result<Vec<String>, ConnectorError> {
        let store = &*self.how.store;
        let names = store.list()?;
        let other = files.iter().map(|file| run_of(&file.name)).find(|run| *run != self.run);
        match claim::successor(store, &names, self.run)?.or(other) {
            None => Ok(names),
            Some(other) => Err(claim::replaced(store, self.run, other)),
        }
    }

    fn put(&self, patience: &Patience, manifest: &Manifest) -> Result<(), ConnectorError> {
        let bytes = encode(manifest)?;
        patience.insist(&*self.how.store, || {
            self.how.store.put(&manifest.file_name(), std::slice::from_ref(&bytes))
        })
    }

    /// Keeps a checkpoint by a name, unless another one has it.
    fn keep(&self, patience: &Patience, savepoint: &Manifest) -> Result<(), ConnectorError> {
        let (bytes, name) = (encode(savepoint)?, savepoint.file_name());
        let store = &*self.how.store;
        let created = patience.insist(store, || {
            // An attempt whose answer did not come may have made it.
            Ok(store.create(&name, std::slice::from_ref(&bytes))?
                || store.get(&name)?.is_some_and(|it| it == bytes))
        })?;
        if !created {
            tracing::warn!("there is a {name} in {} already, which stays as it is", store.describe());
        }
        Ok(())
    }

    fn tell(&self, manifest: &Manifest) {
        let mut places = manifest.partitions.iter().map(|partition| partition.next.map(Offset));
        for (source, partitions) in &self.sources {
            source.checkpointed(&places.by_ref().take(*partitions).collect::<Vec<_>>());
        }
    }

    /// Whether there are many files, or all others weigh more than those of the epoch that wrote the most, which hold the
    /// most of what there is.
    fn is_worth_compacting(&self) -> bool {
        let mut epochs: BTreeMap<Option<u64>, u64> = BTreeMap::new();
        for file in &self.files {
            *epochs.entry(epoch_of(&file.name)).or_default() += file.bytes;
        }
        let all: u64 = epochs.values().sum();
        let largest = epochs.into_values().max().unwrap_or(0);
        self.files.len() > MAX_FILES || all - largest > largest.max(COMPACT_BYTES)
    }

    /// Makes one file of all that a checkpoint is made of.
    fn compact(&mut self, patience: &Patience, manifest: &mut Manifest) -> Result<(), ConnectorError> {
        let store = Arc::clone(&self.how.store);
        let read = || load::read_all(&*store, manifest.clone(), &self.at_hand);
        let restored = patience.insist(&*store, read)?.map_err(|why| {
            ConnectorError::damage(format!("read again what {} is made of: {why}", manifest.file_name()))
        })?;
        let mut encoder = Encoder::default();
        for (step, files) in restored.steps() {
            encoder.step(step, state::newest(files));
        }
        let name = of_run(&format!("{STATE}{:020}-all", manifest.epoch), self.run);
        let all = put(&*store, patience, name, encoder)?;
        count(&self.metrics.checkpoints.compacted_bytes, all.bytes as usize);
        self.files = vec![all];
        manifest.files = self.files.clone();
        Ok(())
    }

    /// Deletes what is older than those to be kept, of all that there was before checkpoint `newest`, and that one.
    fn prune(&self, names: &[String], newest: u64) -> Result<(), ConnectorError> {
        let store = &*self.how.store;
        let checkpoints = until(names, self.run);
        let excess = checkpoints.len().saturating_sub(self.how.keep.max(1));
        for name in &checkpoints[..excess] {
            store.delete(name)?;
        }
        let oldest = delete_unnamed(store, names, self.run, newest)?;
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

fn encode(manifest: &Manifest) -> Result<Bytes, ConnectorError> {
    let bytes = manifest.encode();
    bytes
        .map(Bytes::from)
        .map_err(|error| ConnectorError::configuration(format!("write a manifest: {error}")))
}

/// The names of checkpoints, without those of runs behind `run`.
fn until(names: &[String], run: u64) -> Vec<&String> {
    let mut checkpoints = manifest::checkpoints(names);
    checkpoints.retain(|name| run_of(name) <= run);
    checkpoints
}

/// For run `run`: deletes of `names` the files of state that no manifest names, its own up to epoch `newest` and those
/// of all runs before it, and what those told of themselves. Gives the least epoch of a checkpoint. Nothing, if a
/// manifest cannot be read: what it names is not known.
pub(super) fn delete_unnamed(
    store: &dyn CheckpointStore,
    names: &[String],
    run: u64,
    newest: u64,
) -> Result<Option<u64>, ConnectorError> {
    let mut wanted = BTreeSet::new();
    let mut oldest: Option<u64> = None;
    for name in until(names, run) {
        let Some(bytes) = store.get(name)? else { continue };
        let Ok(manifest) = Manifest::decode(&bytes) else { return Ok(None) };
        oldest = Some(oldest.map_or(manifest.epoch, |oldest| oldest.min(manifest.epoch)));
        wanted.extend(manifest.files.into_iter().map(|file| file.name));
    }
    for name in savepoints(names) {
        let Some(bytes) = store.get(name)? else { continue };
        let Ok(manifest) = Manifest::decode(&bytes) else { return Ok(None) };
        wanted.extend(manifest.files.into_iter().map(|file| file.name));
    }
    let is_over = |name: &String| match claim::number(name) {
        Some(number) => number < run,
        None if !name.starts_with(STATE) || wanted.contains(name) => false,
        None => {
            run_of(name) < run || run_of(name) == run && epoch_of(name).is_some_and(|epoch| epoch <= newest)
        }
    };
    for name in names.iter().filter(|name| is_over(name)) {
        store.delete(name)?;
    }
    Ok(oldest)
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
