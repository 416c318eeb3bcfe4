//! A client that writes, and what librdkafka says of its transactions.

#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use levada_types::ConnectorError;
use levada_types::journal::Ended;
use rdkafka::bindings as sys;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

use super::client::{ANSWER, Place};
use super::watch::{Watch, rest};

/// How long a transaction may be open before the brokers abort it. It bounds how long an outage may be in its
/// midst, and how long it hides what comes after it if the job is killed and not begun again.
const TRANSACTION: Duration = Duration::from_secs(300);

/// How soon it is first looked whether all is delivered, and how often later.
const LOOKS: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(5));

/// How long to wait while too much is on its way.
const FULL: Duration = Duration::from_millis(5);

/// A client that writes a topic, and what is heard of it.
pub(super) struct Outgoing {
    pub place: Place,
    pub producer: ThreadedProducer<Watch>,
    pub watch: Watch,
}

/// Why what was sent is not there.
pub(super) enum Failed {
    /// The transaction has been aborted.
    Aborted(String),
    /// Nobody knows, or the producer is of no more use.
    Unsure(String),
    /// The brokers take nothing more from this producer.
    Fenced,
    /// There is no way on.
    Over(ConnectorError),
}

/// Why a transaction is not committed.
pub(super) struct CommitError {
    pub code: RDKafkaErrorCode,
    pub fatal: bool,
    pub retriable: bool,
    pub aborts: bool,
    pub why: String,
}

impl Outgoing {
    /// With transactions under the name `id`: whoever wrote under it before can write nothing any more, and what they
    /// had not committed is taken back. No outage is waited for once the job has `ended`.
    pub fn take_over(place: &Place, id: &str, ended: &Ended) -> Result<Outgoing, ConnectorError> {
        let mut config = config(place);
        config.set("transactional.id", id);
        if !place.has("transaction.timeout.ms") {
            config.set("transaction.timeout.ms", TRANSACTION.as_millis().to_string());
        }
        let out = Outgoing::new(place, &config, ended)?;
        out.watch.patiently(place, "write", || out.producer.init_transactions(ANSWER))?;
        Ok(out)
    }

    /// Without transactions. It waits for an outage to end, however long that is.
    pub fn patient(place: &Place, ended: &Ended) -> Result<Outgoing, ConnectorError> {
        let mut config = config(place);
        if !place.has("message.timeout.ms") {
            config.set("message.timeout.ms", "0");
        }
        Outgoing::new(place, &config, ended)
    }

    fn new(place: &Place, config: &ClientConfig, ended: &Ended) -> Result<Outgoing, ConnectorError> {
        let watch = Watch::of(place);
        watch.end_with(ended);
        Ok(Outgoing { place: place.clone(), producer: place.client(config, &watch)?, watch })
    }

    pub fn describe(&self) -> String {
        self.place.describe()
    }

    /// Says what did not work, and when it is tried again.
    pub fn trouble(&self, why: &str, pause: Duration) {
        self.watch.trouble(&format!("write {}: {why}", self.describe()), pause);
    }

    /// Gives a record to the client, which sends it. Waits while too many are on their way.
    pub fn send(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<(), Failed> {
        loop {
            let (error, back) = match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            self.rejected()?;
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => rest(FULL),
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    return Err(Failed::Over(ConnectorError::configuration(format!(
                        "write {}: a record of {} bytes is larger than `message.max.bytes`",
                        self.describe(),
                        back.payload.map_or(0, <[u8]>::len)
                    ))));
                }
                _ => return Err(Failed::Unsure(error.to_string())),
            }
            record = back;
        }
    }

    /// # Errors
    /// When a broker would not take a record, or us, and when the job has ended.
    pub fn rejected(&self) -> Result<(), Failed> {
        self.watch.check().map_err(Failed::Over)?;
        match self.watch.rejected() {
            None => Ok(()),
            Some(why) => {
                Err(Failed::Over(ConnectorError::configuration(format!("write {}: {why}", self.describe()))))
            }
        }
    }

    /// Waits until all records are delivered, [`ANSWER`] at most; whether they are. `Producer::flush` waits for a
    /// report, of which there are none of what went well, and so looks every tenth of a second only.
    pub fn flush(&self) -> bool {
        let began = Instant::now();
        let mut pause = LOOKS.0;
        while self.producer.in_flight_count() > 0 {
            if began.elapsed() >= ANSWER {
                return false;
            }
            rest(pause);
            pause = (pause * 2).min(LOOKS.1);
        }
        true
    }

    /// Commits the transaction, waiting [`ANSWER`] at most; it can be asked again then.
    /// `Producer::commit_transaction` listens for reports by itself first, which takes a tenth of a second; the
    /// client's thread does that already.
    pub fn commit(&self) -> Result<(), CommitError> {
        let wait_ms = i32::try_from(ANSWER.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the client lives as long as the producer; the error is ours until it is destroyed.
        unsafe {
            let error = sys::rd_kafka_commit_transaction(self.producer.client().native_ptr(), wait_ms);
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
