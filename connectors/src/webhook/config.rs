//! What a job file says about a webhook.

use std::path::PathBuf;
use std::time::Duration;

use levada_types::{ConnectorError, parse_duration_ms};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::body::{Part, template};
use crate::delivered;
use crate::https::check_url;
use crate::secret::Secret;

/// Of whom it is told what is wrong with a secret or a certificate.
pub(super) const WHOSE: &str = "the webhook's";

/// The most events of a request.
const MAX_BATCH: u32 = 10_000;

/// An HTTP address to send to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookSinkConfig {
    /// The address: `https://…` or `http://…`.
    pub url: Option<String>,
    /// Where the address stands, if it is a secret itself, as those of Slack and Teams are.
    pub url_from: Option<Secret>,
    /// What a body is.
    pub message: MessageForm,
    /// The text of a `slack` or `teams` message, with columns in braces: `"{machine} is at {mean}"`. A brace is
    /// written twice.
    pub text: Option<String>,
    /// How many rows of an epoch one request carries at most, as an array; without it, each goes alone, as an object.
    #[schemars(range(min = 1, max = 10_000))]
    pub batch: Option<u32>,
    /// Where the key stands that requests are signed with; without it they are not.
    pub secret: Option<Secret>,
    /// Where the token stands that is sent as `Authorization: Bearer TOKEN`.
    pub bearer: Option<Secret>,
    /// A file with the certificates (PEM) of the authorities that are trusted, instead of the public ones: for an
    /// address within a company.
    pub ca: Option<PathBuf>,
    /// How long a request may take; 10 s by default.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub timeout: Option<String>,
    /// How long to wait before the second attempt; 500 ms by default, and twice as long each further time.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub backoff: Option<String>,
    /// The longest wait between two attempts; 1 minute by default. What the other side asks for by `Retry-After` is
    /// waited for beyond it, up to an hour.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub max_backoff: Option<String>,
}

/// What a body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MessageForm {
    /// The row as a JSON object.
    #[default]
    Json,
    /// A CloudEvent in structured mode, whose data is the row.
    Cloudevents,
    /// A message for Slack's incoming webhooks.
    Slack,
    /// A message with a card for Microsoft Teams' workflows.
    Teams,
}

impl WebhookSinkConfig {
    /// The fields that say how it is reached and how patiently: a job is the same whatever they say.
    pub const REACHED_BY: &[&str] =
        &["url", "url_from", "secret", "bearer", "ca", "timeout", "backoff", "max_backoff"];

    /// The topics in which a sink keeps what became of its requests.
    pub fn kept(job: &str, sink: &str) -> [String; 2] {
        delivered::names(job, sink)
    }

    /// The columns that stand in `text`.
    ///
    /// # Errors
    /// When a brace of it stands alone.
    pub fn columns(&self) -> Result<Vec<String>, String> {
        let parts = template(self.text.as_deref().unwrap_or_default())?;
        let column = |part| if let Part::Column(name) = part { Some(name) } else { None };
        Ok(parts.into_iter().filter_map(column).collect())
    }

    /// What is wrong with it, and with which field.
    ///
    /// # Errors
    /// Then.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        match (&self.url, &self.url_from) {
            (Some(url), None) => check_url(url).map_err(|reason| ("url", reason))?,
            (None, Some(_)) => {}
            (None, None) => return Err(("url", "the webhook has no `url`".into())),
            (Some(_), Some(_)) => return Err(("url_from", "there is a `url` too; one of them".into())),
        }
        let is_text = matches!(self.message, MessageForm::Slack | MessageForm::Teams);
        match (&self.text, is_text) {
            (None, true) => return Err(("text", "the message has no `text`".into())),
            (Some(_), false) => {
                return Err(("text", "a `text` is for `message = \"slack\"` or `\"teams\"`".into()));
            }
            _ => {}
        }
        self.columns().map_err(|reason| ("text", reason))?;
        if self.batch.is_some_and(|batch| !(1..=MAX_BATCH).contains(&batch)) {
            return Err(("batch", format!("a batch is of 1 to {MAX_BATCH} rows")));
        }
        if is_text && self.batch.is_some() {
            return Err(("batch", "a message is of one row".into()));
        }
        for (field, text) in
            [("timeout", &self.timeout), ("backoff", &self.backoff), ("max_backoff", &self.max_backoff)]
        {
            duration(text.as_ref(), Duration::ZERO).map_err(|reason| (field, reason))?;
        }
        Ok(())
    }

    /// The address.
    pub(super) fn address(&self) -> Result<String, ConnectorError> {
        let url = match (&self.url, &self.url_from) {
            (Some(url), _) => url.clone(),
            (None, Some(from)) => String::from_utf8_lossy(&from.read(WHOSE)?).into_owned(),
            (None, None) => String::new(),
        };
        check_url(&url).map_err(|why| ConnectorError::configuration(format!("send to a webhook: {why}")))?;
        Ok(url)
    }

    pub(super) fn timeout(&self) -> Duration {
        duration(self.timeout.as_ref(), Duration::from_secs(10)).unwrap_or_default()
    }

    /// The first wait and the longest.
    pub(super) fn waits(&self) -> (Duration, Duration) {
        let first = duration(self.backoff.as_ref(), Duration::from_millis(500)).unwrap_or_default();
        let most = duration(self.max_backoff.as_ref(), Duration::from_secs(60)).unwrap_or_default();
        (first, most.max(first))
    }
}

fn duration(text: Option<&String>, otherwise: Duration) -> Result<Duration, String> {
    let Some(text) = text else { return Ok(otherwise) };
    match u64::try_from(parse_duration_ms(text)?) {
        Ok(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err("it has to be longer than nothing".into()),
    }
}
