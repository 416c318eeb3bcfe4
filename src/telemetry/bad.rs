//! What is wrong with the data, said plainly: bad records, late ones, columns that no record has; how many,
//! why, and where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use levada_dataflows::metrics::{Metrics, SourceMetrics, StepMetrics};
use levada_dataflows::plan::{Plan, SourcePlan, StreamId};
use levada_types::PartitionId;

use super::progress::{grouped, time};

/// Warns while a job runs: once of each source most of whose records are bad, once of each table that grows and
/// has no times, and of a partition for which all others wait, each time that it comes to that.
pub struct Watch {
    /// Whether a source's bad records were told of.
    told: Vec<bool>,
    /// Whether it was told that rows of a table came that have no time.
    grown: Vec<bool>,
    waiting: Waiting,
}

impl Watch {
    /// Nothing was said yet.
    pub fn new(plan: &Plan) -> Watch {
        let none = vec![false; plan.sources.len()];
        Watch { told: none.clone(), grown: none, waiting: Waiting::new() }
    }

    /// Looks at the counters, and warns where it has not.
    pub fn look(&mut self, plan: &Plan, metrics: &Metrics) {
        for (source, told) in metrics.sources.iter().zip(&mut self.told) {
            let (dead, records) = (source.dead.load(Relaxed), source.records.load(Relaxed));
            if dead * 2 > records && !*told {
                *told = true;
                tracing::warn!("{}", line(plan, source));
            }
        }
        for ((source, planned), grown) in metrics.sources.iter().zip(&plan.sources).zip(&mut self.grown) {
            let is_table = planned.event_time.is_none() && planned.reader.unbounded();
            let total = source.total.load(Relaxed);
            if is_table && !*grown && total > 0 && source.records.load(Relaxed) > total {
                *grown = true;
                tracing::warn!(
                    "{}: rows came to this table while the job runs, and count from now on; it has no `event_time`, \
                     so a run from the beginning, which reads it whole first, will see them earlier",
                    source.name
                );
            }
        }
        if let Some((index, partition)) = self.waiting.look(metrics)
            && let Some(warning) = waits_for(plan, metrics, index, partition)
        {
            tracing::warn!("{warning}");
        }
    }
}

/// Since when the job's time stands still.
struct Waiting {
    since: Instant,
    watermark_ms: i64,
    /// What had been read when that had been so for a while.
    records: Option<u64>,
    /// The partitions that were named, and when.
    told: BTreeMap<usize, Instant>,
}

impl Waiting {
    /// How long it may stand still before that is said.
    const PATIENCE: Duration = Duration::from_secs(5);
    /// How long a partition is not named again.
    const AGAIN: Duration = Duration::from_secs(600);

    fn new() -> Waiting {
        Waiting { since: Instant::now(), watermark_ms: i64::MIN, records: None, told: BTreeMap::new() }
    }

    /// The partition for which the others have been waiting for some time.
    fn look(&mut self, metrics: &Metrics) -> Option<(usize, PartitionId)> {
        let watermark_ms = metrics.watermark_ms.load(Relaxed);
        let waits_for = metrics.waits_for.load(Relaxed);
        if watermark_ms != self.watermark_ms || waits_for == usize::MAX {
            self.since = Instant::now();
            self.watermark_ms = watermark_ms;
            self.records = None;
            return None;
        }
        if self.since.elapsed() < Self::PATIENCE {
            return None;
        }
        // Where nothing comes at all nobody waits, unless it never began.
        let records = metrics.sources.iter().map(|source| source.records.load(Relaxed)).sum();
        let before = *self.records.get_or_insert(records);
        let waits = records > before || watermark_ms == i64::MIN;
        let told = self.told.get(&waits_for).is_some_and(|at| at.elapsed() < Self::AGAIN);
        if !waits || told {
            return None;
        }
        let partitions = metrics.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let partition = *partitions.get(waits_for)?;
        self.told.insert(waits_for, Instant::now());
        Some(partition)
    }
}

/// What to say of a partition that is waited for; nothing of one that may fall idle, for it is waited for no
/// longer than that, nor of a table's, which is being read.
fn waits_for(plan: &Plan, metrics: &Metrics, source: usize, partition: PartitionId) -> Option<String> {
    let source = plan.sources.get(source)?;
    let event_time = source.event_time.as_ref().filter(|event_time| event_time.idle_ms.is_none())?;
    let said = match metrics.watermark_ms.load(Relaxed) {
        i64::MIN => "nothing yet".to_string(),
        promise => format!("nothing newer than {} for a while", time(promise + event_time.out_of_order_ms)),
    };
    Some(format!(
        "{}: partition {} has given {said}, and the job's time stands still until it does; with `idle` in its \
         source's `event_time` a silent partition is not waited for",
        source.name, partition.0
    ))
}

/// A line for each source that had bad records.
pub fn lines(plan: &Plan, metrics: &Metrics) -> Vec<String> {
    let bad = metrics.sources.iter().filter(|source| source.dead.load(Relaxed) > 0);
    bad.map(|source| line(plan, source)).collect()
}

/// A line for each source that dropped records because the job was slower.
pub fn dropped_lines(metrics: &Metrics) -> Vec<String> {
    let dropped = metrics.sources.iter().map(|source| (source, source.dropped.load(Relaxed)));
    let lines = dropped.filter(|(_, dropped)| *dropped > 0).map(|(source, dropped)| {
        let were = if dropped == 1 { "record was" } else { "records were" };
        format!("{}: {} {were} dropped by the full intake (`overflow`)", source.name, grouped(dropped))
    });
    lines.collect()
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

/// A line for each step to which rows came too late, and one for each record that is far ahead of all others
/// and may be why.
pub fn late_lines(plan: &Plan, metrics: &Metrics) -> Vec<String> {
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
        lines.extend(late_by(metrics, step));
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
    let late = metrics.steps.iter().enumerate().filter(|(_, step)| step.late.load(Relaxed) > 0);
    if let Some(ledger) = &plan.late_ledger
        && late.clone().next().is_some()
    {
        lines.push(format!(
            "why, and how late each was, is in {}; `levada late` lists them",
            ledger.describe()
        ));
    }
    let sources: BTreeSet<usize> =
        late.flat_map(|(step, _)| sources_of(plan, StreamId::Step(step))).collect();
    for source in sources {
        lines.extend(far_ahead(&plan.sources[source], &metrics.sources[source]));
    }
    lines
}

/// Where the late rows of a step were read, if that was more than one partition: the first of them.
fn late_by(metrics: &Metrics, step: &StepMetrics) -> Option<String> {
    const SHOWN: usize = 8;
    let late_by = step.late_by.lock().unwrap_or_else(PoisonError::into_inner);
    let one = |((source, partition), rows): (&(u16, PartitionId), &u64)| {
        let source = metrics.sources.get(usize::from(*source)).map_or("", |source| source.name.as_str());
        format!("{source} partition {}: {}", partition.0, grouped(*rows))
    };
    let shown: Vec<String> = late_by.iter().take(SHOWN).map(one).collect();
    let more =
        if late_by.len() > SHOWN { format!(", and {} more", late_by.len() - SHOWN) } else { String::new() };
    (late_by.len() > 1).then(|| format!("{}: the late rows are from {}{more}", step.name, shown.join(", ")))
}

/// A line for each join that may not be what was meant: in which nothing matched, or whose table has no times
/// and several rows of a key.
pub fn join_lines(plan: &Plan, metrics: &Metrics) -> Vec<String> {
    let mut lines = Vec::new();
    for (step, planned) in metrics.steps.iter().zip(&plan.steps) {
        let name = &step.name;
        let (rows, unmatched) = (step.rows_in.load(Relaxed), step.unmatched.load(Relaxed));
        let table = planned.from.get(1).map_or("its table".into(), |&table| plan.name_of(table));
        if rows > 0 && unmatched >= rows {
            let rows = grouped(rows);
            lines.push(format!(
                "{name}: none of {rows} rows matched a row of `{table}`; look at `on` and `within`"
            ));
        }
        if let replaced @ 1.. = step.replaced.load(Relaxed) {
            lines.push(format!(
                "{name}: `{table}` has no `event_time`, so only the last row of a key counts: {} of {} rows were \
                 replaced before",
                grouped(replaced),
                grouped(step.table_rows.load(Relaxed))
            ));
        }
    }
    lines
}

/// A line for each source whose times are all in 1970 or so far on that they must be of another unit.
pub fn other_units(metrics: &Metrics) -> Vec<String> {
    const DAY_MS: i64 = 86_400_000;
    // Seconds of this century, taken for milliseconds, are in the first months of 1970, and microseconds
    // some ten thousand years ahead.
    const SECONDS: std::ops::Range<i64> = 10 * DAY_MS..50 * DAY_MS;
    const BEYOND_MS: i64 = 3_000 * 365 * DAY_MS;
    let line = |source: &SourceMetrics| {
        let (oldest, newest) = (source.oldest_ms.load(Relaxed), source.newest_ms.load(Relaxed));
        let unit = match (SECONDS.contains(&oldest) && SECONDS.contains(&newest), oldest > BEYOND_MS) {
            (true, _) => "seconds",
            (_, true) if oldest <= newest => "microseconds or less",
            _ => return None,
        };
        let (name, newest) = (&source.name, time(newest));
        Some(format!(
            "{name}: its latest time is {newest}; are these {unit}? Numbers are milliseconds since 1970"
        ))
    };
    metrics.sources.iter().filter_map(line).collect()
}

/// The sources behind a stream.
fn sources_of(plan: &Plan, stream: StreamId) -> BTreeSet<usize> {
    match stream {
        StreamId::Source(source) => BTreeSet::from([source]),
        StreamId::Step(step) | StreamId::Late(step) => {
            plan.steps[step].from.iter().flat_map(|from| sources_of(plan, *from)).collect()
        }
    }
}

/// Says where a source's newest record is, if it is further from the others than they are from one another.
fn far_ahead(plan: &SourcePlan, source: &SourceMetrics) -> Option<String> {
    let newest = (*source.newest.lock().ok()?)?;
    let others = newest.before_ms.checked_sub(source.oldest_ms.load(Relaxed))?;
    if newest.time_ms.checked_sub(newest.before_ms)? <= others {
        return None;
    }
    let (name, at, before) = (&source.name, time(newest.time_ms), time(newest.before_ms));
    let what = if plan.reader.unbounded() { "offset" } else { "line" };
    let (partition, offset) = (newest.partition.0, newest.offset.0);
    Some(format!(
        "{name}: the record at {what} {offset} of partition {partition} says {at}, far ahead of all others, whose \
         latest is {before}: those that come after it are late"
    ))
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
    let first = source.first_dead.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let first = first.map_or(String::new(), |first| {
        let reads_lines = plan.sources.iter().any(|s| s.name == source.name && !s.reader.unbounded());
        let what = if reads_lines { "line" } else { "offset" };
        let place = match first.partition.0 {
            0 => format!("{what} {}", first.offset.0),
            partition => format!("partition {partition}, {what} {}", first.offset.0),
        };
        format!(", the first of them ({place}) because: {}", first.reason)
    });
    let place = match &plan.dead_letters {
        Some(writer) => format!("; see {}", writer.describe()),
        None => String::new(),
    };
    format!("{}: {said}{first}{place}", source.name)
}
