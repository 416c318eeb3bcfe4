//! Partitions that wait for the slowest: less is held back, and the same is published.

use std::sync::atomic::Ordering::Relaxed;

use super::*;

/// So many records, 10 ms apart.
const RECORDS: i64 = 100_000;
/// What may be taken before it is known that it is too much: the epochs in flight, and the one that is open, each
/// with a chunk and what was read with its last record; and what is allowed.
const MOST: u64 = 6 * 2 * 4096 + 100;

struct Job {
    topic: Topic,
    sums: Published,
    metrics: Arc<Metrics>,
    stop: Arc<AtomicBool>,
    job: std::thread::JoinHandle<Result<(), EngineError>>,
}

impl Job {
    /// A live job over two partitions, of which the first has all its records at once.
    fn start(align_ms: Option<i64>, idle_ms: u64, workers: usize) -> Job {
        let topic = Topic::new(vec![Vec::new(), Vec::new()], true);
        let (plan, sums, _, _) = plan(&topic, 0);
        let mut plan = Arc::unwrap_or_clone(plan);
        plan.epochs.align_ms = align_ms;
        // Long enough for all to be taken in one, if nothing were to say how much.
        plan.epochs.interval_ms = 50;
        plan.sources[0] = source(&topic, 0, Some(idle_ms));
        let plan = Arc::new(plan);
        let (metrics, stop) = (Metrics::new(&plan), Arc::new(AtomicBool::new(false)));
        let how = Run {
            cluster: Cluster::local(workers),
            until_drained: false,
            stop: Arc::clone(&stop),
            journal: None,
            checkpoints: None,
        };
        let counters = Arc::clone(&metrics);
        let job = std::thread::spawn(move || run(plan, &how, counters));
        // The history is over, and what comes is live.
        until(|| metrics.partitions.lock().unwrap().len() == 2, "the job to begin");
        topic.append(1, (0, 1, 1));
        until(|| metrics.sources[0].records.load(Relaxed) == 1, "the slow partition");
        let (rows, changed) = &*topic.partitions[0];
        rows.lock().unwrap().extend((1..=RECORDS).map(|i| (i * 10, i % 7, i)));
        changed.notify_all();
        Job { topic, sums, metrics, stop, job }
    }

    fn read(&self) -> u64 {
        self.metrics.sources[0].records.load(Relaxed)
    }

    /// Lets the slow partition come along; what was published by then.
    fn finish(self) -> Vec<Row> {
        for step in 1..=20 {
            self.topic.append(1, (step * RECORDS / 2, 1, step));
        }
        // Its last record is at the time of the other's last, which stay behind the watermark.
        let all = 1 + (RECORDS - 1) as usize + 19;
        self.sums.wait_for(all);
        self.stop.store(true, Relaxed);
        self.job.join().unwrap().unwrap();
        self.sums.numbers()
    }
}

#[test]
fn what_is_ahead_waits_and_the_same_is_published() {
    let far = 3_600_000;
    let free = Job::start(None, far, 1);
    until(|| free.read() == RECORDS as u64 + 1, "all to be read");
    assert_eq!(free.sums.numbers(), [], "all is held back");
    assert!(free.metrics.waiting().is_empty());
    let expected = free.finish();
    for workers in [1, 2] {
        let aligned = Job::start(Some(1_000), far, workers);
        until(|| aligned.metrics.waiting() == [(0, PartitionId(0))], "the first to wait");
        // What it would read on it would have read by now.
        let never = Condvar::new();
        drop(never.wait_timeout(Mutex::new(()).lock().unwrap(), Duration::from_millis(200)).unwrap());
        let held = aligned.read();
        assert!((100..MOST).contains(&held), "{held} records are held back, and not {RECORDS}");
        assert_eq!(aligned.finish(), expected, "{workers} workers");
    }
}

#[test]
fn what_is_silent_is_not_waited_for() {
    let job = Job::start(Some(1_000), 20, 1);
    // With the slow one idle, the other sets the pace, and each record lets the one before it out.
    until(|| job.read() == RECORDS as u64 + 1, "all to be read");
    job.sums.wait_for(RECORDS as usize);
    job.stop.store(true, Relaxed);
    job.job.join().unwrap().unwrap();
}
