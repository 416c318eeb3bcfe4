//! Reads of topics that are no streams: what topics there are, and records by offset.

use std::sync::Arc;

use levada_connectors::log::{Bounds, Log, LogError, Start, TopicInfo};
use serde_json::{Value, json};

use super::Shared;
use super::envelope::write_envelope;
use super::events::blocking;
use super::problem::Problem;

/// The most records of a page.
pub const MAX_LIMIT: usize = 1000;
/// A page stops after this much, however many records were asked for.
const PAGE_BYTES: usize = 4 << 20;

/// `GET /v1/topics`
pub async fn topics(shared: Arc<Shared>) -> Result<Vec<u8>, Problem> {
    let log = shared.log.clone();
    let topics = blocking(move || log.topics()).await?;
    let topics: Vec<Value> = topics.iter().map(topic_json).collect();
    Ok(json!({ "topics": topics }).to_string().into_bytes())
}

/// `GET /v1/topics/{topic}`
pub async fn topic(shared: Arc<Shared>, name: String) -> Result<Vec<u8>, Problem> {
    let log = shared.log.clone();
    let info = blocking(move || log.topic(&name)?.info()).await?;
    Ok(topic_json(&info).to_string().into_bytes())
}

fn topic_json(info: &TopicInfo) -> Value {
    let partitions: Vec<Value> = info
        .partitions
        .iter()
        .map(|held| json!({ "partition": held.partition, "first": held.first, "next": held.next, "bytes": held.bytes }))
        .collect();
    json!({ "name": info.name, "created_ms": info.created_ms, "partitions": partitions })
}

/// `GET /v1/topics/{topic}/records`: up to `limit` records of a partition from an offset on; without one,
/// from the first record held.
pub async fn page(
    shared: Arc<Shared>,
    topic: String,
    partition: u32,
    from: Option<u64>,
    limit: usize,
) -> Result<Vec<u8>, Problem> {
    let log = shared.log.clone();
    Ok(blocking(move || read_page(&log, &topic, partition, from, limit)).await?)
}

fn read_page(
    log: &Log,
    name: &str,
    partition: u32,
    from: Option<u64>,
    limit: usize,
) -> Result<Vec<u8>, LogError> {
    let topic = log.topic(name)?;
    let mut reader = topic.reader(partition, from.map_or(Start::Beginning, Start::Offset))?;
    let fetched = reader.read(limit, PAGE_BYTES)?;
    let Bounds { first, next } = reader.bounds()?;
    let head = json!({ "topic": name, "partition": partition, "first": first, "next": next, "next_from": reader.position() });
    let mut body = head.to_string().into_bytes();
    body.pop();
    body.extend_from_slice(b",\"records\":[");
    for (index, record) in fetched.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        write_envelope(&mut body, name, partition, &record);
    }
    body.extend_from_slice(b"]}");
    Ok(body)
}
