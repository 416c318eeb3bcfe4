//! What is published is written down first, and what is written down is done again.

use std::sync::atomic::Ordering::Relaxed;

use levada_types::WhenDurable;
use levada_types::journal::{Ended, EpochCut, Journal, JournalHeader, JournalWriter, Recorded};

use super::super::JobJournal;
use super::*;

/// A journal in memory, whose disk may fail or be slow.
#[derive(Clone, Default)]
pub(super) struct Memory(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
pub(super) struct State {
    pub(super) recorded: Option<Recorded>,
    /// Appends wait while it is closed.
    closed: bool,
    /// How many appends are under way.
    waiting: usize,
    fails: bool,
    /// Tells when nothing need be waited for any more.
    ended: Option<Ended>,
    /// How many writers there were; only the last one may write.
    writers: usize,
    /// What the first of them writes as soon as somebody has read what is there, if it still may.
    late: Option<EpochCut>,
}

/// Writes it, until another does.
struct Writer {
    memory: Memory,
    number: usize,
}

impl Writer {
    fn is_ours(&self) -> Result<(), ConnectorError> {
        match self.memory.state().writers == self.number {
            true => Ok(()),
            false => Err(ConnectorError::configuration("write the journal: another process writes it")),
        }
    }
}

impl Memory {
    pub(super) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.0.1.notify_all();
    }

    fn wait_until(&self, condition: impl Fn(&State) -> bool) {
        drop(wait(&self.0.1, self.state(), |state| !condition(state), "the journal"));
    }

    fn has(&self, epoch: u64) -> bool {
        self.state().recorded.as_ref().unwrap().epochs.iter().any(|cut| cut.epoch == epoch)
    }

    pub(super) fn run(&self, until_drained: bool, workers: usize, stop: &Arc<AtomicBool>) -> Run {
        let journal = Some(JobJournal { journal: Arc::new(self.clone()), job: 1, changed: false });
        Run {
            cluster: Cluster::local(workers),
            until_drained,
            stop: Arc::clone(stop),
            journal,
            checkpoints: None,
        }
    }
}

impl Journal for Memory {
    fn describe(&self) -> String {
        "memory".into()
    }
    fn writer(&self) -> Result<Box<dyn JournalWriter>, ConnectorError> {
        self.set(|state| state.writers += 1);
        let number = self.state().writers;
        Ok(Box::new(Writer { memory: self.clone(), number }))
    }
    fn recorded(&self) -> Result<Option<Recorded>, ConnectorError> {
        let mut state = self.state();
        let found = state.recorded.clone();
        let State { late, recorded: Some(recorded), writers: 1, .. } = &mut *state else { return Ok(found) };
        recorded.epochs.extend(late.take());
        Ok(found)
    }
    fn delete(&self) -> Result<bool, ConnectorError> {
        Ok(self.state().recorded.take().is_some())
    }
}

impl JournalWriter for Writer {
    fn end_with(&mut self, ended: Ended) {
        self.memory.set(|state| state.ended = Some(ended));
    }

    fn begin(&mut self, header: &JournalHeader, behind: Option<u64>) -> Result<(), ConnectorError> {
        self.is_ours()?;
        let begun = Recorded { header: header.clone(), trimmed: behind, epochs: Vec::new() };
        self.memory.set(|state| state.recorded = Some(begun));
        Ok(())
    }
    fn grow(&mut self, _: &Recorded, header: &JournalHeader) -> Result<(), ConnectorError> {
        self.is_ours()?;
        self.memory.set(|state| state.recorded.as_mut().unwrap().grow(header.clone()));
        Ok(())
    }
    fn trim(&mut self, _: &JournalHeader, epoch: u64) -> Result<(), ConnectorError> {
        self.is_ours()?;
        self.memory.set(|state| {
            let recorded = state.recorded.as_mut().unwrap();
            recorded.trimmed = Some(epoch);
            recorded.epochs.retain(|cut| cut.epoch > epoch);
        });
        Ok(())
    }
    fn append(&mut self, epochs: &[EpochCut]) -> Result<(), ConnectorError> {
        self.is_ours()?;
        self.memory.set(|state| state.waiting += 1);
        let ended = self.memory.state().ended.clone();
        let is_over = || ended.as_ref().is_some_and(|ended| ended());
        until(|| !self.memory.state().closed || is_over(), "the journal");
        self.memory.set(|state| state.waiting -= 1);
        if self.memory.state().closed {
            return Err(ConnectorError::outage("write the journal: the job has ended"));
        }
        if self.memory.state().fails {
            return Err(ConnectorError::outage("write the journal: the disk is full"));
        }
        self.memory.set(|state| state.recorded.as_mut().unwrap().epochs.extend_from_slice(epochs));
        Ok(())
    }
}

/// The clock's epochs have such numbers.
const LIVE: u64 = 1_000_000;

/// Publishes what is live only once it is written down.
#[derive(Clone)]
struct Checked(Published, Memory);

impl SinkFactory for Checked {
    fn describe(&self) -> String {
        "checked".into()
    }
    fn open(&self, _: SchemaRef, _: Option<&[u8]>) -> Result<Box<dyn Sink>, ConnectorError> {
        Ok(Box::new(self.clone()))
    }
}

impl Sink for Checked {
    fn publish(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<(), ConnectorError> {
        if epoch.0 >= LIVE && !self.1.has(epoch.0) {
            return Err(ConnectorError::configuration("publish: it is not written down"));
        }
        Sink::publish(&mut self.0, epoch, rows)
    }
    fn when_durable(&mut self, then: WhenDurable) {
        then(Ok(()));
    }
    fn close(&mut self) -> Result<(), ConnectorError> {
        Ok(())
    }
}

fn checked_plan(topic: &Topic, memory: &Memory) -> (Arc<Plan>, Published) {
    let (plan, sums, ..) = plan(topic, 100);
    let mut plan = Arc::unwrap_or_clone(plan);
    for sink in &mut plan.sinks {
        sink.writer = Arc::new(Checked(
            if sink.name == "sums" { sums.clone() } else { Published::default() },
            memory.clone(),
        ));
    }
    (Arc::new(plan), sums)
}

/// Each epoch that published something, with its rows.
fn epochs(published: &Published) -> Vec<(Epoch, RecordBatch)> {
    published.0.0.lock().unwrap().iter().filter(|(_, rows)| rows.num_rows() > 0).cloned().collect()
}

const NEWEST: i64 = 10_000 * 3 + 1_000;

#[test]
fn nothing_of_an_epoch_is_published_before_it_is_written_down_and_a_replay_is_the_same() {
    let topic = Topic::new(vec![history(10_000), Vec::new(), history(3_000)], true);
    let memory = Memory::default();
    let (first, sums) = checked_plan(&topic, &memory);
    let stop = Arc::new(AtomicBool::new(false));
    let how = memory.run(false, 2, &stop);
    let metrics = Metrics::new(&first);
    let counters = Arc::clone(&metrics);
    let job = std::thread::spawn(move || run(first, &how, metrics));
    let rows_in = |count: u64| {
        until(|| counters.steps[0].rows_in.load(Relaxed) >= count, "the step to take its rows");
    };
    rows_in(13_000);
    for i in 0..40 {
        memory.set(|state| state.closed = i % 5 == 0);
        topic.append(i as usize % 3, (NEWEST + 200 * i, i % 7, i));
        if i % 5 == 0 {
            // The step has the row and the sink waits, for the disk is slow.
            rows_in(13_001 + i as u64);
            memory.wait_until(|state| state.waiting > 0);
            memory.set(|state| state.closed = false);
        }
        // Two partitions fall idle, and the third lets out what came before.
        sums.wait_for(13_000 + i as usize);
    }
    stop.store(true, Relaxed);
    job.join().unwrap().unwrap();
    let told = epochs(&sums);
    assert!(told.iter().filter(|(epoch, _)| epoch.0 >= LIVE).count() > 10);

    let recorded = memory.state().recorded.clone().unwrap();
    for workers in [1, 3] {
        // More has come in the meantime, which comes after all that was.
        topic.append(1, (NEWEST + 1_000_000, 1, 1));
        let again = Memory::default();
        again.set(|state| state.recorded = Some(recorded.clone()));
        let (plan, sums) = checked_plan(&topic, &again);
        let stop = Arc::new(AtomicBool::new(false));
        let how = again.run(false, workers, &stop);
        let metrics = Metrics::new(&plan);
        let job = std::thread::spawn(move || run(plan, &how, metrics));
        sums.wait_for(told.iter().map(|(_, rows)| rows.num_rows()).sum::<usize>() + 1);
        stop.store(true, Relaxed);
        job.join().unwrap().unwrap();
        assert_eq!(epochs(&sums)[..told.len()], told[..], "{workers} workers");
        let further = again.state().recorded.clone().unwrap();
        assert_eq!(further.epochs[..recorded.epochs.len()], recorded.epochs[..]);
        assert!(further.epochs.len() > recorded.epochs.len(), "and is written down itself");
    }
}

#[test]
fn a_partition_that_came_later_is_taken_up_and_comes_again_where_it_came() {
    let two = Topic::new(vec![history(3_000), history(1_000)], true);
    let third = Topic::new(vec![Vec::new()], true);
    let three = Topic { partitions: [two.partitions.clone(), third.partitions].concat(), ..two.clone() };
    let memory = Memory::default();
    // Runs live while rows come one after the other, each when what was before it is published; gives each epoch.
    let live = |topic: &Topic, memory: &Memory, workers, rows: &[(usize, Row)], before: usize| {
        let (plan, sums) = checked_plan(topic, memory);
        let stop = Arc::new(AtomicBool::new(false));
        let how = memory.run(false, workers, &stop);
        let metrics = Metrics::new(&plan);
        let job = std::thread::spawn(move || run(plan, &how, metrics));
        for (n, &(partition, row)) in rows.iter().enumerate() {
            topic.append(partition, row);
            sums.wait_for(before + n);
        }
        sums.wait_for(before);
        stop.store(true, Relaxed);
        job.join().unwrap().unwrap();
        epochs(&sums)
    };
    let rows =
        |epochs: &[(Epoch, RecordBatch)]| epochs.iter().map(|(_, rows)| rows.num_rows()).sum::<usize>();
    let row = |n: i64| (NEWEST + 200 * n, n % 7, n);
    let first: Vec<_> = (0..20).map(|n| (n as usize % 2, row(n))).collect();
    let before = live(&two, &memory, 2, &first, 4_000);

    // The new one holds something already.
    three.append(2, row(20));
    let second: Vec<_> = (21..60).map(|n| (2 - n as usize % 2, row(n))).collect();
    let told = live(&three, &memory, 2, &second, rows(&before));
    assert_eq!(told[..before.len()], before[..]);
    let recorded = memory.state().recorded.clone().unwrap();
    let later: Vec<_> = recorded.header.partitions.iter().map(|bounds| bounds.later).collect();
    assert_eq!(later, [false, false, true]);
    assert!(recorded.epochs.iter().any(|cut| cut.taken.iter().any(|(partition, _)| *partition == 2)));

    for workers in [1, 3] {
        let again = Memory::default();
        again.set(|state| state.recorded = Some(recorded.clone()));
        let replayed = live(&three, &again, workers, &[], rows(&told));
        assert_eq!(replayed[..told.len()], told[..], "{workers} workers");
    }
}

#[test]
fn a_journal_that_cannot_be_written_ends_the_job_and_nothing_of_the_epoch_is_published() {
    // Of one partition nothing comes, and nothing more is told than that.
    let topic = Topic::new(vec![history(1_000), Vec::new()], true);
    let memory = Memory::default();
    let (plan, sums) = checked_plan(&topic, &memory);
    let how = memory.run(false, 2, &Arc::default());
    let metrics = Metrics::new(&plan);
    let job = std::thread::spawn(move || run(plan, &how, metrics));
    topic.append(0, (NEWEST, 1, 1));
    topic.append(0, (NEWEST + 200, 1, 1));
    sums.wait_for(1_001);
    memory.set(|state| state.fails = true);
    topic.append(0, (NEWEST + 400, 1, 1));
    until(|| job.is_finished(), "the job to end");
    let error = job.join().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "failed to write the journal: the disk is full");
    assert_eq!(sums.numbers().len(), 1_001);
}

#[test]
fn a_journal_that_waits_does_not_hold_up_the_end_of_a_job_that_fails() {
    let topic = Topic::new(vec![history(1_000)], true);
    let memory = Memory::default();
    let (plan, sums) = checked_plan(&topic, &memory);
    let how = memory.run(false, 2, &Arc::default());
    let metrics = Metrics::new(&plan);
    let job = std::thread::spawn(move || run(plan, &how, metrics));
    topic.append(0, (NEWEST, 1, 1));
    topic.append(0, (NEWEST + 200, 1, 1));
    sums.wait_for(1_001);
    memory.set(|state| state.closed = true);
    topic.append(0, (NEWEST + 400, 1, 1));
    memory.wait_until(|state| state.waiting > 0);
    topic.append(0, (NEWEST + 600, GONE, 1));
    let error = job.join().unwrap().unwrap_err();
    assert!(error.to_string().contains("failed to read memory: it is gone"), "{error}");
    assert_eq!(sums.numbers().len(), 1_001);
}

/// Each worker has a partition, and one of them waits for its own in the midst of an epoch of which the others
/// have read their part.
#[test]
fn a_stop_in_the_midst_of_what_comes_again_publishes_whole_epochs_only() {
    const CHUNK: usize = Batch::MAX_ROWS;
    const CHUNKS: usize = 6;
    let rows: Vec<Vec<Row>> =
        (0..3).map(|p| history(60_000).iter().map(|&(t, k, v)| (t + p, k, v)).collect()).collect();
    let copied = |topic: &Topic, memory: &Memory| {
        let (plan, _) = checked_plan(topic, memory);
        let mut plan = Arc::unwrap_or_clone(plan);
        plan.epochs.backfill_chunks = CHUNKS;
        let copy = Published::default();
        plan.sinks.push(SinkPlan { order: SinkOrder::Source, ..sink("copy", StreamId::Source(0), &copy) });
        (Arc::new(plan), copy)
    };
    let topic = Topic::new(rows, false);
    let undisturbed = {
        let memory = Memory::default();
        let (plan, copy) = copied(&topic, &memory);
        run(Arc::clone(&plan), &memory.run(true, 1, &Arc::default()), Metrics::new(&plan)).unwrap();
        epochs(&copy)
    };
    // An epoch takes two chunks of each partition, and is planned when the one before the last is known.
    for (barred_from, whole, others) in [(0, 0, 2 * 4), (3 * CHUNK, 1, 3 * 4)] {
        let door = Arc::new(Door::default());
        let topic = Topic { barred: Some((1, barred_from, Arc::clone(&door))), ..topic.clone() };
        let memory = Memory::default();
        let (plan, copy) = copied(&topic, &memory);
        let stop = Arc::new(AtomicBool::new(false));
        let how = memory.run(true, 3, &stop);
        let metrics = Metrics::new(&plan);
        let counters = Arc::clone(&metrics);
        let job = std::thread::spawn(move || run(plan, &how, metrics));
        let read = (others * CHUNK + barred_from) as u64;
        until(|| counters.sources[0].records.load(Relaxed) >= read, "the others to read their part");
        copy.wait_for(whole * CHUNKS * CHUNK);
        stop.store(true, Relaxed);
        door.open();
        job.join().unwrap().unwrap();
        // In its source's order an epoch is published chunk by chunk.
        let told = epochs(&copy);
        assert_eq!(told.len(), whole * CHUNKS);
        assert_eq!(told[..], undisturbed[..whole * CHUNKS]);
    }
}

#[test]
fn a_journal_is_read_when_nobody_else_can_write_it_any_more() {
    let topic = Topic::new(vec![history(2_000)], false);
    let (memory, stop) = (Memory::default(), Arc::default());
    let to_its_end = || {
        let (plan, ..) = plan(&topic, 1);
        run(Arc::clone(&plan), &memory.run(true, 1, &stop), Metrics::new(&plan)).unwrap();
        memory.state().recorded.clone().unwrap()
    };
    let written = to_its_end();
    // The one that ran before is not dead, and writes on: an epoch that nobody would do again.
    memory.set(|state| state.late = Some(EpochCut { epoch: LIVE, taken: Vec::new() }));
    assert_eq!(to_its_end(), written);
    assert_eq!(memory.state().writers, 2);
}

#[test]
fn a_journal_of_another_run_is_refused() {
    let topic = Topic::new(vec![history(100)], true);
    let memory = Memory::default();
    let (plan, _) = checked_plan(&topic, &memory);
    let header = JournalHeader {
        job: 1,
        begun: 1,
        until_drained: false,
        partitions: vec![levada_types::journal::PartitionBounds {
            source: "numbers".into(),
            start: None,
            end: Some(Offset(100)),
            later: false,
        }],
    };
    let taken = vec![(0, vec![levada_types::journal::Taken::Records(5)])];
    let begin = |header: JournalHeader| {
        let epochs = vec![EpochCut { epoch: LIVE, taken: taken.clone() }];
        memory.set(|state| state.recorded = Some(Recorded { header, trimmed: None, epochs }));
    };
    let told = |how: &Run| run(Arc::clone(&plan), how, Metrics::new(&plan)).unwrap_err().to_string();
    for (changed, message) in [
        (JournalHeader { job: 2, ..header.clone() }, "the job was another then"),
        (JournalHeader { until_drained: true, ..header.clone() }, "the job ran to end with its history"),
        (
            JournalHeader {
                partitions: [header.partitions.clone(), header.partitions.clone()].concat(),
                ..header.clone()
            },
            "source `numbers` had 2 partitions, and has 1",
        ),
    ] {
        begin(changed);
        let error = told(&memory.run(false, 1, &Arc::default()));
        assert!(error.starts_with("failed to go on from memory: ") && error.contains(message), "{error}");
    }
}
