//! What the gateway counts, in Prometheus' text format.
//!
//! prometheus-client writes OpenMetrics, where a counter's name in `# TYPE` lacks the `_total` of its
//! samples; the older text format, which every Prometheus and `promtool check metrics` read, wants them
//! equal. [`prometheus_text`] turns the one into the other.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Of which topic. Only topics that exist become labels, so their number is bounded.
/// (Their names need no escapes, which prometheus-client would not write.)
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OfTopic {
    /// The topic's name.
    pub topic: String,
}

/// With which HTTP status.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OfStatus {
    /// The status code.
    pub code: u16,
}

/// Why a request to take events was refused.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OfReason {
    /// The reason's name, of a fixed list.
    pub reason: &'static str,
}

/// From half a millisecond, which no disk undercuts by much, to half a minute, which nobody waits longer for.
fn durable_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 16))
}

/// The gateway's counters and gauges.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Connections open now.
    pub connections: Gauge,
    /// Event streams open now.
    pub streams: Gauge,
    /// Requests answered.
    pub requests: Family<OfStatus, Counter>,
    /// Records sent to streams.
    pub events_sent: Family<OfTopic, Counter>,
    /// Bytes sent to streams.
    pub sent_bytes: Family<OfTopic, Counter>,
    /// Times a stream read the log because it was behind the ring.
    pub ring_fallback_reads: Family<OfTopic, Counter>,
    /// Streams that could not be resumed exactly.
    pub not_resumed: Counter,
    /// Bytes in the rings; set when asked for.
    pub ring_bytes: Family<OfTopic, Gauge>,
    /// Records that the rings lag behind their topics; set when asked for.
    pub lag_records: Family<OfTopic, Gauge>,
    /// Requests whose events were taken.
    pub ingest_requests: Family<OfTopic, Counter>,
    /// Records that were taken.
    pub ingest_records: Family<OfTopic, Counter>,
    /// Bytes of the bodies of requests whose events were taken.
    pub ingest_bytes: Family<OfTopic, Counter>,
    /// Records that were set aside where the others were taken.
    pub ingest_bad_records: Family<OfTopic, Counter>,
    /// Requests that were refused.
    pub ingest_refused: Family<OfReason, Counter>,
    /// From a body's end until its records were durable, in seconds.
    pub ingest_durable: Durable,
}

/// A histogram for each topic.
type Durable = Family<OfTopic, Histogram, fn() -> Histogram>;

impl Metrics {
    /// All at zero.
    pub fn new() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::default(),
            connections: Gauge::default(),
            streams: Gauge::default(),
            requests: Family::default(),
            events_sent: Family::default(),
            sent_bytes: Family::default(),
            ring_fallback_reads: Family::default(),
            not_resumed: Counter::default(),
            ring_bytes: Family::default(),
            lag_records: Family::default(),
            ingest_requests: Family::default(),
            ingest_records: Family::default(),
            ingest_bytes: Family::default(),
            ingest_bad_records: Family::default(),
            ingest_refused: Family::default(),
            ingest_durable: Family::new_with_constructor(durable_histogram),
        };
        let mut registry = Registry::with_prefix("levada_gateway");
        let r = &mut registry;
        r.register("connections", "Connections open now", metrics.connections.clone());
        r.register("streams", "Event streams open now", metrics.streams.clone());
        r.register("requests", "Requests answered", metrics.requests.clone());
        r.register("events_sent", "Records sent to event streams", metrics.events_sent.clone());
        let sent = metrics.sent_bytes.clone();
        r.register_with_unit("sent", "Bytes sent to event streams", Unit::Bytes, sent);
        let fallback = metrics.ring_fallback_reads.clone();
        r.register("ring_fallback_reads", "Reads of the log by streams behind the ring", fallback);
        r.register("not_resumed", "Streams that could not be resumed exactly", metrics.not_resumed.clone());
        let ring = metrics.ring_bytes.clone();
        r.register_with_unit("ring", "Encoded records held in memory", Unit::Bytes, ring);
        r.register("lag_records", "Records not yet in the ring", metrics.lag_records.clone());
        let taken = "Requests whose events were taken";
        r.register("ingest_requests", taken, metrics.ingest_requests.clone());
        r.register("ingest_records", "Records that were taken", metrics.ingest_records.clone());
        let bytes = metrics.ingest_bytes.clone();
        r.register_with_unit("ingest", "Bytes of the bodies whose events were taken", Unit::Bytes, bytes);
        let bad = metrics.ingest_bad_records.clone();
        r.register("ingest_bad_records", "Records set aside where the others were taken", bad);
        let refused = metrics.ingest_refused.clone();
        r.register("ingest_refused", "Requests to take events that were refused", refused);
        let durable = metrics.ingest_durable.clone();
        let about = "From the end of a body until its records were durable";
        r.register_with_unit("ingest_durable", about, Unit::Seconds, durable);
        metrics.registry = registry;
        metrics
    }

    /// Everything, in the text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        prometheus_text(&text)
    }
}

/// OpenMetrics as Prometheus' text format 0.0.4.
fn prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 256);
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        if let Some((name, words)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help = Some((name, words));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let total = if kind == "counter" { "_total" } else { "" };
            if let Some((_, words)) = help.take().filter(|(of, _)| *of == name) {
                text.push_str(&format!("# HELP {name}{total} {words}\n"));
            }
            text.push_str(&format!("# TYPE {name}{total} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_one_name_in_the_older_format() {
        let metrics = Metrics::new();
        metrics.sent_bytes.get_or_create(&OfTopic { topic: "late.delays".into() }).inc_by(3);
        metrics.connections.set(2);
        let text = metrics.text();
        assert!(text.contains("# HELP levada_gateway_sent_bytes_total Bytes sent to event streams.\n# TYPE levada_gateway_sent_bytes_total counter\nlevada_gateway_sent_bytes_total{topic=\"late.delays\"} 3\n"), "{text}");
        assert!(
            text.contains("# TYPE levada_gateway_connections gauge\nlevada_gateway_connections 2\n"),
            "{text}"
        );
        assert!(!text.contains("# UNIT") && !text.contains("# EOF"), "{text}");
    }
}
