//! `POST /v1/topics/{topic}/events`: from a request to its answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes};
use futures_util::Stream;
use levada_connectors::log::LogError;
use serde_json::{Value, json};
use warp::Reply;
use warp::http::header::{HeaderName, HeaderValue};
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::asked::Asked;
use super::events::{Bad, Event, Events};
use super::writer::{Append, Appended, NotAppended};
use super::{OpenTopic, body};
use crate::gateway::Shared;
use crate::gateway::metrics::{OfReason, OfTopic};
use crate::gateway::problem::Problem;
use crate::gateway::query::Pairs;
use crate::gateway::routes::json_body;

/// A body of more than this is read and checked on a thread that may take its time: some 100 µs are none.
const INLINE_BYTES: usize = 64 << 10;
/// The most bad records that an answer lists; it says how many there are in all.
const MAX_LISTED: usize = 100;

/// Why a request was refused, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The topic does not take events.
    NotOpen,
    /// Headers, parameters or the body cannot be understood.
    Malformed,
    /// The body's media type is unknown.
    MediaType,
    /// The body is too long.
    BodyTooLarge,
    /// There are too many records.
    TooManyRecords,
    /// There are bad records.
    BadRecords,
    /// The client sends too much.
    Rate,
    /// Too much is waiting.
    QueueFull,
    /// The key was used for another request.
    KeyReused,
    /// The log refused.
    NotWritten,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Reason::NotOpen => "not_open",
            Reason::Malformed => "malformed",
            Reason::MediaType => "media_type",
            Reason::BodyTooLarge => "body_too_large",
            Reason::TooManyRecords => "too_many_records",
            Reason::BadRecords => "bad_records",
            Reason::Rate => "rate",
            Reason::QueueFull => "queue_full",
            Reason::KeyReused => "key_reused",
            Reason::NotWritten => "not_written",
        }
    }
}

/// A request that is not served.
#[derive(Debug)]
pub struct Refusal {
    reason: Reason,
    problem: Problem,
}

impl Refusal {
    /// Why, for the metrics and for the client.
    pub fn new(reason: Reason, problem: Problem) -> Refusal {
        Refusal { reason, problem }
    }

    /// Counts it, and answers.
    pub(in crate::gateway) fn answer(self, shared: &Shared) -> Response {
        shared.metrics.ingest_refused.get_or_create(&OfReason { reason: self.reason.name() }).inc();
        self.problem.into_response()
    }
}

/// Takes the events of a request.
pub(in crate::gateway) async fn post<B: Buf>(
    shared: Arc<Shared>,
    topic: String,
    pairs: Pairs,
    headers: HeaderMap,
    client: IpAddr,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Response {
    match take(&shared, &topic, pairs, &headers, client, body).await {
        Ok(response) => response,
        Err(refusal) => refusal.answer(&shared),
    }
}

/// The body of a request that is no event, of up to `max_bytes`, counted as a request of its client.
pub(in crate::gateway) async fn body_of<B: Buf>(
    shared: &Shared,
    client: IpAddr,
    stream: impl Stream<Item = Result<B, warp::Error>>,
    max_bytes: usize,
) -> Result<Bytes, Refusal> {
    shared.ingest.rates.request(client).map_err(|wait| too_much("requests", wait))?;
    let (bytes, _) = body::read(stream, max_bytes, &shared.ingest.waiting).await?;
    Ok(bytes)
}

/// Appends a record that the gateway has made of a request; its partition and offset, once it is durable.
pub(in crate::gateway) async fn append_record(
    shared: &Shared,
    topic: &str,
    client: IpAddr,
    value: Vec<u8>,
    time_ms: i64,
) -> Result<(u32, u64), Refusal> {
    let Some(open) = shared.ingest.topics.get(topic) else { return Err(not_open(topic)) };
    shared.ingest.rates.records(client, 1).map_err(|wait| too_much("records", wait))?;
    let body = Bytes::from(value);
    let event = Event { index: 0, value: 0..body.len(), key: None, time_ms, headers: Vec::new() };
    let mut events = Events { body, good: vec![event], bad: Vec::new() };
    open.set_aside(&mut events)?;
    if !events.bad.is_empty() {
        return Err(bad_records(&events, false));
    }
    let append = Append { body: events.body.clone(), events: std::mem::take(&mut events.good), key: None };
    let full =
        || Refusal::new(Reason::QueueFull, Problem::unavailable("more requests wait than the gateway holds"));
    let appended =
        open.queue.push(append).ok_or_else(full)?.await.map_err(|_| full())?.map_err(not_appended)?;
    let label = OfTopic { topic: topic.to_owned() };
    shared.metrics.ingest_requests.get_or_create(&label).inc();
    shared.metrics.ingest_records.get_or_create(&label).inc();
    let (partition, first, _) = appended.parts.first().copied().unwrap_or_default();
    Ok((partition, first))
}

async fn take<B: Buf>(
    shared: &Arc<Shared>,
    topic: &str,
    pairs: Pairs,
    headers: &HeaderMap,
    client: IpAddr,
    stream: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Response, Refusal> {
    let ingest = &shared.ingest;
    let Some(open) = ingest.topics.get(topic) else { return Err(not_open(topic)) };
    ingest.rates.request(client).map_err(|wait| too_much("requests", wait))?;
    let asked = Asked::new(pairs, headers)?;
    let (bytes, room) = body::read(stream, ingest.config.max_body_bytes, &ingest.waiting).await?;
    let started = Instant::now();
    let length = bytes.len();
    let key = asked.request_key(&bytes);
    let partial = asked.partial;
    // All of it was taken: a schema that has changed since does not take that back.
    let taken = !partial && key.as_ref().is_some_and(|key| open.queue.knows(key));
    let max_records = ingest.config.max_records;
    let read = {
        let (shared, topic) = (Arc::clone(shared), topic.to_owned());
        move || -> Result<Events, Refusal> {
            let mut events = Events::read(&asked, bytes, max_records, now_ms())?;
            if let Some(open) = shared.ingest.topics.get(&topic).filter(|_| !taken) {
                open.set_aside(&mut events)?;
            }
            Ok(events)
        }
    };
    let mut events = if length <= INLINE_BYTES {
        read()?
    } else {
        tokio::task::spawn_blocking(read).await.map_err(|error| {
            tracing::error!(%error, "a body could not be read");
            let problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the body could not be read");
            Refusal::new(Reason::Malformed, problem)
        })??
    };
    ingest.rates.records(client, events.len()).map_err(|wait| too_much("records", wait))?;
    if !events.bad.is_empty() && (!partial || events.good.is_empty()) {
        return Err(bad_records(&events, partial));
    }
    let records = events.good.len();
    let append = Append { body: events.body.clone(), events: std::mem::take(&mut events.good), key };
    let full =
        || Refusal::new(Reason::QueueFull, Problem::unavailable("more requests wait than the gateway holds"));
    let outcome = open.queue.push(append).ok_or_else(full)?.await.map_err(|_| full())?;
    drop(room);
    let appended = outcome.map_err(not_appended)?;
    let label = OfTopic { topic: topic.to_owned() };
    let metrics = &shared.metrics;
    metrics.ingest_requests.get_or_create(&label).inc();
    if !appended.repeated {
        metrics.ingest_records.get_or_create(&label).inc_by(records as u64);
        metrics.ingest_bytes.get_or_create(&label).inc_by(length as u64);
    }
    metrics.ingest_bad_records.get_or_create(&label).inc_by(events.bad.len() as u64);
    metrics.ingest_durable.get_or_create(&label).observe(started.elapsed().as_secs_f64());
    Ok(answer(topic, &appended, partial.then_some(&events.bad)))
}

impl OpenTopic {
    /// Moves what no job could use from the good events to the bad.
    fn set_aside(&self, events: &mut Events) -> Result<(), Refusal> {
        let found = self.check.bad(events).map_err(|error| {
            tracing::error!(%error, "records could not be checked");
            let problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the records could not be checked");
            Refusal::new(Reason::NotWritten, problem)
        })?;
        if !found.is_empty() {
            let is_bad = |index| found.binary_search_by_key(&index, |bad| bad.index).is_ok();
            events.good.retain(|event| !is_bad(event.index));
            events.bad.extend(found);
            events.bad.sort_by_key(|bad| bad.index);
        }
        Ok(())
    }
}

fn answer(topic: &str, appended: &Appended, bad: Option<&Vec<Bad>>) -> Response {
    let parts: Vec<Value> = appended
        .parts
        .iter()
        .map(|(partition, first, next)| json!({ "partition": partition, "first": first, "next": next }))
        .collect();
    let records: u64 = appended.parts.iter().map(|(_, first, next)| next - first).sum();
    let mut answer = json!({ "topic": topic, "records": records, "partitions": parts });
    if let Some(bad) = bad {
        answer["refused"] = listed(bad);
        answer["refused_records"] = json!(bad.len());
    }
    let mut response = json_body(answer.to_string().into_bytes());
    if appended.repeated {
        let name = HeaderName::from_static("idempotent-replayed");
        response.headers_mut().insert(name, HeaderValue::from_static("true"));
    }
    response
}

fn listed(bad: &[Bad]) -> Value {
    let one = |bad: &Bad| {
        let mut one = json!({ "index": bad.index, "reason": bad.reason });
        let named = bad.reason.strip_prefix("field `").and_then(|rest| rest.split_once('`'));
        if let Some((field, _)) = named {
            one["field"] = json!(field);
        }
        if let Some(reader) = &bad.reader {
            one["reader"] = json!(reader);
        }
        one
    };
    bad.iter().take(MAX_LISTED).map(one).collect()
}

fn bad_records(events: &Events, partial: bool) -> Refusal {
    let (bad, all) = (events.bad.len(), events.len());
    let first =
        events.bad.first().map(|bad| format!(" (record {}: {})", bad.index, bad.reason)).unwrap_or_default();
    let rest = match (all - bad, partial) {
        (0, _) => "so nothing was taken",
        (_, true) => "so nothing was taken",
        (_, false) => "so nothing was taken; ?partial=true takes the others",
    };
    let detail = format!("{bad} of {all} records cannot be used{first}, {rest}");
    let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        .with("refused", listed(&events.bad))
        .with("refused_records", bad);
    Refusal::new(Reason::BadRecords, problem)
}

fn not_open(topic: &str) -> Refusal {
    let detail = format!("topic {topic} takes no events here: start the gateway with --ingest {topic}");
    Refusal::new(Reason::NotOpen, Problem::new(StatusCode::FORBIDDEN, detail))
}

fn too_much(what: &str, wait: Duration) -> Refusal {
    let detail = format!("there were more {what} from this address than it may send in a second");
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, detail);
    Refusal::new(Reason::Rate, problem.retry_after(wait))
}

fn not_appended(why: NotAppended) -> Refusal {
    match why {
        NotAppended::KeyReused => {
            let detail = "this idempotency-key was used for another request; take a new key for each";
            Refusal::new(Reason::KeyReused, Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
        }
        NotAppended::Log(LogError::Record { index, reason }) => {
            let detail = format!("record {index} cannot be held: {reason}");
            Refusal::new(Reason::BadRecords, Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
        }
        NotAppended::Log(error) => {
            tracing::error!(%error, "records could not be written");
            let status = if error.is_retryable() {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::INTERNAL_SERVER_ERROR
            };
            let detail = "the records could not be written; the gateway's log says why";
            Refusal::new(Reason::NotWritten, Problem::new(status, detail))
        }
    }
}

/// The clock: what a record that has no time of its own was sent at.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
