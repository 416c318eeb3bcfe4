//! Transactions under a name, one after the other, each there whole or not at all; and what becomes of them.
//!
//! ```text
//!   begin ─► send ─► commit ─┬─ done
//!                            ├─ no answer: ask again
//!                            ├─ it must be aborted: abort, begin again
//!                            ├─ this producer is of no more use: a new one, look what is there, go on behind it
//!                            └─ this producer was fenced: by its own long silence, then a new one as above;
//!                               by somebody else, who writes now, then the job ends
//! ```
//!
//! What is in them is their owner's: the rows of a sink (`writing.rs`), the entries of a journal (`journal.rs`).

use std::sync::Arc;
use std::time::Duration;

use levada_types::ConnectorError;
use levada_types::journal::Ended;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;

use super::claim::{Claim, Holder};
use super::client::{ANSWER, Connection};
use super::producer::{CommitError, Failed, Outgoing};
use super::watch::{Pause, rest};

/// The right to write under a name.
pub(super) struct Transactions {
    pub connection: Arc<Connection>,
    id: String,
    claim: Claim,
    out: Outgoing,
    ended: Ended,
}

impl Transactions {
    /// Takes the name over from whoever wrote under it: from now on they can commit nothing, and what they had not
    /// committed is taken back. Nothing is waited for once the job has `ended`.
    pub fn take_over(
        connection: &Arc<Connection>,
        id: &str,
        ended: &Ended,
    ) -> Result<Transactions, ConnectorError> {
        connection.watch.end_with(ended);
        let claim = Claim::make(connection, id);
        let out = Outgoing::take_over(&connection.place, id, ended)?;
        let (connection, ended) = (Arc::clone(connection), Arc::clone(ended));
        Ok(Transactions { connection, id: id.into(), claim, out, ended })
    }

    /// Waits no longer than the job runs, from now on.
    pub fn end_with(&mut self, ended: Ended) {
        self.connection.watch.end_with(&ended);
        self.out.watch.end_with(&ended);
        self.ended = ended;
    }

    /// Commits all that `send` sends, in one transaction.
    pub fn commit(&self, send: impl FnOnce(&Outgoing) -> Result<(), Failed>) -> Result<(), Failed> {
        let out = &self.out;
        out.producer.begin_transaction().map_err(|error| self.judge(&error))?;
        match send(out) {
            Ok(()) => {}
            Err(Failed::Over(error)) => {
                // Nothing of it becomes visible.
                let _ = out.producer.abort_transaction(ANSWER);
                return Err(Failed::Over(error));
            }
            Err(Failed::Aborted(why) | Failed::Unsure(why)) => return Err(self.abort(why)),
            Err(Failed::Fenced) => return Err(Failed::Fenced),
        }
        loop {
            let Err(error) = out.commit() else { return Ok(()) };
            out.rejected()?;
            match error {
                CommitError { fatal: true, code, why, .. } => return Err(self.fatal(code, why)),
                CommitError { retriable: true, .. } => {
                    out.trouble("the transaction is not committed yet", Duration::ZERO);
                }
                CommitError { aborts: true, why, .. } => return Err(self.abort(why)),
                CommitError { why, .. } => return Err(Failed::Unsure(why)),
            }
        }
    }

    /// After a transaction that failed: waits. True if there is a new producer now, so that nobody knows what is
    /// there.
    ///
    /// # Errors
    /// When there is no way on, as when another run writes now.
    pub fn recover(&mut self, failed: Failed, pause: &mut Pause) -> Result<bool, ConnectorError> {
        let is_aborted = matches!(failed, Failed::Aborted(_));
        let holder = if is_aborted { Holder::ThisRun } else { self.claim.holder() };
        let why = match (failed, holder) {
            (Failed::Over(error), _) => return Err(error),
            (_, Holder::Another) | (Failed::Fenced, Holder::Unknown) => return Err(self.replaced(holder)),
            (Failed::Aborted(why) | Failed::Unsure(why), _) => why,
            (Failed::Fenced, Holder::ThisRun) => {
                "the brokers took back what was open for longer than a transaction may be".into()
            }
        };
        let pause = pause.next();
        self.out.trouble(&why, pause);
        rest(pause);
        if !is_aborted {
            self.out = Outgoing::take_over(&self.connection.place, &self.id, &self.ended)?;
        }
        Ok(!is_aborted)
    }

    /// That another run writes under the name, as far as anybody knows.
    pub fn replaced(&self, holder: Holder) -> ConnectorError {
        let or = match holder {
            Holder::Unknown => ", or this one was out of touch for longer than a transaction may take",
            Holder::ThisRun | Holder::Another => "",
        };
        ConnectorError::configuration(format!(
            "write {}: another run writes as {} now{or}; what this one had not committed was taken back, and the same \
             command with the same --state goes on",
            self.out.describe(),
            self.id
        ))
    }

    /// Aborts the transaction; what then is to be done.
    fn abort(&self, why: String) -> Failed {
        loop {
            let error = match self.out.producer.abort_transaction(ANSWER) {
                Ok(()) => return Failed::Aborted(why),
                Err(error) => error,
            };
            if let Err(over) = self.out.rejected() {
                return over;
            }
            match &error {
                KafkaError::Transaction(inner) if inner.is_retriable() && !inner.is_fatal() => {
                    self.out.trouble(&error.to_string(), Duration::ZERO);
                }
                _ => return self.judge(&error),
            }
        }
    }

    fn judge(&self, error: &KafkaError) -> Failed {
        match error {
            KafkaError::Transaction(inner) if inner.is_fatal() => self.fatal(inner.code(), inner.string()),
            _ => Failed::Unsure(error.to_string()),
        }
    }

    /// What a fatal error means: another producer of our name, or a failure of this one's alone.
    fn fatal(&self, code: RDKafkaErrorCode, why: String) -> Failed {
        use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
        let inner = self.out.producer.client().fatal_error().map(|(code, _)| code);
        let fenced = |code| matches!(code, Fenced | ProducerFenced | InvalidProducerEpoch);
        if fenced(code) || inner.is_some_and(fenced) {
            return Failed::Fenced;
        }
        Failed::Unsure(why)
    }
}
