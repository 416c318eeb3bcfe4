//! What a job's sinks have written before: asked for once, before the job runs, and deleted by `--fresh`.
//!
//! A job owns the topics and files of its sinks, and the topic of its dead letters. What it reads is never
//! deleted: no job that reads what it writes gets past planning.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use levada_connectors::log::{Log, LogError};

use crate::job::{JobSpec, SinkConnector};
use crate::telemetry::progress::grouped;

/// Where a job writes.
pub struct Outputs<'a> {
    data_dir: &'a Path,
    job: &'a str,
    topics: BTreeSet<String>,
    files: BTreeSet<PathBuf>,
}

impl<'a> Outputs<'a> {
    /// The outputs of a job, whose topics are in `data_dir`.
    pub fn of(spec: &'a JobSpec, data_dir: &'a Path) -> Outputs<'a> {
        let (mut topics, mut files) = (BTreeSet::new(), BTreeSet::new());
        for sink in spec.sink.values() {
            match &sink.connector {
                SinkConnector::Log(config) => drop(topics.insert(config.topic.clone())),
                SinkConnector::File(config) => drop(files.insert(config.path.clone())),
            }
        }
        topics.extend(spec.job.dead_letter_topic());
        Outputs { data_dir, job: &spec.job.name, topics, files }
    }

    /// The topics that hold records, and how many.
    fn held(&self) -> Result<Vec<(&str, u64)>, LogError> {
        let log = Log::open(self.data_dir)?;
        let mut held = Vec::new();
        for name in &self.topics {
            let records = match log.topic(name) {
                Ok(topic) => {
                    topic.info()?.partitions.iter().map(|partition| partition.next - partition.first).sum()
                }
                Err(LogError::NoSuchTopic { .. }) => 0,
                Err(error) => return Err(error),
            };
            if records > 0 {
                held.push((name.as_str(), records));
            }
        }
        Ok(held)
    }

    /// Refuses, with the ways out, when a topic holds records already.
    ///
    /// # Errors
    /// Then, and when the topics cannot be looked at.
    pub fn refuse_held(&self, several_processes: bool) -> Result<(), String> {
        let held = self.held().map_err(|error| error.to_string())?;
        if held.is_empty() {
            return Ok(());
        }
        let named: Vec<String> =
            held.iter().map(|(name, records)| format!("{name} ({})", count(*records))).collect();
        let names: Vec<&str> = held.iter().map(|(name, _)| *name).collect();
        // Of several processes none may delete what another already writes.
        let fresh = match several_processes {
            true => "",
            false => "--fresh    deletes what this job wrote, and runs\n  ",
        };
        Err(format!(
            "failed to run {}: there is output of before: {}\n  \
             {fresh}--append   writes behind it, which tells its readers everything a second time\n  \
             levada topics delete {} --data {}",
            self.job,
            named.join(", "),
            names.join(" "),
            self.data_dir.display()
        ))
    }

    /// Whether the files could be written: what they stand in is made if it is not there.
    fn prepare_files(&self) -> Result<(), String> {
        for file in &self.files {
            if file.exists() && !file.is_file() {
                return Err(format!("failed to write {}: what is there is no file", file.display()));
            }
            let folder = file.parent().unwrap_or(Path::new(""));
            fs::create_dir_all(folder)
                .map_err(|error| format!("failed to create the folder of {}: {error}", file.display()))?;
        }
        Ok(())
    }

    /// Deletes all of it; says what. Nothing, if the job could not write its files then.
    ///
    /// # Errors
    /// When something cannot be deleted or written.
    pub fn delete(&self) -> Result<Vec<String>, String> {
        self.prepare_files()?;
        let failed = |error: LogError| error.to_string();
        let log = Log::open(self.data_dir).map_err(failed)?;
        let held = self.held().map_err(failed)?;
        let mut deleted = Vec::new();
        for name in &self.topics {
            match log.delete_topic(name) {
                Ok(()) => {
                    let records =
                        held.iter().find(|(held, _)| held == name).map_or(0, |(_, records)| *records);
                    deleted.push(format!("topic {name} ({})", count(records)));
                }
                Err(LogError::NoSuchTopic { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        for file in &self.files {
            match fs::remove_file(file) {
                Ok(()) => deleted.push(format!("file {}", file.display())),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(format!("failed to delete {}: {error}", file.display())),
            }
        }
        Ok(deleted)
    }

    /// A command that shows what came out.
    pub fn look(&self) -> Option<String> {
        let topics: Vec<&str> = self
            .held()
            .ok()?
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| !name.ends_with("dead-letters"))
            .collect();
        match topics.as_slice() {
            [] => None,
            [first, ..] => Some(format!(
                "to look at it: levada topics export {first} --data {} | head",
                self.data_dir.display()
            )),
        }
    }
}

fn count(records: u64) -> String {
    format!("{} record{}", grouped(records), if records == 1 { "" } else { "s" })
}
