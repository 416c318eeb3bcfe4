//! The engine on sources and sinks in memory: what it promises whatever the workers and partitions.

mod alignment;
mod checkpoints;
mod disorder;
mod journal;
mod takeover;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use levada_types::{
    Batch, ConnectorError, DeadLetter, Decoded, Decoder, DecoderFactory, Epoch, Offset, PartitionId,
    RawRecords, Read, RecordReader, Sink, SinkFactory, SourceFactory, StartAt, StateChanges, WhenDurable,
};

use super::{Cluster, EngineError, Run, run};
use crate::metrics::Metrics;
use crate::operator::{EpochInput, InputOrder, Operator, OperatorError, Outputs};
use crate::plan::{
    EpochSettings, EventTimePlan, Plan, PlannedInput, PlannedStep, Route, SinkOrder, SinkPlan, SourcePlan,
    StepPlan, StreamId,
};

/// A record: event time, key, value. A negative key does not decode.
type Row = (i64, i64, i64);

/// The key of a record that cannot be read: the topic fails there.
const GONE: i64 = i64::MIN;

/// Partitions in memory, to which a test may append.
#[derive(Clone)]
struct Topic {
    partitions: Vec<Arc<(Mutex<Vec<Row>>, Condvar)>>,
    unbounded: bool,
    /// How many records a read gives at most.
    chunk: usize,
    /// A partition of which a read from this record on waits until the door is open.
    barred: Option<(usize, usize, Arc<Door>)>,
}

/// Closed, until a test opens it.
#[derive(Default)]
struct Door(Mutex<bool>, Condvar);

impl Door {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn pass(&self) {
        drop(wait(&self.1, self.0.lock().unwrap(), |open| !*open, "a door to open"));
    }
}

/// Waits while something is so; a test that would wait for ever fails.
fn wait<'a, T>(
    changed: &Condvar,
    of: MutexGuard<'a, T>,
    so: impl FnMut(&mut T) -> bool,
    what: &str,
) -> MutexGuard<'a, T> {
    let (of, out) = changed.wait_timeout_while(of, Duration::from_secs(60), so).unwrap();
    assert!(!out.timed_out(), "waited in vain for {what}");
    of
}

/// As [`wait`], for what tells nobody that it has changed.
fn until(so: impl Fn() -> bool, what: &str) {
    let never = Condvar::new();
    let nothing = Mutex::new(());
    let again = |_: &u32| {
        drop(never.wait_timeout(nothing.lock().unwrap(), Duration::from_millis(1)).unwrap());
        !so()
    };
    assert!((0..60_000).any(|tries| !again(&tries)), "waited in vain for {what}");
}

impl Topic {
    fn new(partitions: Vec<Vec<Row>>, unbounded: bool) -> Topic {
        let partitions =
            partitions.into_iter().map(|rows| Arc::new((Mutex::new(rows), Condvar::new()))).collect();
        Topic { partitions, unbounded, chunk: usize::MAX, barred: None }
    }

    fn append(&self, partition: usize, row: Row) {
        let (rows, changed) = &*self.partitions[partition];
        rows.lock().unwrap().push(row);
        changed.notify_all();
    }
}

impl SourceFactory for Topic {
    fn describe(&self) -> String {
        "memory".into()
    }
    fn partitions(&self) -> Result<Vec<Option<Offset>>, ConnectorError> {
        Ok(self.partitions.iter().map(|p| Some(Offset(p.0.lock().unwrap().len() as u64))).collect())
    }
    fn unbounded(&self) -> bool {
        self.unbounded
    }
    fn open(&self, partition: PartitionId, start: StartAt) -> Result<Box<dyn RecordReader>, ConnectorError> {
        let next = match start {
            StartAt::Configured => 0,
            StartAt::Offset(offset) => offset.0 as usize,
        };
        let rows = Arc::clone(&self.partitions[partition.0 as usize]);
        let barred = self.barred.clone().filter(|(of, ..)| *of == partition.0 as usize);
        Ok(Box::new(TopicReader { rows, next, chunk: self.chunk, barred }))
    }
}

struct TopicReader {
    rows: Arc<(Mutex<Vec<Row>>, Condvar)>,
    next: usize,
    chunk: usize,
    barred: Option<(usize, usize, Arc<Door>)>,
}

impl RecordReader for TopicReader {
    fn read(&mut self, max_records: usize, wait: Duration) -> Result<Read, ConnectorError> {
        if let Some((_, from, door)) = &self.barred
            && self.next >= *from
        {
            door.pass();
        }
        let (rows, changed) = &*self.rows;
        let (rows, _) =
            changed.wait_timeout_while(rows.lock().unwrap(), wait, |rows| rows.len() <= self.next).unwrap();
        let end = rows.len().min(self.next + max_records.min(self.chunk));
        if end == self.next {
            return Ok(Read::CaughtUp);
        }
        if rows[self.next..end].iter().any(|(_, key, _)| *key == GONE) {
            return Err(ConnectorError::outage("read memory: it is gone"));
        }
        let mut data = Vec::new();
        let mut records = RawRecords::default();
        for (i, row) in rows[self.next..end].iter().enumerate() {
            for word in [row.0, row.1, row.2] {
                data.extend_from_slice(&word.to_le_bytes());
            }
            records.spans.push((24 * i as u32, 24 * i as u32 + 24));
            records.offsets.push((self.next + i) as u64);
        }
        self.next = end;
        records.data = Bytes::from(data);
        Ok(Read::Records(records))
    }
}

struct Words;

impl DecoderFactory for Words {
    fn decoder(&self, schema: SchemaRef) -> Result<Box<dyn Decoder>, ConnectorError> {
        Ok(Box::new(WordsDecoder(schema)))
    }
}

struct WordsDecoder(SchemaRef);

impl Decoder for WordsDecoder {
    fn decode(&mut self, records: &RawRecords) -> Decoded {
        let word =
            |i: usize, w: usize| i64::from_le_bytes(records.value(i)[8 * w..8 * w + 8].try_into().unwrap());
        let (good, bad): (Vec<usize>, Vec<usize>) = (0..records.len()).partition(|&i| word(i, 1) >= 0);
        let column = |w: usize| good.iter().map(move |&i| word(i, w));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMillisecondArray::from_iter_values(column(0))),
            Arc::new(Int64Array::from_iter_values(column(1))),
            Arc::new(Int64Array::from_iter_values(column(2))),
        ];
        let dead = bad.iter().map(|&i| DeadLetter {
            offset: Offset(records.offsets[i]),
            reason: "negative key".into(),
            bytes: records.value(i).to_vec(),
        });
        Decoded {
            rows: RecordBatch::try_new(self.0.clone(), columns).unwrap(),
            indices: Some(good.iter().map(|&i| i as u32).collect()),
            dead: dead.collect(),
        }
    }
}

/// What was published: each epoch's rows.
#[derive(Clone, Default)]
struct Published(Arc<(Mutex<Vec<(Epoch, RecordBatch)>>, Condvar)>);

impl Published {
    fn rows(&self) -> Vec<RecordBatch> {
        self.0.0.lock().unwrap().iter().map(|(_, rows)| rows.clone()).collect()
    }

    /// All rows as numbers, in order of publication.
    fn numbers(&self) -> Vec<Row> {
        let mut all = Vec::new();
        for rows in self.rows() {
            let batch = Batch::derived(rows);
            let numbers = |c: usize| {
                batch.rows.column(c).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec()
            };
            let (keys, values) = (numbers(1), numbers(2));
            all.extend(batch.times().iter().zip(keys).zip(values).map(|((&t, k), v)| (t, k, v)));
        }
        all
    }

    fn wait_for(&self, count: usize) {
        let (rows, changed) = &*self.0;
        let total = |rows: &Vec<(Epoch, RecordBatch)>| -> usize { rows.iter().map(|r| r.1.num_rows()).sum() };
        let what = format!("{count} published rows");
        drop(wait(changed, rows.lock().unwrap(), |rows| total(rows) < count, &what));
    }
}

impl SinkFactory for Published {
    fn describe(&self) -> String {
        "memory".into()
    }
    fn open(&self, _: SchemaRef, _: Option<&[u8]>) -> Result<Box<dyn Sink>, ConnectorError> {
        Ok(Box::new(self.clone()))
    }
}

impl Sink for Published {
    fn publish(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<(), ConnectorError> {
        let mut all = self.0.0.lock().unwrap();
        assert!(all.last().is_none_or(|(last, _)| *last <= epoch), "epochs grow");
        all.extend(rows.iter().map(|rows| (epoch, rows.clone())));
        self.0.1.notify_all();
        Ok(())
    }
    fn when_durable(&mut self, then: WhenDurable) {
        then(Ok(()));
    }
    fn close(&mut self) -> Result<(), ConnectorError> {
        Ok(())
    }
}

/// Emits for each row the sum of its key's values so far, in event-time order.
#[derive(Default)]
struct RunningSum(std::collections::BTreeMap<i64, i64>);

impl Operator for RunningSum {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        for batch in &input.inputs[0] {
            let numbers = |c: usize| batch.rows.column(c).as_any().downcast_ref::<Int64Array>().unwrap();
            let sums = numbers(1).values().iter().zip(numbers(2).values()).map(|(&key, &value)| {
                let sum = self.0.entry(key).or_default();
                *sum += value;
                *sum
            });
            let sums: ArrayRef = Arc::new(Int64Array::from_iter_values(sums));
            let columns = vec![batch.rows.column(0).clone(), batch.rows.column(1).clone(), sums];
            out.emit(RecordBatch::try_new(batch.rows.schema(), columns)?);
        }
        Ok(())
    }
    fn checkpoint(&mut self, _: &mut StateChanges) -> Result<(), OperatorError> {
        Ok(())
    }
    fn restore(&mut self, _: StateChanges) -> Result<(), OperatorError> {
        Ok(())
    }
}

/// As [`RunningSum`], and it writes down what has changed, or every third time all.
#[derive(Default)]
struct RememberedSum(RunningSum, std::collections::BTreeMap<i64, i64>, u32);

impl Operator for RememberedSum {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        self.0.on_epoch(input, out)
    }
    fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        let keys: Int64Array = self.0.0.keys().copied().collect();
        let keys: ArrayRef = Arc::new(keys);
        let hashes = levada_types::KeyHasher::default().hash(&[&keys], self.0.0.len()).to_vec();
        self.2 += 1;
        let all = self.2.is_multiple_of(3);
        for ((key, sum), hash) in self.0.0.iter().zip(hashes) {
            if self.1.insert(*key, *sum) != Some(*sum) || all {
                let group = levada_types::KeyHasher::group(hash);
                changes.put(group, &key.to_le_bytes(), &sum.to_le_bytes());
            }
        }
        if all {
            changes.set_whole(0);
        }
        Ok(())
    }
    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        let number = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap());
        let each = entries.iter().map(|change| (number(change.key), number(change.value.unwrap())));
        self.0.0 = each.collect();
        self.1 = self.0.0.clone();
        Ok(())
    }
}

fn remembered_sum() -> PlannedStep {
    PlannedStep { operator: Arc::new(|| Ok(Box::new(RememberedSum::default()))), ..running_sum() }
}

/// Rows of numbers behind a first column.
fn schema(first: Field) -> SchemaRef {
    let number = |name| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![first, number("key"), number("value")]))
}

fn source(topic: &Topic, out_of_order_ms: i64, idle_ms: Option<u64>) -> SourcePlan {
    SourcePlan {
        name: "numbers".into(),
        schema: schema(Batch::time_field()),
        event_time: Some(EventTimePlan { column: 0, out_of_order_ms, idle_ms }),
        reader: Arc::new(topic.clone()),
        decoder: Arc::new(Words),
        decoded: schema(Field::new("at", Batch::timestamp_type(), false)),
    }
}

fn running_sum() -> PlannedStep {
    PlannedStep {
        schema: schema(Batch::time_field()),
        inputs: vec![PlannedInput { order: InputOrder::Time, route: Route::Key(vec![1]) }],
        operator: Arc::new(|| Ok(Box::new(RunningSum::default()))),
        stateless: false,
    }
}

fn step(name: &str, from: Vec<StreamId>, step: PlannedStep) -> StepPlan {
    StepPlan { name: name.into(), verb: "test", from, step, identity: 1 }
}

fn sink(name: &str, from: StreamId, to: &Published) -> SinkPlan {
    SinkPlan { name: name.into(), from, order: SinkOrder::Canonical, writer: Arc::new(to.clone()) }
}

fn plan(topic: &Topic, disorder_ms: i64) -> (Arc<Plan>, Published, Published, Published) {
    let (sums, late, dead) = (Published::default(), Published::default(), Published::default());
    let plan = Plan {
        name: "test".into(),
        epochs: EpochSettings { interval_ms: 1, in_flight: 4, backfill_chunks: 2, align_ms: None },
        sources: vec![source(topic, disorder_ms, Some(1))],
        steps: vec![step("sums", vec![StreamId::Source(0)], running_sum())],
        sinks: vec![sink("sums", StreamId::Step(0), &sums), sink("late", StreamId::Late(0), &late)],
        dead_letters: Some(Arc::new(dead.clone())),
        late_ledger: None,
    };
    (Arc::new(plan), sums, late, dead)
}

fn drain(plan: &Arc<Plan>, workers: usize) -> Result<Arc<Metrics>, EngineError> {
    let metrics = Metrics::new(plan);
    let how = Run {
        cluster: Cluster::local(workers),
        until_drained: true,
        stop: Arc::default(),
        journal: None,
        checkpoints: None,
    };
    run(Arc::clone(plan), &how, Arc::clone(&metrics))?;
    Ok(metrics)
}

/// Rows of 50 keys at growing times with a disorder of less than 100 ms.
fn history(rows: i64) -> Vec<Row> {
    (0..rows).map(|i| (i * 3 + (i * 7919) % 90, (i * 31) % 50, (i * 17) % 1000 - 500)).collect()
}

fn expected(rows: &[Row]) -> Vec<Row> {
    let mut sorted = rows.to_vec();
    sorted.sort();
    let mut sums = std::collections::BTreeMap::new();
    let mut told: Vec<Row> = sorted
        .into_iter()
        .map(|(time, key, value)| {
            let sum = sums.entry(key).or_insert(0);
            *sum += value;
            (time, key, *sum)
        })
        .collect();
    told.sort();
    told
}

#[test]
fn neither_workers_nor_partitions_change_what_is_published() {
    let rows = history(100_000);
    let expected = expected(&rows);
    for partitions in [1, 6] {
        let mut dealt = vec![Vec::new(); partitions];
        for &row in &rows {
            dealt[row.1 as usize % partitions].push(row);
        }
        for workers in [1, 2, 4] {
            let (plan, sums, late, dead) = plan(&Topic::new(dealt.clone(), false), 100);
            let metrics = drain(&plan, workers).unwrap();
            assert_eq!(sums.numbers(), expected, "{partitions} partitions, {workers} workers");
            assert_eq!((late.numbers(), dead.rows()), (vec![], vec![]));
            assert_eq!(metrics.steps[0].rows_in.load(std::sync::atomic::Ordering::Relaxed), 100_000);
        }
    }
}

#[test]
fn late_and_bad_records_are_set_aside_the_same_way_each_time() {
    let mut rows = history(60_000);
    rows[50_000] = (7, 3, 11);
    rows[20] = (60, -1, 5);
    let mut told = Vec::new();
    for workers in [1, 3] {
        let (plan, sums, late, dead) = plan(&Topic::new(vec![rows.clone()], false), 100);
        drain(&plan, workers).unwrap();
        assert_eq!(late.numbers(), [(7, 3, 11)]);
        let dead = dead.rows();
        assert_eq!(dead.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
        told.push((sums.numbers(), dead));
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0].0.len(), 59_998);
}

#[test]
fn a_live_job_goes_on_after_its_history_and_stops_when_told() {
    let topic = Topic::new(vec![history(10_000), Vec::new()], true);
    let (plan, sums, late, _) = plan(&topic, 100);
    let stop = Arc::new(AtomicBool::new(false));
    let how = Run {
        cluster: Cluster::local(2),
        until_drained: false,
        stop: Arc::clone(&stop),
        journal: None,
        checkpoints: None,
    };
    let metrics = Metrics::new(&plan);
    let job = std::thread::spawn(move || run(plan, &how, metrics));
    // The silent partition is declared idle, and each record lets the one before it out.
    let newest = 10_000 * 3 + 1_000;
    for i in 0..50 {
        topic.append(0, (newest + 200 * i, 1, 1));
        sums.wait_for(10_000 + i as usize);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    job.join().unwrap().unwrap();
    let mut rows = history(10_000);
    rows.extend((0..49).map(|i| (newest + 200 * i, 1, 1)));
    assert_eq!(sums.numbers(), expected(&rows));
    assert_eq!(late.numbers(), []);
}

#[test]
fn a_failing_sink_ends_the_job_with_its_reason() {
    struct Refuses;
    impl SinkFactory for Refuses {
        fn describe(&self) -> String {
            "refuses".into()
        }
        fn open(&self, _: SchemaRef, _: Option<&[u8]>) -> Result<Box<dyn Sink>, ConnectorError> {
            Ok(Box::new(Refuses))
        }
    }
    impl Sink for Refuses {
        fn publish(&mut self, _: Epoch, _: &[RecordBatch]) -> Result<(), ConnectorError> {
            Err(ConnectorError::outage("write: the disk is full"))
        }
        fn when_durable(&mut self, then: WhenDurable) {
            then(Ok(()));
        }
        fn close(&mut self) -> Result<(), ConnectorError> {
            Ok(())
        }
    }
    let (plan, ..) = plan(&Topic::new(vec![history(50_000)], false), 100);
    let mut plan = Arc::unwrap_or_clone(plan);
    plan.sinks[0].writer = Arc::new(Refuses);
    let error = drain(&Arc::new(plan), 2).unwrap_err().to_string();
    assert_eq!(error, "sink `sums`: failed to write: the disk is full");
}
