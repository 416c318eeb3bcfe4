//! The manifest: what a checkpoint is made of, and that it is whole.
//!
//! A checkpoint is there when its manifest is, which is written last. It is a line of JSON, for people and for
//! later releases, and a line with the CRC-32C of the first.

use std::collections::BTreeMap;

use levada_types::EventTime;
use serde::{Deserialize, Serialize};

/// The form of manifests and state files that this release writes.
pub const VERSION: u32 = 1;

/// What a checkpoint is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The form; see [`VERSION`].
    pub version: u32,
    /// The job's name.
    pub name: String,
    /// The job, as a hash of all that decides what it computes.
    pub job: u64,
    /// The beginning of the job whose journal it goes with: the journal's header has the same.
    #[serde(default)]
    pub begun: u64,
    /// The run that made it; see [`claim`](super::claim).
    #[serde(default)]
    pub run: u64,
    /// The last epoch that is in it.
    pub epoch: u64,
    /// When it was made, in milliseconds since the Unix epoch UTC; for people.
    pub made_ms: u64,
    /// The name by which it is kept until it is deleted.
    pub savepoint: Option<String>,
    /// The job's watermark, in milliseconds since the Unix epoch UTC.
    pub watermark: EventTime,
    /// All partitions of all sources, in the job's order.
    pub partitions: Vec<PartitionPlace>,
    /// The steps that keep something, and what each is: a hash of its settings and inputs.
    pub steps: BTreeMap<String, u64>,
    /// Where each sink goes on, as it told itself, in hexadecimal digits.
    pub sinks: BTreeMap<String, String>,
    /// The files of state, the later ones before the earlier where both have an entry.
    pub files: Vec<StateFile>,
}

/// How far a partition has been read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionPlace {
    /// The source's name.
    pub source: String,
    /// Its number there.
    pub number: u32,
    /// The offset of the next record; `None` where none has been read.
    pub next: Option<u64>,
    /// Whether it had been silent for its idle time.
    pub idle: bool,
    /// How many chunks of its history have been planned for.
    pub allotted: u64,
    /// What was known of it.
    pub seen: Seen,
    /// What was known an epoch before, from which the next but one is planned.
    pub seen_before: Seen,
}

/// What is known of a partition's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Chunks decoded.
    pub chunks: u64,
    /// The least event time, milliseconds since the Unix epoch UTC.
    pub min_time: i64,
    /// The greatest.
    pub max_time: i64,
    /// Whether its history has been read to the end.
    pub ended: bool,
}

/// A file of state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    /// Its name in the store.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// The CRC-32C of its bytes.
    pub crc: u32,
    /// How many entries it sets or removes.
    pub entries: u64,
    /// The steps of which its entries count. Of others that it has, later files tell all, or they are other steps now.
    /// Of all, if there is none: so it was before this was written down.
    #[serde(default)]
    pub steps: Vec<String>,
}

impl StateFile {
    /// Whether the entries of a step in it count.
    pub(super) fn counts(&self, step: &str) -> bool {
        self.steps.is_empty() || self.steps.iter().any(|name| name == step)
    }
}

/// What the names of manifests begin with.
const CHECKPOINT: &str = "checkpoint-";
pub(super) const SAVEPOINT: &str = "savepoint-";

impl Manifest {
    /// What its file is called.
    pub fn file_name(&self) -> String {
        match (&self.savepoint, self.run) {
            // Before runs had numbers.
            (None, 0) => format!("{CHECKPOINT}{:020}", self.epoch),
            (None, run) => of_run(&format!("{CHECKPOINT}{:020}", self.epoch), run),
            (Some(name), _) => savepoint_file(name),
        }
    }

    /// The bytes of its file.
    ///
    /// # Errors
    /// Never for what can be made.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        let mut bytes = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(format!("\ncrc32c {crc:08x}\n").as_bytes());
        Ok(bytes)
    }

    /// What the bytes of a file tell.
    ///
    /// # Errors
    /// Why they tell nothing, as a sentence without its end.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is no text".to_string())?;
        let (json, rest) = text.split_once('\n').ok_or("it has no checksum: it is cut off")?;
        let crc = rest.strip_prefix("crc32c ").and_then(|crc| crc.strip_suffix('\n'));
        let crc = crc.and_then(|crc| u32::from_str_radix(crc, 16).ok()).ok_or("its checksum is cut off")?;
        if crc != crc32c::crc32c(json.as_bytes()) {
            return Err("its checksum is another: it is damaged".into());
        }
        /// What is asked first, whatever else stands there.
        #[derive(Deserialize)]
        struct Form {
            version: u32,
        }
        let wrong = |error: serde_json::Error| format!("it is not understood: {error}");
        let Form { version } = serde_json::from_str(json).map_err(wrong)?;
        if version != VERSION {
            return Err(format!("it is of version {version}, and version {VERSION} is understood"));
        }
        serde_json::from_str(json).map_err(wrong)
    }
}

/// What the file of a savepoint's manifest is called.
pub fn savepoint_file(name: &str) -> String {
    format!("{SAVEPOINT}{name}")
}

/// The names of the checkpoints among those of a store, the older before the newer: a later run's are behind those
/// of the runs before it, whatever their epochs.
pub(super) fn checkpoints(names: &[String]) -> Vec<&String> {
    let mut checkpoints: Vec<&String> = names.iter().filter(|name| name.starts_with(CHECKPOINT)).collect();
    checkpoints.sort_by_key(|name| (run_of(name), epoch_of(name), name.as_str()));
    checkpoints
}

/// The names of the savepoints among those of a store.
pub(super) fn savepoints(names: &[String]) -> impl Iterator<Item = &String> {
    names.iter().filter(|name| name.starts_with(SAVEPOINT))
}

/// A name that only the run of this number gives.
pub(super) fn of_run(name: &str, run: u64) -> String {
    format!("{name}-r{run}")
}

/// The run that gave a checkpoint or a file of state its name; 0 before runs had numbers.
pub(super) fn run_of(name: &str) -> u64 {
    let last = name.rsplit('-').next().unwrap_or_default();
    last.strip_prefix('r').and_then(|run| run.parse().ok()).unwrap_or(0)
}

/// The epoch of a checkpoint or a file of state.
pub(super) fn epoch_of(name: &str) -> Option<u64> {
    name.split('-').nth(1)?.parse().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::engine::checkpoint) fn example() -> Manifest {
        let seen = Seen { chunks: 3, min_time: -5, max_time: i64::MAX, ended: true };
        Manifest {
            version: VERSION,
            name: "job".into(),
            job: u64::MAX,
            begun: 9,
            run: 3,
            epoch: 42,
            made_ms: 1_700_000_000_000,
            savepoint: None,
            watermark: EventTime::MIN,
            partitions: vec![PartitionPlace {
                source: "in".into(),
                number: 1,
                next: Some(u64::MAX),
                idle: true,
                allotted: 3,
                seen,
                seen_before: Seen { ended: false, ..seen },
            }],
            steps: [("minutes".to_string(), 7)].into(),
            sinks: [("out".to_string(), "00ff".to_string())].into(),
            files: vec![StateFile {
                name: "state-42-0".into(),
                bytes: 9,
                crc: 1,
                entries: 2,
                steps: vec!["minutes".into()],
            }],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let manifest = example();
        assert_eq!(manifest.file_name(), "checkpoint-00000000000000000042-r3");
        let bytes = manifest.encode().unwrap();
        assert_eq!(Manifest::decode(&bytes), Ok(manifest.clone()));
        // So it was before files told their steps.
        let before = serde_json::to_string(&manifest).unwrap().replace(",\"steps\":[\"minutes\"]", "");
        let before = format!("{before}\ncrc32c {:08x}\n", crc32c::crc32c(before.as_bytes()));
        let file = Manifest::decode(before.as_bytes()).unwrap().files.remove(0);
        assert!(file.steps.is_empty() && file.counts("minutes"));
        assert!(manifest.files[0].counts("minutes") && !manifest.files[0].counts("hours"));
        let named = Manifest { savepoint: Some("before-upgrade".into()), ..manifest };
        assert_eq!(named.file_name(), "savepoint-before-upgrade");
        assert_eq!(Manifest::decode(&named.encode().unwrap()), Ok(named));
    }

    #[test]
    fn what_was_written_before_runs_had_numbers_is_read() {
        let before = Manifest { begun: 0, run: 0, ..example() };
        assert_eq!(before.file_name(), "checkpoint-00000000000000000042");
        let text = String::from_utf8(before.encode().unwrap()).unwrap();
        let json = text.lines().next().unwrap().replace(r#""begun":0,"run":0,"#, "");
        let crc = crc32c::crc32c(json.as_bytes());
        assert_eq!(Manifest::decode(format!("{json}\ncrc32c {crc:08x}\n").as_bytes()), Ok(before));
    }

    #[test]
    fn a_later_run_s_checkpoints_are_newer_whatever_their_epochs() {
        let names = ["checkpoint-0000000005-r10", "checkpoint-0000000009-r9", "checkpoint-0000000011"];
        let others = ["savepoint-r99", "state-0000000007-0-r9", "run-10"];
        let names: Vec<String> = names.iter().chain(&others).map(|name| (*name).into()).collect();
        assert_eq!(checkpoints(&names), [&names[2], &names[1], &names[0]]);
        assert_eq!(savepoints(&names).collect::<Vec<_>>(), [&names[3]]);
        assert_eq!((run_of("state-0000000007-0-r9"), epoch_of("state-0000000007-0-r9")), (9, Some(7)));
        // As they were called before runs had numbers.
        assert_eq!((run_of("state-0000000007-all-1ab"), epoch_of("state-0000000007-all-1ab")), (0, Some(7)));
    }

    #[test]
    fn every_damage_is_seen() {
        let bytes = example().encode().unwrap();
        for length in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..length]).is_err(), "cut at {length}");
        }
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            // A letter of the checksum may change its case.
            let same = Manifest::decode(&damaged).is_ok_and(|read| read == example());
            assert!(same || Manifest::decode(&damaged).is_err(), "flipped at {place}");
        }
        let later = Manifest { version: 9, ..example() };
        assert_eq!(
            Manifest::decode(&later.encode().unwrap()).unwrap_err(),
            "it is of version 9, and version 1 is understood"
        );
    }
}
