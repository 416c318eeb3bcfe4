//! A body's events: where each record's bytes are, its key, its time and its headers.
//!
//! Nothing is copied but a body of several lines of JSON: a record is one line of a topic's export, so the line breaks
//! between its tokens become spaces.

use std::ops::Range;

use bytes::Bytes;
use levada_connectors::codec::json::{elements, members};
use levada_connectors::topic::Marks;
use warp::http::StatusCode;

use super::asked::{Asked, Form};
use super::cloud::{self, Attributes};
use super::post::{Reason, Refusal};
use crate::gateway::problem::Problem;

/// An event that is to become a record.
#[derive(Debug)]
pub struct Event {
    /// Its place in the request, from 0.
    pub index: usize,
    /// Where in the body the record's value is.
    pub value: Range<usize>,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's time: milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The record's headers, besides those of the request's key.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// An event that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Its place in the request, from 0.
    pub index: usize,
    /// Why, naming the field.
    pub reason: String,
    /// Whose schema it breaks, if it is a schema's.
    pub reader: Option<String>,
}

/// What a body holds.
#[derive(Debug)]
pub struct Events {
    /// What the events point into.
    pub body: Bytes,
    /// Those that can be used so far, in their order.
    pub good: Vec<Event>,
    /// The others, in their order.
    pub bad: Vec<Bad>,
}

impl Events {
    /// Reads a body. `now_ms` is the time of an event that has none.
    pub fn read(asked: &Asked, body: Bytes, max_records: usize, now_ms: i64) -> Result<Events, Refusal> {
        let spans = spans(&asked.form, &body, max_records)?;
        let body = if asked.form == Form::Lines { body } else { one_line(body) };
        let mut events = Events { good: Vec::with_capacity(spans.len()), bad: Vec::new(), body };
        for (index, span) in spans.into_iter().enumerate() {
            match event(asked, &events.body, index, span, now_ms) {
                Ok(event) => events.good.push(event),
                Err(reason) => events.bad.push(Bad { index, reason, reader: None }),
            }
        }
        Ok(events)
    }

    /// How many events the request has.
    pub fn len(&self) -> usize {
        self.good.len() + self.bad.len()
    }
}

/// Where each event is in the body.
fn spans(form: &Form, body: &[u8], max_records: usize) -> Result<Vec<Range<usize>>, Refusal> {
    let malformed = |detail: String| Refusal::new(Reason::Malformed, Problem::bad_request(detail));
    let unread = |reason: String| malformed(format!("the body cannot be read: {reason}"));
    let whole = || members(body, |_, _| {}).map(|()| vec![Range { start: 0, end: body.len() }]);
    let spans = match form {
        Form::Lines => lines(body),
        Form::Json => elements(body).and_then(|found| found.map_or_else(whole, Ok)).map_err(unread)?,
        Form::CloudEvent | Form::Data(_) => whole().map_err(unread)?,
        Form::CloudEvents => elements(body)
            .and_then(|found| found.ok_or_else(|| "expected an array of CloudEvents".to_owned()))
            .map_err(unread)?,
    };
    if spans.is_empty() {
        return Err(malformed("the body holds no event".to_owned()));
    }
    if spans.len() > max_records {
        let detail =
            format!("the request has {} records, and at most {max_records} are taken at once", spans.len());
        let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).with("max_records", max_records);
        return Err(Refusal::new(Reason::TooManyRecords, problem));
    }
    Ok(spans)
}

/// The lines that are not blank.
fn lines(body: &[u8]) -> Vec<Range<usize>> {
    let mut start = 0;
    let mut spans = Vec::new();
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        let text = line.trim_ascii();
        if !text.is_empty() {
            spans.push(within(body, text));
        }
        start += line.len();
    }
    debug_assert_eq!(start, body.len());
    spans
}

/// JSON on one line. In JSON that is right, line breaks stand only between tokens.
fn one_line(body: Bytes) -> Bytes {
    if !body.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return body;
    }
    let mut line = Vec::from(body);
    for byte in line.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
        *byte = b' ';
    }
    Bytes::from(line)
}

fn event(asked: &Asked, body: &[u8], index: usize, span: Range<usize>, now_ms: i64) -> Result<Event, String> {
    let (value, attributes) = match &asked.form {
        Form::Json | Form::Lines => (span, Attributes::default()),
        Form::Data(attributes) => (span, attributes.clone()),
        Form::CloudEvent | Form::CloudEvents => cloud::of_event(body, span)?,
    };
    let record = body.get(value.clone()).unwrap_or_default().trim_ascii();
    let value = within(body, record);
    let Marks { key, time_ms, wrong } = asked.marks.of(record);
    if let Some(reason) = wrong {
        return Err(reason);
    }
    let key = key.or_else(|| attributes.get("partitionkey").map(<[u8]>::to_vec));
    let time_ms = time_ms.or(attributes.time_ms()?).unwrap_or(now_ms);
    let headers = attributes.iter().map(|(name, value)| (format!("ce_{name}"), value.to_vec())).collect();
    Ok(Event { index, value, key, time_ms, headers })
}

/// Where in `body` a part of it is.
pub fn within(body: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(body.as_ptr() as usize);
    start..start + part.len()
}
