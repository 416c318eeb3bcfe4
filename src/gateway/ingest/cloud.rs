//! CloudEvents 1.0 over HTTP: what is said about an event besides its data.
//!
//! In: the headers of a request in binary mode (`ce-id: …`, the body is the data), or an event in structured mode (one
//! object, the data in its `data`). Out: the data, which becomes the record, and the attributes, which become the
//! record's headers, `ce_id` and so on, as the CloudEvents binding for Kafka has them. `partitionkey` is the record's
//! key and `time` its time, unless the request names fields for them.
//!
//! Spec: CloudEvents 1.0.2, its HTTP protocol binding and its JSON event format.

use std::ops::Range;

use levada_connectors::codec::json::{members, picked_time, plain_text};
use warp::http::HeaderMap;

use super::events::within;
use super::post::{Reason, Refusal};
use crate::gateway::problem::Problem;

/// The most attributes of an event: they are headers of a record.
const MAX_ATTRIBUTES: usize = 64;
/// The longest name of an attribute; the spec says that 20 should do.
const MAX_NAME_BYTES: usize = 60;
/// What every event has to say, besides the version.
const REQUIRED: [&str; 3] = ["id", "source", "type"];

/// Names and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<(String, Vec<u8>)>);

impl Attributes {
    /// Names and values in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The value of an attribute.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Milliseconds since the Unix epoch, if the event has a time.
    pub fn time_ms(&self) -> Result<Option<i64>, String> {
        let Some(time) = self.get("time") else { return Ok(None) };
        let quoted = [b"\"", time, b"\""].concat();
        let wrong = || {
            let found = String::from_utf8_lossy(time);
            format!("field `time`: expected a timestamp as in 2013-01-01T10:17:00Z, found {found}")
        };
        picked_time(&quoted).map(Some).ok_or_else(wrong)
    }

    fn add(&mut self, name: &str, value: Vec<u8>) -> Result<(), String> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(|c| c.is_ascii_alphanumeric())
        {
            return Err(format!("field `{name}`: a CloudEvents attribute is named by letters and digits"));
        }
        if self.0.len() >= MAX_ATTRIBUTES {
            return Err(format!("a CloudEvent has at most {MAX_ATTRIBUTES} attributes here"));
        }
        self.0.push((name.to_owned(), value));
        Ok(())
    }

    fn checked(self) -> Result<Attributes, String> {
        match self.get("specversion") {
            Some(b"1.0") => {}
            Some(other) => {
                let other = String::from_utf8_lossy(other);
                return Err(format!("field `specversion`: expected \"1.0\", found {other:?}"));
            }
            None => return Err("field `specversion`: expected \"1.0\", but it is missing".to_owned()),
        }
        for name in REQUIRED {
            if self.get(name).is_none_or(<[u8]>::is_empty) {
                return Err(format!("field `{name}`: a CloudEvent has to have one"));
            }
        }
        if let Some(kind) = self.get("datacontenttype")
            && !is_json(&String::from_utf8_lossy(kind))
        {
            let kind = String::from_utf8_lossy(kind);
            return Err(format!("field `datacontenttype`: expected JSON, found {kind:?}"));
        }
        self.time_ms()?;
        Ok(self)
    }
}

/// Whether a media type is one of JSON.
pub fn is_json(media: &str) -> bool {
    let kind = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json"
        || kind == "text/json"
        || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// The attributes of an event in binary mode; `None` where there are none.
pub fn of_headers(headers: &HeaderMap) -> Result<Option<Attributes>, Refusal> {
    let wrong = |reason: String| {
        let detail = format!("the ce- headers are not those of a CloudEvent: {reason}");
        Refusal::new(Reason::Malformed, Problem::bad_request(detail))
    };
    let mut attributes = Attributes::default();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        attributes.add(name, unescaped(value.as_bytes())).map_err(wrong)?;
    }
    if attributes.0.is_empty() {
        return Ok(None);
    }
    // A request that is repeated is the same, in whatever order its headers come.
    attributes.0.sort();
    attributes.checked().map(Some).map_err(wrong)
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
    let mut attributes = Attributes::default();
    let mut data = None;
    let mut wrong = Ok(());
    let mut member = |name: &[u8], value: &[u8]| match (std::str::from_utf8(name), value.first()) {
        (Ok("data"), _) => {
            data = Some(within(body, value));
            Ok(())
        }
        (Ok("data_base64"), _) => Err("field `data_base64`: a record is JSON, in `data`".to_owned()),
        // One that is null is one that is not there.
        (Ok(_), Some(b'n')) => Ok(()),
        (Ok(name), Some(b'{' | b'[')) => {
            Err(format!("field `{name}`: a CloudEvents attribute is a string, a number or a boolean"))
        }
        (Ok(name), _) => attributes.add(name, plain_text(value)),
        (Err(_), _) => Err("the name of a field is not UTF-8".to_owned()),
    };
    members(body.get(event).unwrap_or_default(), |name, value| {
        if wrong.is_ok() {
            wrong = member(name, value);
        }
    })?;
    wrong?;
    let attributes = attributes.checked()?;
    let data = data.ok_or("field `data`: expected the record, but it is missing")?;
    Ok((data, attributes))
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
