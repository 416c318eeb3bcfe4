//! Taking up the newest checkpoint that is whole.

use std::collections::BTreeMap;

use bytes::Bytes;
use levada_types::journal::Recorded;
use levada_types::{Blame, CheckpointStore, ConnectorError, StateChange, StateChanges};

use super::Checkpoints;
use super::claim::{self, Chosen, Run};
use super::manifest::{Manifest, PartitionPlace, Seen, StateFile, checkpoints, savepoint_file};
use super::state::{self, Section};
use crate::host::Host;
use crate::plan::StepPlan;

/// A checkpoint that has been read.
pub(in crate::engine) struct Restored {
    pub manifest: Manifest,
    /// The entries of each step, file by file.
    steps: BTreeMap<String, Vec<Section>>,
    /// The files as they were read, by name. The entries are parts of them.
    pub files: Files,
}

/// Files of state, by name.
pub(in crate::engine) type Files = BTreeMap<String, Bytes>;

impl Restored {
    /// The same, for a job with these partitions, by source and number: of one that it does not know nothing has been
    /// read, and it has no history.
    pub fn with_partitions(mut self, names: &[(String, u32)]) -> Restored {
        let mut known: BTreeMap<(String, u32), PartitionPlace> =
            std::mem::take(&mut self.manifest.partitions)
                .into_iter()
                .map(|place| ((place.source.clone(), place.number), place))
                .collect();
        let place = |name: &(String, u32)| known.remove(name).unwrap_or_else(|| new(name));
        self.manifest.partitions = names.iter().map(place).collect();
        self
    }
}

/// The place of a partition that a checkpoint does not know.
fn new((source, number): &(String, u32)) -> PartitionPlace {
    let seen = Seen { chunks: 0, min_time: i64::MAX, max_time: i64::MIN, ended: true };
    let (source, number) = (source.clone(), *number);
    PartitionPlace { source, number, next: None, idle: true, allotted: 0, seen, seen_before: seen }
}

/// For the first process of a run, which has the number `run`: chooses the newest checkpoint that is whole and that the
/// journal goes with, reads it, and tells the other processes. `None` is the beginning.
///
/// # Errors
/// When the store cannot be read or written, and when there are checkpoints, none is whole, and the job cannot begin at
/// its beginning either because the journal does not reach back to it.
pub(in crate::engine) fn choose(
    store: &dyn CheckpointStore,
    run: &Run,
    recorded: &Recorded,
) -> Result<Option<Restored>, ConnectorError> {
    let restored = load(store, recorded)?;
    let from = match &restored {
        Some(restored) => Chosen::Checkpoint(restored.manifest.file_name()),
        None => Chosen::Beginning,
    };
    run.choose(store, from)?;
    Ok(restored)
}

/// For the other processes: the run's number, and what the first one has chosen.
///
/// # Errors
/// When the store cannot be read, or it is not whole any more.
pub(in crate::engine) fn follow(
    store: &dyn CheckpointStore,
) -> Result<(u64, Option<Restored>), ConnectorError> {
    let (run, from) = claim::chosen(store)?;
    let Chosen::Checkpoint(name) = from else { return Ok((run, None)) };
    match read(store, &name)? {
        Ok(restored) => Ok((run, Some(restored))),
        Err(why) => {
            let message =
                format!("go on from {name} of {}, as the first process does: {why}", store.describe());
            Err(ConnectorError::damage(message))
        }
    }
}

/// Reads the newest checkpoint that is whole and goes with the journal; says which are not, and why.
fn load(store: &dyn CheckpointStore, recorded: &Recorded) -> Result<Option<Restored>, ConnectorError> {
    let mut names = store.list()?;
    loop {
        let wrong = match newest_of(store, &names, recorded)? {
            Ok(restored) => return Ok(Some(restored)),
            Err(wrong) => wrong,
        };
        // A run of before that was on its way out may have put others in their place.
        let now = store.list()?;
        if names == now {
            return nothing(store, recorded, wrong);
        }
        names = now;
    }
}

/// The newest of these; or what is wrong with each.
fn newest_of(
    store: &dyn CheckpointStore,
    names: &[String],
    recorded: &Recorded,
) -> Result<Result<Restored, Vec<String>>, ConnectorError> {
    let mut wrong = Vec::new();
    for name in checkpoints(names).into_iter().rev() {
        match read(store, name)? {
            Ok(restored) if restored.manifest.begun != recorded.header.begun => {
                let (name_of, begun) = (&restored.manifest.name, "of another beginning than the journal");
                wrong.push(format!("{name}: it is of the job `{name_of}`, {begun}"));
            }
            Ok(restored) if recorded.trimmed.is_some_and(|from| restored.manifest.epoch < from) => {
                wrong.push(format!("{name}: the journal no longer holds what came after it"));
            }
            Ok(restored) => {
                tracing::info!("going on behind {name} of {}", store.describe());
                return Ok(Ok(restored));
            }
            Err(why) => {
                tracing::warn!("{name} in {} is not whole: {why}; trying the one before", store.describe());
                wrong.push(format!("{name}: {why}"));
            }
        }
    }
    Ok(Err(wrong))
}

/// What it means that there is no checkpoint to go on from.
fn nothing(
    store: &dyn CheckpointStore,
    recorded: &Recorded,
    wrong: Vec<String>,
) -> Result<Option<Restored>, ConnectorError> {
    match recorded.trimmed {
        Some(_) => {
            let why = if wrong.is_empty() { "there is none".into() } else { wrong.join("; ") };
            let message = format!(
                "go on from {}: {why}; the journal does not reach back to the beginning, so the job can only begin \
                 afresh",
                store.describe()
            );
            Err(ConnectorError { blame: Blame::Damage, message })
        }
        None if wrong.is_empty() => Ok(None),
        None => {
            tracing::warn!(
                "no checkpoint is whole: beginning with the first record, as the journal tells it"
            );
            Ok(None)
        }
    }
}

/// Before a job writes anything: has run `run` of the beginning `begun` begin with the savepoint that it is to begin
/// with, if there is one, and gives its epoch.
///
/// # Errors
/// When that is not whole, and when there are checkpoints already: what came after them the journal would have to
/// tell.
pub(in crate::engine) fn begin(
    how: &Checkpoints,
    run: u64,
    begun: u64,
) -> Result<Option<u64>, ConnectorError> {
    let store = &*how.store;
    let Some(name) = &how.begin_with else { return Ok(None) };
    let manifest = match read(store, &savepoint_file(name))? {
        Ok(restored) => restored.manifest,
        Err(why) => {
            let message = format!("begin with savepoint {name} of {}: {why}", store.describe());
            return Err(ConnectorError::configuration(message));
        }
    };
    let first = Manifest { savepoint: None, run, begun, ..manifest };
    let bytes =
        first.encode().map_err(|error| ConnectorError::outage(format!("write a manifest: {error}")))?;
    store.put(&first.file_name(), &[bytes.into()])?;
    Ok(Some(first.epoch))
}

/// That a job which begins finds no checkpoints.
///
/// # Errors
/// When there are some.
pub(in crate::engine) fn is_free(store: &dyn CheckpointStore) -> Result<(), ConnectorError> {
    let names = store.list()?;
    let Some(name) = checkpoints(&names).pop() else { return Ok(()) };
    Err(ConnectorError::damage(format!(
        "go on from {}: there is {name}, but the journal with what came after it is missing; --fresh deletes it and \
         begins anew, and a job that has nothing to do with it needs a place of its own",
        store.describe()
    )))
}

/// Reads one checkpoint; or says why it is not whole.
pub(super) fn read(
    store: &dyn CheckpointStore,
    name: &str,
) -> Result<Result<Restored, String>, ConnectorError> {
    let Some(bytes) = store.get(name)? else { return Ok(Err("it is gone".into())) };
    match Manifest::decode(&bytes) {
        Ok(manifest) => read_all(store, manifest, &Files::new()),
        Err(why) => Ok(Err(why)),
    }
}

/// Reads what a checkpoint is made of, except what is at hand; or says why it is not whole.
pub(super) fn read_all(
    store: &dyn CheckpointStore,
    mut manifest: Manifest,
    at_hand: &Files,
) -> Result<Result<Restored, String>, ConnectorError> {
    let (mut steps, mut files) = (BTreeMap::<String, Vec<Section>>::new(), Files::new());
    for file in &mut manifest.files {
        let bytes = match at_hand.get(&file.name) {
            Some(bytes) => Some(bytes.clone()),
            None => store.get(&file.name)?.map(Bytes::from),
        };
        let Some(bytes) = bytes else { return Ok(Err(format!("its file {}: it is missing", file.name))) };
        let mut of_file = match decode(file, &bytes) {
            Ok(of_file) => of_file,
            Err(why) => return Ok(Err(format!("its file {}: {why}", file.name))),
        };
        files.insert(file.name.clone(), bytes);
        of_file.retain(|(step, _)| file.counts(step));
        file.steps = of_file.iter().map(|(step, _)| step.clone()).collect();
        of_file.into_iter().for_each(|(step, entries)| steps.entry(step).or_default().push(entries));
    }
    Ok(Ok(Restored { manifest, steps, files }))
}

/// Reads a file of state, and checks that it is the one that the manifest knows.
pub(super) fn read_file(
    store: &dyn CheckpointStore,
    file: &StateFile,
) -> Result<Result<Vec<(String, Section)>, String>, ConnectorError> {
    match store.get(&file.name)? {
        Some(bytes) => Ok(decode(file, &Bytes::from(bytes))),
        None => Ok(Err("it is missing".into())),
    }
}

fn decode(file: &StateFile, bytes: &Bytes) -> Result<Vec<(String, Section)>, String> {
    if bytes.len() as u64 != file.bytes {
        return Err(format!("it has {} bytes instead of {}", bytes.len(), file.bytes));
    }
    if crc32c::crc32c(bytes) != file.crc {
        return Err("its checksum is another: it is damaged".into());
    }
    state::decode(bytes)
}

impl Restored {
    /// What a step remembers of the key groups that worker `me` of `peers` owns; nothing if it was another one.
    pub(in crate::engine) fn of_step(&self, step: &StepPlan, me: usize, peers: usize) -> StateChanges {
        let same = self.manifest.steps.get(&step.name) == Some(&step.identity);
        let files = self.steps.get(&step.name).filter(|_| same).map(Vec::as_slice).unwrap_or_default();
        let live = state::live(files, |group, key| Host::is_shared(key) || group.worker(peers) == me);
        state::changes(&live)
    }

    /// The entries of each step, file by file.
    pub(super) fn steps(&self) -> impl Iterator<Item = (&str, &[Section])> {
        self.steps.iter().map(|(name, files)| (name.as_str(), files.as_slice()))
    }

    /// All that each step remembers.
    pub(super) fn live(&self) -> impl Iterator<Item = (&str, Vec<StateChange<'_>>)> {
        self.steps.iter().map(|(name, files)| (name.as_str(), state::live(files, |_, _| true)))
    }

    /// Where a sink goes on; `None` of one that was not there.
    pub(in crate::engine) fn place(&self, sink: &str) -> Option<Vec<u8>> {
        let digits = self.manifest.sinks.get(sink)?;
        let byte = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        (0..digits.len()).step_by(2).map(byte).collect()
    }
}
