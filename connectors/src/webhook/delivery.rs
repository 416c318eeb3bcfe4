//! The thread that sends, one request after the other, until each is acknowledged or set aside.
//!
//! In: requests, in their order. Out: what became of each, in the two topics; and how far it has come, for those who
//! wait. Nothing here is a function of the job's inputs alone: it reads the clock and the answers of others.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use hmac::{Hmac, Mac};
use levada_types::{ConnectorError, WhenDurable};
use serde_json::json;
use sha2::Sha256;
use ureq::Agent;
use ureq::http::StatusCode;
use xxhash_rust::xxh3::xxh3_64;

use crate::delivered::{self, Place};
use crate::log::Writer;

/// The most requests that wait to be sent, and the most bytes of their bodies: then the job waits.
pub const QUEUE_REQUESTS: usize = 1024;
pub const QUEUE_BYTES: usize = 16 << 20;
/// The longest that is waited because the other side asks for it.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// How long the last requests may take when the job ends, while they are not acknowledged.
const FINISH_WITHIN: Duration = Duration::from_secs(30);
/// How much of an answer is read, for the reason.
const REASON_BYTES: u64 = 1024;

/// A request to be sent.
#[derive(Debug)]
pub struct Request {
    /// Its `Idempotency-Key`.
    pub key: String,
    /// The place of its last row.
    pub last: Place,
    /// How many rows it has.
    pub rows: u64,
    /// Its body.
    pub body: Vec<u8>,
}

/// How to send.
pub struct Target {
    pub sink: String,
    pub url: String,
    /// What of the address may be shown.
    pub shown: String,
    pub media_type: &'static str,
    pub secret: Option<Vec<u8>>,
    pub authorization: Option<String>,
    pub first_wait: Duration,
    pub longest_wait: Duration,
    pub agent: Agent,
}

/// The requests that wait, and how far the thread has come.
#[derive(Default)]
struct State {
    queue: VecDeque<Request>,
    queued_bytes: usize,
    /// How many requests were queued, and how many of them are done with.
    queued: u64,
    done: u64,
    /// The place of the last row that is done with.
    place: Option<Place>,
    waiting: Vec<(u64, WhenDurable)>,
    failed: Option<ConnectorError>,
    /// Since when nothing more comes.
    closing: Option<Instant>,
}

/// What the sink and the thread share.
#[derive(Default)]
pub struct Delivery {
    state: Mutex<State>,
    changed: Condvar,
}

/// What became of an attempt.
enum Attempt {
    Acknowledged(u16),
    /// For good, with the reason.
    Refused(u16, String),
    /// No request would fare better.
    Unauthorised(String),
    /// May go better later; when, if the other side says so.
    Again(String, Option<Duration>),
}

impl Delivery {
    /// One that is done with all rows up to `place`.
    pub fn after(place: Option<Place>) -> Arc<Delivery> {
        let state = Mutex::new(State { place, ..State::default() });
        Arc::new(Delivery { state, changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a request; waits for room.
    pub fn push(&self, request: Request) -> Result<(), ConnectorError> {
        let mut state = self.lock();
        while state.failed.is_none()
            && !state.queue.is_empty()
            && (state.queue.len() >= QUEUE_REQUESTS || state.queued_bytes + request.body.len() > QUEUE_BYTES)
        {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        state.queued_bytes += request.body.len();
        state.queued += 1;
        state.queue.push_back(request);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// The place of the last row that is done with.
    pub fn place(&self) -> Option<Place> {
        self.lock().place
    }

    /// Whether what is queued can still be delivered.
    pub fn check(&self) -> Result<(), ConnectorError> {
        self.lock().failed.clone().map_or(Ok(()), Err)
    }

    /// Calls `then` once everything queued so far is done with, or cannot be.
    pub fn when_done(&self, then: WhenDurable) {
        let mut state = self.lock();
        let outcome = match &state.failed {
            Some(error) => Err(error.clone()),
            None if state.done >= state.queued => Ok(()),
            None => {
                let queued = state.queued;
                state.waiting.push((queued, then));
                return;
            }
        };
        drop(state);
        then(outcome);
    }

    /// No more comes: the thread ends once all is done with, or [`FINISH_WITHIN`] after.
    pub fn close(&self) {
        self.lock().closing = Some(Instant::now());
        self.changed.notify_all();
    }

    fn settle(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let (mut due, mut later) = (Vec::new(), Vec::new());
        for (queued, then) in std::mem::take(&mut state.waiting) {
            let is_due = queued <= state.done || state.failed.is_some();
            if is_due { due.push((queued, then)) } else { later.push((queued, then)) }
        }
        state.waiting = later;
        let (done, failed) = (state.done, state.failed.clone());
        drop(state);
        self.changed.notify_all();
        for (queued, then) in due {
            then(if queued <= done { Ok(()) } else { failed.clone().map_or(Ok(()), Err) });
        }
    }

    /// The thread. `delivered` and `undelivered` are the two topics' writers.
    pub fn run(&self, target: &Target, delivered: &Writer, undelivered: &Writer) {
        while let Some(request) = self.next() {
            match self.deliver(target, &request, delivered, undelivered) {
                Ok(()) => self.settle(|state| {
                    state.done += 1;
                    state.place = Some(request.last);
                }),
                Err(error) => {
                    tracing::error!(sink = target.sink, %error, "the webhook has stopped");
                    self.settle(|state| state.failed = Some(error));
                    return;
                }
            }
        }
    }

    fn next(&self) -> Option<Request> {
        let mut state = self.lock();
        loop {
            if let Some(request) = state.queue.pop_front() {
                state.queued_bytes -= request.body.len();
                self.changed.notify_all();
                return Some(request);
            }
            if state.closing.is_some() {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn deliver(
        &self,
        target: &Target,
        request: &Request,
        delivered: &Writer,
        undelivered: &Writer,
    ) -> Result<(), ConnectorError> {
        let mut attempts = 0u32;
        let status = loop {
            attempts += 1;
            match target.attempt(request) {
                Attempt::Acknowledged(status) => break status,
                Attempt::Refused(status, reason) => {
                    tracing::warn!(
                        sink = target.sink,
                        url = target.shown,
                        status,
                        reason,
                        "a request was refused"
                    );
                    let body = String::from_utf8_lossy(&request.body);
                    let letter =
                        json!({ "key": request.key, "status": status, "reason": reason, "body": body });
                    note(undelivered, request, &letter.to_string(), true)?;
                    break status;
                }
                Attempt::Unauthorised(reason) => {
                    return Err(ConnectorError::configuration(format!(
                        "send to webhook {} at {}: {reason}; check its `bearer` and `secret`",
                        target.sink, target.shown
                    )));
                }
                Attempt::Again(reason, asked) => {
                    let wait = asked.unwrap_or_else(|| target.wait(&request.key, attempts));
                    let (sink, url) = (&target.sink, &target.shown);
                    tracing::warn!(
                        sink,
                        url,
                        reason,
                        attempts,
                        ?wait,
                        "a request is sent again after the wait"
                    );
                    self.pause(wait, target, &reason)?;
                }
            }
        };
        let told =
            json!({ "key": request.key, "status": status, "attempts": attempts, "rows": request.rows });
        note(delivered, request, &told.to_string(), false)
    }

    /// Waits, as long as there is time.
    fn pause(&self, wait: Duration, target: &Target, reason: &str) -> Result<(), ConnectorError> {
        let until = Instant::now() + wait;
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            let mut rest = until - now;
            if let Some(closing) = state.closing {
                let left = FINISH_WITHIN.saturating_sub(closing.elapsed());
                if left.is_zero() {
                    return Err(ConnectorError::outage(format!(
                        "send the last {} requests to webhook {} at {} within {} seconds: {reason}; with --state, \
                         they are sent when the job goes on",
                        state.queued - state.done,
                        target.sink,
                        target.shown,
                        FINISH_WITHIN.as_secs()
                    )));
                }
                rest = rest.min(left);
            }
            state = self.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Writes down what became of a request.
fn note(writer: &Writer, request: &Request, value: &str, durable: bool) -> Result<(), ConnectorError> {
    delivered::note(writer, request.last, now().as_millis() as i64, value, durable)
}

impl Target {
    fn attempt(&self, request: &Request) -> Attempt {
        let mut post = self
            .agent
            .post(&self.url)
            .header("content-type", self.media_type)
            .header("user-agent", "levada")
            .header("idempotency-key", format!("\"{}\"", request.key));
        if let Some(authorization) = &self.authorization {
            post = post.header("authorization", authorization);
        }
        if let Some(secret) = &self.secret {
            post = post.header("levada-signature", signature(secret, now().as_secs(), &request.body));
        }
        let mut response = match post.send(&request.body) {
            Ok(response) => response,
            Err(error) => return Attempt::Again(error.to_string(), None),
        };
        let status = response.status();
        if status.is_success() {
            // To its end, so that the connection can be used again; what it says is of no interest.
            let _ = response.body_mut().with_config().limit(REASON_BYTES).read_to_vec();
            return Attempt::Acknowledged(status.as_u16());
        }
        let asked = response.headers().get("retry-after").and_then(|value| retry_after(value.to_str().ok()?));
        let said = response.body_mut().with_config().limit(REASON_BYTES).lossy_utf8(true).read_to_string();
        let said = said.unwrap_or_default();
        let reason =
            format!("it answered {status}{}{}", if said.is_empty() { "" } else { ": " }, said.trim());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Attempt::Unauthorised(reason),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                Attempt::Again(reason, asked)
            }
            _ if status.is_server_error() => Attempt::Again(reason, asked),
            _ => Attempt::Refused(status.as_u16(), reason),
        }
    }

    /// The wait after so many attempts: twice as long each time, less up to half of it, so that those who failed
    /// together do not come back together. How much less depends on the request and the attempt alone.
    fn wait(&self, key: &str, attempts: u32) -> Duration {
        let doubled = self.first_wait.saturating_mul(1 << (attempts - 1).min(20)).min(self.longest_wait);
        let part = xxh3_64(format!("{key} {attempts}").as_bytes()) as f64 / u64::MAX as f64;
        doubled.mul_f64(1.0 - part / 2.0)
    }
}

/// The value of `levada-signature`.
pub fn signature(secret: &[u8], seconds: u64, body: &[u8]) -> String {
    // Keys of any length are right.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

/// `Retry-After`: seconds, or a date.
fn retry_after(text: &str) -> Option<Duration> {
    let wait = match text.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = DateTime::parse_from_rfc2822(text.trim()).ok()?.timestamp();
            Duration::from_secs(u64::try_from(date).ok()?).saturating_sub(now())
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// The clock, since the Unix epoch.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_time_and_body() {
        // As `printf '5.{}' | openssl dgst -sha256 -hmac key` says.
        let expected = "t=5,v1=9be615aec64f0d044b5ad6854ab1d893ec88617fb728d2149dcd3a3428e8c45d";
        assert_eq!(signature(b"key", 5, b"{}"), expected);
    }

    #[test]
    fn waits_grow_and_are_the_same_each_time() {
        let target = Target {
            sink: "s".into(),
            url: "http://localhost".into(),
            shown: "http://localhost".into(),
            media_type: "application/json",
            secret: None,
            authorization: None,
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(2),
            agent: Agent::new_with_defaults(),
        };
        for attempts in 1..40u32 {
            let most = Duration::from_millis(100 * (1 << (attempts - 1).min(10))).min(Duration::from_secs(2));
            let wait = target.wait("k", attempts);
            assert!(wait <= most && wait >= most / 2, "{attempts}: {wait:?}");
            assert_eq!(wait, target.wait("k", attempts));
        }
        assert_ne!(target.wait("k", 1), target.wait("l", 1));
    }

    #[test]
    fn when_to_come_again_is_seconds_or_a_date() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("99999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("soon"), None);
    }
}
