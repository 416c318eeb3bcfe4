//! What a job's sinks have written before: asked for once, before the job runs, and deleted by `--fresh`.
//!
//! A job owns the topics and files of its sinks, and the topic of its dead letters. What it reads is never
//! deleted: no job that reads what it writes gets past planning.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use levada_connectors::log::{Bounds, Log, LogError, Start};
use levada_connectors::topic::published;
use levada_connectors::webhook::WebhookSinkConfig;

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
        for (name, sink) in &spec.sink {
            match &sink.connector {
                SinkConnector::Log(config) => drop(topics.insert(config.topic.clone())),
                SinkConnector::File(config) => drop(files.insert(config.path.clone())),
                SinkConnector::Webhook(_) => {
                    topics.insert(WebhookSinkConfig::delivered(&spec.job.name, name));
                    topics.insert(WebhookSinkConfig::undelivered(&spec.job.name, name));
                }
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

    /// The topics whose newest record no job has published: somebody produced it, so they are not a job's to
    /// delete.
    fn produced(&self) -> Result<Vec<&str>, LogError> {
        let log = Log::open(self.data_dir)?;
        let mut produced = Vec::new();
        for name in &self.topics {
            let topic = match log.topic(name) {
                Err(LogError::NoSuchTopic { .. }) => continue,
                topic => topic?,
            };
            for partition in 0..topic.partitions() {
                let Bounds { first, next } = topic.bounds(partition)?;
                if next == first {
                    continue;
                }
                let newest = topic.reader(partition, Start::Offset(next - 1))?.read(1, usize::MAX)?;
                if newest.iter().next().is_some_and(|record| published(&record).is_none()) {
                    produced.push(name.as_str());
                    break;
                }
            }
        }
        Ok(produced)
    }

    /// The files that hold something. A file of nothing, as `mktemp` makes one, is nobody's output.
    fn held_files(&self) -> Vec<&Path> {
        let holds = |file: &&Path| fs::metadata(file).is_ok_and(|there| there.is_file() && there.len() > 0);
        self.files.iter().map(PathBuf::as_path).filter(holds).collect()
    }

    /// Refuses, with the ways out, when a topic or a file holds something already. `append` is a way out for
    /// topics only: a file is written whole.
    ///
    /// # Errors
    /// Then, and when the topics cannot be looked at.
    pub fn refuse_held(&self, append: bool, several_processes: bool) -> Result<(), String> {
        let held = if append { Vec::new() } else { self.held().map_err(|error| error.to_string())? };
        let files: Vec<String> = self.held_files().iter().map(|file| file.display().to_string()).collect();
        let mut named: Vec<String> =
            held.iter().map(|(name, records)| format!("{name} ({})", count(*records))).collect();
        named.extend(files.iter().map(|file| format!("file {file}")));
        if named.is_empty() {
            return Ok(());
        }
        let mut ways = String::new();
        let produced = self.produced().map_err(|error| error.to_string())?;
        // Of several processes none may delete what another already writes.
        if !several_processes && produced.is_empty() {
            ways += "\n  --fresh    deletes it, and runs";
        }
        if !held.is_empty() && files.is_empty() {
            ways += "\n  --append   writes behind it, which tells its readers everything a second time";
        }
        if !held.is_empty() {
            let names: Vec<&str> = held.iter().map(|(name, _)| *name).collect();
            ways +=
                &format!("\n  levada topics delete {} --data {}", names.join(" "), self.data_dir.display());
        }
        if !files.is_empty() {
            ways += &format!(
                "\n  mv {} ELSEWHERE    a file is written whole, never appended to",
                files.join(" ")
            );
        }
        let mut named = named.join(", ");
        if !produced.is_empty() {
            named += &format!("; no job wrote what is in {}", produced.join(", "));
        }
        Err(format!("failed to run {}: there is output of before: {named}{ways}", self.job))
    }

    /// Why `--fresh` does not go with several processes, and what to do instead.
    pub fn fresh_elsewhere(&self) -> String {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let files: Vec<String> = self.files.iter().map(|file| format!("\n  rm {}", file.display())).collect();
        let delete = match topics.is_empty() {
            true => String::new(),
            false => {
                format!("\n  levada topics delete {} --data {}", topics.join(" "), self.data_dir.display())
            }
        };
        format!(
            "failed to run {}: --fresh is for one process; of several (--hosts), none may delete what another already \
             writes. Before they start, delete what the job wrote:{delete}{}",
            self.job,
            files.concat()
        )
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
        if let [first, ..] = self.produced().map_err(failed)?.as_slice() {
            return Err(format!(
                "failed to run {}: --fresh deletes what jobs wrote, and no job wrote what is in topic {first}; if it \
                 is to go, `levada topics delete {first} --data {}`",
                self.job,
                self.data_dir.display()
            ));
        }
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
            [first, others @ ..] => {
                const SHOWN: usize = 3;
                let shown = others.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
                let also = match others.len() {
                    0 => String::new(),
                    1..=SHOWN => format!("    (or {shown})"),
                    all => format!("    (or {shown} and {} more)", all - SHOWN),
                };
                let data_dir = self.data_dir.display();
                Some(format!("to look at it: levada topics export {first} --data {data_dir} | head{also}"))
            }
        }
    }
}

fn count(records: u64) -> String {
    format!("{} record{}", grouped(records), if records == 1 { "" } else { "s" })
}
