//! The parts of a pipeline one by one, each over the same events in memory, on one thread.
//!
//! Nanoseconds of CPU an event: of reading and splitting the file, decoding, routing to two workers,
//! the window step, and appending to and reading from a topic.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use levada_connectors::log::{Log, RecordIn, Start, TopicConfig, WriterOptions};
use levada_dataflows::host::Host;
use levada_dataflows::plan::{Plan, Route};
use levada_types::{
    Batch, Epoch, EventTime, KeyHasher, Offset, Origin, PartitionId, RawRecords, Read, StartAt,
};
use serde::Serialize;

use super::cost::Cost;
use super::window::{job, source, write_input};
use super::{BenchError, median, plan, rounded};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many events.
    pub events: u64,
    /// How many users they are about.
    pub keys: u64,
    /// How many times.
    pub repeat: usize,
}

/// Nanoseconds of CPU an event: medians.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    events: u64,
    keys: u64,
    repeat: usize,
    read_ns: f64,
    decode_ns: f64,
    partition_ns: f64,
    window_ns: f64,
    log_append_ns: f64,
    log_read_ns: f64,
}

/// Measures.
///
/// # Errors
/// When the input cannot be written or a part fails.
pub fn run(options: &Options) -> Result<Report, BenchError> {
    let folder = tempfile::tempdir()?;
    let input = folder.path().join("events.jsonl");
    write_input(&input, options.events, options.keys)?;
    let plan = plan(&job(&source(&input), &folder.path().join("out.jsonl")), folder.path())?;
    let log = Log::open(folder.path())?;
    let mut costs: [Vec<f64>; 6] = Default::default();
    for turn in 0..options.repeat.max(1) {
        let (read_cost, _) = Cost::of(|| read(&plan, drop))?;
        let mut chunks = Vec::new();
        read(&plan, |records| chunks.push(records))?;
        let (decode_cost, batches) = Cost::of(|| decode(&plan, &chunks))?;
        let (partition_cost, _) = Cost::of(|| partition(&plan, &batches))?;
        let (window_cost, _) = Cost::of(|| window(&plan, &batches))?;
        let topic = log.create_topic(&format!("micro-{turn}"), TopicConfig::default())?;
        let (append_cost, ()) = Cost::of(|| append(&topic, &chunks))?;
        let (log_read_cost, _) = Cost::of(|| read_topic(&topic))?;
        drop(topic);
        log.delete_topic(&format!("micro-{turn}"))?;
        let all = [read_cost, decode_cost, partition_cost, window_cost, append_cost, log_read_cost];
        for (costs, cost) in costs.iter_mut().zip(all) {
            costs.push(cost.cpu_s * 1e9 / options.events as f64);
        }
    }
    let [read_ns, decode_ns, partition_ns, window_ns, log_append_ns, log_read_ns] =
        costs.map(|costs| rounded(median(costs)));
    Ok(Report {
        events: options.events,
        keys: options.keys,
        repeat: options.repeat.max(1),
        read_ns,
        decode_ns,
        partition_ns,
        window_ns,
        log_append_ns,
        log_read_ns,
    })
}

fn read(plan: &Plan, mut take: impl FnMut(RawRecords)) -> Result<(), BenchError> {
    for source in &plan.sources {
        let mut reader = source.reader.open(PartitionId(0), StartAt::Configured)?;
        while let Read::Records(records) = reader.read(Batch::MAX_ROWS, Duration::ZERO)? {
            take(records);
        }
    }
    Ok(())
}

/// The job's rows, as its source would hand them on.
fn decode(plan: &Plan, chunks: &[RawRecords]) -> Result<Vec<Batch>, BenchError> {
    let mut batches = Vec::new();
    for source in &plan.sources {
        let mut decoder = source.decoder.decoder(source.decoded.clone())?;
        for chunk in chunks {
            let decoded = decoder.decode(chunk).rows;
            let column = source.event_time.as_ref().map_or(0, |event_time| event_time.column);
            let mut columns = vec![Arc::clone(decoded.column(column))];
            for field in source.schema.fields().iter().skip(1) {
                columns.push(Arc::clone(decoded.column(decoded.schema().index_of(field.name())?)));
            }
            let rows = RecordBatch::try_new(source.schema.clone(), columns)?;
            let offset = Offset(chunk.offsets.first().copied().unwrap_or_default());
            batches.push(Batch::read(rows, Origin { source: 0, partition: PartitionId(0), offset }));
        }
    }
    Ok(batches)
}

/// The rows of each of two workers.
fn partition(plan: &Plan, batches: &[Batch]) -> Result<usize, BenchError> {
    let columns = plan.steps.iter().flat_map(|step| &step.step.inputs).find_map(|input| match &input.route {
        Route::Key(columns) => Some(columns.clone()),
        Route::Stay | Route::All => None,
    });
    let columns = columns.unwrap_or_default();
    let mut hasher = KeyHasher::default();
    let mut rows = 0;
    for batch in batches {
        let keys: Vec<&ArrayRef> = columns.iter().map(|&column| batch.rows.column(column)).collect();
        let mut shares = [Vec::new(), Vec::new()];
        for (row, &hash) in (0..).zip(hasher.hash(&keys, batch.rows.num_rows())) {
            shares[KeyHasher::group(hash).worker(2)].push(row);
        }
        for share in shares {
            rows += take_record_batch(&batch.rows, &UInt32Array::from(share))?.num_rows();
        }
    }
    Ok(rows)
}

/// The rows of the windows, made by the step alone, four chunks an epoch.
fn window(plan: &Plan, batches: &[Batch]) -> Result<usize, BenchError> {
    let mut rows = 0;
    for step in &plan.steps {
        let schemas: Vec<_> = step.from.iter().map(|&from| plan.schema(from).clone()).collect();
        let mut host = Host::new(&step.step, &schemas)?;
        let mut greatest = i64::MIN + 500;
        for (epoch, batches) in (0..).zip(batches.chunks(4)) {
            greatest = batches.iter().flat_map(|batch| batch.times()).copied().fold(greatest, i64::max);
            let out = host.epoch(Epoch(epoch), EventTime(greatest - 500), vec![batches.to_vec()])?;
            rows += out.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
        }
        let out = host.epoch(Epoch(u64::MAX), EventTime::MAX, vec![Vec::new()])?;
        rows += out.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
    }
    Ok(rows)
}

fn append(topic: &levada_connectors::log::Topic, chunks: &[RawRecords]) -> Result<(), BenchError> {
    let writer = topic.writers(WriterOptions::default())?;
    for chunk in chunks {
        let records: Vec<RecordIn<'_>> =
            (0..chunk.len()).map(|i| RecordIn { value: chunk.value(i), ..RecordIn::default() }).collect();
        for records in records.chunks(1000) {
            writer.append(records)?;
        }
    }
    Ok(writer.sync()?)
}

fn read_topic(topic: &levada_connectors::log::Topic) -> Result<usize, BenchError> {
    let mut reader = topic.reader(0, Start::Beginning)?;
    let (mut count, mut bytes) = (0, 0);
    loop {
        let fetched = reader.read(Batch::MAX_ROWS, 4 << 20)?;
        if fetched.is_empty() {
            std::hint::black_box(bytes);
            return Ok(count);
        }
        count += fetched.len();
        bytes += fetched.iter().map(|record| record.value.len()).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("events.jsonl");
        write_input(&input, 30_000, 20).unwrap();
        let plan = plan(&job(&source(&input), &folder.path().join("out.jsonl")), folder.path()).unwrap();
        let mut chunks = Vec::new();
        read(&plan, |records| chunks.push(records)).unwrap();
        let batches = decode(&plan, &chunks).unwrap();
        assert_eq!(partition(&plan, &batches).unwrap(), 30_000);
        assert_eq!(window(&plan, &batches).unwrap(), 20);
        let topic = Log::open(folder.path()).unwrap().create_topic("t", TopicConfig::default()).unwrap();
        append(&topic, &chunks).unwrap();
        assert_eq!(read_topic(&topic).unwrap(), 30_000);
    }
}
