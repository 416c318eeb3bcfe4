//! The requests of `object_store` go over `ureq`, as all of ours do: one client, one kind of TLS, and no second stack of
//! asynchronous HTTP in the build. Each request has a thread of the runtime's own while it lasts.

use std::error::Error;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use http_body_util::BodyExt as _;
use levada_types::{Blame, ConnectorError};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpService,
};
use ureq::http::request::Parts;
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::{Agent, Body, SendBody};

use super::s3::Keys;
use crate::https;

/// How long it may take until there is a connection, and until an answer begins.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a body may take: the largest that is sent has some 32 MiB, one that is read some gigabytes.
const SEND_TIMEOUT: Duration = Duration::from_secs(180);
const READ_TIMEOUT: Duration = Duration::from_secs(1800);

/// Makes clients that send their requests with `ureq`.
#[derive(Clone, Debug)]
pub(super) struct Ureq {
    agent: Agent,
    keys: Arc<Keys>,
}

/// The store refuses, and why.
#[derive(Debug)]
pub(super) struct Refusal {
    pub blame: Blame,
    status: StatusCode,
    /// As S3 calls it: `AccessDenied`.
    code: String,
    message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.is_empty(), self.message.is_empty()) {
            (true, _) => write!(f, "it answered {}", self.status),
            (false, true) => f.write_str(&self.code),
            (false, false) => write!(f, "{}: {}", self.code, self.message.trim_end_matches('.')),
        }
    }
}

impl Error for Refusal {}

impl Ureq {
    /// A client that trusts the authorities in the file `ca`, or the public ones; `keys` are asked for anew when they
    /// have ended.
    pub fn new(ca: Option<&Path>, keys: Arc<Keys>) -> Result<Ureq, ConnectorError> {
        let agent = https::config("the checkpoints'", ca)?
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_send_body(Some(SEND_TIMEOUT))
            .timeout_recv_body(Some(READ_TIMEOUT))
            .build()
            .new_agent();
        Ok(Ureq { agent, keys })
    }
}

impl HttpConnector for Ureq {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Ureq {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let parts = parts(body).await?;
        let this = self.clone();
        let asked = tokio::task::spawn_blocking(move || this.ask(head, parts)).await;
        asked.unwrap_or_else(|error| Err(HttpError::new(HttpErrorKind::Unknown, error)))
    }
}

impl Ureq {
    fn ask(&self, head: Parts, parts: Vec<Bytes>) -> Result<HttpResponse, HttpError> {
        let answer = send(&self.agent, head, parts).map_err(|error| HttpError::new(kind(&error), error))?;
        let (head, mut body) = answer.into_parts();
        // An answer that breaks off can be asked for again.
        let bytes = body.with_config().limit(u64::MAX).read_to_vec();
        let bytes = bytes.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?;
        match refusal(head.status, &bytes) {
            None => Ok(HttpResponse::from_parts(head, bytes.into())),
            Some(refusal) => {
                if refusal.blame == Blame::Outage {
                    self.keys.forget();
                }
                Err(HttpError::new(HttpErrorKind::Unknown, refusal))
            }
        }
    }
}

/// What a body is made of, without copying it.
async fn parts(mut body: HttpRequestBody) -> Result<Vec<Bytes>, HttpError> {
    let mut parts = Vec::new();
    while let Some(frame) = body.frame().await {
        parts.extend(frame?.into_data().ok());
    }
    Ok(parts)
}

fn send(agent: &Agent, head: Parts, parts: Vec<Bytes>) -> Result<Response<Body>, ureq::Error> {
    if !matches!(head.method, Method::PUT | Method::POST) {
        return agent.run(Request::from_parts(head, ()));
    }
    let length: usize = parts.iter().map(Bytes::len).sum();
    let mut head = head;
    head.headers.insert("content-length", length.into());
    if length == 0 {
        return agent.run(Request::from_parts(head, &[][..]));
    }
    agent.run(Request::from_parts(head, SendBody::from_owned_reader(InTurn(parts.into_iter(), Bytes::new()))))
}

/// Reads one after the other.
struct InTurn(std::vec::IntoIter<Bytes>, Bytes);

impl Read for InTurn {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.1.is_empty() {
            let Some(next) = self.0.next() else { return Ok(0) };
            self.1 = next;
        }
        let count = self.1.len().min(to.len());
        self.1.copy_to_slice(&mut to[..count]);
        Ok(count)
    }
}

/// Whether a request that failed may have got there.
fn kind(error: &ureq::Error) -> HttpErrorKind {
    match error {
        ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => HttpErrorKind::Connect,
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => HttpErrorKind::Connect,
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => HttpErrorKind::Connect,
        ureq::Error::Timeout(_) => HttpErrorKind::Timeout,
        ureq::Error::Io(_) => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    }
}

/// What an answer refuses for good, or until there are other keys. Whatever else is no success `object_store`
/// understands: what is not there, what is there already, what is to be tried again.
fn refusal(status: StatusCode, body: &[u8]) -> Option<Refusal> {
    if status.is_success() || status.is_server_error() {
        return None;
    }
    let text = String::from_utf8_lossy(body);
    let code = element(&text, "Code");
    let blame = match (status.as_u16(), code) {
        (_, "ExpiredToken" | "TokenRefreshRequired" | "RequestTimeTooSkewed") => Blame::Outage,
        (400, "RequestTimeout") => return None,
        (300..400 | 400 | 401 | 403 | 405, _) | (404, "NoSuchBucket")
            if status != StatusCode::NOT_MODIFIED =>
        {
            Blame::Configuration
        }
        _ => return None,
    };
    let message = match status.is_redirection() {
        true => format!("{} (is the region the bucket's?)", element(&text, "Message")),
        false => element(&text, "Message").to_string(),
    };
    Some(Refusal { blame, status, code: code.to_string(), message })
}

/// What stands in an element of an answer; empty if it has none.
pub(super) fn element<'t>(text: &'t str, name: &str) -> &'t str {
    let within = || {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    };
    within().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_one_after_the_other() {
        let parts = ["", "one", "", "two"].map(Bytes::from).to_vec();
        let mut all = String::new();
        InTurn(parts.into_iter(), Bytes::new()).read_to_string(&mut all).unwrap();
        assert_eq!(all, "onetwo");
    }

    #[test]
    fn what_is_refused_for_good_is_told_from_what_is_not() {
        let body = |code: &str| format!("<Error><Code>{code}</Code><Message>Why.</Message></Error>");
        let blame = |status: u16, code: &str| {
            let refused = refusal(StatusCode::from_u16(status).unwrap(), body(code).as_bytes());
            refused.map(|refusal| (refusal.blame, refusal.to_string()))
        };
        let wrong = |text: &str| Some((Blame::Configuration, text.to_string()));
        assert_eq!(blame(403, "AccessDenied"), wrong("AccessDenied: Why"));
        assert_eq!(blame(404, "NoSuchBucket"), wrong("NoSuchBucket: Why"));
        assert_eq!(
            blame(301, "PermanentRedirect"),
            wrong("PermanentRedirect: Why. (is the region the bucket's?)")
        );
        assert_eq!(blame(400, "ExpiredToken").unwrap().0, Blame::Outage);
        for (status, code) in [
            (200, ""),
            (404, "NoSuchKey"),
            (412, "PreconditionFailed"),
            (409, "ConditionalRequestConflict"),
            (503, "SlowDown"),
            (429, ""),
            (400, "RequestTimeout"),
        ] {
            assert_eq!(blame(status, code), None, "{status} {code}");
        }
    }
}
