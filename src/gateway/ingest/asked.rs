//! What a request to take events asks for, by its parameters and headers.

use levada_connectors::topic::MarkFields;
use warp::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use warp::http::{HeaderMap, StatusCode};
use xxhash_rust::xxh3::Xxh3;

use super::cloud;
use super::post::{Reason, Refusal};
use super::window::RequestKey;
use crate::gateway::problem::Problem;
use crate::gateway::query::{self, Pairs};

/// The longest `Idempotency-Key`, in bytes.
const MAX_KEY_BYTES: usize = 255;
/// Names the field that is the records' key, as the parameter `key` does.
const KEY_FIELD_HEADER: &str = "levada-key-field";

/// How a body holds its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// One object, or an array of them.
    Json,
    /// An object a line.
    Lines,
    /// One CloudEvent in structured mode.
    CloudEvent,
    /// An array of CloudEvents.
    CloudEvents,
    /// The data of one CloudEvent; its attributes are these.
    Data(cloud::Attributes),
}

/// A request to take events, save its body.
#[derive(Debug)]
pub struct Asked {
    /// How the body is to be read.
    pub form: Form,
    /// Which fields are a record's key and time.
    pub marks: MarkFields,
    /// Whether the good records are wanted if there are bad ones.
    pub partial: bool,
    /// The text of the `Idempotency-Key`.
    key: Option<String>,
}

impl Asked {
    /// What the parameters and headers say.
    pub fn new(pairs: Pairs, headers: &HeaderMap) -> Result<Asked, Refusal> {
        let malformed = |problem| Refusal::new(Reason::Malformed, problem);
        let mut parameters = query::events_to_take(pairs).map_err(malformed)?;
        if parameters.marks.key.is_none() {
            parameters.marks.key = one(headers, KEY_FIELD_HEADER)?;
        }
        let key = one(headers, "idempotency-key")?.map(|text| key_text(&text)).transpose()?;
        let form = form(headers)?;
        Ok(Asked { form, marks: parameters.marks, partial: parameters.partial, key })
    }

    /// The key of the request with this body, if it has one.
    pub fn request_key(&self, body: &[u8]) -> Option<RequestKey> {
        let mut hash = Xxh3::new();
        // How it is written down here must stay: it is kept in topics.
        let form = match &self.form {
            Form::Json => "json",
            Form::Lines => "lines",
            Form::CloudEvent => "cloudevent",
            Form::CloudEvents => "cloudevents",
            Form::Data(_) => "data",
        };
        let field = |field: &Option<String>| field.clone().unwrap_or_default();
        let marks = [form, &field(&self.marks.key), &field(&self.marks.time), &self.partial.to_string()];
        for part in marks {
            hash.update(part.as_bytes());
            hash.update(b"\n");
        }
        if let Form::Data(attributes) = &self.form {
            for (name, value) in attributes.iter() {
                hash.update(name.as_bytes());
                hash.update(b":");
                hash.update(value);
                hash.update(b"\n");
            }
        }
        hash.update(body);
        Some(RequestKey { text: self.key.clone()?, fingerprint: hash.digest() })
    }
}

/// A header that may stand there once, in ASCII.
pub fn one(headers: &HeaderMap, name: &str) -> Result<Option<String>, Refusal> {
    let wrong =
        |why: &str| Refusal::new(Reason::Malformed, Problem::bad_request(format!("the header {name} {why}")));
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(wrong("is there twice"));
    }
    match value.to_str() {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(_) => Err(wrong("cannot be read: expected ASCII")),
    }
}

/// A string as the draft has it, in quotes; without them it is taken as it stands.
fn key_text(header: &str) -> Result<String, Refusal> {
    let inside = header.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let text = match inside {
        Some(inside) => inside.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => header.to_owned(),
    };
    if text.is_empty() || text.len() > MAX_KEY_BYTES {
        let detail = format!("the header idempotency-key has to be of 1 to {MAX_KEY_BYTES} bytes");
        return Err(Refusal::new(Reason::Malformed, Problem::bad_request(detail)));
    }
    Ok(text)
}

fn form(headers: &HeaderMap) -> Result<Form, Refusal> {
    let unsupported = |detail: String| {
        Refusal::new(Reason::MediaType, Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
    };
    if let Some(encoding) = one(headers, CONTENT_ENCODING.as_str())?
        && !encoding.eq_ignore_ascii_case("identity")
    {
        return Err(unsupported(format!("the body is {encoding}; send it without a content-encoding")));
    }
    let media = one(headers, CONTENT_TYPE.as_str())?.unwrap_or_default();
    let kind = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let attributes = cloud::of_headers(headers)?;
    match (kind.as_str(), attributes) {
        ("application/cloudevents+json", _) => Ok(Form::CloudEvent),
        ("application/cloudevents-batch+json", _) => Ok(Form::CloudEvents),
        (kind, Some(attributes)) if cloud::is_json(kind) => Ok(Form::Data(attributes)),
        ("application/json", None) => Ok(Form::Json),
        (
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonl",
            None,
        ) => Ok(Form::Lines),
        // A page of another origin may send what says nothing, or text, without asking; JSON it may not.
        _ => Err(unsupported(format!(
            "the content-type is {}; there are: application/json (an object or an array), \
             application/x-ndjson (lines), application/cloudevents+json, application/cloudevents-batch+json",
            if kind.is_empty() { "missing".to_owned() } else { format!("{kind:?}") }
        ))),
    }
}
