//! CloudEvents 1.0 over HTTP: what is said about an event besides its data.
//!
//! In: the headers of a request in binary mode (`ce-id: …`, the body is the data), or an event in structured mode (one
//! object, the data in its `data`). Out: the data, which becomes the record, and the attributes, which become the
//! record's headers, `ce_id` and so on, as the CloudEvents binding for Kafka has them. `partitionkey` is the record's
//! key and `time` its time, unless the request names fields for them.
//!
//! Spec: CloudEvents 1.0.2, its HTTP protocol binding and its JSON event format.

use std::ops::Range;

pub use levada_connectors::codec::cloudevents::is_json;
use levada_connectors::codec::cloudevents::{self, Data};
use warp::http::HeaderMap;

use super::events::within;
use super::post::{Reason, Refusal};
use crate::gateway::problem::Problem;

/// Names and values.
pub type Attributes = cloudevents::Attributes<'static>;

/// The attributes of an event in binary mode; `None` where there are none.
pub fn of_headers(headers: &HeaderMap) -> Result<Option<Attributes>, Refusal> {
    let wrong = |reason: String| {
        let detail = format!("the ce- headers are not those of a CloudEvent: {reason}");
        Refusal::new(Reason::Malformed, Problem::bad_request(detail))
    };
    let mut attributes = Attributes::default();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        attributes.add(name.to_owned().into(), unescaped(value.as_bytes()).into()).map_err(wrong)?;
    }
    if attributes.is_empty() {
        return Ok(None);
    }
    // A request that is repeated is the same, in whatever order its headers come.
    attributes.sort();
    attributes.check().map_err(wrong)?;
    Ok(Some(attributes))
}

/// The binding percent-encodes what a header cannot hold.
fn unescaped(value: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((byte, after)) = rest.split_first() {
        let hex = after.first_chunk::<2>().filter(|_| *byte == b'%');
        let code = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match code {
            Some(code) => {
                text.push(code);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                text.push(*byte);
                rest = after;
            }
        }
    }
    text
}

/// Where the data of an event in structured mode is in `body`, and its attributes; or what is wrong with it.
pub fn of_event(body: &[u8], event: Range<usize>) -> Result<(Range<usize>, Attributes), String> {
    let (data, attributes) = cloudevents::structured(body.get(event).unwrap_or_default())?;
    match data {
        Data::Json(data) => Ok((within(body, data), attributes.into_owned())),
        Data::Base64(_) => Err("field `data_base64`: a record is JSON, in `data`".to_owned()),
        Data::None => Err("field `data`: expected the record, but it is missing".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_its_data_and_its_attributes() {
        let body = br#" {"specversion":"1.0","id":"1","source":"/a","type":"t","n":7,"subject":null,"data":{"a": 1}}"#;
        let (data, attributes) = of_event(body, 1..body.len()).unwrap();
        assert_eq!(&body[data], br#"{"a": 1}"#);
        let found: Vec<_> = attributes.iter().map(|(name, value)| (name, value.to_vec())).collect();
        let expected = [("specversion", "1.0"), ("id", "1"), ("source", "/a"), ("type", "t"), ("n", "7")];
        assert_eq!(found, expected.map(|(name, value)| (name, value.as_bytes().to_vec())));
    }

    #[test]
    fn what_is_no_event_says_why() {
        let head = r#""specversion":"1.0","id":"1","source":"/a","type":"t""#;
        for (event, reason) in [
            (r#"{"id":"1"}"#.to_owned(), "field `specversion`: expected \"1.0\", but it is missing"),
            (format!("{{{head}}}"), "field `data`: expected the record"),
            (format!(r#"{{{head},"data_base64":"AA=="}}"#), "field `data_base64`"),
            (format!(r#"{{{head},"time":"noon","data":{{}}}}"#), "field `time`: expected a timestamp"),
            (format!(r#"{{{head},"datacontenttype":"text/xml","data":{{}}}}"#), "expected JSON"),
            (format!(r#"{{{head},"a":[],"data":{{}}}}"#), "field `a`: a CloudEvents attribute"),
            (r#"{"specversion":"1.0","id":"","source":"/a","type":"t","data":{}}"#.to_owned(), "field `id`"),
            ("[]".to_owned(), "a JSON array"),
        ] {
            let found = of_event(event.as_bytes(), 0..event.len()).unwrap_err();
            assert!(found.contains(reason), "{event}: {found}");
        }
        assert_eq!(unescaped(b"a%20%C3%A9%zz%4"), "a é%zz%4".as_bytes());
    }
}
