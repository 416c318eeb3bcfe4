//! What clients tell on the side: errors, and once a second how each broker is. It is said where people see it, and
//! asked by the readers, so that a partition out of reach is not taken for one that is at its end.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use levada_types::ConnectorError;
use levada_types::journal::Ended;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use serde_json::Value;

use super::client::{Place, code_of, is_permanent};

/// How long to wait before the first and, doubled each time, before any later try.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// How often authentication must be refused, with no success between, to be believed: a broker that is shutting
/// down may look like one that refuses.
const REFUSALS: u32 = 3;

/// Hears what clients tell on the side.
#[derive(Clone)]
pub(super) struct Watch {
    brokers: String,
    topic: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Whether no broker is connected.
    away: bool,
    /// The last thing that went wrong with a connection.
    reason: Option<String>,
    /// Partitions whose leader is not connected.
    cut_off: BTreeSet<i64>,
    refusals: u32,
    refused: Option<String>,
    /// Why a broker would not take a record, now or ever.
    rejected: Option<String>,
    /// How many partitions there were when it was asked.
    partitions: Option<usize>,
    /// How many there are now, if these are more.
    more: Option<usize>,
    /// Whether the job has ended, where somebody knows.
    ended: Option<Ended>,
}

impl Watch {
    pub fn of(place: &Place) -> Watch {
        Watch { brokers: place.brokers.clone(), topic: place.topic.clone(), state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has it noticed when the topic gets more partitions than these.
    pub fn expect(&self, partitions: u32) {
        let mut state = self.state();
        (state.partitions, state.more) = (Some(partitions as usize), None);
    }

    /// How many partitions the topic has now, if these are more.
    pub fn more_partitions(&self) -> Option<usize> {
        self.state().more
    }

    /// Whether nothing can be heard of a partition now.
    pub fn is_away(&self, partition: u32) -> bool {
        let state = self.state();
        state.away || state.cut_off.contains(&i64::from(partition))
    }

    /// Has whoever waits wait no longer than the job runs.
    pub fn end_with(&self, ended: &Ended) {
        self.state().ended = Some(Arc::clone(ended));
    }

    /// # Errors
    /// When the brokers do not take us for who we say we are, and when the job has ended.
    pub fn check(&self) -> Result<(), ConnectorError> {
        let state = self.state();
        match &state.refused {
            None if state.ended.as_ref().is_some_and(|ended| ended()) => {
                Err(ConnectorError::outage(format!("use kafka topic {}: the job has ended", self.topic)))
            }
            None => Ok(()),
            Some(reason) => Err(ConnectorError::configuration(format!(
                "use kafka topic {}: authentication was refused: {reason}; see `properties`",
                self.topic
            ))),
        }
    }

    /// Asks again until there is an answer, or one that will stay the same.
    pub fn patiently<T>(
        &self,
        place: &Place,
        action: &str,
        ask: impl FnMut() -> Result<T, KafkaError>,
    ) -> Result<T, ConnectorError> {
        self.patiently_unless(is_permanent, place, action, ask)
    }

    /// The same; `is_final` says which answers will stay the same.
    pub fn patiently_unless<T>(
        &self,
        is_final: impl Fn(RDKafkaErrorCode) -> bool,
        place: &Place,
        action: &str,
        mut ask: impl FnMut() -> Result<T, KafkaError>,
    ) -> Result<T, ConnectorError> {
        let mut pause = PAUSES.0;
        loop {
            let error = match ask() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            self.check()?;
            if code_of(&error).is_none_or(&is_final) {
                return Err(place.failed(action, &error));
            }
            self.trouble(&place.failed(action, &error).message, pause);
            rest(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Why a broker would not take a record, now or ever.
    pub fn rejected(&self) -> Option<String> {
        self.state().rejected.clone()
    }

    /// Says what did not work, and when it is tried again.
    pub fn trouble(&self, what: &str, pause: Duration) {
        let why = self.state().reason.clone().unwrap_or_default();
        if pause.is_zero() {
            tracing::warn!(brokers = self.brokers, why, "failed to {what}; trying again");
        } else {
            tracing::warn!(brokers = self.brokers, why, "failed to {what}; the next try is in {pause:?}");
        }
    }
}

impl ClientContext for Watch {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters of it comes as an error too.
        tracing::debug!(topic = self.topic, "librdkafka {facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode as Code;
        let mut state = self.state();
        match error.rdkafka_error_code() {
            Some(Code::Authentication | Code::SaslAuthenticationFailed) => {
                state.refusals += 1;
                state.reason = Some(reason.to_string());
                if state.refusals >= REFUSALS {
                    state.refused = Some(reason.to_string());
                }
            }
            // It is said once, when it is seen that nobody is connected, and with every try that it spoils.
            Some(Code::BrokerTransportFailure | Code::Resolve | Code::SSL) => {
                state.reason = Some(reason.to_string());
            }
            _ => tracing::debug!(topic = self.topic, "kafka: {error}: {reason}"),
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let Ok(all) = serde_json::from_slice::<Value>(statistics) else { return };
        let brokers = all.get("brokers").and_then(Value::as_object);
        let up: BTreeSet<i64> = brokers
            .into_iter()
            .flat_map(|brokers| brokers.values())
            .filter(|broker| broker["state"] == "UP")
            .filter_map(|broker| broker["nodeid"].as_i64())
            .collect();
        let mut state = self.state();
        if up.is_empty() && !state.away {
            state.away = true;
            let why = state.reason.clone().unwrap_or_default();
            tracing::warn!(
                topic = self.topic,
                why,
                "no broker of {} can be reached; connecting again at least every 2 s",
                self.brokers
            );
        } else if !up.is_empty() {
            state.refusals = 0;
            if std::mem::take(&mut state.away) {
                tracing::info!(topic = self.topic, "{} is reached again", self.brokers);
            }
        }
        let partitions = all.get("topics").and_then(|topics| topics.get(&self.topic)?.get("partitions"));
        state.cut_off = partitions
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(|partitions| partitions.values())
            .filter(|partition| partition["leader"].as_i64().is_none_or(|leader| !up.contains(&leader)))
            .filter_map(|partition| partition["partition"].as_i64())
            .collect();
        let known = partitions.and_then(Value::as_object).map_or(0, |partitions| {
            // One that is numbered -1 stands for none.
            partitions.values().filter(|partition| partition["partition"].as_i64() >= Some(0)).count()
        });
        if state.partitions.is_some_and(|partitions| known > partitions) {
            state.more = Some(known);
        }
    }
}

impl ConsumerContext for Watch {}

impl ProducerContext for Watch {
    type DeliveryOpaque = ();

    /// What could not be delivered makes the transaction's commit fail too; this says why.
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            use RDKafkaErrorCode as Code;
            tracing::debug!(topic = self.topic, "a record was not delivered: {error}");
            let mut state = self.state();
            state.reason = Some(error.to_string());
            let never = [
                Code::MessageSizeTooLarge,
                Code::MessageBatchTooLarge,
                Code::InvalidTimestamp,
                Code::InvalidRecord,
                Code::TopicAuthorizationFailed,
                Code::UnknownTopicOrPartition,
                Code::UnknownTopic,
                Code::UnknownPartition,
            ];
            if error.rdkafka_error_code().is_some_and(|code| never.contains(&code)) {
                state.rejected = Some(error.to_string());
            }
        }
    }
}

/// How long to wait before the next of several tries: twice as long each time.
pub(super) struct Pause(Duration);

impl Pause {
    /// Of tries that cost the brokers little.
    pub fn short() -> Pause {
        Pause(Duration::from_millis(100))
    }

    pub fn next(&mut self) -> Duration {
        let next = self.0;
        self.0 = (next * 2).min(Duration::from_secs(5));
        next
    }
}

/// Waits before another try.
#[expect(clippy::disallowed_methods, reason = "another machine is waited for, which sends no message")]
pub(super) fn rest(pause: Duration) {
    std::thread::sleep(pause);
}
