//! The journal that is not kept in the folder of a job's state: what cannot go with it.

use std::sync::Arc;

use levada_connectors::kafka::KafkaJournalConfig;
use levada_types::Journal;

use super::Planner;
use crate::job::spec::{SinkConnector, SourceConnector};

const TABLE: [&str; 2] = ["job", "journal"];

impl Planner<'_> {
    /// The journal in a topic of Kafka, if the job has one.
    pub(super) fn journal(&mut self) -> Option<Arc<dyn Journal>> {
        let config = self.spec.job.journal.as_ref()?;
        self.check_topic(config);
        self.check_name(config);
        self.check_sources();
        let journal = self.connections.journal(config, self.spec.job.checkpoints.as_ref());
        journal.map_err(|(field, message)| self.cx.problem(TABLE.into_iter().chain(field), message)).ok()
    }

    /// A journal's topic holds nothing else.
    fn check_topic(&mut self, config: &KafkaJournalConfig) {
        let spec = self.spec;
        let topic = config.topic(&spec.job.name);
        let is = |brokers: &str, other: &str| (brokers, other) == (config.brokers.as_str(), topic.as_str());
        let sources = spec.source.iter().filter_map(|(name, source)| match &source.connector {
            SourceConnector::Kafka(source) if is(&source.brokers, &source.topic) => {
                Some(format!("source `{name}` reads"))
            }
            _ => None,
        });
        let sinks = spec.sink.iter().filter_map(|(name, sink)| match &sink.connector {
            SinkConnector::Kafka(sink) if is(&sink.brokers, &sink.topic) => Some(format!("`{name}` writes")),
            _ => None,
        });
        for other in sources.chain(sinks) {
            let message =
                format!("{other} the topic {topic}, which is the job's journal; choose another `topic`");
            self.cx.problem([TABLE[0], TABLE[1], "topic"], message);
        }
    }

    /// Of two that write under one name each would end the other.
    fn check_name(&mut self, config: &KafkaJournalConfig) {
        let spec = self.spec;
        let name = config.transactional_id(&spec.job.name);
        for (sink, connector) in spec.sink.iter().map(|(sink, spec)| (sink, &spec.connector)) {
            if let SinkConnector::Kafka(config) = connector
                && config.transactional_id(&spec.job.name, sink) == name
            {
                let message = format!(
                    "the journal would be written as {name}, and so is `{sink}`: each would end the other; give the \
                     journal another `transactional_id`"
                );
                self.cx.problem([TABLE[0], TABLE[1], "transactional_id"], message);
            }
        }
    }

    /// What a journal counts is to be read again on another machine.
    fn check_sources(&mut self) {
        for (name, source) in &self.spec.source {
            if let Some(folder) = source.connector.keeps() {
                let message = format!(
                    "source `{name}` keeps in the folder of the job's state what it needs to read the same again \
                     (`{folder}`), and that is lost with the machine, wherever the journal is; leave `[job.journal]` out"
                );
                self.cx.problem([TABLE[0], TABLE[1], "connector"], message);
            }
        }
    }
}
