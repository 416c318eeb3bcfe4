//! The job's counters as Prometheus metrics, read at the moment they are asked for.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use levada_dataflows::metrics::Metrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug)]
struct JobCollector {
    job: String,
    metrics: Arc<Metrics>,
}

/// A registry of a job's metrics.
pub fn registry(job: &str, metrics: Arc<Metrics>) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(JobCollector { job: job.to_string(), metrics }));
    registry
}

/// The text that a scrape gets.
pub fn encode(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string fails only if a metric does.
    if text::encode(&mut text, registry).is_err() {
        text.clear();
    }
    text
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

impl JobCollector {
    fn counters<'a>(
        &'a self,
        to: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl Iterator<Item = (Labels<'a>, u64)>,
    ) -> std::fmt::Result {
        let kind = ConstCounter::new(0u64);
        let mut family = to.encode_descriptor(name, help, unit, kind.metric_type())?;
        for (mut labels, value) in values {
            labels.insert(0, ("job", &self.job));
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Which partitions are not read because they are too far ahead of the slowest.
    fn waiting(&self, to: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let kind = ConstGauge::new(0.0);
        let help = "1 for a partition that is not read as it is too far ahead of the slowest";
        let mut family = to.encode_descriptor("levada_source_waiting", help, None, kind.metric_type())?;
        for (source, partition) in self.metrics.waiting() {
            let source = self.metrics.sources.get(source).map_or("", |source| source.name.as_str());
            let partition = partition.0.to_string();
            let labels = [("job", self.job.as_str()), ("source", source), ("partition", &partition)];
            ConstGauge::new(1.0).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// How many rows came too late, by step and by the partition that they were read from.
    fn late(&self, to: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let kind = ConstCounter::new(0u64);
        let help = "Rows that came too late, by where they were read";
        let mut family = to.encode_descriptor("levada_late_records", help, None, kind.metric_type())?;
        for step in &self.metrics.steps {
            let late_by = step.late_by.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for ((source, partition), rows) in late_by {
                let source =
                    self.metrics.sources.get(usize::from(source)).map_or("", |source| source.name.as_str());
                let (job, step, partition) = (self.job.as_str(), step.name.as_str(), partition.0.to_string());
                let labels = [("job", job), ("step", step), ("source", source), ("partition", &partition)];
                ConstCounter::new(rows).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    /// How far behind the newest record the readers are, by source and part of it.
    fn lag(&self, to: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let known: Vec<_> =
            self.metrics.sources.iter().map(|s| (s.name.as_str(), s.lag.behind_ms())).collect();
        if known.iter().all(|(_, parts)| parts.is_empty()) {
            return Ok(());
        }
        let help = "Age of the next record to be read, by shard";
        let kind = ConstGauge::new(0.0).metric_type();
        let mut family = to.encode_descriptor("levada_source_behind", help, Some(&Unit::Seconds), kind)?;
        for (source, parts) in &known {
            for (shard, behind_ms) in parts {
                let labels = [("job", self.job.as_str()), ("source", *source), ("shard", shard.as_str())];
                ConstGauge::new(*behind_ms as f64 / 1000.0).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn gauge(
        &self,
        to: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: f64,
    ) -> std::fmt::Result {
        let gauge = ConstGauge::new(value);
        let mut family = to.encode_descriptor(name, help, unit, gauge.metric_type())?;
        gauge.encode(family.encode_family(&[("job", self.job.as_str())])?)
    }
}

impl Collector for JobCollector {
    fn encode(&self, mut to: DescriptorEncoder) -> std::fmt::Result {
        let to = &mut to;
        let m = &self.metrics;
        let sources = || m.sources.iter().map(|s| (vec![("source", s.name.as_str())], s));
        let steps = || m.steps.iter().map(|s| (vec![("step", s.name.as_str()), ("verb", s.verb)], s));
        let sinks = || m.sinks.iter().map(|s| (vec![("sink", s.name.as_str())], s));
        let read = sources().map(|(l, s)| (l, s.records.load(Relaxed)));
        self.counters(to, "levada_source_records", "Records read", None, read)?;
        let bytes = sources().map(|(l, s)| (l, s.bytes.load(Relaxed)));
        self.counters(to, "levada_source", "Bytes read", Some(&Unit::Bytes), bytes)?;
        let dead = sources().map(|(l, s)| (l, s.dead.load(Relaxed)));
        self.counters(to, "levada_source_dead_letters", "Records that could not be used", None, dead)?;
        let dropped = sources().map(|(l, s)| (l, s.dropped.load(Relaxed)));
        self.counters(to, "levada_source_dropped", "Records dropped by a full intake", None, dropped)?;
        let throttled = sources().map(|(l, s)| (l, s.lag.throttles()));
        self.counters(to, "levada_source_throttled", "Reads refused as too many", None, throttled)?;
        self.lag(to)?;
        self.waiting(to)?;
        let rows = steps().map(|(l, s)| (l, s.rows_in.load(Relaxed) + s.table_rows.load(Relaxed)));
        self.counters(to, "levada_step_rows_in", "Rows taken in", None, rows)?;
        let rows = steps().map(|(l, s)| (l, s.rows_out.load(Relaxed)));
        self.counters(to, "levada_step_rows_out", "Rows emitted", None, rows)?;
        let late = steps().map(|(l, s)| (l, s.late.load(Relaxed)));
        self.counters(to, "levada_step_late_rows", "Rows that came too late", None, late)?;
        self.late(to)?;
        let joins = steps().filter(|(_, s)| s.verb == "join");
        let rows = joins.map(|(l, s)| (l, s.unmatched.load(Relaxed)));
        self.counters(
            to,
            "levada_step_unmatched_rows",
            "Rows that matched none of a join's table",
            None,
            rows,
        )?;
        let recognizers = steps().filter(|(_, s)| s.verb == "recognize");
        let partials = recognizers.map(|(l, s)| (l, s.evicted.load(Relaxed)));
        self.counters(
            to,
            "levada_step_evicted_partials",
            "Partial matches given up because a key had too many",
            None,
            partials,
        )?;
        let rows = sinks().map(|(l, s)| (l, s.rows.load(Relaxed)));
        self.counters(to, "levada_sink_rows", "Rows published", None, rows)?;
        let epochs = sinks().map(|(l, s)| (l, s.epochs.load(Relaxed)));
        self.counters(to, "levada_sink_epochs", "Epochs published that held rows", None, epochs)?;
        let epochs = std::iter::once((Vec::new(), m.epochs.load(Relaxed)));
        self.counters(to, "levada_epochs_finished", "Epochs finished", None, epochs)?;
        let spent = steps().map(|(l, s)| (l, s.checkpoint_ns.load(Relaxed) / 1_000));
        self.counters(
            to,
            "levada_step_checkpoint_microseconds",
            "Time in which a step handed over what it had changed",
            None,
            spent,
        )?;
        let kind = ConstGauge::new(0.0).metric_type();
        let help = "The longest that a step did nothing but hand over what it had changed";
        let unit = Some(&Unit::Seconds);
        let mut family = to.encode_descriptor("levada_step_checkpoint_longest", help, unit, kind)?;
        for (mut labels, step) in steps() {
            labels.insert(0, ("job", &self.job));
            let longest = step.checkpoint_most_ns.load(Relaxed) as f64 / 1e9;
            ConstGauge::new(longest).encode(family.encode_family(&labels)?)?;
        }
        let c = &m.checkpoints;
        let one = |value: u64| std::iter::once((Vec::new(), value));
        let made = one(c.made.load(Relaxed));
        self.counters(to, "levada_checkpoints", "Checkpoints committed", None, made)?;
        let bytes = one(c.bytes.load(Relaxed));
        self.counters(
            to,
            "levada_checkpoint",
            "Changed state written by checkpoints",
            Some(&Unit::Bytes),
            bytes,
        )?;
        let bytes = one(c.compacted_bytes.load(Relaxed));
        self.counters(
            to,
            "levada_checkpoint_compacted",
            "State written once more, in fewer files",
            Some(&Unit::Bytes),
            bytes,
        )?;
        let made_ms = c.made_ms.load(Relaxed);
        if made_ms > 0 {
            let help = "When the last checkpoint was committed, since the Unix epoch";
            let made = made_ms as f64 / 1e3;
            self.gauge(to, "levada_checkpoint_last_timestamp", help, Some(&Unit::Seconds), made)?;
            let help = "How long the last checkpoint took";
            let took = c.took_ns.load(Relaxed) as f64 / 1e9;
            self.gauge(to, "levada_checkpoint_last_duration", help, Some(&Unit::Seconds), took)?;
        }
        let in_flight = m.in_flight.load(Relaxed) as f64;
        self.gauge(to, "levada_epochs_in_flight", "Epochs opened and not yet finished", None, in_flight)?;
        let watermark = m.watermark_ms.load(Relaxed);
        if watermark > i64::MIN && watermark < i64::MAX {
            let seconds = watermark as f64 / 1000.0;
            self.gauge(
                to,
                "levada_watermark_timestamp",
                "The job's watermark, since the Unix epoch",
                Some(&Unit::Seconds),
                seconds,
            )?;
            let newest = m.sources.iter().map(|s| s.newest_ms.load(Relaxed)).max().unwrap_or(watermark);
            let lag = newest.saturating_sub(watermark).max(0) as f64 / 1000.0;
            self.gauge(
                to,
                "levada_watermark_lag",
                "Newest event time less the watermark",
                Some(&Unit::Seconds),
                lag,
            )?;
        }
        if let Ok(histogram) = m.epoch_us.lock() {
            for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
                let seconds = histogram.value_at_quantile(quantile) as f64 / 1e6;
                let name = format!("levada_epoch_duration_{name}");
                self.gauge(
                    to,
                    &name,
                    "How long an epoch takes from opening to published",
                    Some(&Unit::Seconds),
                    seconds,
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use levada_dataflows::metrics::{SourceMetrics, StepMetrics};
    use levada_dataflows::plan::{EpochSettings, Plan};
    use levada_types::PartitionId;

    use super::*;

    #[test]
    fn late_rows_and_partitions_that_wait_are_told_with_where_they_are() {
        let (sources, steps, sinks) = (Vec::new(), Vec::new(), Vec::new());
        let epochs = EpochSettings::default();
        let plan = Plan {
            name: "shop".into(),
            epochs,
            sources,
            steps,
            sinks,
            dead_letters: None,
            late_ledger: None,
        };
        let mut metrics = Arc::into_inner(Metrics::new(&plan)).unwrap();
        metrics.sources.push(SourceMetrics { name: "orders".into(), ..SourceMetrics::default() });
        metrics.steps.push(StepMetrics { name: "sales".into(), verb: "window", ..StepMetrics::default() });
        metrics.steps[0].late_by.lock().unwrap().insert((0, PartitionId(3)), 7);
        *metrics.partitions.lock().unwrap() = vec![(0, PartitionId(2)), (0, PartitionId(3))];
        metrics.note_ahead(&[true, false]);
        let text = encode(&registry("shop", Arc::new(metrics)));
        for line in [
            "levada_late_records_total{job=\"shop\",step=\"sales\",source=\"orders\",partition=\"3\"} 7\n",
            "levada_source_waiting{job=\"shop\",source=\"orders\",partition=\"2\"} 1.0\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(!text.contains("partition=\"3\"} 1.0"), "{text}");
    }
}
