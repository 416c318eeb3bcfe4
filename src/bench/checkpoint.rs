//! What checkpoints cost: a job whose windows hold a million users, with them and without.
//!
//! ```text
//!   history   records at full speed, until they are all read: CPU, wall time, and what of them checkpoints were seen to
//!             take: the time in which steps handed over what had changed, and the CPU of the threads that write it
//!   live      records at a steady rate beside that state: latency of rows, the longest pause, bytes written
//!   recovery  the live job is killed and begun again: from its start to the first new row
//! ```
//!
//! Each run is the `levada run` that a user starts, with `--state`, in a process of its own; "without" is the same
//! with an interval that never comes round, so that only the checkpoints at the beginning and at the end remain.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use levada_connectors::log::{Log, Start, TopicConfig, TopicWriter, WriterOptions};
use serde::Serialize;

use super::cost::{children_cpu_s, named_threads_cpu_s};
use super::live::{Course, IN, Load, OUT, Records, consume, now_us, produce, sent_us};
use super::{BenchError, median, rounded};

/// Records appended at once when the history is made.
const BATCH: u64 = 10_000;
/// How often a run is looked at that reads the history.
const LOOK: Duration = Duration::from_millis(50);
/// An interval that never comes round.
const NEVER: &str = "1d";
/// What is left out of the latencies: threads start, memory is first touched.
const WARM_UP_US: i64 = 2_000_000;
/// How long anything may take before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(300);

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many users the state holds.
    pub keys: u64,
    /// Records of the history that is read at full speed.
    pub events: u64,
    /// Records a second, live.
    pub rate: u64,
    /// For how long.
    pub seconds: u64,
    /// How far apart checkpoints are, as a job file has it: `5s`.
    pub interval: String,
    /// Worker threads.
    pub workers: usize,
    /// How many times the history is read each way; medians are reported.
    pub repeat: usize,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    keys: u64,
    interval: String,
    workers: usize,
    history: History,
    live: Lives,
    recovery: Recovery,
}

#[derive(Clone, Debug, Serialize)]
struct History {
    events: u64,
    /// The runs in pairs, in the order in which they were made; who was first took turns.
    with: Vec<Drained>,
    without: Vec<Drained>,
    /// Of the median of each pair of runs, what checkpoints add, in percent.
    cpu_more_percent: f64,
    throughput_less_percent: f64,
    /// Of the median run with them: the part of its wall time in which the steps handed over what had changed, of all
    /// workers together, in percent. Beside the pairs, since it does not depend on what else a machine does.
    handing_over_percent: f64,
    /// The CPU of the threads that write checkpoints, by the CPU of the whole run.
    writing_cpu_percent: f64,
}

/// A run that read the whole history, its start and its end included.
#[derive(Clone, Copy, Debug, Serialize)]
struct Drained {
    wall_s: f64,
    cpu_s: f64,
    /// What was seen when it was last looked at.
    #[serde(flatten)]
    seen: Taken,
}

/// What checkpoints have taken of a run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Taken {
    checkpoints: f64,
    /// In which steps did nothing but hand over what had changed.
    handing_over_s: f64,
    /// Of the threads that encode, write and commit; 0 where the system does not tell.
    writing_cpu_s: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Lives {
    rate: u64,
    seconds: u64,
    with: Live,
    without: Live,
}

#[derive(Clone, Debug, Serialize)]
struct Live {
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    records_sent: u64,
    /// Of every tenth record, after the first two seconds.
    rows: u64,
    /// CPU of the job from its start, its history with it.
    cpu_s: f64,
    checkpoints: f64,
    /// The longest that a step did nothing but hand over what it had changed.
    longest_pause_ms: f64,
    /// What one checkpoint wrote of changed state, on average.
    mib_changed_per_checkpoint: f64,
    /// All that was written, by what had changed.
    written_by_changed: f64,
    last_took_s: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Recovery {
    /// From the start of the process to the first row of a record that was sent after it.
    first_new_row_s: f64,
    /// What it read of its checkpoint.
    checkpoint_mib: f64,
}

/// Measures.
///
/// # Errors
/// When the input cannot be written or a run fails.
pub fn run(options: &Options) -> Result<Report, BenchError> {
    let site = Site::new(options)?;
    site.fill(options.events)?;
    let mut runs: [Vec<Drained>; 2] = Default::default();
    for repetition in 0..options.repeat.max(1) {
        for turn in 0..2 {
            // They take turns at being first.
            let with = (repetition + turn) % 2 == 0;
            runs[usize::from(with)].push(site.drain(if with { &options.interval } else { NEVER })?);
        }
    }
    let [without, with] = runs;
    let made = |runs: &[Drained]| median(runs.iter().map(|run| run.seen.checkpoints));
    if made(&with) <= made(&without) {
        let took = median(with.iter().map(|run| run.wall_s));
        return Err(BenchError::Other(format!(
            "measure: {} events were read in {took:.1} s, too short for a checkpoint every {}; give more with `--events`",
            options.events, options.interval
        )));
    }
    let more = |of: fn(&Drained) -> f64| {
        let ratios = with.iter().zip(&without).map(|(with, without)| of(with) / of(without));
        median(ratios)
    };
    let percent = |of: fn(&Drained) -> f64| rounded(median(with.iter().map(of)) * 100.0);
    let history = History {
        events: options.events,
        cpu_more_percent: rounded((more(|run| run.cpu_s) - 1.0) * 100.0),
        throughput_less_percent: rounded((1.0 - 1.0 / more(|run| run.wall_s)) * 100.0),
        handing_over_percent: percent(|run| run.seen.handing_over_s / run.wall_s),
        writing_cpu_percent: percent(|run| run.seen.writing_cpu_s / run.cpu_s),
        with,
        without,
    };
    drop(site);

    let (without, _) = live(options, NEVER)?;
    let (with, recovery) = live(options, &options.interval)?;
    let live = Lives { rate: options.rate, seconds: options.seconds, with, without };
    Ok(Report {
        keys: options.keys,
        interval: options.interval.clone(),
        workers: options.workers,
        history,
        live,
        recovery,
    })
}

/// Fills the state, goes live, and is killed and begun again.
fn live(options: &Options, interval: &str) -> Result<(Live, Recovery), BenchError> {
    let site = Site::new(options)?;
    site.fill(options.keys)?;
    let before = children_cpu_s();
    let mut job = site.start(interval, &[])?;
    // What the select step lets through of the history is there: the state is full.
    let history = Instant::now();
    while job
        .metric("levada_step_rows_in_total{job=\"checkpoint\",step=\"held\"")?
        .is_none_or(|rows| rows < options.keys as f64)
    {
        job.is_still(&history)?;
    }
    let load = Load { rate: options.rate, seconds: options.seconds, users: options.keys };
    let course = Course::default();
    let begin_us = now_us();
    let (sent, seen) = std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let sent = produce(&site.data, load, &course);
            course.over.store(true, Relaxed);
            sent
        });
        let seen = consume(&site.data, false, begin_us + WARM_UP_US, &course);
        let ended = |_| BenchError::Other("go on: a thread of the measurement panicked".into());
        Ok::<_, BenchError>((producer.join().map_err(ended)??, seen?))
    })?;
    let of = |name: &str| job.metric(name).map(|value| value.unwrap_or(0.0));
    let checkpoints = of("levada_checkpoints_total")?;
    let changed = of("levada_checkpoint_bytes_total")?;
    let compacted = of("levada_checkpoint_compacted_bytes_total")?;
    let last_took_s = of("levada_checkpoint_last_duration_seconds")?;
    let longest = of("levada_step_checkpoint_longest_seconds{job=\"checkpoint\",step=\"held\"")?;
    job.kill()?;
    let ms = |us: u64| rounded(us as f64 / 1e3);
    let quantile = |quantile| ms(seen.us.value_at_quantile(quantile));
    let live = Live {
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        p999_ms: quantile(0.999),
        max_ms: ms(seen.us.max()),
        records_sent: sent.records,
        rows: seen.us.len(),
        cpu_s: rounded(children_cpu_s() - before),
        checkpoints,
        longest_pause_ms: rounded(longest * 1e3),
        mib_changed_per_checkpoint: rounded(changed / checkpoints.max(1.0) / f64::from(1 << 20)),
        written_by_changed: rounded((changed + compacted) / changed.max(1.0)),
        last_took_s: rounded(last_took_s),
    };
    Ok((live, site.recover(interval)?))
}

/// A job's topics and its state, in a folder of its own.
struct Site<'o> {
    options: &'o Options,
    folder: tempfile::TempDir,
    data: PathBuf,
}

impl Site<'_> {
    fn new(options: &Options) -> Result<Site<'_>, BenchError> {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        let log = Log::open(&data)?;
        for topic in [IN, OUT] {
            log.create_topic(topic, TopicConfig::default())?;
        }
        Ok(Site { options, folder, data })
    }

    /// Sends a history, of each user in turn.
    fn fill(&self, events: u64) -> Result<(), BenchError> {
        let writer: TopicWriter = Log::open(&self.data)?.topic(IN)?.writers(WriterOptions::default())?;
        let mut batch = Records::default();
        let began_us = now_us();
        for first in (0..events).step_by(BATCH as usize) {
            batch.clear();
            for id in first..events.min(first + BATCH) {
                batch.add(id, id % self.options.keys, began_us)?;
            }
            batch.append(&writer)?;
        }
        Ok(())
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn job(&self, interval: &str) -> Result<PathBuf, BenchError> {
        let path = self.folder.path().join("job.toml");
        // The window ends long after the measurement; what passes beside it shows what waits for what.
        let text = format!(
            r#"
            [job]
            name = "checkpoint"
            dead_letters = false
            checkpoint = "{interval}"

            [source.in.log]
            topic = "{IN}"
            schema = {{ id = "int", user = "string", amount = "float", sent_us = "int", at = "timestamp" }}
            event_time = {{ column = "at" }}

            [step.held.window]
            from = "in"
            key = ["user"]
            tumbling = "365d"
            aggregate = {{ rows = "count(*)", total = "sum(amount)", slowest = "max(sent_us)" }}

            [step.many.select]
            from = "held"
            where = "rows < 0"

            [step.rows.select]
            from = "in"
            where = "id % 10 = 0 and sent_us > {}"

            [step.all.union]
            from = ["some", "few"]

            [step.few.select]
            from = "many"
            columns = {{ user = "user", sent_us = "slowest" }}

            [step.some.select]
            from = "rows"
            columns = {{ user = "user", sent_us = "sent_us" }}

            [sink.out.log]
            from = "all"
            topic = "{OUT}"
            "#,
            now_us()
        );
        fs::write(&path, text)?;
        Ok(path)
    }

    fn start(&self, interval: &str, more: &[&str]) -> Result<Job, BenchError> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let path = self.folder.path().join("job.toml");
        let job = if more.contains(&"--again") { path } else { self.job(interval)? };
        let more = more.iter().filter(|option| **option != "--again");
        let log = fs::File::create(self.folder.path().join("log"))?;
        let child = Command::new(std::env::current_exe()?)
            .arg("run")
            .arg(job)
            .arg("--data")
            .arg(&self.data)
            .arg("--state")
            .arg(self.state())
            .args(["--workers", &self.options.workers.to_string()])
            .args(["--metrics", &address.to_string()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Job { child, address, log: self.folder.path().join("log") })
    }

    /// Reads the whole history afresh.
    fn drain(&self, interval: &str) -> Result<Drained, BenchError> {
        let (before, began) = (children_cpu_s(), Instant::now());
        let job = self.start(interval, &["--until-drained", "--fresh"])?;
        let (address, process) = (job.address, job.child.id());
        let seen = std::thread::scope(|scope| {
            let (over, watched) = bounded(0);
            let seen = scope.spawn(move || watch(address, process, &watched));
            let ended = job.end();
            drop(over);
            let panicked = |_| BenchError::Other("go on: a thread of the measurement panicked".into());
            ended.and(seen.join().map_err(panicked))
        })?;
        let (cpu_s, wall_s) = (children_cpu_s() - before, began.elapsed().as_secs_f64());
        Ok(Drained { wall_s: rounded(wall_s), cpu_s: rounded(cpu_s), seen })
    }

    /// Begins the killed job again, sending all the while.
    fn recover(&self, interval: &str) -> Result<Recovery, BenchError> {
        let bytes: u64 = fs::read_dir(self.state().join("checkpoints"))?
            .map(|entry| Ok(entry?.metadata()?.len()))
            .sum::<Result<u64, std::io::Error>>()?;
        let mut reader = Log::open(&self.data)?.topic(OUT)?.reader(0, Start::End)?;
        let writer: TopicWriter = Log::open(&self.data)?.topic(IN)?.writers(WriterOptions::default())?;
        let (began, began_us) = (Instant::now(), now_us());
        let mut job = self.start(interval, &["--again"])?;
        let mut id = 0;
        let mut batch = Records::default();
        let first_new_row_s = loop {
            batch.clear();
            batch.add(id * 10, id % self.options.keys, now_us())?;
            batch.append(&writer)?;
            id += 1;
            let _ = reader.wait(Duration::from_millis(1))?;
            let fetched = reader.read(1 << 16, 16 << 20)?;
            if fetched.iter().any(|record| sent_us(record.value).is_some_and(|sent| sent >= began_us)) {
                break began.elapsed().as_secs_f64();
            }
            job.is_still(&began)?;
        };
        job.kill()?;
        Ok(Recovery {
            first_new_row_s: rounded(first_new_row_s),
            checkpoint_mib: rounded(bytes as f64 / f64::from(1 << 20)),
        })
    }
}

/// A running `levada run`.
struct Job {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Job {
    fn failed(&self, what: &str) -> BenchError {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = said.lines().rev().take(5).collect();
        BenchError::Other(format!("{what}: {}", last.into_iter().rev().collect::<Vec<_>>().join(" | ")))
    }

    /// That it runs, and has not for too long.
    fn is_still(&mut self, since: &Instant) -> Result<(), BenchError> {
        if self.child.try_wait()?.is_some() {
            return Err(self.failed("keep the measured job running"));
        }
        if since.elapsed() > PATIENCE {
            return Err(self.failed("wait any longer for the measured job"));
        }
        Ok(())
    }

    /// The value of the first metric whose line begins so; `None` while the job does not answer.
    fn metric(&self, begins: &str) -> Result<Option<f64>, BenchError> {
        Ok(scrape(self.address)?.and_then(|text| values(&text, begins).next()))
    }

    fn kill(mut self) -> Result<(), BenchError> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn end(mut self) -> Result<(), BenchError> {
        if self.child.wait()?.success() { Ok(()) } else { Err(self.failed("run the measured job")) }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The metrics of a job; `None` while it does not answer.
fn scrape(address: SocketAddr) -> Result<Option<String>, BenchError> {
    let Ok(mut stream) = TcpStream::connect(address) else { return Ok(None) };
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(Some(text))
}

/// The values of the metrics whose lines begin so.
fn values<'t>(text: &'t str, begins: &'t str) -> impl Iterator<Item = f64> + 't {
    let lines = text.lines().filter(move |line| line.starts_with(begins));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok())
}

/// Looks again and again at what checkpoints have taken of a run, until the other end is dropped: gives what it saw last.
fn watch(address: SocketAddr, process: u32, watched: &Receiver<()>) -> Taken {
    let mut seen = Taken::default();
    while watched.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        // A job that ends does not answer.
        if let Ok(Some(text)) = scrape(address) {
            let us: f64 = values(&text, "levada_step_checkpoint_microseconds_total{").sum();
            seen.handing_over_s = rounded(us / 1e6);
            seen.checkpoints = values(&text, "levada_checkpoints_total").sum();
        }
        let writing = named_threads_cpu_s(process, |name| name.starts_with("checkpoint"));
        seen.writing_cpu_s = rounded(seen.writing_cpu_s.max(writing));
    }
    seen
}
