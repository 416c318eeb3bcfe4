//! What went wrong, for a program: RFC 9457, `application/problem+json`.

use std::convert::Infallible;
use std::time::Duration;

use levada_connectors::log::LogError;
use serde::Serialize;
use serde_json::{Map, Value};
use warp::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use warp::http::{Response as HttpResponse, StatusCode};
use warp::reject::{InvalidHeader, InvalidQuery, MethodNotAllowed};
use warp::reply::Response;
use warp::{Rejection, Reply};

/// A problem's document.
#[derive(Debug, Serialize)]
pub struct Problem {
    /// `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong with this request.
    detail: String,
    /// Facts for a program, such as the offsets that are held.
    #[serde(flatten)]
    facts: Map<String, Value>,
    /// When to try again, in seconds.
    #[serde(skip)]
    retry_after: Option<u64>,
}

impl Problem {
    /// A problem of some status.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            facts: Map::new(),
            retry_after: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
        }
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404: there is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, detail)
    }

    /// 503: not now; the answer says when to try again.
    pub fn unavailable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// Says when to try again: in whole seconds, and at least one.
    pub fn retry_after(mut self, wait: Duration) -> Problem {
        self.retry_after = Some((wait.as_secs_f64().ceil() as u64).max(1));
        self
    }

    /// Adds a fact for a program.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Problem {
        self.facts.insert(name.to_owned(), value.into());
        self
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Problem {
        match error {
            LogError::NoSuchTopic { topic, near, .. } => {
                let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                Problem::not_found(format!("there is no topic {topic}{near}"))
            }
            LogError::NoSuchPartition { topic, partition, partitions } => {
                let detail = format!("topic {topic} has no partition {partition}");
                Problem::not_found(detail).with("partitions", partitions)
            }
            LogError::TopicName { name, reason } => {
                Problem::bad_request(format!("{name:?} is no topic name: {reason}"))
            }
            LogError::OffsetOutOfRange { topic, partition, wanted, first, next } => {
                let detail = format!("topic {topic} partition {partition} does not hold offset {wanted}");
                Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, detail)
                    .with("first", first)
                    .with("next", next)
            }
            // The message names files of this machine: it is for the log, not for the client.
            other => {
                tracing::error!(error = %other, "a request failed");
                let status = if other.is_retryable() {
                    StatusCode::SERVICE_UNAVAILABLE
                } else {
                    StatusCode::INTERNAL_SERVER_ERROR
                };
                Problem::new(status, "the topic could not be read; the gateway's log says why")
            }
        }
    }
}

impl Reply for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = HttpResponse::new(body).into_response();
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED.as_u16() {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

/// What no route took.
pub async fn recover(rejection: Rejection) -> Result<Response, Infallible> {
    // One route may want another method, and the one that does not finds the rest wrong.
    let problem = if rejection.find::<InvalidQuery>().is_some() {
        Problem::bad_request("the query cannot be read: expected name=value&…")
    } else if let Some(header) = rejection.find::<InvalidHeader>() {
        Problem::bad_request(format!("the header {} cannot be read: expected ASCII", header.name()))
    } else if rejection.find::<MethodNotAllowed>().is_some() {
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here")
    } else if rejection.is_not_found() {
        Problem::not_found("there is nothing at this address")
    } else {
        tracing::error!(?rejection, "a request was rejected for an unforeseen reason");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be answered")
    };
    Ok(problem.into_response())
}
