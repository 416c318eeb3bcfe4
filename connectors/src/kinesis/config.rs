//! What a job file says about Amazon Kinesis.

use levada_types::{DURATION_PATTERN, parse_duration_ms};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codec::timestamp;
use crate::delivered;

/// The most lanes: each is a thread, and a partition of the job.
pub const MAX_LANES: u32 = 256;

/// A stream to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KinesisSourceConfig {
    /// The stream's name.
    pub stream: String,
    /// The region, as in `eu-central-1`; otherwise AWS_REGION, or what the profile says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Another address than the region's own: `https://HOST` or `http://HOST:PORT`, as for a VPC endpoint or a local
    /// Kinesis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Where the keys stand; otherwise they are looked for where AWS's own tools look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsFrom>,
    /// Where to begin: `"earliest"`, `"latest"` or `{ time = "2013-01-01T00:00:00Z" }` (by the time of arrival).
    #[serde(default)]
    pub start: StartFrom,
    /// How many partitions the stream is to the job: each takes an equal part of the hash keys, whatever becomes of the
    /// shards. By default as many as there are open shards when the job first runs. A shard that spans several lanes
    /// is read once for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub lanes: Option<u32>,
    /// How long to wait before a shard that had nothing new is asked again: 250 ms by default. A shard answers five
    /// times a second, to all that read it together.
    #[serde(default = "default_poll")]
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub poll: String,
    /// Has Kinesis push records to a consumer of its own (enhanced fan-out) instead of asking for them: no other reader
    /// slows it down, records come sooner, and it is paid for. A shard that several lanes read is asked nonetheless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fan_out: Option<FanOutConfig>,
}

/// A consumer of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FanOutConfig {
    /// Its name, one of its own for each job that reads the stream so. It is registered when the job first runs, and stays,
    /// and is paid for, until it is deregistered (`aws kinesis deregister-stream-consumer`).
    pub consumer: String,
}

fn default_poll() -> String {
    "250ms".into()
}

/// Where a job that begins afresh begins to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartFrom {
    /// With the first record that the stream still keeps (Kinesis calls it TRIM_HORIZON).
    #[default]
    Earliest,
    /// With the first record that comes from now on, by the clock of this machine.
    Latest,
    /// With the first record that arrived at or after this, RFC 3339.
    Time(String),
}

/// [`StartFrom`], understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "kinesis"), allow(dead_code))]
pub(super) enum Start {
    Earliest,
    Latest,
    /// Milliseconds since the Unix epoch.
    Time(i64),
}

/// Where the keys stand: never in the job file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialsFrom {
    /// In environment variables of these names.
    Env {
        /// The name of the variable with the access key's id.
        access_key_id: String,
        /// The name of the variable with the secret access key.
        secret_access_key: String,
        /// The name of the variable with the session token, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_token: Option<String>,
    },
    /// In the shared files `~/.aws/credentials` and `~/.aws/config`, in this profile.
    Profile(String),
}

/// A stream to write. A record is the row as JSON, with its identity as the first field (`id_field`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KinesisSinkConfig {
    /// The stream's name. It has to be there.
    pub stream: String,
    /// The region, as in `eu-central-1`; otherwise AWS_REGION, or what the profile says.
    pub region: Option<String>,
    /// Another address than the region's own: `https://HOST` or `http://HOST:PORT`, as for a VPC endpoint or a local
    /// Kinesis.
    pub endpoint: Option<String>,
    /// Where the keys stand; otherwise they are looked for where AWS's own tools look.
    pub credentials: Option<CredentialsFrom>,
    /// The columns whose values are a record's partition key: records of one key keep their order. Without it they are
    /// spread over the shards, in no order.
    pub key: Vec<String>,
    /// The field of a record with its identity, `JOB/SINK/RUN/EPOCH/POSITION`, by which a reader knows what it has seen:
    /// `_id` by default.
    pub id_field: Option<String>,
}

impl KinesisSourceConfig {
    /// The fields that say how it is reached and how patiently: a job is the same whatever they say.
    pub const REACHED_BY: &[&str] = &["region", "endpoint", "credentials", "poll", "fan_out"];

    /// What is wrong with it, and with which field.
    ///
    /// # Errors
    /// Then.
    pub fn check(&self) -> Result<(), (Option<&'static str>, String)> {
        check_place(&self.stream, self.region.as_deref(), self.endpoint.as_deref())?;
        if self.lanes.is_some_and(|lanes| !(1..=MAX_LANES).contains(&lanes)) {
            return Err((Some("lanes"), format!("there are 1 to {MAX_LANES} of them")));
        }
        if let Some(FanOutConfig { consumer }) = &self.fan_out
            && !is_name(consumer)
        {
            return Err((
                Some("fan_out"),
                "a consumer's name has 1 to 128 letters, digits, `_`, `.` and `-`".into(),
            ));
        }
        self.start().map_err(|reason| (Some("start"), reason))?;
        self.poll_ms().map_err(|reason| (Some("poll"), reason))?;
        Ok(())
    }

    pub(super) fn start(&self) -> Result<Start, String> {
        match &self.start {
            StartFrom::Earliest => Ok(Start::Earliest),
            StartFrom::Latest => Ok(Start::Latest),
            StartFrom::Time(text) => timestamp::parse(text.as_bytes())
                .map(Start::Time)
                .map_err(|_| format!("{text:?} is no timestamp as in 2013-01-01T10:17:00Z")),
        }
    }

    pub(super) fn poll_ms(&self) -> Result<u64, String> {
        match u64::try_from(parse_duration_ms(&self.poll)?) {
            Ok(ms) if ms > 0 => Ok(ms),
            _ => Err("it has to be longer than nothing".into()),
        }
    }
}

impl KinesisSinkConfig {
    /// The fields that say how it is reached and how patiently: a job is the same whatever they say.
    pub const REACHED_BY: &[&str] = &["region", "endpoint", "credentials"];

    /// What is wrong with it, and with which field.
    ///
    /// # Errors
    /// Then.
    pub fn check(&self) -> Result<(), (Option<&'static str>, String)> {
        if self.stream.is_empty() {
            return Err((None, "the sink has no `stream`".into()));
        }
        check_place(&self.stream, self.region.as_deref(), self.endpoint.as_deref())?;
        if self.id_field().is_empty() {
            return Err((Some("id_field"), "a field has a name".into()));
        }
        Ok(())
    }

    /// The field with a record's identity.
    pub fn id_field(&self) -> &str {
        self.id_field.as_deref().unwrap_or("_id")
    }

    /// The topics in which a sink keeps what became of its records.
    pub fn kept(job: &str, sink: &str) -> [String; 2] {
        delivered::names(job, sink)
    }
}

/// Whether it is a name as a stream or a consumer has one.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=128).contains(&name.len()) && name.bytes().all(allowed)
}

fn check_place(
    stream: &str,
    region: Option<&str>,
    endpoint: Option<&str>,
) -> Result<(), (Option<&'static str>, String)> {
    if !is_name(stream) {
        let what = match stream.starts_with("arn:") {
            true => "it is a name, not an ARN",
            false => "a stream's name has 1 to 128 letters, digits, `_`, `.` and `-`",
        };
        return Err((Some("stream"), what.into()));
    }
    let of_region = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if region.is_some_and(|region| region.is_empty() || !region.bytes().all(of_region)) {
        return Err((Some("region"), "a region is written as in `eu-central-1`".into()));
    }
    let Some(endpoint) = endpoint else { return Ok(()) };
    match endpoint.split_once("://") {
        Some(("http" | "https", host))
            if !host.is_empty() && !host.trim_end_matches('/').contains(['/', '@', '?']) =>
        {
            Ok(())
        }
        _ => Err((Some("endpoint"), "write it as `https://HOST` or `http://HOST:PORT`".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Result<KinesisSourceConfig, String> {
        let config: KinesisSourceConfig = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn what_is_wrong_is_said_with_the_field() {
        let field =
            |more: &str| source(&format!("{{\"stream\":\"s\"{more}}}")).unwrap().check().unwrap_err().0;
        assert_eq!(source(r#"{"stream":"s"}"#).unwrap().check(), Ok(()));
        assert_eq!(field(r#","lanes":0"#), Some("lanes"));
        assert_eq!(field(r#","start":{"time":"soon"}"#), Some("start"));
        assert_eq!(field(r#","poll":"0s""#), Some("poll"));
        assert_eq!(field(r#","fan_out":{"consumer":"the job"}"#), Some("fan_out"));
        assert_eq!(field(r#","region":"Frankfurt""#), Some("region"));
        assert_eq!(field(r#","endpoint":"localhost:4567""#), Some("endpoint"));
        let named =
            |stream: &str| KinesisSinkConfig { stream: stream.into(), ..KinesisSinkConfig::default() };
        assert_eq!(named("orders").check(), Ok(()));
        assert_eq!(named("").check().unwrap_err().0, None);
        let arn = named("arn:aws:kinesis:eu-central-1:1:stream/s").check().unwrap_err();
        assert_eq!(arn, (Some("stream"), "it is a name, not an ARN".into()));
        assert_eq!(named("so/so").check().unwrap_err().0, Some("stream"));
    }
}
