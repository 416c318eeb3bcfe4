//! A client that writes, and what librdkafka says of its transactions.

#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use levada_types::ConnectorError;
use rdkafka::bindings as sys;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{Producer, ThreadedProducer};

use super::Delivery;
use super::client::{ANSWER, Connection, Place};
use super::publisher::PublisherSettings;
use super::watch::{Watch, rest};

/// How long a transaction may be open before the brokers abort it. It bounds how long an outage may be in its
/// midst, and how long it hides what comes after it if the job is killed and not begun again.
const TRANSACTION: Duration = Duration::from_secs(300);

/// How soon it is first looked whether all is delivered, and how often later.
const LOOKS: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(5));

pub(super) type Client = ThreadedProducer<Watch>;

/// A producer for a sink. With transactions, whoever wrote under the same name before can write nothing any more, and
/// what they had not committed is taken back.
pub(super) fn take_over(
    connection: &Connection,
    settings: &PublisherSettings,
) -> Result<(Client, Watch), ConnectorError> {
    let place = &connection.place;
    if settings.delivery == Delivery::AtLeastOnce {
        return patient(place);
    }
    let mut config = config(place);
    config.set("transactional.id", &settings.transactional_id);
    if !place.has("transaction.timeout.ms") {
        config.set("transaction.timeout.ms", TRANSACTION.as_millis().to_string());
    }
    let watch = Watch::of(place);
    let producer: Client = place.client(&config, &watch)?;
    watch.patiently(place, "write", || producer.init_transactions(ANSWER))?;
    Ok((producer, watch))
}

/// A producer without transactions, which waits for an outage to end, however long it is.
pub(super) fn patient(place: &Place) -> Result<(Client, Watch), ConnectorError> {
    let mut config = config(place);
    if !place.has("message.timeout.ms") {
        config.set("message.timeout.ms", "0");
    }
    let watch = Watch::of(place);
    Ok((place.client(&config, &watch)?, watch))
}

fn config(place: &Place) -> ClientConfig {
    let mut config = place.config();
    config.set("enable.idempotence", "true").set("acks", "all").set("delivery.report.only.error", "true");
    if !place.has("queue.buffering.max.messages") {
        config.set("queue.buffering.max.messages", "1000000");
    }
    if !place.has("linger.ms") {
        // What comes together is sent together anyway; waiting for more made the median of a transaction's way
        // 84 ms instead of 25 ms.
        config.set("linger.ms", "0");
    }
    config
}

/// Why a transaction is not committed.
pub(super) struct CommitError {
    pub code: RDKafkaErrorCode,
    pub fatal: bool,
    pub retriable: bool,
    pub aborts: bool,
    pub why: String,
}

/// Commits the transaction, waiting [`ANSWER`] at most; it can be asked again then. `Producer::commit_transaction`
/// listens for reports by itself first, which takes a tenth of a second; the client's thread does that already.
pub(super) fn commit(producer: &Client) -> Result<(), CommitError> {
    let wait_ms = i32::try_from(ANSWER.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client lives as long as the producer; the error is ours until it is destroyed.
    unsafe {
        let error = sys::rd_kafka_commit_transaction(producer.client().native_ptr(), wait_ms);
        if error.is_null() {
            return Ok(());
        }
        let text = sys::rd_kafka_error_string(error);
        let found = CommitError {
            code: sys::rd_kafka_error_code(error).into(),
            fatal: sys::rd_kafka_error_is_fatal(error) != 0,
            retriable: sys::rd_kafka_error_is_retriable(error) != 0,
            aborts: sys::rd_kafka_error_txn_requires_abort(error) != 0,
            why: std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned(),
        };
        sys::rd_kafka_error_destroy(error);
        Err(found)
    }
}

/// Waits until all records are delivered, [`ANSWER`] at most; whether they are. `Producer::flush` waits for a report,
/// of which there are none of what went well, and so looks every tenth of a second only.
pub(super) fn flush(producer: &Client) -> bool {
    let began = Instant::now();
    let mut pause = LOOKS.0;
    while producer.in_flight_count() > 0 {
        if began.elapsed() >= ANSWER {
            return false;
        }
        rest(pause);
        pause = (pause * 2).min(LOOKS.1);
    }
    true
}
