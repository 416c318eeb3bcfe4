//! What is wrong with the data, said plainly: bad records, late ones, columns that no record has; how many,
//! why, and where they are.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use levada_dataflows::metrics::{Metrics, SourceMetrics};
use levada_dataflows::plan::Plan;
use levada_types::PartitionId;

use super::progress::{grouped, time};

/// Warns once of each source most of whose records are bad.
/// And once of each partition for which all others wait.
pub struct Watch {
    warned: Vec<AtomicBool>,
    waiting: Mutex<Waiting>,
}

/// Since when the job's time stands still.
struct Waiting {
    since: Instant,
    watermark_ms: i64,
    /// What had been read when that had been so for a while.
    records: Option<u64>,
    told: BTreeSet<usize>,
}

/// How long it may stand still before that is said.
const PATIENCE: Duration = Duration::from_secs(5);

impl Watch {
    /// Nothing was said yet.
    pub fn new(plan: &Plan) -> Watch {
        let waiting =
            Waiting { since: Instant::now(), watermark_ms: i64::MIN, records: None, told: BTreeSet::new() };
        Watch {
            warned: plan.sources.iter().map(|_| AtomicBool::new(false)).collect(),
            waiting: Mutex::new(waiting),
        }
    }

    /// Looks at the counters, and warns where it has not.
    pub fn look(&self, plan: &Plan, metrics: &Metrics) {
        for (source, warned) in metrics.sources.iter().zip(&self.warned) {
            let (dead, records) = (source.dead.load(Relaxed), source.records.load(Relaxed));
            if dead * 2 > records && !warned.swap(true, Relaxed) {
                tracing::warn!("{}", line(plan, source));
            }
        }
        if let Some(silent) = self.waiting.lock().ok().and_then(|mut waiting| waiting.look(metrics)) {
            let (index, partition) = silent;
            let event_time = plan.sources.get(index).and_then(|source| source.event_time.as_ref());
            let name = metrics.sources.get(index).map_or("", |source| &source.name);
            let said = match metrics.watermark_ms.load(Relaxed) {
                i64::MIN => "has given nothing yet".to_string(),
                watermark => format!("has given nothing newer than {} for a while", time(watermark)),
            };
            // One that may fall idle is waited for no longer than that, and a table until it is read.
            if event_time.is_some_and(|event_time| event_time.idle_ms.is_none()) {
                tracing::warn!(
                    "{name}: partition {} {said}, and the job's time stands still until it does; with `idle` in \
                     its source's `event_time` a silent partition is not waited for",
                    partition.0
                );
            }
        }
    }
}

impl Waiting {
    /// The partition for which the others have been waiting for some time, once.
    fn look(&mut self, metrics: &Metrics) -> Option<(usize, PartitionId)> {
        let watermark_ms = metrics.watermark_ms.load(Relaxed);
        let waits_for = metrics.waits_for.load(Relaxed);
        if watermark_ms != self.watermark_ms || waits_for == usize::MAX {
            *self = Waiting {
                since: Instant::now(),
                watermark_ms,
                records: None,
                told: std::mem::take(&mut self.told),
            };
            return None;
        }
        if self.since.elapsed() < PATIENCE {
            return None;
        }
        // Where nothing comes at all nobody waits, unless it never began.
        let records = metrics.sources.iter().map(|source| source.records.load(Relaxed)).sum();
        let before = *self.records.get_or_insert(records);
        let partition = metrics.partitions.get()?.get(waits_for)?;
        let waits = records > before || watermark_ms == i64::MIN;
        (waits && self.told.insert(waits_for)).then_some(*partition)
    }
}

/// A line for each source that had bad records.
pub fn lines(plan: &Plan, metrics: &Metrics) -> Vec<String> {
    let bad = metrics.sources.iter().filter(|source| source.dead.load(Relaxed) > 0);
    bad.map(|source| line(plan, source)).collect()
}

/// A line for each source that has columns which were null in every record.
pub fn empty_columns(plan: &Plan, metrics: &Metrics) -> Vec<String> {
    let mut lines = Vec::new();
    for (source, planned) in metrics.sources.iter().zip(&plan.sources) {
        let good = source.records.load(Relaxed).saturating_sub(source.dead.load(Relaxed));
        let columns = planned.decoded.fields().iter().zip(&source.seen);
        let empty = columns.filter(|(_, seen)| !seen.load(Relaxed));
        let empty: Vec<String> = empty.map(|(field, _)| format!("`{}`", field.name())).collect();
        if good > 0 && !empty.is_empty() {
            let records = grouped(good);
            let are = if empty.len() == 1 { "is" } else { "are" };
            lines.push(format!(
                "{}: {} {are} null in all of {records} records",
                source.name,
                empty.join(", ")
            ));
        }
    }
    lines
}

/// A line for each step to which rows came too late, and one for how far the sources have come.
pub fn late_lines(metrics: &Metrics) -> Vec<String> {
    let mut lines = Vec::new();
    for step in &metrics.steps {
        let unseen = step.late_unseen.load(Relaxed);
        let late = step.late.load(Relaxed).saturating_sub(unseen);
        let name = &step.name;
        if late > 0 {
            let (late, rows) = (grouped(late), grouped(step.rows_in.load(Relaxed)));
            lines.push(format!(
                "{name}: {late} of {rows} rows came too late, later than `out_of_order` of their source allows; \
                 they are in {name}.late"
            ));
        }
        if unseen > 0 {
            let of = match step.table_rows.load(Relaxed) {
                0 => String::new(),
                rows => format!(" of {}", grouped(rows)),
            };
            let table = if step.verb == "join" { "table" } else { "second input" };
            lines.push(format!(
                "{name}: {}{of} rows of its {table} came too late and were not used: order them by time, or set \
                 `out_of_order` of their source",
                grouped(unseen)
            ));
        }
    }
    if !lines.is_empty() {
        // One record far ahead makes all that come behind it late.
        lines.extend(metrics.sources.iter().filter_map(|source| {
            let newest = (*source.newest.lock().ok()?)?;
            let (at, partition, offset) = (time(newest.time_ms), newest.partition.0, newest.offset.0);
            let name = &source.name;
            Some(format!(
                "{name}: its latest time is {at}, at offset {offset} of partition {partition}; one that is far \
                 ahead makes the others late"
            ))
        }));
    }
    lines
}

/// The sources that had records, and not one that was good.
pub fn useless(metrics: &Metrics) -> Vec<String> {
    let useless = |source: &&SourceMetrics| {
        let records = source.records.load(Relaxed);
        records > 0 && source.dead.load(Relaxed) >= records
    };
    metrics.sources.iter().filter(useless).map(|source| source.name.clone()).collect()
}

/// How many records were bad.
pub fn count(metrics: &Metrics) -> u64 {
    metrics.sources.iter().map(|source| source.dead.load(Relaxed)).sum()
}

fn line(plan: &Plan, source: &SourceMetrics) -> String {
    let (dead, records) = (source.dead.load(Relaxed), source.records.load(Relaxed));
    // Another worker may have counted its bad records before its records.
    let good = records.saturating_sub(dead);
    let said = if good < dead {
        format!("{} of {} records were good", grouped(good), grouped(records))
    } else {
        format!("{} of {} records were bad", grouped(dead), grouped(records))
    };
    let reason = source.reason.get().map_or("unknown", String::as_str);
    let place = match &plan.dead_letters {
        Some(writer) => format!("; see {}", writer.describe()),
        None => String::new(),
    };
    format!("{}: {said}; the first: {reason}{place}", source.name)
}
