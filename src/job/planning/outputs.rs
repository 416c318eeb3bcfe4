//! Outputs: every topic and file has one writer, and a topic a name that it may have.

use std::collections::BTreeMap;

use levada_connectors::log::check_topic_name;

use super::Planner;
use crate::job::spec::SinkConnector;

impl Planner<'_> {
    pub(super) fn check_outputs(&mut self) {
        let mut writers = BTreeMap::new();
        if let Some(topic) = self.dead_letter_topic() {
            writers.insert(format!("topic {topic}"), "the job's dead letters".to_string());
        }
        for (name, sink) in &self.spec.sink {
            let kind = sink.connector.kind();
            let (field, target) = match &sink.connector {
                SinkConnector::Log(config) => {
                    if let Err(error) = check_topic_name(&config.topic)
                        && !config.topic.is_empty()
                    {
                        self.cx.problem(["sink", name, kind, "topic"], error.to_string());
                    }
                    ("topic", format!("topic {}", config.topic))
                }
                SinkConnector::File(config) => ("path", format!("file {}", config.path.display())),
            };
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
