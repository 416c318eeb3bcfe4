//! Alerts over HTTP: which fire, which silences hold, and what somebody does about them.
//!
//! | address | body | answer |
//! | --- | --- | --- |
//! | `GET /v1/alerts` | | `{"alerts": […]}`: each with its `job`, `step`, `state`, labels and who has acknowledged it |
//! | `GET /v1/silences` | | `{"silences": […]}` |
//! | `POST /v1/alerts/acknowledge` | `matchers`, `fingerprint`, `group`, `by`, `comment`, `step` | 202, and where the action is |
//! | `POST /v1/silences` | `matchers`, `for` or `ends_at`, `starts_at`, `id`, `by`, `comment`, `step` | 202, with the `id` |
//! | `DELETE /v1/silences/{id}` | (`?by=`, `?step=`) | 202 |
//!
//! An action is a record of the topic that the job's step names (`actions`), taken as other events are: by the same writer,
//! within the same bounds, checked by the job's own decoder, answered once it is durable, and only if the gateway takes events
//! for that topic. It has its effect when the job reads it. Bodies are of the media type `application/json`, which no page of
//! another origin can send unasked.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use warp::Reply;
use warp::http::StatusCode;
use warp::reply::Response;

use super::Shared;
use super::events::blocking;
use super::ingest::{Reason, Refusal, append_record, body_of};
use super::problem::Problem;
use super::query::{self, Pairs};
use super::routes::json_body;
use crate::alerts::{Action, ActionTopic, Board, Desk, Kind, end_ms, time_ms};

/// The longest body.
const MAX_BODY_BYTES: usize = 16 << 10;
/// The most records of the history that one request reads.
const STEP_RECORDS: u64 = 200_000;

/// The alert steps of the jobs, and what was read of their history.
#[derive(Debug)]
pub struct Desks(Vec<(Desk, Arc<Mutex<Board>>)>);

impl Desks {
    pub fn new(desks: Vec<Desk>) -> Desks {
        Desks(desks.into_iter().map(|desk| (desk, Arc::default())).collect())
    }

    /// The topic of the actions of a step, or of the one that all steps have.
    fn topic(&self, step: Option<&str>) -> Result<&ActionTopic, Problem> {
        if self.0.is_empty() {
            return Err(none());
        }
        let desks = self.0.iter().map(|(desk, _)| desk);
        let meant: Vec<&Desk> = desks.filter(|desk| step.is_none_or(|step| step == desk.step)).collect();
        if let (Some(step), true) = (step, meant.is_empty()) {
            return Err(Problem::not_found(format!("no job here has an alert step {step:?}")));
        }
        let mut topics: Vec<&ActionTopic> = meant.iter().filter_map(|desk| desk.actions.as_ref()).collect();
        topics.dedup();
        match topics[..] {
            [topic] => Ok(topic),
            [] => Err(Problem::not_found("the alert step takes no actions from a topic")),
            _ => Err(Problem::bad_request("the alert steps have several topics of actions; name a `step`")),
        }
    }
}

fn none() -> Problem {
    Problem::not_found("no job here has an alert step: start the gateway with --job FILE")
}

/// What is listed.
#[derive(Clone, Copy, Debug)]
pub enum Shown {
    Alerts,
    Silences,
}

/// `GET /v1/alerts`, `GET /v1/silences`
pub async fn list(shared: Arc<Shared>, shown: Shown) -> Result<Vec<u8>, Problem> {
    if shared.desks.0.is_empty() {
        return Err(none());
    }
    let mut all: Vec<Value> = Vec::new();
    for (desk, board) in &shared.desks.0 {
        let mut board = Arc::clone(board).lock_owned().await;
        let (log, history) = (shared.log.clone(), desk.history.clone());
        let (left, found) = blocking(move || {
            let left = board.read_on(&log, &history, STEP_RECORDS)?;
            let found = match shown {
                Shown::Alerts => board.alerts(),
                Shown::Silences => board.silences(Action::now_ms()),
            };
            Ok((left, found))
        })
        .await?;
        if left > 0 {
            let problem = Problem::unavailable("the history is still being read; ask again");
            return Err(problem.with("records_left", left));
        }
        all.extend(found.into_iter().map(|mut one| {
            one["job"] = json!(desk.job);
            one["step"] = json!(desk.step);
            one
        }));
    }
    let name = match shown {
        Shown::Alerts => "alerts",
        Shown::Silences => "silences",
    };
    Ok(json!({ name: all }).to_string().into_bytes())
}

/// What a body says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    step: Option<String>,
    matchers: String,
    fingerprint: String,
    group: String,
    id: String,
    starts_at: Option<String>,
    ends_at: Option<String>,
    r#for: Option<String>,
    by: String,
    comment: String,
}

impl Asked {
    fn action(self, kind: Kind, now_ms: i64) -> Result<Action, Problem> {
        let of_silence =
            !self.id.is_empty() || self.starts_at.is_some() || self.ends_at.is_some() || self.r#for.is_some();
        let of_acknowledgement = !self.fingerprint.is_empty() || !self.group.is_empty();
        match kind {
            Kind::Acknowledge if of_silence => {
                return Err(Problem::bad_request(
                    "an acknowledgement has no `id`, `starts_at`, `ends_at` or `for`",
                ));
            }
            Kind::Silence if of_acknowledgement => {
                return Err(Problem::bad_request(
                    "a silence has no `fingerprint` or `group`; its `matchers` say what is meant",
                ));
            }
            _ => {}
        }
        let wrong = |field: &'static str| move |problem: String| bad_field(field, &problem);
        let starts_ms = self.starts_at.as_deref().map(time_ms).transpose().map_err(wrong("starts_at"))?;
        let ends_ms = match (self.ends_at, self.r#for) {
            (Some(_), Some(_)) => {
                return Err(Problem::bad_request("`ends_at` and `for` say the same; give one of them"));
            }
            (Some(ends_at), None) => Some(time_ms(&ends_at).map_err(wrong("ends_at"))?),
            (None, Some(long)) => Some(end_ms(starts_ms.unwrap_or(now_ms), &long).map_err(wrong("for"))?),
            (None, None) => None,
        };
        let Asked { matchers, fingerprint, group, id, by, comment, .. } = self;
        Ok(Action { kind, id, matchers, fingerprint, group, starts_ms, ends_ms, by, comment })
    }
}

fn bad_field(field: &str, problem: &str) -> Problem {
    let detail = format!("field `{field}`: {problem}");
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).with("field", field)
}

/// `POST /v1/alerts/acknowledge`, `POST /v1/silences`
pub async fn post<B: Buf>(
    shared: Arc<Shared>,
    kind: Kind,
    pairs: Pairs,
    media: Option<String>,
    client: IpAddr,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Response {
    let malformed = |problem: Problem| Refusal::new(Reason::Malformed, problem);
    let taken = async {
        query::nothing(pairs).map_err(malformed)?;
        let media = media.unwrap_or_default();
        if !media.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
            let problem =
                Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json");
            return Err(Refusal::new(Reason::MediaType, problem));
        }
        let body = body_of(&shared, client, body, MAX_BODY_BYTES).await?;
        // An object, and no array of its values, which serde would take too.
        let fields: Result<Map<String, Value>, _> = serde_json::from_slice(&body);
        let asked = fields.and_then(|fields| Asked::deserialize(Value::Object(fields)));
        let asked = asked
            .map_err(|error| malformed(Problem::bad_request(format!("the body cannot be read: {error}"))))?;
        let now_ms = Action::now_ms();
        let step = asked.step.clone();
        let action = asked.action(kind, now_ms).map_err(malformed)?;
        write(&shared, step.as_deref(), action, client, now_ms).await
    };
    taken.await.unwrap_or_else(|refusal| refusal.answer(&shared))
}

/// `DELETE /v1/silences/{id}`
pub async fn expire(shared: Arc<Shared>, id: String, pairs: Pairs, client: IpAddr) -> Response {
    let taken = async {
        let (by, step) = query::expire(pairs).map_err(|problem| Refusal::new(Reason::Malformed, problem))?;
        let id = percent_decode_str(&id).decode_utf8().map_err(|_| {
            Refusal::new(Reason::Malformed, Problem::bad_request("the id in the path is no UTF-8".to_owned()))
        })?;
        let id = id.into_owned();
        let action = Action { id, by: by.unwrap_or_default(), ..Action::new(Kind::Expire) };
        write(&shared, step.as_deref(), action, client, Action::now_ms()).await
    };
    taken.await.unwrap_or_else(|refusal| refusal.answer(&shared))
}

/// Writes an action down.
async fn write(
    shared: &Shared,
    step: Option<&str>,
    mut action: Action,
    client: IpAddr,
    now_ms: i64,
) -> Result<Response, Refusal> {
    let ActionTopic { topic, time } =
        shared.desks.topic(step).map_err(|problem| Refusal::new(Reason::NotOpen, problem))?;
    action
        .check(now_ms)
        .map_err(|(field, problem)| Refusal::new(Reason::BadRecords, bad_field(field, &problem)))?;
    let record = action.record(time, now_ms).to_string().into_bytes();
    let (partition, offset) = append_record(shared, topic, client, record, now_ms).await?;
    let mut answer = json!({ "topic": topic, "partition": partition, "offset": offset });
    if !action.id.is_empty() {
        answer["id"] = json!(action.id);
    }
    let mut response = json_body(answer.to_string().into_bytes()).into_response();
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}
