//! How fast the embedded log appends and replays: records of 150 bytes, group commit every 10 ms.
//!
//! In: `cargo bench -p levada-connectors --bench log -- [RECORDS] [FOLDER]`, by default 4,000,000 in the
//! temporary folder. Out: a line for each way of calling it, with wall-clock and CPU seconds (of all threads,
//! the kernel's share included). The replays read what lies in the page cache.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use levada_connectors::log::{Log, RecordIn, Start, SyncPolicy, Topic, TopicConfig, WriterOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let records: usize = arguments.next().map_or(Ok(4_000_000), |text| text.parse())?;
    let folder = match arguments.next() {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    let log = Log::open(folder.path())?;
    for batch in [1, 100, 1000, 8192] {
        let name = format!("batch-{batch}");
        let topic = log.create_topic(&name, TopicConfig::default())?;
        let count = if batch == 1 { records / 4 } else { records };
        let writer = topic.writer(0, WriterOptions::default())?;
        measure(&format!("append, {batch} a call, 10 ms"), count, || {
            append(count, batch, |records| writer.append(records).map(drop))?;
            writer.sync()
        })?;
        measure("  replay, 8192 a read", count, || replay(&topic, 0))?;
        drop(writer);
        measure("  open for writing again", 1, || topic.writer(0, WriterOptions::default()).map(drop))?;
        log.delete_topic(&name)?;
    }
    let never = WriterOptions::synced(SyncPolicy::Never);
    for (what, options) in [("no sync", never), ("10 ms", WriterOptions::default())] {
        let topic = log.create_topic("four", TopicConfig { partitions: 4, ..TopicConfig::default() })?;
        let writers = topic.writers(options)?;
        measure(&format!("append, 4 partitions by key, 1000 a call, {what}"), records, || {
            append(records, 1000, |records| writers.append(records).map(drop))?;
            writers.sync()
        })?;
        measure("  replay, one after the other", records, || {
            (0..4).try_for_each(|partition| replay(&topic, partition))
        })?;
        drop(writers);
        log.delete_topic("four")?;
    }
    let topic = log.create_topic("latency", TopicConfig::default())?;
    for interval_ms in [0, 10] {
        let sync = SyncPolicy::Interval(Duration::from_millis(interval_ms));
        let writer = topic.writer(0, WriterOptions::synced(sync))?;
        measure(&format!("append_durable, one record, one thread, {interval_ms} ms"), 200, || {
            append(200, 1, |records| writer.append_durable(records).map(drop))
        })?;
    }
    follow(&topic)?;
    Ok(())
}

/// How long after the beginning of an append a reader that waited has its record.
fn follow(topic: &Topic) -> Result<(), Box<dyn std::error::Error>> {
    let writer = topic.writer(0, WriterOptions::synced(SyncPolicy::Never))?;
    let mut reader = topic.reader(0, Start::End)?;
    let (seen, see) = std::sync::mpsc::channel();
    let follower = std::thread::spawn(move || {
        let mut left = 2000;
        while left > 0 && reader.wait(Duration::from_secs(10)).unwrap_or(false) {
            let count = reader.read(8192, usize::MAX).map_or(0, |fetched| fetched.len());
            let now = Instant::now();
            if count > 0 && seen.send(now).is_err() {
                return;
            }
            left -= count;
        }
    });
    let mut micros = Vec::new();
    for _ in 0..2000 {
        let begun = Instant::now();
        writer.append(&[RecordIn { value: &[b'x'; 150], ..RecordIn::default() }])?;
        micros.push((see.recv()? - begun).as_micros());
    }
    follower.join().map_err(|_| "the follower panicked")?;
    micros.sort_unstable();
    println!("append to waiting reader, microseconds: median {}, p99 {}", micros[1000], micros[1980]);
    Ok(())
}

/// Makes records of 150 bytes with a key and hands them over, `batch` at a time.
fn append<E>(count: usize, batch: usize, append: impl Fn(&[RecordIn<'_>]) -> Result<(), E>) -> Result<(), E> {
    let payload = [b'x'; 150];
    let keys: Vec<[u8; 8]> = (0..batch as u64).map(u64::to_le_bytes).collect();
    let mut records: Vec<RecordIn<'_>> =
        keys.iter().map(|key| RecordIn { key: Some(key), value: &payload, ..RecordIn::default() }).collect();
    for call in 0..count.div_ceil(batch) {
        for (index, record) in records.iter_mut().enumerate() {
            record.timestamp_ms = (call * batch + index) as i64;
        }
        append(&records)?;
    }
    Ok(())
}

fn replay(topic: &Topic, partition: u32) -> Result<(), levada_connectors::log::LogError> {
    let mut reader = topic.reader(partition, Start::Beginning)?;
    let mut bytes = 0;
    loop {
        let fetched = reader.read(8192, usize::MAX)?;
        if fetched.is_empty() {
            break;
        }
        for record in &fetched {
            bytes += record.value.len() + (record.timestamp_ms & 1) as usize;
        }
    }
    std::hint::black_box(bytes);
    Ok(())
}

fn measure<E>(what: &str, count: usize, work: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    work()?;
    let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let rate = |seconds: f64| count as f64 / seconds.max(1e-9) / 1e6;
    println!(
        "{what:<55} {wall:8.3} s, {cpu:6.2} CPU-s: {:8.3} M/s, {:8.3} M/CPU-s",
        rate(wall),
        rate(cpu.max(0.01)),
    );
    Ok(())
}

/// What all threads of the process have used, as the kernel counts it: in hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
