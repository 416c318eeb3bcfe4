//! Shards and records, as the API tells of them.

use std::cmp::Ordering;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use super::client::{Client, Failure};
use super::lanes::{KeyRange, hash_key};

/// A sequence number: up to 56 decimal digits, growing within a shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Sequence(pub String);

impl Ord for Sequence {
    /// As numbers: they have no zeros in front.
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl PartialOrd for Sequence {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    pub id: String,
    pub range: KeyRange,
    pub parents: Vec<String>,
    pub open: bool,
}

/// A record as it was put.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Record {
    #[serde(rename = "SequenceNumber")]
    pub sequence: Sequence,
    /// Milliseconds since the Unix epoch.
    #[serde(rename = "ApproximateArrivalTimestamp", deserialize_with = "from_seconds")]
    pub arrived_ms: u64,
    pub partition_key: String,
    #[serde(deserialize_with = "from_base64")]
    pub data: Vec<u8>,
}

impl Record {
    pub fn hash_key(&self) -> u128 {
        hash_key(&self.partition_key)
    }
}

fn from_seconds<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    Ok((f64::deserialize(from)?.max(0.0) * 1000.0).round() as u64)
}

fn from_base64<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
    STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)
}

/// What GetRecords answers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Fetched {
    pub records: Vec<Record>,
    pub next_shard_iterator: Option<String>,
    #[serde(default)]
    pub millis_behind_latest: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListShards {
    shards: Vec<Listed>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    shard_id: String,
    parent_shard_id: Option<String>,
    adjacent_parent_shard_id: Option<String>,
    hash_key_range: HashKeyRange,
    sequence_number_range: SequenceNumberRange,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HashKeyRange {
    starting_hash_key: String,
    ending_hash_key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SequenceNumberRange {
    ending_sequence_number: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    stream_description_summary: Summary,
}

/// What a stream is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Summary {
    /// Its full name (ARN).
    #[serde(rename = "StreamARN")]
    pub arn: String,
    /// How long it keeps its records.
    pub retention_period_hours: u64,
    /// When it was made, in seconds since the Unix epoch.
    #[serde(rename = "StreamCreationTimestamp")]
    pub created: f64,
}

impl Summary {
    pub fn retention_ms(&self) -> u64 {
        self.retention_period_hours * 3_600_000
    }

    /// Milliseconds since the Unix epoch.
    pub fn created_ms(&self) -> u64 {
        (self.created.max(0.0) * 1000.0) as u64
    }
}

/// What the stream is.
///
/// # Errors
/// When it is not there, or nobody tells.
pub(super) fn summary(client: &Client) -> Result<Summary, Failure> {
    let arguments = json!({ "StreamName": client.stream });
    let described: Described = client.call("DescribeStreamSummary", &arguments)?;
    Ok(described.stream_description_summary)
}

/// All shards of the stream that hold records, or may.
///
/// # Errors
/// When it is not there, or nobody tells.
pub(super) fn list(client: &Client) -> Result<Vec<Shard>, Failure> {
    let mut arguments = json!({ "StreamName": client.stream });
    let mut shards = Vec::new();
    loop {
        let page: ListShards = client.call("ListShards", &arguments)?;
        for listed in page.shards {
            shards.push(shard(listed).map_err(Failure::Wrong)?);
        }
        match page.next_token {
            Some(token) => arguments = json!({ "NextToken": token }),
            None => return Ok(shards),
        }
    }
}

fn shard(listed: Listed) -> Result<Shard, String> {
    let key = |text: &str| text.parse::<u128>().map_err(|_| format!("{text} is no hash key"));
    Ok(Shard {
        range: KeyRange {
            first: key(&listed.hash_key_range.starting_hash_key)?,
            last: key(&listed.hash_key_range.ending_hash_key)?,
        },
        id: listed.shard_id,
        parents: listed.parent_shard_id.into_iter().chain(listed.adjacent_parent_shard_id).collect(),
        open: listed.sequence_number_range.ending_sequence_number.is_none(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_understood() {
        let text = r#"{"Records":[{"ApproximateArrivalTimestamp":1795702319.338,"Data":"eyJuIjowfQ==",
            "EncryptionType":"NONE","PartitionKey":"k0","SequenceNumber":"4968"}],"MillisBehindLatest":7,
            "NextShardIterator":null,"ChildShards":null}"#;
        let fetched: Fetched = serde_json::from_str(text).unwrap();
        assert_eq!((fetched.millis_behind_latest, fetched.next_shard_iterator), (7, None));
        let record = &fetched.records[0];
        assert_eq!((record.arrived_ms, record.data.as_slice()), (1_795_702_319_338, &b"{\"n\":0}"[..]));
    }

    #[test]
    fn sequence_numbers_are_ordered_as_numbers() {
        let number = |text: &str| Sequence(text.into());
        assert!(number("9") < number("10") && number("10") < number("11"));
    }
}
