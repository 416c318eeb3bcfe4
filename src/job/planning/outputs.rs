//! Outputs: every topic and file has one writer and is not read by the job too, and a topic has a name that
//! it may have.

use std::collections::BTreeMap;
use std::path::Path;

#[cfg(feature = "kinesis")]
use levada_connectors::kinesis::KinesisSinkConfig;
use levada_connectors::log::{MAX_PARTITIONS, check_topic_name};
use levada_connectors::webhook::WebhookSinkConfig;

use super::Planner;
use crate::job::spec::{JobSpec, SinkConnector, SourceConnector};

impl Planner<'_> {
    pub(super) fn check_outputs(&mut self) {
        let mut writers = BTreeMap::new();
        if let Some(topic) = self.dead_letter_topic() {
            writers.insert(format!("topic {topic}"), "the job's dead letters".to_string());
        }
        if let Some(topic) = &self.spec.job.late {
            self.check_late_topic(topic, &mut writers);
        }
        for (name, source) in &self.spec.source {
            if let SourceConnector::Clock(config) = &source.connector {
                let topic = config.topic(&self.spec.job.name, name);
                if let Err(error) = check_topic_name(&topic) {
                    self.cx.problem(["source", name, "clock", "topic"], error.to_string());
                }
                writers.insert(format!("topic {topic}"), format!("the clock `{name}`"));
            }
        }
        for (name, sink) in &self.spec.sink {
            let kind = sink.connector.kind();
            let (field, targets) = match &sink.connector {
                SinkConnector::Log(config) => {
                    if let Err(error) = check_topic_name(&config.topic)
                        && !config.topic.is_empty()
                    {
                        self.cx.problem(["sink", name, kind, "topic"], error.to_string());
                    }
                    if let Some(partitions) = config.partitions.filter(|n| !(1..=MAX_PARTITIONS).contains(n))
                    {
                        let message =
                            format!("a topic has 1 to {MAX_PARTITIONS} partitions, not {partitions}");
                        self.cx.problem(["sink", name, kind, "partitions"], message);
                    }
                    ("topic", vec![format!("topic {}", config.topic)])
                }
                #[cfg(feature = "kafka")]
                SinkConnector::Kafka(config) => {
                    ("topic", vec![format!("kafka topic {} at {}", config.topic, config.brokers)])
                }
                SinkConnector::File(config) => ("path", vec![format!("file {}", config.path.display())]),
                SinkConnector::Webhook(_) => {
                    let kept = WebhookSinkConfig::kept(&self.spec.job.name, name);
                    ("url", kept.map(|topic| format!("topic {topic}")).to_vec())
                }
                #[cfg(feature = "kinesis")]
                SinkConnector::Kinesis(config) => {
                    let kept = KinesisSinkConfig::kept(&self.spec.job.name, name);
                    let place = std::iter::once(format!("kinesis {}", kinesis_place(config)));
                    ("stream", place.chain(kept.map(|topic| format!("topic {topic}"))).collect())
                }
                #[cfg(feature = "redis")]
                SinkConnector::Redis(config) => {
                    let at = |stream| format!("stream {stream} at {}", config.url);
                    ("stream", config.streams().into_iter().map(at).collect())
                }
            };
            if let Some(source) = reader(self.spec, name, &sink.connector) {
                let targets = targets.join(", ");
                let message = format!("source `{source}` reads what `{name}` would write, {targets}");
                self.cx.problem(["sink", name, kind, field], message);
            }
            for target in targets {
                match writers.get(&target) {
                    Some(other) => {
                        let message = format!("`{name}` and {other} would both write {target}");
                        self.cx.problem(["sink", name, kind, field], message);
                    }
                    None => drop(writers.insert(target, format!("`{name}`"))),
                }
            }
        }
    }
}

impl Planner<'_> {
    fn check_late_topic(&mut self, topic: &str, writers: &mut BTreeMap<String, String>) {
        let path = ["job", "late"];
        if let Err(error) = check_topic_name(topic) {
            self.cx.problem(path, error.to_string());
        }
        let reads =
            |source: &SourceConnector| matches!(source, SourceConnector::Log(log) if log.topic == topic);
        if let Some((name, _)) = self.spec.source.iter().find(|(_, source)| reads(&source.connector)) {
            self.cx.problem(
                path,
                format!("source `{name}` reads what late rows would be written to, topic {topic}"),
            );
        }
        if let Some(other) = writers.insert(format!("topic {topic}"), "the job's late rows".to_string()) {
            self.cx.problem(
                path,
                format!("the job's late rows and {other} would both be written to topic {topic}"),
            );
        }
    }
}

/// Where a sink writes in Kinesis.
#[cfg(feature = "kinesis")]
fn kinesis_place(config: &KinesisSinkConfig) -> String {
    let KinesisSinkConfig { stream, region, endpoint, .. } = config;
    let place = endpoint.as_ref().or(region.as_ref());
    place.map_or_else(|| format!("stream {stream}"), |place| format!("stream {stream} at {place}"))
}

/// The source that reads where a sink writes.
fn reader<'a>(spec: &'a JobSpec, name: &str, sink: &SinkConnector) -> Option<&'a str> {
    let reads = |source: &SourceConnector| match (source, sink) {
        (SourceConnector::Log(source), SinkConnector::Log(sink)) => source.topic == sink.topic,
        (SourceConnector::File(source), SinkConnector::File(sink)) => {
            source.path.iter().chain(&source.paths).any(|path| same(path, &sink.path))
        }
        #[cfg(feature = "kafka")]
        (SourceConnector::Kafka(source), SinkConnector::Kafka(sink)) => {
            (&source.brokers, &source.topic) == (&sink.brokers, &sink.topic)
        }
        (SourceConnector::Log(source), SinkConnector::Webhook(_)) => {
            WebhookSinkConfig::kept(&spec.job.name, name).contains(&source.topic)
        }
        #[cfg(feature = "kinesis")]
        (SourceConnector::Log(source), SinkConnector::Kinesis(_)) => {
            KinesisSinkConfig::kept(&spec.job.name, name).contains(&source.topic)
        }
        #[cfg(feature = "kinesis")]
        (SourceConnector::Kinesis(source), SinkConnector::Kinesis(sink)) => {
            (&source.stream, &source.region, &source.endpoint) == (&sink.stream, &sink.region, &sink.endpoint)
        }
        #[cfg(feature = "redis")]
        (SourceConnector::Redis(source), SinkConnector::Redis(sink)) => {
            let reads = |stream| source.stream.iter().chain(&source.streams).any(|read| *read == stream);
            source.url.to_string() == sink.url.to_string() && sink.streams().into_iter().any(reads)
        }
        _ => false,
    };
    let mut sources = spec.source.iter();
    sources.find(|(_, source)| reads(&source.connector)).map(|(name, _)| name.as_str())
}

/// Whether two paths are of one file: by their words, or where both exist by where they lead.
fn same(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
