//! A run goes on from what it remembered, wherever it was broken off, and whatever became of the files.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use levada_types::CheckpointStore;

use super::super::Checkpoints;
use super::super::checkpoint::{self, Manifest};
use super::journal::Memory;
use super::*;

/// Checkpoints in memory.
#[derive(Clone, Default)]
pub(super) struct Store {
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    /// The job is stopped with this call to write, and nothing is written any more.
    dies_at: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    /// Calls to write wait there, if there is one.
    gate: Option<Arc<Gate>>,
}

/// Where a run is held.
#[derive(Default)]
pub(super) struct Gate {
    /// With which call to write.
    at: usize,
    state: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    /// It waits, or has come to its end.
    waits: bool,
    over: bool,
    open: bool,
}

impl Gate {
    fn pass(&self, call: usize) {
        if call < self.at {
            return;
        }
        let mut held = self.state.lock().unwrap();
        held.waits = true;
        self.changed.notify_all();
        drop(wait(&self.changed, held, |held| !held.open, "the gate to open"));
    }

    /// Notes that nobody will come.
    pub(super) fn end(&self) {
        self.state.lock().unwrap().over = true;
        self.changed.notify_all();
    }

    /// Waits until somebody waits; false if nobody will.
    pub(super) fn holds(&self) -> bool {
        let held = self.state.lock().unwrap();
        let held = wait(&self.changed, held, |held| !held.waits && !held.over, "somebody at the gate");
        !held.over
    }

    pub(super) fn open(&self) {
        self.state.lock().unwrap().open = true;
        self.changed.notify_all();
    }
}

impl Store {
    /// The same files, and a gate before call `at`.
    pub(super) fn held_at(&self, at: usize) -> (Store, Arc<Gate>) {
        let gate = Arc::new(Gate { at, ..Gate::default() });
        let store = Store { gate: Some(Arc::clone(&gate)), calls: Arc::default(), ..self.clone() };
        (store, gate)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.files.lock().unwrap().keys().cloned().collect()
    }

    /// What a run of another beginning leaves that began with a savepoint and was refused then: its newest checkpoint as
    /// one of `run`, which tells nothing of itself. Whether there is one.
    pub(super) fn add_of_another_beginning(&self, run: u64) -> bool {
        let Some(mut other) = self.newest() else { return false };
        let mut files = self.files.lock().unwrap();
        (other.run, other.begun) = (run, other.begun + 1);
        for file in &mut other.files {
            let bytes = files[&file.name].clone();
            file.name = format!("{}-r{run}", file.name);
            files.insert(file.name.clone(), bytes);
        }
        files.insert(other.file_name(), other.encode().unwrap());
        true
    }

    /// What is in a file, as text.
    pub(super) fn text(&self, name: &str) -> String {
        String::from_utf8(self.files.lock().unwrap()[name].clone()).unwrap()
    }

    pub(super) fn newest(&self) -> Option<Manifest> {
        let listed = checkpoint::list(self).unwrap();
        listed.into_iter().rev().find_map(|one| one.manifest.ok())
    }

    fn dying_at(&self, call: usize) -> Store {
        let files = Arc::new(Mutex::new(self.files.lock().unwrap().clone()));
        Store { files, dies_at: Arc::new(call.into()), ..Store::default() }
    }

    /// The same files, of which none is written any more from call `call` on.
    pub(super) fn dead_after(&self, call: usize) -> Store {
        Store { dies_at: Arc::new(call.into()), calls: Arc::default(), ..self.clone() }
    }

    fn turn(&self) -> Result<(), ConnectorError> {
        let dies_at = self.dies_at.load(SeqCst);
        let call = self.calls.fetch_add(1, SeqCst) + 1;
        if let Some(gate) = &self.gate {
            gate.pass(call);
        }
        match call {
            call if dies_at > 0 && call >= dies_at => {
                Err(ConnectorError::outage("write X: the disk is full"))
            }
            _ => Ok(()),
        }
    }
}

impl CheckpointStore for Store {
    fn describe(&self) -> String {
        "memory".into()
    }
    fn list(&self) -> Result<Vec<String>, ConnectorError> {
        Ok(self.names())
    }
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ConnectorError> {
        Ok(self.files.lock().unwrap().get(name).cloned())
    }
    fn put(&self, name: &str, parts: &[Bytes]) -> Result<(), ConnectorError> {
        self.turn()?;
        self.files.lock().unwrap().insert(name.into(), parts.concat());
        Ok(())
    }
    fn create(&self, name: &str, parts: &[Bytes]) -> Result<bool, ConnectorError> {
        self.turn()?;
        let mut files = self.files.lock().unwrap();
        let is_new = !files.contains_key(name);
        if is_new {
            files.insert(name.into(), parts.concat());
        }
        Ok(is_new)
    }
    fn delete(&self, name: &str) -> Result<(), ConnectorError> {
        self.turn()?;
        self.files.lock().unwrap().remove(name);
        Ok(())
    }
}

/// A sink that outlives the runs of a job: it takes no epoch twice, and notes whether one was left out.
#[derive(Clone, Default)]
pub(super) struct Lasting(pub(super) Published);

impl SinkFactory for Lasting {
    fn describe(&self) -> String {
        "memory".into()
    }
    fn open(&self, _: SchemaRef, place: Option<&[u8]>) -> Result<Box<dyn Sink>, ConnectorError> {
        let published = self.0.0.0.lock().unwrap().len();
        let place = place.map_or(0, |place| usize::from_le_bytes(place.try_into().unwrap()));
        assert!(place <= published, "a checkpoint knows of nothing that is not durable");
        Ok(Box::new(OpenLasting { to: self.0.clone(), place }))
    }
}

struct OpenLasting {
    to: Published,
    place: usize,
}

impl Sink for OpenLasting {
    fn publish(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<(), ConnectorError> {
        let mut all = self.to.0.0.lock().unwrap();
        for rows in rows {
            let now = (epoch, rows.clone());
            match all.get(self.place) {
                Some(before) => assert_eq!(*before, now, "what comes again is what came before"),
                None => all.push(now),
            }
            self.place += 1;
        }
        self.to.0.1.notify_all();
        Ok(())
    }
    fn place(&self) -> Vec<u8> {
        self.place.to_le_bytes().to_vec()
    }
    fn when_durable(&mut self, then: WhenDurable) {
        then(Ok(()));
    }
    fn close(&mut self) -> Result<(), ConnectorError> {
        Ok(())
    }
}

/// Runs on from where the last run was, to its end or to its death.
pub(super) fn go_on(
    topic: &Topic,
    sink: &Lasting,
    memory: &Memory,
    store: &Store,
    workers: usize,
) -> Result<Arc<Metrics>, EngineError> {
    let plan = lasting(topic, sink);
    let metrics = Metrics::new(&plan);
    let mut how = memory.run(true, workers, &Arc::default());
    how.checkpoints = Some(checkpoints(store));
    run(plan, &how, Arc::clone(&metrics)).map(|()| metrics)
}

fn checkpoints(store: &Store) -> Checkpoints {
    let store = Arc::new(store.clone());
    // As often as can be.
    Checkpoints { store, every: Duration::ZERO, keep: 2, savepoints: Arc::default(), begin_with: None }
}

fn lasting(topic: &Topic, sink: &Lasting) -> Arc<Plan> {
    let (plan, ..) = plan(topic, 100);
    let mut plan = Arc::unwrap_or_clone(plan);
    plan.steps[0].step = remembered_sum();
    plan.sources = vec![source(topic, 100, None)];
    let writer = Arc::new(sink.clone());
    plan.sinks =
        vec![SinkPlan { name: "sums".into(), from: StreamId::Step(0), order: SinkOrder::Canonical, writer }];
    Arc::new(plan)
}

pub(super) fn topic() -> Topic {
    Topic { chunk: 4096, ..Topic::new(vec![history(60_000), history(25_000), history(9_000)], false) }
}

pub(super) fn undisturbed() -> Vec<(Epoch, RecordBatch)> {
    let sink = Lasting::default();
    go_on(&topic(), &sink, &Memory::default(), &Store::default(), 2).unwrap();
    let all = sink.0.0.0.lock().unwrap().clone();
    assert!(all.len() > 5);
    all
}

#[test]
fn a_run_that_dies_at_any_call_of_the_store_goes_on_to_the_same_end() {
    let expected = undisturbed();
    let mut died = 0;
    for call in 1.. {
        let (topic, sink, memory) = (topic(), Lasting::default(), Memory::default());
        let store = Store::default().dying_at(call);
        let workers = [1, 2, 4];
        match go_on(&topic, &sink, &memory, &store, workers[call % 3]) {
            Ok(_) => break,
            Err(error) => assert_eq!(error.to_string(), "failed to write X: the disk is full"),
        }
        died += 1;
        // Once more, in the midst of the rest.
        let store = store.dying_at(call / 2 + 2);
        let _ = go_on(&topic, &sink, &memory, &store, workers[(call + 1) % 3]);
        let store = store.dying_at(0);
        go_on(&topic, &sink, &memory, &store, workers[(call + 2) % 3]).unwrap();
        assert_eq!(*sink.0.0.0.lock().unwrap(), expected, "died at {call}");
        // What is left over: two checkpoints, or one more whose time had come when the run died, and what they
        // are made of.
        let listed = checkpoint::list(&store).unwrap();
        assert!((2..=3).contains(&listed.len()), "{:?}", store.names());
        for one in &listed {
            assert_eq!(checkpoint::verify(&store, one.manifest.as_ref().unwrap()).unwrap(), [""; 0]);
        }
    }
    assert!(died > 5, "{died}");
}

#[test]
fn a_run_goes_on_behind_what_it_had_read_and_not_from_the_start() {
    let (topic, sink, memory, store) = (topic(), Lasting::default(), Memory::default(), Store::default());
    go_on(&topic, &sink, &memory, &store, 2).unwrap();
    let end = store.newest().unwrap();
    assert_eq!(end.watermark, levada_types::EventTime::MAX);
    let places: Vec<_> = end.partitions.iter().map(|place| (place.next, place.seen.ended)).collect();
    assert_eq!(places, [(Some(60_000), true), (Some(25_000), true), (Some(9_000), true)]);
    let again = go_on(&topic, &sink, &memory, &store, 3).unwrap();
    assert_eq!(again.sources[0].records.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert_eq!(*sink.0.0.0.lock().unwrap(), undisturbed());
}

#[test]
fn what_was_told_before_all_was_told_is_no_part_of_a_checkpoint() {
    let (sink, memory, store) = (Lasting::default(), Memory::default(), Store::default());
    let topic = Topic { chunk: 256, ..topic() };
    let metrics = go_on(&topic, &sink, &memory, &store, 2).unwrap();
    assert!(metrics.checkpoints.made.load(SeqCst) > 6);
    for one in checkpoint::list(&store).unwrap() {
        let files = one.manifest.unwrap().files;
        let epochs: Vec<&str> = files.iter().filter_map(|file| file.name.split('-').nth(1)).collect();
        let whole = files.iter().filter(|file| file.name.contains("-whole-")).count();
        // All of it by each of two workers, and changes twice at most.
        assert!(whole == 2 && epochs.chunk_by(|a, b| a == b).count() <= 3, "{files:?}");
    }
}

/// The checkpoints of a run that died some way on.
fn broken_off() -> (Topic, Lasting, Memory, Store) {
    // How many checkpoints a run makes is a matter of time: on a busy machine it may be over before.
    for _ in 0..100 {
        let (topic, sink, memory) = (topic(), Lasting::default(), Memory::default());
        let store = Store::default().dying_at(12);
        let died = go_on(&topic, &sink, &memory, &store, 2).is_err();
        let store = store.dying_at(0);
        if died && checkpoint::list(&store).unwrap().len() >= 2 {
            return (topic, sink, memory, store);
        }
    }
    panic!("no run of a hundred made two checkpoints and died")
}

#[test]
fn whatever_is_damaged_or_missing_the_one_before_is_taken_or_the_beginning() {
    let expected = undisturbed();
    let (.., whole) = broken_off();
    let damages: [(&str, fn(&mut Vec<u8>)); 3] = [
        ("flipped", |bytes| bytes.iter_mut().skip(30).take(1).for_each(|byte| *byte ^= 4)),
        ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
        ("empty", Vec::clear),
    ];
    let count = whole.names().len();
    for place in 0..count {
        for (what, damage) in damages {
            let (topic, sink, memory, store) = broken_off();
            let name = store.names()[place.min(store.names().len() - 1)].clone();
            damage(store.files.lock().unwrap().get_mut(&name).unwrap());
            go_on(&topic, &sink, &memory, &store, 1).unwrap();
            assert_eq!(*sink.0.0.0.lock().unwrap(), expected, "{name} {what}");
        }
        let (topic, sink, memory, store) = broken_off();
        let name = store.names()[place.min(store.names().len() - 1)].clone();
        store.files.lock().unwrap().remove(&name);
        go_on(&topic, &sink, &memory, &store, 4).unwrap();
        assert_eq!(*sink.0.0.0.lock().unwrap(), expected, "{name} missing");
    }
}

#[test]
fn a_journal_that_does_not_reach_back_needs_a_checkpoint() {
    let (topic, sink, memory, store) = broken_off();
    let newest = store.newest().unwrap().epoch;
    memory.set(|state| state.recorded.as_mut().unwrap().trimmed = Some(newest));
    let other = store.dying_at(0);
    go_on(&topic, &sink, &memory, &other, 1).unwrap();
    for name in store.names() {
        store.files.lock().unwrap().get_mut(&name).unwrap().truncate(3);
    }
    let error = go_on(&topic, &sink, &memory, &store, 1).unwrap_err().to_string();
    assert!(error.contains("failed to go on from memory: checkpoint-0"), "{error}");
    assert!(error.contains("the job can only begin afresh"), "{error}");
    // Checkpoints whose journal is gone are no beginning either, nor those of a journal of before.
    let (topic, sink, memory, store) = broken_off();
    let error = go_on(&topic, &sink, &Memory::default(), &store, 1).unwrap_err().to_string();
    assert!(error.contains("the journal with what came after it is missing"), "{error}");
    memory.set(|state| state.recorded.as_mut().unwrap().header.begun += 1);
    let error = go_on(&topic, &sink, &memory, &store, 1).unwrap_err().to_string();
    assert!(error.contains("the job has begun anew there, with another journal than this one"), "{error}");
}

#[test]
fn a_live_run_that_is_stopped_goes_on_and_a_savepoint_is_made_when_it_is_asked_for() {
    let topic = Topic::new(vec![history(10_000), history(3_000)], true);
    let (sink, memory, store) = (Lasting::default(), Memory::default(), Store::default());
    let live = |topic: &Topic, sink: &Lasting, memory: &Memory, store: &Store, workers| {
        let stop = Arc::new(AtomicBool::new(false));
        let mut how = memory.run(false, workers, &stop);
        let checkpoints = Checkpoints { every: Duration::from_millis(20), ..checkpoints(store) };
        let savepoints = Arc::clone(&checkpoints.savepoints);
        how.checkpoints = Some(checkpoints);
        let plan = lasting(topic, sink);
        let metrics = Metrics::new(&plan);
        let job = std::thread::spawn(move || run(plan, &how, metrics));
        (stop, savepoints, job)
    };
    let mut sent = 40_000;
    for round in 0..6 {
        let (stop, savepoints, job) = live(&topic, &sink, &memory, &store, [2, 4, 1][round % 3]);
        for _ in 0..200 {
            topic.append(sent as usize % 2, (sent, sent % 50, 1));
            sent += 7;
        }
        if round == 3 {
            savepoints.request("by-name");
            until(|| store.names().iter().any(|name| name == "savepoint-by-name"), "the savepoint");
        }
        // The newest rows wait for the watermark.
        sink.0.wait_for(13_000 + 200 * (round + 1) - 120);
        stop.store(true, SeqCst);
        job.join().unwrap().unwrap();
        let last = store.newest().unwrap();
        let read: u64 = last.partitions.iter().filter_map(|place| place.next).sum();
        assert!(last.savepoint.is_some() || read > 13_000, "{read}");
        let behind =
            memory.state().recorded.as_ref().unwrap().epochs.iter().any(|cut| cut.epoch > last.epoch);
        assert!(last.savepoint.is_some() || !behind, "the last checkpoint is behind the last epoch");
    }
    assert!(store.names().iter().any(|name| name == "savepoint-by-name"), "it is kept");
    // All of it once, but for what waits for the watermark.
    let rows = sink.0.numbers();
    let sent = (0..1200).map(|n| 40_000 + 7 * n).map(|at| (at, at % 50, 1));
    let all: Vec<Row> = history(10_000).into_iter().chain(history(3_000)).chain(sent).collect();
    assert!(rows.len() > all.len() - 120, "{}", rows.len());
    assert_eq!(rows, expected(&all)[..rows.len()]);
}
