//! Runs of a job, and why one that was given up for dead and wakes up again harms none that came after it.
//!
//! A run that begins takes the next number, by creating a file of that name:
//!
//! ```text
//!  run-7                                        who it is, and the checkpoint that it goes on from
//!  checkpoint-00000000000000000042-r7           what it makes has its number
//!  state-00000000000000000042-0-r7
//! ```
//!
//! The journal decides which run goes on. Here the store is kept so that it does not matter when another one notices:
//!
//! - A run writes only names with its own number, so none replaces what another wrote.
//! - It deletes only what has its own number or a lower one; and the greatest number is always kept, so none is given
//!   twice.
//! - The first checkpoint that it makes is made of its own files alone: what it goes on from it has read before, and
//!   holds until then, whatever becomes of the files. (Where another process of it does not find them any more, the run
//!   ends, and is begun again.) An earlier run deletes them only after it has made another checkpoint that is whole; of
//!   an epoch that the journal holds, since a checkpoint is made when all sinks have passed its epoch.
//! - Of the checkpoints those of the greatest number are the newest, whatever their epochs, for going on as for
//!   deleting. So what an earlier run adds late is the first to go. Only those that are of the journal's beginning count.
//! - All processes of a run go on from the one checkpoint that its first process has chosen, and tells by its file.
//!
//! Before each checkpoint a run looks whether one with a greater number has gone on from what there was, and ends if so.

use levada_types::{CheckpointStore, ConnectorError};
use serde::{Deserialize, Serialize};

use super::manifest::{SAVEPOINT, VERSION, run_of};

const RUN: &str = "run-";

/// What a run tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    /// The form; see [`VERSION`].
    version: u32,
    /// The job's name.
    name: String,
    /// The beginning of the job that its journal is of; `None` of who only deleted what was there.
    begun: Option<u64>,
    /// What it goes on from, once it has chosen.
    from: Option<Chosen>,
}

impl Claim {
    /// Whether the journal has let it go on: of those that begin a job at once all take a number, and all but one are
    /// refused then.
    fn has_gone_on(&self) -> bool {
        self.from.is_some()
    }
}

/// What a run goes on from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Chosen {
    /// The first record.
    Beginning,
    /// The checkpoint of this name.
    Checkpoint(String),
}

/// The number of a run that has begun.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Run {
    pub number: u64,
    claim: Claim,
}

/// As whom a run takes a number.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Who<'a> {
    /// The job's name.
    pub name: &'a str,
    /// The beginning of the job that its journal is of.
    pub begun: u64,
    /// Whether it begins just now.
    pub new: bool,
}

impl Run {
    /// Takes the next number.
    ///
    /// # Errors
    /// When the store cannot be written, and when what it holds is of another job, or of another beginning of this one.
    pub fn take(store: &dyn CheckpointStore, who: Who<'_>) -> Result<Run, ConnectorError> {
        let claim = Claim { version: VERSION, name: who.name.into(), begun: Some(who.begun), from: None };
        loop {
            let names = store.list()?;
            if let Some((_, before)) = newest(store, numbers(&names), Claim::has_gone_on)? {
                check(store, &before, who)?;
            }
            let number = last(&names) + 1;
            let bytes = [encode(&claim).into()];
            if store.create(&file(number), &bytes)? {
                // Of an object store that does not support `If-None-Match` each of two runs would get it.
                if !store.create(&file(number), &bytes)? {
                    return Ok(Run { number, claim });
                }
                return Err(match last(&store.list()?) {
                    later if later > number => replaced(store, number, later),
                    _ => ConnectorError::configuration(format!(
                        "keep checkpoints in {}: it creates one name twice (of an object store, it does not support \
                         `If-None-Match`), and so two runs could get the same number",
                        store.describe()
                    )),
                });
            }
        }
    }

    /// Tells the other processes of the run which checkpoint it goes on from.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(super) fn choose(&self, store: &dyn CheckpointStore, from: Chosen) -> Result<(), ConnectorError> {
        let claim = Claim { from: Some(from), ..self.claim.clone() };
        store.put(&file(self.number), &[encode(&claim).into()])
    }
}

/// For the other processes of a run: its number and what it goes on from.
///
/// # Errors
/// When the store cannot be read, or no run has chosen.
pub(super) fn chosen(store: &dyn CheckpointStore) -> Result<(u64, Chosen), ConnectorError> {
    match newest(store, numbers(&store.list()?), Claim::has_gone_on)? {
        Some((number, Claim { from: Some(from), .. })) => Ok((number, from)),
        _ => {
            let place = store.describe();
            Err(ConnectorError::outage(format!(
                "go on from {place}: the first process has not said from what"
            )))
        }
    }
}

/// Takes a number and gives it back unused, so that no run of before has the greatest; gives that number.
///
/// # Errors
/// When the store cannot be written.
pub(super) fn retire(store: &dyn CheckpointStore, name: &str) -> Result<u64, ConnectorError> {
    let claim = Claim { version: VERSION, name: name.into(), begun: None, from: None };
    loop {
        let number = last(&store.list()?) + 1;
        if store.create(&file(number), &[encode(&claim).into()])? {
            return Ok(number);
        }
    }
}

/// The number of a run's own file.
pub(super) fn number(name: &str) -> Option<u64> {
    name.strip_prefix(RUN)?.parse().ok()
}

/// The greatest number that was taken; 0 if none.
pub(super) fn last(names: &[String]) -> u64 {
    let kept = |name: &String| !name.starts_with(SAVEPOINT);
    let names = names.iter().filter(|name| kept(name));
    names.map(|name| number(name).unwrap_or_else(|| run_of(name))).max().unwrap_or(0)
}

/// A later run than `run` that has gone on from what there was; `None` if there is none.
///
/// # Errors
/// When the store cannot be read.
pub(super) fn successor(
    store: &dyn CheckpointStore,
    names: &[String],
    run: u64,
) -> Result<Option<u64>, ConnectorError> {
    let later = numbers(names).into_iter().filter(|number| *number > run).collect();
    Ok(newest(store, later, Claim::has_gone_on)?.map(|(number, _)| number))
}

/// That run `later` has taken the place of run `run`.
pub(super) fn replaced(store: &dyn CheckpointStore, run: u64, later: u64) -> ConnectorError {
    ConnectorError::configuration(format!(
        "keep a checkpoint in {}: run {later} of the job has begun, and this one is run {run}",
        store.describe()
    ))
}

/// The name of the job that runs told of last; `None` if none did.
///
/// # Errors
/// When the store cannot be read.
pub(super) fn job(store: &dyn CheckpointStore) -> Result<Option<String>, ConnectorError> {
    Ok(newest(store, numbers(&store.list()?), |_| true)?.map(|(_, claim)| claim.name))
}

fn file(number: u64) -> String {
    format!("{RUN}{number}")
}

/// The numbers that runs have told of themselves by.
fn numbers(names: &[String]) -> Vec<u64> {
    names.iter().filter_map(|name| number(name)).collect()
}

/// What the run with the greatest of these numbers told of itself, of those of which it is so.
fn newest(
    store: &dyn CheckpointStore,
    mut numbers: Vec<u64>,
    is_so: impl Fn(&Claim) -> bool,
) -> Result<Option<(u64, Claim)>, ConnectorError> {
    numbers.sort_unstable();
    for number in numbers.into_iter().rev() {
        let bytes = store.get(&file(number))?.unwrap_or_default();
        if let Some(claim) = serde_json::from_slice(&bytes).ok().filter(|claim| is_so(claim)) {
            return Ok(Some((number, claim)));
        }
    }
    Ok(None)
}

fn check(store: &dyn CheckpointStore, before: &Claim, who: Who<'_>) -> Result<(), ConnectorError> {
    let refused = |why: String| {
        Err(ConnectorError::configuration(format!("keep checkpoints in {}: {why}", store.describe())))
    };
    if before.begun == Some(who.begun) {
        return Ok(());
    }
    if before.name != who.name {
        let (other, name) = (&before.name, who.name);
        return refused(format!("they are of the job `{other}`; give the job `{name}` a place of its own"));
    }
    if !who.new && before.begun.is_some() {
        let why = "the job has begun anew there, with another journal than this one; the checkpoints of one journal \
                   are of no use to the other, so give each a place of its own";
        return refused(why.into());
    }
    Ok(())
}

fn encode(claim: &Claim) -> Vec<u8> {
    // It has nothing that could not be written.
    serde_json::to_vec(claim).unwrap_or_default()
}
