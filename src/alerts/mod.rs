//! Alerts outside of the dataflow: who writes what somebody does about them, and who reads how they are.
//!
//! ```text
//!   levada alerts, POST /v1/silences ──► action ──► topic of `actions` ──► step `alert` ──► sink's topic
//!   levada alerts list, GET /v1/alerts ◄──────────── board ◄────────────────── history ────────┘
//! ```
//!
//! A job file says which topics these are: the source that the step's `actions` names, and the topics of the sinks that
//! write the step's rows, as they are or through `select` steps that keep its columns.

mod action;
mod board;

use levada_dataflows::Step;
use levada_types::parse_duration_ms;

pub use action::{Action, Kind};
pub use board::Board;

use crate::job::{JobSpec, SinkConnector, SourceConnector};

/// An `alert` step of a job, and where to meet it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desk {
    /// The job.
    pub job: String,
    /// The step.
    pub step: String,
    /// Where actions are written, if the step takes any from a topic.
    pub actions: Option<ActionTopic>,
    /// The topics that its history is in.
    pub history: Vec<String>,
}

/// The topic of a step's actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionTopic {
    /// Its name.
    pub topic: String,
    /// The field that is an action's time.
    pub time: String,
}

impl Desk {
    /// Those of a job, in the order of its file.
    pub fn all(spec: &JobSpec) -> Vec<Desk> {
        let alerts = spec.step.iter().filter_map(|(name, step)| match step {
            Step::Alert(alert) => Some((name, alert)),
            _ => None,
        });
        let desk = |(name, alert): (&String, &levada_dataflows::operators::alert::AlertSpec)| {
            let source = alert.actions.as_ref().and_then(|actions| spec.source.get(actions));
            let actions = source.and_then(|source| match &source.connector {
                SourceConnector::Log(config) => {
                    let time = source.common.event_time.as_ref()?.column.clone();
                    Some(ActionTopic { topic: config.topic.clone(), time })
                }
                _ => None,
            });
            let (job, step) = (spec.job.name.clone(), name.clone());
            Desk { job, step, actions, history: history(spec, name) }
        };
        alerts.map(desk).collect()
    }
}

/// The topics that the rows of a step are written to.
fn history(spec: &JobSpec, step: &str) -> Vec<String> {
    let mut streams = vec![step];
    let mut place = 0;
    while let Some(&stream) = streams.get(place) {
        place += 1;
        let readers = spec.step.iter().filter(|(name, reader)| {
            reader.verb() == "select"
                && !streams.contains(&name.as_str())
                && reader.spec().inputs().iter().any(|(_, from)| *from == stream)
        });
        let readers: Vec<&str> = readers.map(|(name, _)| name.as_str()).collect();
        streams.extend(readers);
    }
    let sinks = spec.sink.values().filter(|sink| streams.contains(&sink.common.from.as_str()));
    let topics = sinks.filter_map(|sink| match &sink.connector {
        SinkConnector::Log(config) => Some(config.topic.clone()),
        _ => None,
    });
    topics.collect()
}

/// A time that is told as RFC 3339, or as milliseconds.
///
/// # Errors
/// How it is to be written.
pub fn time_ms(text: &str) -> Result<i64, String> {
    let read = levada_connectors::codec::timestamp::parse(text.as_bytes());
    read.map_err(|_| format!("`{text}` is no time; it is written as `2026-03-02T09:00:00Z`"))
}

/// When something ends that begins now or at a time and lasts so long.
///
/// # Errors
/// How a duration is written.
pub fn end_ms(starts_ms: i64, duration: &str) -> Result<i64, String> {
    Ok(starts_ms.saturating_add(parse_duration_ms(duration)?))
}
