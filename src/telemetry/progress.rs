//! How a job is doing, for people.
//!
//! ```text
//! flights  ━━━━━━━━━━━━━━━━━━━━╸───────  71 %  0:00:02  2013-09-17 04:12  epoch 41  185,320 records/s
//!   in    departures       239,104                      0 bad
//!   join  enriched         239,104 → 238,990            0 late    3 % busy
//!   out   decisions            412   topic decisions
//! ```

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::DateTime;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use levada_dataflows::metrics::Metrics;
use levada_dataflows::plan::Plan;
use levada_types::PartitionId;

use super::bad;

/// How often the terminal is redrawn.
const REDRAW: Duration = Duration::from_millis(200);
/// How often a line is logged where there is no terminal.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// Shows progress from a thread of its own until it is told that the job is over.
pub struct Progress {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    plan: Arc<Plan>,
    metrics: Arc<Metrics>,
    started: Instant,
}

impl Progress {
    /// Whether the display is a live one, rather than log lines.
    pub fn is_live() -> bool {
        std::io::stderr().is_terminal()
    }

    /// Starts showing.
    pub fn start(plan: Arc<Plan>, metrics: Arc<Metrics>) -> Progress {
        let over = Arc::new(AtomicBool::new(false));
        let started = Instant::now();
        let thread = {
            let (over, plan, metrics) = (Arc::clone(&over), Arc::clone(&plan), Arc::clone(&metrics));
            std::thread::Builder::new()
                .name("progress".into())
                .spawn(move || {
                    let mut watch = bad::Watch::new(&plan);
                    match Self::is_live() {
                        true => draw(&over, &plan, &metrics, &mut watch),
                        false => log(&over, &plan, &metrics, &mut watch),
                    }
                    // What went by too fast to be seen.
                    watch.look(&plan, &metrics);
                })
                .ok()
        };
        Progress { over, thread, plan, metrics, started }
    }

    /// Stops showing and gives the summary: what went in and out, step by step.
    pub fn finish(mut self) -> String {
        self.over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The display is only a display.
            let _ = thread.join();
        }
        self.summary()
    }

    fn summary(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let records: u64 = self.metrics.sources.iter().map(|s| s.records.load(Relaxed)).sum();
        let mut text = table(&self.plan, &self.metrics, seconds);
        let cpu = cpu_seconds().map_or(String::new(), |cpu| format!(", {cpu:.1} CPU seconds"));
        let epochs = self.metrics.epochs.load(Relaxed);
        let (p50, p99) = self.metrics.epoch_us.lock().map_or((0, 0), |histogram| {
            (histogram.value_at_quantile(0.5), histogram.value_at_quantile(0.99))
        });
        let _ = write!(
            text,
            "{} records in {seconds:.1} s ({} records/s{cpu}), {} epochs of {:.1} ms (p99 {:.1} ms)",
            grouped(records),
            grouped((records as f64 / seconds.max(1e-9)) as u64),
            grouped(epochs),
            p50 as f64 / 1000.0,
            p99 as f64 / 1000.0,
        );
        let bad = bad::lines(&self.plan, &self.metrics);
        let empty = bad::empty_columns(&self.plan, &self.metrics);
        let late = bad::late_lines(&self.plan, &self.metrics);
        let joins = bad::join_lines(&self.plan, &self.metrics);
        let bad = bad.into_iter().chain(bad::dropped_lines(&self.metrics));
        let lines = bad.chain(empty).chain(bad::other_units(&self.metrics)).chain(joins);
        for line in lines.chain(late) {
            let _ = write!(text, "\n{line}");
        }
        text
    }
}

fn draw(over: &AtomicBool, plan: &Plan, metrics: &Metrics, watch: &mut bad::Watch) {
    let total: u64 = metrics.sources.iter().map(|s| s.total.load(Relaxed)).sum();
    let bar = ProgressBar::with_draw_target(Some(total.max(1)), ProgressDrawTarget::stderr());
    let known = "{prefix}  {bar:30.cyan/dim}  {percent:>3} %  {elapsed}  {msg}";
    let style = ProgressStyle::with_template(known).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("━╸─"));
    bar.set_prefix(plan.name.clone());
    let started = Instant::now();
    let mut meter = Meter::new();
    while !over.load(Relaxed) {
        // The totals become known when the job asks its sources.
        let total: u64 = metrics.sources.iter().map(|s| s.total.load(Relaxed)).sum();
        let records: u64 = metrics.sources.iter().map(|s| s.records.load(Relaxed)).sum();
        bar.suspend(|| watch.look(plan, metrics));
        bar.set_length(total.max(records).max(1));
        bar.set_position(records);
        let rate = meter.rate(records);
        let head = format!(
            "{}  epoch {}  {} in flight  {} records/s{}\n",
            time(metrics.watermark_ms.load(Relaxed)),
            metrics.epoch.load(Relaxed),
            metrics.in_flight.load(Relaxed),
            grouped(rate as u64),
            waiting(metrics).map_or(String::new(), |waiting| format!("  waits: {waiting}"))
        );
        bar.set_message(head + &table(plan, metrics, started.elapsed().as_secs_f64()));
        std::thread::park_timeout(REDRAW);
    }
    bar.finish_and_clear();
}

fn log(over: &AtomicBool, plan: &Plan, metrics: &Metrics, watch: &mut bad::Watch) {
    let mut meter = Meter::new();
    let mut next = Instant::now() + LOG_EVERY;
    loop {
        std::thread::park_timeout(REDRAW.min(next.saturating_duration_since(Instant::now())));
        watch.look(plan, metrics);
        if over.load(Relaxed) {
            return;
        }
        if Instant::now() < next {
            continue;
        }
        next += LOG_EVERY;
        let sum = |counters: &mut dyn Iterator<Item = u64>| counters.sum::<u64>();
        let records = sum(&mut metrics.sources.iter().map(|s| s.records.load(Relaxed)));
        // How many there were at the start; live there is no telling.
        let total = sum(&mut metrics.sources.iter().map(|s| s.total.load(Relaxed)));
        tracing::info!(
            records,
            of = (records <= total).then_some(total),
            records_per_second = meter.rate(records) as u64,
            watermark = %time(metrics.watermark_ms.load(Relaxed)),
            epoch = metrics.epoch.load(Relaxed),
            in_flight = metrics.in_flight.load(Relaxed),
            dead = sum(&mut metrics.sources.iter().map(|s| s.dead.load(Relaxed))),
            late = sum(&mut metrics.steps.iter().map(|s| s.late.load(Relaxed))),
            waiting = waiting(metrics),
            published = sum(&mut metrics.sinks.iter().map(|s| s.rows.load(Relaxed))),
            "progress"
        );
    }
}

/// The partitions that are not read because they are too far ahead of the slowest: `orders 0, orders 2`.
fn waiting(metrics: &Metrics) -> Option<String> {
    const SHOWN: usize = 4;
    let waiting = metrics.waiting();
    let one = |(source, partition): &(usize, PartitionId)| {
        Some(format!("{} {}", metrics.sources.get(*source)?.name, partition.0))
    };
    let mut shown: Vec<String> = waiting.iter().take(SHOWN).filter_map(one).collect();
    if waiting.len() > SHOWN {
        shown.push(format!("and {} more", waiting.len() - SHOWN));
    }
    (!shown.is_empty()).then(|| shown.join(", "))
}

/// A line each for sources, steps and sinks.
fn table(plan: &Plan, metrics: &Metrics, seconds: f64) -> String {
    let verb_width = plan.steps.iter().map(|s| s.verb.len()).max().unwrap_or(0).max(3);
    let names = plan.sources.iter().map(|s| s.name.len()).chain(plan.steps.iter().map(|s| s.name.len()));
    let width = names.chain(plan.sinks.iter().map(|s| s.name.len())).max().unwrap_or(0);
    let mut text = String::new();
    for (source, planned) in metrics.sources.iter().zip(&plan.sources) {
        let records = grouped(source.records.load(Relaxed));
        let dead = grouped(source.dead.load(Relaxed));
        let from = planned.reader.describe();
        let _ = writeln!(
            text,
            "  {:verb_width$}  {:width$}  {records:>11} {:13}  {dead:>6} bad   {from}",
            "in", source.name, ""
        );
    }
    for step in &metrics.steps {
        let rows_in = grouped(step.rows_in.load(Relaxed));
        let rows_out = grouped(step.rows_out.load(Relaxed));
        let mut table = match step.table_rows.load(Relaxed) {
            0 => String::new(),
            rows => format!("   {} of the table", grouped(rows)),
        };
        if let unmatched @ 1.. = step.unmatched.load(Relaxed) {
            let _ = write!(table, ", {} matched nothing", grouped(unmatched));
        }
        if let evicted @ 1.. = step.evicted.load(Relaxed) {
            let _ = write!(table, "   {} partial matches evicted", grouped(evicted));
        }
        let late = grouped(step.late.load(Relaxed));
        let busy = step.busy_ns.load(Relaxed) as f64 / 1e7 / seconds.max(1e-3);
        let _ = writeln!(
            text,
            "  {:verb_width$}  {:width$}  {rows_in:>11} → {rows_out:<11}  {late:>6} late  {busy:>3.0} % busy{table}",
            step.verb, step.name
        );
    }
    for (sink, planned) in metrics.sinks.iter().zip(&plan.sinks) {
        let rows = grouped(sink.rows.load(Relaxed));
        let to = planned.writer.describe();
        let _ = writeln!(
            text,
            "  {:verb_width$}  {:width$}  {rows:>11} {:13}  {:>6}       {to}",
            "out", sink.name, "", ""
        );
    }
    let dead: u64 = metrics.sources.iter().map(|s| s.dead.load(Relaxed)).sum();
    if dead > 0
        && let Some(writer) = &plan.dead_letters
    {
        let (rows, to) = (grouped(dead), writer.describe());
        let _ = writeln!(
            text,
            "  {:verb_width$}  {:width$}  {rows:>11} {:13}  {:>6}       {to}",
            "bad", "", "", ""
        );
    }
    text
}

/// A rate, smoothed over a few looks.
struct Meter {
    last: Instant,
    count: u64,
    rate: f64,
}

impl Meter {
    fn new() -> Self {
        Meter { last: Instant::now(), count: 0, rate: 0.0 }
    }

    fn rate(&mut self, count: u64) -> f64 {
        let now = Instant::now();
        let seconds = now.duration_since(self.last).as_secs_f64().max(1e-6);
        let latest = count.saturating_sub(self.count) as f64 / seconds;
        self.rate = if self.count == 0 { latest } else { 0.7 * self.rate + 0.3 * latest };
        (self.last, self.count) = (now, count);
        self.rate
    }
}

/// Event time as people read it.
pub(super) fn time(ms: i64) -> String {
    match ms {
        i64::MIN => "before time".into(),
        i64::MAX => "the end".into(),
        ms => DateTime::from_timestamp_millis(ms)
            .map_or_else(|| ms.to_string(), |time| time.format("%Y-%m-%d %H:%M:%S").to_string()),
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// CPU seconds that this process has used, user and system, where the system tells (Linux).
pub fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i)?.parse::<f64>().ok();
    // Fields 14 and 15 of proc(5), of which two stand before the closing bracket; 100 ticks a second.
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            ["7", "999", "1,000", "1,234,567"].map(String::from),
            [7, 999, 1000, 1_234_567].map(grouped)
        );
        assert_eq!(time(1_379_391_120_000), "2013-09-17 04:12:00");
        assert!(cpu_seconds().is_some_and(|seconds| seconds >= 0.0));
    }
}
