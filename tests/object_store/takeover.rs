//! A run that was given up for dead and wakes up again, over an object store in memory: the journal is another's by then.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use levada::job::{self, Environment};
use levada_connectors::checkpoint::BucketStore;
use levada_dataflows::engine::checkpoint::{list, verify};
use levada_dataflows::engine::{self, Checkpoints, Cluster, EngineError, JobJournal, Run};
use levada_dataflows::metrics::Metrics;
use levada_types::journal::{EpochCut, Journal, JournalHeader, JournalWriter, Recorded};
use levada_types::{CheckpointStore, ConnectorError, Existing};
use object_store::memory::InMemory;
use tempfile::TempDir;

const JOB: &str = r#"
[job]
name = "woken"
dead_letters = false

[source.readings.log]
topic = "readings"
schema = { machine = "string", n = "int", at = "timestamp" }
event_time = { column = "at" }

[step.seconds.window]
from = "readings"
key = ["machine"]
tumbling = "1s"
aggregate = { n = "count(*)" }
"#;

/// A journal in memory; only the last writer may write.
#[derive(Clone, Default)]
struct Fenced(Arc<Mutex<(usize, Option<Recorded>)>>);

struct Writer(Fenced, usize);

impl Journal for Fenced {
    fn describe(&self) -> String {
        "memory".into()
    }
    fn writer(&self) -> Result<Box<dyn JournalWriter>, ConnectorError> {
        let mut state = self.0.lock().unwrap();
        state.0 += 1;
        Ok(Box::new(Writer(self.clone(), state.0)))
    }
    fn recorded(&self) -> Result<Option<Recorded>, ConnectorError> {
        Ok(self.0.lock().unwrap().1.clone())
    }
    fn delete(&self) -> Result<bool, ConnectorError> {
        Ok(self.0.lock().unwrap().1.take().is_some())
    }
}

impl Writer {
    fn write(&self, change: impl FnOnce(&mut Option<Recorded>)) -> Result<(), ConnectorError> {
        let mut state = self.0.0.lock().unwrap();
        if state.0 != self.1 {
            return Err(ConnectorError::configuration("write the journal: another process writes it"));
        }
        change(&mut state.1);
        Ok(())
    }
}

impl JournalWriter for Writer {
    fn begin(&mut self, header: &JournalHeader, behind: Option<u64>) -> Result<(), ConnectorError> {
        let begun = Recorded { header: header.clone(), trimmed: behind, epochs: Vec::new() };
        self.write(|recorded| *recorded = Some(begun))
    }
    fn grow(&mut self, _: &Recorded, _: &JournalHeader) -> Result<(), ConnectorError> {
        self.write(|_| ())
    }
    fn append(&mut self, epochs: &[EpochCut]) -> Result<(), ConnectorError> {
        self.write(|recorded| {
            if let Some(recorded) = recorded {
                recorded.epochs.extend_from_slice(epochs);
            }
        })
    }
    fn trim(&mut self, _: &JournalHeader, _: u64) -> Result<(), ConnectorError> {
        self.write(|_| ())
    }
}

/// A store that holds the calls that write a name which begins so, until they are let go.
struct Held {
    store: Arc<BucketStore>,
    name: &'static str,
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Held {
    fn new(store: &Arc<BucketStore>, name: &'static str) -> Arc<Held> {
        let state = Mutex::new((false, false));
        Arc::new(Held { store: Arc::clone(store), name, state, changed: Condvar::new() })
    }

    fn hold(&self, name: &str) {
        if !name.starts_with(self.name) {
            return;
        }
        let mut state = self.state.lock().unwrap();
        state.0 = true;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |(_, let_go)| !*let_go).unwrap());
    }

    fn wait(&self) {
        let state = self.state.lock().unwrap();
        let wait = self.changed.wait_timeout_while(state, Duration::from_secs(60), |(held, _)| !*held);
        assert!(!wait.unwrap().1.timed_out(), "nothing is written that begins with {}", self.name);
    }

    fn let_go(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

impl CheckpointStore for Held {
    fn describe(&self) -> String {
        self.store.describe()
    }
    fn list(&self) -> Result<Vec<String>, ConnectorError> {
        self.store.list()
    }
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ConnectorError> {
        self.store.get(name)
    }
    fn put(&self, name: &str, parts: &[Bytes]) -> Result<(), ConnectorError> {
        self.hold(name);
        self.store.put(name, parts)
    }
    fn create(&self, name: &str, parts: &[Bytes]) -> Result<bool, ConnectorError> {
        self.hold(name);
        self.store.create(name, parts)
    }
    fn delete(&self, name: &str) -> Result<(), ConnectorError> {
        self.store.delete(name)
    }
}

fn run(data: &TempDir, journal: &Fenced, store: Arc<dyn CheckpointStore>) -> Result<(), EngineError> {
    let models = |_: &str| unreachable!("the job has no model");
    let environment = Environment {
        data_dir: data.path().into(),
        state: None,
        existing: Existing::Resume,
        models: &models,
        look: None,
    };
    let loaded =
        job::load_text("job.toml", JOB, &[], &environment).unwrap_or_else(|report| panic!("{report}"));
    let job = loaded.spec.identity();
    let checkpoints =
        Checkpoints { store, every: Duration::ZERO, keep: 2, savepoints: Arc::default(), begin_with: None };
    let how = Run {
        cluster: Cluster::local(2),
        until_drained: true,
        stop: Arc::new(AtomicBool::new(false)),
        journal: Some(JobJournal { journal: Arc::new(journal.clone()), job, changed: false }),
        checkpoints: Some(checkpoints),
    };
    let metrics = Metrics::new(&loaded.plan);
    engine::run(Arc::new(loaded.plan), &how, metrics)
}

/// The checkpoint from which a run went on.
fn gone_on_from(store: &dyn CheckpointStore, run: u64) -> String {
    let told = store.get(&format!("run-{run}")).unwrap().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    told["from"]["checkpoint"].as_str().unwrap_or_else(|| panic!("{told}")).to_string()
}

#[test]
fn a_manifest_that_is_written_late_is_neither_gone_on_from_nor_in_the_way() {
    let data = TempDir::new().unwrap();
    super::produce(data.path(), &crate::resume::lines(&mut 3, 0, 150_000));
    let objects = Arc::new(InMemory::new());
    let open = || Arc::new(BucketStore::over(objects.clone(), "jobs/woken", "memory").unwrap());
    let (store, journal) = (open(), Fenced::default());
    let held = Held::new(&open(), "checkpoint-");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            let outcome = run(&data, &journal, held.clone());
            over.store(true, SeqCst);
            outcome
        });
        held.wait();
        // Its successor does all there is, and deletes what nothing names.
        run(&data, &journal, store.clone()).unwrap();
        assert!(!over.load(SeqCst));
        held.let_go();
        let told = first.join().unwrap().unwrap_err().to_string();
        assert!(told.contains("run 2 of the job has begun, and this one is run 1"), "{told}");
    });
    let listed = list(&*store).unwrap();
    let newest = listed.last().unwrap().manifest.as_ref().unwrap();
    assert_eq!(newest.run, 2, "{:?}", store.list());
    assert_eq!(verify(&*store, newest).unwrap(), [""; 0]);
    assert!(listed.iter().any(|one| one.manifest.as_ref().unwrap().run == 1), "it was written late");
    // The next run goes on from the newest.
    run(&data, &journal, store.clone()).unwrap();
    assert_eq!(gone_on_from(&*store, 3), newest.file_name());
}

#[test]
fn of_two_runs_that_begin_a_job_at_once_the_one_that_the_journal_refuses_is_forgotten() {
    let data = TempDir::new().unwrap();
    super::produce(data.path(), &crate::resume::lines(&mut 3, 0, 20_000));
    let objects = Arc::new(InMemory::new());
    let open = || Arc::new(BucketStore::over(objects.clone(), "jobs/twice", "memory").unwrap());
    let (store, journal) = (open(), Fenced::default());
    let held = Held::new(&open(), "run-");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| run(&data, &journal, held.clone()));
        held.wait();
        // The other one takes the journal over, and the number that the first one is about to take.
        run(&data, &journal, store.clone()).unwrap();
        held.let_go();
        let told = first.join().unwrap().unwrap_err().to_string();
        assert!(told.contains("another process writes it"), "{told}");
    });
    assert!(store.list().unwrap().contains(&"run-2".into()), "the first one has taken a number");
    let newest = list(&*store).unwrap().pop().unwrap().name;
    run(&data, &journal, store.clone()).unwrap();
    assert_eq!(gone_on_from(&*store, 3), newest);
}
