//! Bad records, said plainly: how many of a source's, why the first of them, and where they are.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use levada_dataflows::metrics::{Metrics, SourceMetrics};
use levada_dataflows::plan::Plan;

use super::progress::grouped;

/// Warns once of each source most of whose records are bad.
pub struct Watch {
    warned: Vec<AtomicBool>,
}

impl Watch {
    /// Nothing was said yet.
    pub fn new(plan: &Plan) -> Watch {
        Watch { warned: plan.sources.iter().map(|_| AtomicBool::new(false)).collect() }
    }

    /// Looks at the counters, and warns where it has not.
    pub fn look(&self, plan: &Plan, metrics: &Metrics) {
        for (source, warned) in metrics.sources.iter().zip(&self.warned) {
            let (dead, records) = (source.dead.load(Relaxed), source.records.load(Relaxed));
            if dead * 2 > records && !warned.swap(true, Relaxed) {
                tracing::warn!("{}", line(plan, source));
            }
        }
    }
}

/// A line for each source that had bad records.
pub fn lines(plan: &Plan, metrics: &Metrics) -> Vec<String> {
    let bad = metrics.sources.iter().filter(|source| source.dead.load(Relaxed) > 0);
    bad.map(|source| line(plan, source)).collect()
}

/// A line for each step to which rows came too late.
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
            lines.push(format!(
                "{name}: {}{of} rows of its table came too late and were not used: order them by time, or set \
                 `out_of_order` of their source",
                grouped(unseen)
            ));
        }
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
