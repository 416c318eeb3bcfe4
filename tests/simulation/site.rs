//! A job with topics, a journal and checkpoints, all in one folder, on a disk of a test's choice.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use levada::job::{self, Environment, Loaded, SinkConnector};
use levada_connectors::checkpoint::FolderStore;
use levada_connectors::journal::LogJournal;
use levada_connectors::log::{Log, RecordIn, Start, TopicConfig, WriterOptions};
use levada_connectors::topic::LogSink;
use levada_dataflows::engine::checkpoint::{Manifest, newest};
use levada_dataflows::engine::{self, Checkpoints, Cluster, EngineError, JobJournal, Run};
use levada_dataflows::metrics::Metrics;
use levada_dataflows::plan::Plan;
use levada_types::{
    ConnectorError, Existing, Offset, PartitionId, Read, RecordReader, SourceFactory, StartAt,
};
use tempfile::TempDir;

use super::disk::{Dice, PowerCut};

const JOB: &str = include_str!("job.toml");

/// Records that a read gives at most, so that a short history has many epochs.
const READ: usize = 20;

/// Event times begin here: milliseconds since the Unix epoch UTC.
const BEGIN: u64 = 1_700_000_000_000;
/// The event time of records behind all others; those of [`LAST`] let them out.
const FAR: u64 = BEGIN + 400_000_000;
const LAST: u64 = FAR + 400_000_000;

/// Both inputs: how many records they have in all, and which columns they have beside machine and time.
const INPUTS: [(&str, u64); 2] = [("readings", 900), ("owners", 90)];

pub struct Site {
    folder: TempDir,
    partitions: u32,
}

/// What both inputs get, in the order in which it is appended: topic, partition, record.
pub type Events = Vec<(&'static str, u32, String)>;

impl Site {
    /// With topics of so many partitions, without records.
    pub fn new(partitions: u32) -> Site {
        let site = Site { folder: TempDir::new().unwrap(), partitions };
        let log = Log::open(site.data()).unwrap();
        for (topic, _) in INPUTS {
            log.create_topic(topic, TopicConfig { partitions, ..TopicConfig::default() }).unwrap();
        }
        site
    }

    /// Records that a seed decides; some are no readings, some late.
    pub fn events(&self, seed: u64) -> Events {
        let mut dice = Dice(seed);
        let mut events = Vec::new();
        for (topic, records) in INPUTS {
            for number in 0..records {
                let machine = dice.below(12);
                let late = if topic == "readings" && dice.below(40) == 0 { 60_000 } else { 0 };
                let at = BEGIN + number * 900_000 / records - dice.below(3_000) - late;
                let text = match topic {
                    _ if dice.below(100) == 0 => "no reading".to_string(),
                    "owners" => {
                        format!(r#"{{"machine":"m{machine}","owner":"o{}","at":{at}}}"#, dice.below(9))
                    }
                    _ => {
                        let celsius = if dice.below(25) == 0 { 95 } else { 20 + dice.below(8) };
                        format!(r#"{{"machine":"m{machine}","celsius":{celsius},"at":{at}}}"#)
                    }
                };
                events.push((at + late, (topic, machine as u32 % self.partitions, text)));
            }
        }
        // As they would come.
        events.sort_by_key(|(at, _)| *at);
        events.into_iter().map(|(_, event)| event).collect()
    }

    /// Records far behind all others, in each partition, which let everything before them out.
    pub fn last(&self) -> Events {
        let mut events = Vec::new();
        for at in [FAR, LAST] {
            for partition in 0..self.partitions {
                let text = format!(r#"{{"machine":"m{partition}","owner":"last","celsius":1,"at":{at}}}"#);
                events.extend(INPUTS.map(|(topic, _)| (topic, partition, text.clone())));
            }
        }
        events
    }

    /// Appends records, one at a time; `between` is called after each.
    pub fn feed(&self, events: &Events, mut between: impl FnMut()) {
        let log = Log::open(self.data()).unwrap();
        let writers = INPUTS.map(|(topic, _)| {
            let topic = log.topic(topic).unwrap();
            let writer = |partition| topic.writer(partition, WriterOptions::default()).unwrap();
            (topic.name().to_string(), (0..self.partitions).map(writer).collect::<Vec<_>>())
        });
        for (topic, partition, text) in events {
            let (_, writers) = writers.iter().find(|(name, _)| name == topic).unwrap();
            let record = RecordIn { value: text.as_bytes(), ..RecordIn::default() };
            writers[*partition as usize].append(&[record]).unwrap();
            between();
        }
    }

    /// What was kept in a folder: topics, journal, checkpoints.
    pub fn kept_in(folder: &Path, partitions: u32) -> Site {
        let site = Site { folder: TempDir::new().unwrap(), partitions };
        copy(folder, site.folder.path());
        site
    }

    /// Keeps all of it in a folder.
    pub fn keep_in(&self, folder: &Path) {
        copy(self.folder.path(), folder);
    }

    /// The same inputs, and nothing of what a job left.
    pub fn with_inputs_alone(&self) -> Site {
        let site = Site { folder: TempDir::new().unwrap(), partitions: self.partitions };
        for (topic, _) in INPUTS {
            copy(&self.data().join(topic), &site.data().join(topic));
        }
        site
    }

    /// The same inputs, and of what a job left only the journal.
    pub fn with_journal_alone(&self) -> Site {
        let site = self.with_inputs_alone();
        copy(&self.state().join("journal"), &site.state().join("journal"));
        site
    }

    /// Whether everything before the last records has been published.
    pub fn is_done(&self) -> bool {
        let owned = Log::open(self.data()).unwrap().topic("owned").is_ok();
        let far = format!(" {FAR} ");
        owned
            && lines(&self.data(), "owned").iter().filter(|line| line.contains(&far)).count()
                == self.partitions as usize
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Deletes what a run wrote.
    pub fn forget(&self) {
        let log = Log::open(self.data()).unwrap();
        for topic in self.written().keys() {
            log.delete_topic(topic).unwrap();
        }
        fs::remove_dir_all(self.state()).unwrap();
    }

    /// Runs the job on from wherever it was, to the end of its history; tells how many records it read.
    pub fn drain(&self, disk: &PowerCut, workers: usize) -> Result<u64, EngineError> {
        self.run(disk, workers, Some(2), None)
    }

    /// The newest checkpoint that is whole.
    pub fn newest_checkpoint(&self) -> Option<Manifest> {
        let store = FolderStore::new(self.state().join("checkpoints"));
        newest(&store).unwrap().map(|contents| contents.manifest)
    }

    /// Runs the job on from wherever it was, live until `stop`; with so many checkpoints kept, or none made.
    pub fn live(
        &self,
        disk: &PowerCut,
        workers: usize,
        keep: Option<usize>,
        stop: &Arc<AtomicBool>,
    ) -> Result<(), EngineError> {
        self.run(disk, workers, keep, Some(stop)).map(drop)
    }

    fn run(
        &self,
        disk: &PowerCut,
        workers: usize,
        keep: Option<usize>,
        stop: Option<&Arc<AtomicBool>>,
    ) -> Result<u64, EngineError> {
        let (plan, job) = self.plan(disk);
        let store = FolderStore::new(self.state().join("checkpoints")).on(Arc::new(disk.clone()));
        let checkpoints = keep.map(|keep| Checkpoints {
            store: Arc::new(store),
            // As often as can be.
            every: Duration::ZERO,
            keep,
            savepoints: Arc::default(),
            begin_with: None,
        });
        let how = Run {
            cluster: Cluster::local(workers),
            until_drained: stop.is_none(),
            stop: stop.cloned().unwrap_or_default(),
            journal: Some(JobJournal { journal: Arc::new(self.journal(disk)), job, changed: false }),
            checkpoints,
        };
        let metrics = Metrics::new(&plan);
        engine::run(Arc::new(plan), &how, Arc::clone(&metrics))?;
        Ok(metrics.sources.iter().map(|source| source.records.load(Relaxed)).sum())
    }

    fn journal(&self, disk: &PowerCut) -> LogJournal {
        LogJournal::new(self.state()).on(Arc::new(disk.clone()))
    }

    /// The job with sinks on that disk, and what identifies it.
    fn plan(&self, disk: &PowerCut) -> (Plan, u64) {
        let models = |_: &str| unreachable!("the job has no model");
        let environment = Environment {
            data_dir: self.data(),
            state: None,
            existing: Existing::Resume,
            models: &models,
            look: None,
        };
        let loaded = job::load_text("job.toml", JOB, &[], &environment);
        let Loaded { spec, mut plan, .. } = loaded.unwrap_or_else(|report| panic!("{report}"));
        let on_disk = |config| {
            let sink = LogSink::new(self.data(), config, Existing::Resume).on(Arc::new(disk.clone()));
            Arc::new(sink)
        };
        for sink in &mut plan.sinks {
            let SinkConnector::Log(config) = &spec.sink[&sink.name].connector else {
                panic!("{} writes no topic", sink.name)
            };
            sink.writer = on_disk(config.clone());
        }
        let dead = levada_connectors::topic::LogSinkConfig { topic: "dead".into(), ..Default::default() };
        plan.dead_letters = Some(on_disk(dead));
        for source in &mut plan.sources {
            source.reader = Arc::new(Sips(Arc::clone(&source.reader)));
        }
        plan.epochs.backfill_chunks = 1;
        let job = spec.identity();
        (plan, job)
    }

    /// All that is published: by topic, a line a record.
    pub fn written(&self) -> BTreeMap<String, Vec<String>> {
        let log = Log::open(self.data()).unwrap();
        let topics = log.topics().unwrap();
        let outputs = topics.iter().filter(|topic| !["readings", "owners"].contains(&topic.name.as_str()));
        outputs.map(|topic| (topic.name.clone(), lines(&self.data(), &topic.name))).collect()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.as_ref().unwrap(), to.join(entry.as_ref().unwrap().file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn lines(data: &Path, topic: &str) -> Vec<String> {
    let topic = Log::open(data).unwrap().topic(topic).unwrap();
    let mut lines = Vec::new();
    for partition in 0..topic.partitions() {
        let mut reader = topic.reader(partition, Start::Beginning).unwrap();
        loop {
            let fetched = reader.read(10_000, usize::MAX).unwrap();
            if fetched.is_empty() {
                break;
            }
            for record in &fetched {
                let headers: Vec<_> =
                    record.headers().map(|(name, value)| (name.to_string(), value.to_vec())).collect();
                lines.push(format!(
                    "{partition} {} {} {:?} {:?} {}",
                    record.offset,
                    record.timestamp_ms,
                    record.key.map(String::from_utf8_lossy),
                    headers,
                    String::from_utf8_lossy(record.value)
                ));
            }
        }
    }
    lines
}

/// A source that gives a few records at a time.
struct Sips(Arc<dyn SourceFactory>);

impl SourceFactory for Sips {
    fn describe(&self) -> String {
        self.0.describe()
    }
    fn partitions(&self) -> Result<Vec<Option<Offset>>, ConnectorError> {
        self.0.partitions()
    }
    fn unbounded(&self) -> bool {
        self.0.unbounded()
    }
    fn start(&self, partition: PartitionId) -> Result<Option<Offset>, ConnectorError> {
        self.0.start(partition)
    }
    fn open(&self, partition: PartitionId, start: StartAt) -> Result<Box<dyn RecordReader>, ConnectorError> {
        Ok(Box::new(SipReader(self.0.open(partition, start)?)))
    }
}

struct SipReader(Box<dyn RecordReader>);

impl RecordReader for SipReader {
    fn at_once(&self) -> bool {
        self.0.at_once()
    }
    fn read(&mut self, max_records: usize, wait: Duration) -> Result<Read, ConnectorError> {
        self.0.read(max_records.min(READ), wait)
    }
}
