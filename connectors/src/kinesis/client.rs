//! The API of Kinesis: a POST of JSON, signed, an answer of JSON.
//!
//! Synchronous, one connection pool a client. What fails says what to do about it ([`Failure`]); waiting and trying
//! again is up to those who ask, for whom [`Patience`] keeps the time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use levada_types::ConnectorError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::Agent;

use super::config::CredentialsFrom;
use super::credentials::{Credentials, Surroundings};
use super::sign::{Scope, authorization};

/// How long a call may take: a full GetRecords is 10 MiB.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer: 10 MiB of records in base64, and what stands around them.
const ANSWER_BYTES: u64 = 64 << 20;
/// Keys are renewed so long before they end.
const RENEW_BEFORE_MS: i64 = 5 * 60 * 1000;
/// The first and the longest wait after a failure.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long a job that begins waits for a service that does not answer.
const BEGIN_WITHIN: Duration = Duration::from_secs(30);

/// Why a call brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Too much was asked for; slower.
    Throttled(String),
    /// The iterator is too old; get another one.
    ExpiredIterator,
    /// Out of reach, or not ready.
    Outage(String),
    /// An argument is wrong: what it names is not there any more, or never was.
    Invalid(String),
    /// What is asked for is not there.
    NotThere(String),
    /// Trying again cannot help.
    Wrong(String),
}

/// A stream of a region, and who asks for it.
pub(super) struct Client {
    pub stream: String,
    region: String,
    url: String,
    host: String,
    credentials: Option<CredentialsFrom>,
    keys: Mutex<Option<Credentials>>,
    agent: Agent,
}

/// A request as it is sent: its headers, `host` among them, sorted but for the signature, and its body.
pub(super) struct Signed {
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// What an error's body says.
#[derive(Deserialize, Default)]
struct Refusal {
    #[serde(default, rename = "__type")]
    kind: String,
    #[serde(default, alias = "Message")]
    message: String,
}

impl Client {
    /// A client; nothing is asked yet.
    ///
    /// # Errors
    /// When nothing tells the region.
    pub fn new(
        stream: &str,
        region: Option<&str>,
        endpoint: Option<&str>,
        credentials: Option<&CredentialsFrom>,
    ) -> Result<Client, Failure> {
        let region =
            region.map(str::to_string).or_else(|| surroundings(|outside| outside.region(credentials)));
        let region = region.ok_or_else(|| {
            Failure::Wrong("nothing says the region; say `region`, or set AWS_REGION".into())
        })?;
        let own = || {
            let china = if region.starts_with("cn-") { ".cn" } else { "" };
            format!("https://kinesis.{region}.amazonaws.com{china}")
        };
        let endpoint = endpoint.map_or_else(own, |endpoint| endpoint.trim_end_matches('/').to_string());
        let host = endpoint.split_once("://").map_or(endpoint.as_str(), |(_, host)| host);
        let host = match endpoint.starts_with("https") {
            true => host.trim_end_matches(":443"),
            false => host.trim_end_matches(":80"),
        };
        let agent = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build()
            .new_agent();
        Ok(Client {
            stream: stream.into(),
            host: host.into(),
            url: format!("{endpoint}/"),
            region,
            credentials: credentials.cloned(),
            keys: Mutex::new(None),
            agent,
        })
    }

    /// Calls `action`.
    ///
    /// # Errors
    /// When it brings nothing.
    pub fn call<T: DeserializeOwned>(&self, action: &str, arguments: &Value) -> Result<T, Failure> {
        let answer = match self.attempt(action, arguments) {
            // Keys can be renewed by others at any time.
            Err((Failure::Wrong(_), true)) => {
                *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = None;
                self.attempt(action, arguments).map_err(|(failure, _)| failure)?
            }
            other => other.map_err(|(failure, _)| failure)?,
        };
        serde_json::from_slice(&answer)
            .map_err(|error| Failure::Outage(format!("{action}: the answer is not understood: {error}")))
    }

    /// An answer, or why there is none, and whether the keys were too old.
    fn attempt(&self, action: &str, arguments: &Value) -> Result<Vec<u8>, (Failure, bool)> {
        let Signed { headers, body } = self.signed(action, arguments).map_err(|failure| (failure, false))?;
        let mut post = self.agent.post(&self.url);
        for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
            post = post.header(*name, value);
        }
        let away = |error: ureq::Error| (Failure::Outage(format!("{action}: {error}")), false);
        let mut answer = post.send(&body).map_err(away)?;
        let bytes = answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_vec().map_err(away)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(if bytes.is_empty() { b"null".to_vec() } else { bytes });
        }
        Err(refusal(action, status.as_u16(), &bytes))
    }

    /// A request that calls `action`.
    ///
    /// # Errors
    /// When there are no keys to sign it with.
    pub fn signed(&self, action: &str, arguments: &Value) -> Result<Signed, Failure> {
        let keys = self.keys()?;
        let body = arguments.to_string().into_bytes();
        let scope = Scope { region: &self.region, service: "kinesis", seconds: (now_ms() / 1000) as i64 };
        let mut headers = vec![
            ("content-type", "application/x-amz-json-1.1".to_string()),
            ("host", self.host.clone()),
            ("x-amz-date", scope.date()),
        ];
        headers.extend(keys.session_token.clone().map(|token| ("x-amz-security-token", token)));
        headers.push(("x-amz-target", format!("Kinesis_20131202.{action}")));
        let lines: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let signature = authorization(&keys, scope, "POST", "/", &lines, &body);
        headers.push(("authorization", signature));
        Ok(Signed { headers, body })
    }

    /// Where requests are posted to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Why a request was refused that was not sent by [`Client::call`].
    pub fn refused(&self, action: &str, status: u16, body: &[u8]) -> Failure {
        self.noted(refusal(action, status, body))
    }

    /// What an exception means that came in the midst of an answer.
    pub fn excepted(&self, action: &str, kind: &str, body: &[u8]) -> Failure {
        let Refusal { message, .. } = serde_json::from_slice(body).unwrap_or_default();
        self.noted(understand(action, 400, kind, &message))
    }

    /// Forgets keys that were too old, so that the next attempt looks for others.
    fn noted(&self, (failure, too_old): (Failure, bool)) -> Failure {
        match failure {
            Failure::Wrong(why) if too_old => {
                *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Failure::Outage(why)
            }
            failure => failure,
        }
    }

    fn keys(&self) -> Result<Credentials, Failure> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let soon = now_ms() as i64 + RENEW_BEFORE_MS;
        if let Some(keys) = keys.as_ref().filter(|keys| keys.expires_ms.is_none_or(|end| end > soon)) {
            return Ok(keys.clone());
        }
        let found = surroundings(|outside| outside.credentials(self.credentials.as_ref()));
        let found = found.map_err(|error| match error.blame {
            levada_types::Blame::Outage => Failure::Outage(error.message),
            _ => Failure::Wrong(error.message),
        })?;
        Ok(keys.insert(found).clone())
    }
}

/// Asks for a job that begins: waits for a service that is away for a while.
///
/// # Errors
/// When it does not answer for long, or refuses. `what` finishes the sentence "failed to …".
pub(super) fn patiently<T>(what: &str, ask: impl Fn() -> Result<T, Failure>) -> Result<T, ConnectorError> {
    let until = Instant::now() + BEGIN_WITHIN;
    let mut patience = Patience::default();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(Failure::Throttled(why) | Failure::Outage(why)) if Instant::now() < until => {
                patience.failed(&format!("failed to {what}: {why}"));
                patience.pause(LONGEST_WAIT);
            }
            Err(failure) => return Err(failure.error(what)),
        }
    }
}

/// What an answer means that is none, and whether the keys were too old.
fn refusal(action: &str, status: u16, body: &[u8]) -> (Failure, bool) {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let kind = refusal.kind.rsplit('#').next().unwrap_or_default();
    understand(action, status, kind, &refusal.message)
}

/// What a refusal means, and whether the keys were too old.
fn understand(action: &str, status: u16, kind: &str, message: &str) -> (Failure, bool) {
    let colon = if message.is_empty() { "" } else { ": " };
    let said = if kind.is_empty() { format!("it answered {status}") } else { kind.to_string() };
    let why = format!("{action}: {said}{colon}{message}");
    let failure = match kind {
        "ProvisionedThroughputExceededException"
        | "LimitExceededException"
        | "KMSThrottlingException"
        | "ThrottlingException" => Failure::Throttled(why),
        "ExpiredIteratorException" => Failure::ExpiredIterator,
        // While a stream is made or changed, or a shard of it is subscribed to already.
        "ResourceInUseException" | "InternalFailure" | "InternalFailureException" | "ServiceUnavailable" => {
            Failure::Outage(why)
        }
        "InvalidArgumentException" => Failure::Invalid(why),
        "ResourceNotFoundException" => Failure::NotThere(why),
        "ExpiredTokenException" | "ExpiredToken" => return (Failure::Wrong(why), true),
        _ if status == 429 => Failure::Throttled(why),
        _ if status >= 500 || status == 408 => Failure::Outage(why),
        _ => Failure::Wrong(why),
    };
    (failure, false)
}

impl Failure {
    /// As an error that ends a job. `what` finishes the sentence "failed to …".
    pub fn error(self, what: &str) -> ConnectorError {
        match self {
            Failure::Throttled(why) | Failure::Outage(why) => {
                ConnectorError::outage(format!("{what}: {why}"))
            }
            Failure::ExpiredIterator => {
                ConnectorError::outage(format!("{what}: its iterators end before they are used"))
            }
            Failure::Invalid(why) | Failure::NotThere(why) | Failure::Wrong(why) => {
                ConnectorError::configuration(format!("{what}: {why}"))
            }
        }
    }
}

/// Waits that grow: twice as long after each failure.
#[derive(Debug, Default)]
pub(super) struct Patience {
    failures: u32,
    until: Option<Instant>,
}

impl Patience {
    /// Notes a failure and says it.
    pub fn failed(&mut self, why: &str) {
        let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(20)).min(LONGEST_WAIT);
        self.failures += 1;
        self.until = Some(Instant::now() + wait);
        tracing::warn!("{why}; trying again in {wait:?} (failure {})", self.failures);
    }

    /// Notes that it works.
    pub fn worked(&mut self, what: &str) {
        if self.failures > 0 {
            tracing::info!("{what} answers again");
        }
        *self = Patience::default();
    }

    /// Until when nothing is to be tried.
    pub fn until(&self) -> Option<Instant> {
        self.until.filter(|until| *until > Instant::now())
    }

    /// Waits for it, at most so long.
    pub fn pause(&self, most: Duration) {
        if let Some(until) = self.until() {
            pause(until.saturating_duration_since(Instant::now()).min(most));
        }
    }
}

/// Waits. (A wake-up before time only has the caller look around earlier.)
pub(super) fn pause(wait: Duration) {
    if !wait.is_zero() {
        std::thread::park_timeout(wait);
    }
}

/// The clock: milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

fn surroundings<R>(ask: impl FnOnce(&Surroundings<'_>) -> R) -> R {
    ask(&Surroundings { variable: &|name| std::env::var(name).ok() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let kind = |status, kind| understand("GetRecords", status, kind, "why").0;
        let why = |kind: &str| format!("GetRecords: {kind}: why");
        let throttled = "ProvisionedThroughputExceededException";
        assert_eq!(kind(400, throttled), Failure::Throttled(why(throttled)));
        assert_eq!(kind(400, "ExpiredIteratorException"), Failure::ExpiredIterator);
        assert_eq!(kind(503, ""), Failure::Outage(why("it answered 503")));
        let denied = Failure::Wrong(why("AccessDeniedException"));
        assert_eq!(kind(400, "AccessDeniedException"), denied);
        assert!(understand("PutRecords", 400, "ExpiredTokenException", "").1);
        let error = denied.error("read stream s of r").to_string();
        assert_eq!(error, "failed to read stream s of r: GetRecords: AccessDeniedException: why");
    }

    #[test]
    fn the_address_is_that_of_the_region_or_the_one_that_is_said() {
        let at = |region: &str, endpoint| {
            let client = Client::new("s", Some(region), endpoint, None).unwrap();
            (client.url, client.host)
        };
        let expected = |url: &str, host: &str| (url.to_string(), host.to_string());
        let own = "kinesis.eu-central-1.amazonaws.com";
        assert_eq!(at("eu-central-1", None), expected(&format!("https://{own}/"), own));
        assert_eq!(at("cn-north-1", None).1, "kinesis.cn-north-1.amazonaws.com.cn");
        let local = Some("http://127.0.0.1:4568/");
        assert_eq!(at("r", local), expected("http://127.0.0.1:4568/", "127.0.0.1:4568"));
        assert_eq!(at("r", Some("https://vpce.example:443")).1, "vpce.example");
    }
}
