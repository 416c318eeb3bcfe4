//! What a job file says about Redis.

use std::fmt;

use levada_types::{ConnectorError, DURATION_PATTERN, parse_duration_ms};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::EntryId;
use crate::codec::timestamp;

/// The least `intake`: a chunk of a job, which a reader gives whole.
const MIN_INTAKE: usize = 4096;

/// Streams to read: each is a partition, in the order in which they are written here.
///
/// Do not delete single entries (XDEL) of a stream that a job reads; trimming is noticed, and is an error where it
/// has overtaken the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisSourceConfig {
    /// The server: `redis://HOST:PORT/DATABASE`, with TLS `rediss://`; `redis://USER:PASSWORD@HOST` logs in.
    pub url: RedisUrl,
    /// The stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Several streams.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<String>,
    /// The field of an entry that holds the record as JSON; `value` in the streams that jobs write. Without it, it
    /// is the one field of an entry that has but one; of another entry, its fields are the record's, as texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Where to begin: `"beginning"`, `"end"`, `{ id = "1700000000000-0" }` or `{ time = "2013-01-01T00:00:00Z" }`
    /// (by the clock of the server, which made the ids). A consumer group that is there already begins where it is.
    #[serde(default)]
    pub start: StartFrom,
    /// The consumer group whose member the job is: it shares the streams with the other members, each of which is
    /// given other entries, at least once. It needs `--state`, and a folder of its own for each member. It is
    /// created if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The job's name in the group, one of its own for each member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// A member takes over what another has been given and has not acknowledged for so long. Members acknowledge
    /// with each checkpoint, so this must be much longer than the time between two.
    #[serde(default = "default_claim_after")]
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub claim_after: String,
    /// How many entries of a stream wait for the job at most.
    #[serde(default = "default_intake")]
    #[schemars(range(min = 4096, max = 16777216))]
    pub intake: usize,
    /// What happens to what comes while so many wait: `"block"` leaves it in Redis until there is room (if it is
    /// trimmed there before, the job ends with an error); `"drop_oldest"` drops the oldest that waits, counts it and
    /// says so. The history that is there when the job begins is never dropped. What is dropped is gone before it is
    /// written down, so `--state` is refused with it.
    #[serde(default)]
    pub overflow: Overflow,
}

fn default_claim_after() -> String {
    "5m".into()
}

fn default_intake() -> usize {
    16_384
}

/// What a source does with what comes while its intake is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// Leaves it where it is.
    #[default]
    Block,
    /// Drops the oldest that waits.
    DropOldest,
}

/// Where a job that begins afresh begins to read each stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartFrom {
    /// With the first entry held.
    #[default]
    Beginning,
    /// With the first entry that is not there yet.
    End,
    /// With the first entry whose id is this or greater.
    Id(String),
    /// With the first entry that was added at or after this, RFC 3339.
    Time(String),
}

/// [`StartFrom`], understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Beginning,
    End,
    AtOrAfter(EntryId),
}

/// Streams to write. An entry has the fields `value` (the row as JSON, without its time column), `time` (its event
/// time in milliseconds) and, if the job names one, `key`; its id is the epoch and the place in it.
///
/// What is acknowledged is as durable as the server makes it: a crash of the server loses nothing only with
/// `appendfsync always`. A job that finds that a server has lost what was written ends with an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedisSinkConfig {
    /// The server: `redis://HOST:PORT/DATABASE`, with TLS `rediss://`; `redis://USER:PASSWORD@HOST` logs in.
    pub url: RedisUrl,
    /// The stream.
    pub stream: String,
    /// Writes so many streams instead, `STREAM.0`, `STREAM.1` and so on: a row goes to the one of its key, or, without
    /// a key, to the next one in turn.
    #[schemars(range(min = 1, max = 1024))]
    pub partitions: Option<u32>,
    /// The columns whose values are a row's key: rows of one key stay in one stream.
    pub key: Vec<String>,
    /// Trims each stream to about so many entries, the newest. A job goes on after a stop all the same, since a
    /// stream remembers its last id; a reader that has fallen further behind has lost entries.
    #[schemars(range(min = 1))]
    pub max_len: Option<u64>,
    /// Rows count as durable once so many replicas have them too.
    pub wait_replicas: Option<u32>,
}

/// The address of a server. What it says of a password is shown nowhere.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// Takes an address as it is written in a job file.
    pub fn new(url: impl Into<String>) -> RedisUrl {
        RedisUrl(url.into())
    }

    /// The address as it was written, with its password.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RedisUrl {
    /// Without user and password, and without the parameters, among which a password may stand.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        // A password may hold a slash by mistake, but nothing after the last @ belongs to it.
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        if scheme.is_empty() { f.write_str(place) } else { write!(f, "{scheme}://{place}") }
    }
}

impl fmt::Debug for RedisUrl {
    /// As it is displayed: what a job is recognised by does not change with its password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

impl RedisSourceConfig {
    /// The fields that say how it is reached and how patiently: a job is the same whatever they say.
    pub const REACHED_BY: &[&str] = &["url", "consumer", "claim_after"];

    /// A stream of a server, read from its beginning.
    pub fn new(url: impl Into<String>, stream: impl Into<String>) -> RedisSourceConfig {
        RedisSourceConfig {
            url: RedisUrl::new(url),
            stream: Some(stream.into()),
            streams: Vec::new(),
            field: None,
            start: StartFrom::default(),
            group: None,
            consumer: None,
            claim_after: default_claim_after(),
            intake: default_intake(),
            overflow: Overflow::default(),
        }
    }

    /// Whether a run of it cannot be repeated from its journal, and why.
    pub fn unrepeatable(&self) -> Option<&'static str> {
        (self.overflow == Overflow::DropOldest).then_some(
            "what `drop_oldest` drops is gone before it is written down, so a run cannot be repeated, which --state \
             is for; use `overflow = \"block\"`, or run it without --state",
        )
    }

    /// The streams; what is wrong with the configuration, and with which field.
    ///
    /// # Errors
    /// When something is.
    pub fn check(&self) -> Result<Vec<String>, (Option<&'static str>, String)> {
        let streams: Vec<String> = self.stream.iter().chain(&self.streams).cloned().collect();
        if streams.is_empty() {
            return Err((None, "the source has no `stream`".into()));
        }
        if self.stream.is_some() && !self.streams.is_empty() {
            return Err((Some("streams"), "a source has `stream` or `streams`, not both".into()));
        }
        for (number, stream) in streams.iter().enumerate() {
            if stream.is_empty() {
                return Err((Some("stream"), "a stream has a name".into()));
            }
            if streams[..number].contains(stream) {
                return Err((Some("streams"), format!("stream {stream} is there twice")));
            }
        }
        if self.intake < MIN_INTAKE {
            return Err((
                Some("intake"),
                format!("it is {MIN_INTAKE} at least, which is what a job takes at once"),
            ));
        }
        match (&self.group, &self.consumer) {
            (Some(_), None) => {
                return Err((
                    Some("group"),
                    "a member of a group has a name of its own: say `consumer`".into(),
                ));
            }
            (None, Some(_)) => return Err((Some("consumer"), "it is a name in a `group`: say which".into())),
            (Some(_), Some(_)) if self.overflow == Overflow::DropOldest => {
                return Err((
                    Some("overflow"),
                    "a group gives everything to somebody: nothing is dropped".into(),
                ));
            }
            _ => {}
        }
        self.claim_after_ms().map_err(|error| (Some("claim_after"), error))?;
        self.start().map_err(|error| (Some("start"), error.to_string()))?;
        Ok(streams)
    }

    pub(super) fn claim_after_ms(&self) -> Result<u64, String> {
        let ms = parse_duration_ms(&self.claim_after).map_err(|reason| reason.to_string())?;
        u64::try_from(ms).map_err(|_| "it is less than nothing".into())
    }

    pub(super) fn start(&self) -> Result<Start, ConnectorError> {
        let at = |id| Ok(Start::AtOrAfter(id));
        match &self.start {
            StartFrom::Beginning => Ok(Start::Beginning),
            StartFrom::End => Ok(Start::End),
            StartFrom::Id(text) => text.parse().map_or_else(
                |error| Err(ConnectorError::configuration(format!("start at {text:?}: {error}"))),
                at,
            ),
            StartFrom::Time(text) => match timestamp::parse(text.as_bytes()) {
                Ok(ms) => at(EntryId { ms: u64::try_from(ms).unwrap_or(0), sequence: 0 }),
                Err(_) => Err(ConnectorError::configuration(format!(
                    "start at {text:?}: it is no timestamp as in 2013-01-01T10:17:00Z"
                ))),
            },
        }
    }
}

impl RedisSinkConfig {
    /// The fields that say how it is reached and how patiently: a job is the same whatever they say.
    pub const REACHED_BY: &[&str] = &["url", "max_len", "wait_replicas"];

    /// The streams that the sink writes, in the order of their partitions.
    pub fn streams(&self) -> Vec<String> {
        match self.partitions {
            None => vec![self.stream.clone()],
            Some(count) => (0..count).map(|number| format!("{}.{number}", self.stream)).collect(),
        }
    }

    /// What is wrong, and with which field.
    ///
    /// # Errors
    /// When something is.
    pub fn check(&self) -> Result<(), (Option<&'static str>, String)> {
        if self.stream.is_empty() {
            return Err((None, "the sink has no `stream`".into()));
        }
        if self.url == RedisUrl::default() {
            return Err((None, "the sink has no `url`".into()));
        }
        if !(1..=1024).contains(&self.partitions.unwrap_or(1)) {
            return Err((Some("partitions"), "there are 1 to 1024 of them".into()));
        }
        if self.max_len == Some(0) {
            return Err((Some("max_len"), "a stream keeps at least one entry".into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        for (url, shown) in [
            ("redis://localhost", "redis://localhost"),
            ("redis://:s3cret@localhost:6379/2", "redis://localhost:6379/2"),
            ("rediss://me:s3/cr@t@localhost", "rediss://localhost"),
            ("unix:///run/redis?pass=s3cret", "unix:///run/redis"),
            ("me:s3cret@localhost", "localhost"),
        ] {
            assert_eq!(RedisUrl::new(url).to_string(), shown);
            let config = RedisSourceConfig::new(url, "s");
            assert!(!format!("{config:?}").contains("s3"), "{config:?}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        let good = RedisSourceConfig::new("redis://localhost", "s");
        assert_eq!(good.check(), Ok(vec!["s".into()]));
        let fields = |config: &RedisSourceConfig| config.check().unwrap_err().0;
        assert_eq!(fields(&RedisSourceConfig { stream: None, ..good.clone() }), None);
        assert_eq!(fields(&RedisSourceConfig { streams: vec!["t".into()], ..good.clone() }), Some("streams"));
        assert_eq!(fields(&RedisSourceConfig { group: Some("g".into()), ..good.clone() }), Some("group"));
        assert_eq!(
            fields(&RedisSourceConfig { consumer: Some("c".into()), ..good.clone() }),
            Some("consumer")
        );
        assert_eq!(fields(&RedisSourceConfig { intake: 10, ..good.clone() }), Some("intake"));
        let start = StartFrom::Id("soon".into());
        assert_eq!(fields(&RedisSourceConfig { start, ..good }), Some("start"));
    }
}
