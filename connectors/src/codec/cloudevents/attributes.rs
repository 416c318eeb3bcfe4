//! The attributes of an event, and where its data is.

use std::borrow::Cow;

use crate::codec::json::{members, picked_time, plain_text};

/// The most attributes of an event: they are headers of a record.
const MAX_ATTRIBUTES: usize = 64;
/// The longest name of an attribute; the spec says that 20 should do.
const MAX_NAME_BYTES: usize = 60;
/// What every event has to say, besides the version.
const REQUIRED: [&str; 3] = ["id", "source", "type"];

/// Names and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a>(Vec<(Cow<'a, str>, Cow<'a, [u8]>)>);

/// The data of an event in structured mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// There is none.
    None,
    /// JSON, as it stands in the event.
    Json(&'a [u8]),
    /// The text of `data_base64`, as it stands in the event, with its quotes.
    Base64(&'a [u8]),
}

impl<'a> Attributes<'a> {
    /// Names and values in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The value of an attribute.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Orders them by name, so that it does not matter how they came.
    pub fn sort(&mut self) {
        self.0.sort();
    }

    /// The same, on their own.
    pub fn into_owned(self) -> Attributes<'static> {
        let own = |(name, value): (Cow<'_, str>, Cow<'_, [u8]>)| {
            (Cow::Owned(name.into_owned()), Cow::Owned(value.into_owned()))
        };
        Attributes(self.0.into_iter().map(own).collect())
    }

    /// Milliseconds since the Unix epoch, if the event has a time.
    ///
    /// # Errors
    /// When the time is none.
    pub fn time_ms(&self) -> Result<Option<i64>, String> {
        let Some(time) = self.get("time") else { return Ok(None) };
        let quoted = [b"\"", time, b"\""].concat();
        let wrong = || {
            let found = String::from_utf8_lossy(time);
            format!("field `time`: expected a timestamp as in 2013-01-01T10:17:00Z, found {found}")
        };
        picked_time(&quoted).map(Some).ok_or_else(wrong)
    }

    /// Adds one.
    ///
    /// # Errors
    /// When it is not named as attributes are, or there are too many.
    pub fn add(&mut self, name: Cow<'a, str>, value: Cow<'a, [u8]>) -> Result<(), String> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(|c| c.is_ascii_alphanumeric())
        {
            return Err(format!("field `{name}`: a CloudEvents attribute is named by letters and digits"));
        }
        if self.0.len() >= MAX_ATTRIBUTES {
            return Err(format!("a CloudEvent has at most {MAX_ATTRIBUTES} attributes here"));
        }
        self.0.push((name, value));
        Ok(())
    }

    /// That they are those of a CloudEvent whose data is JSON.
    ///
    /// # Errors
    /// Why they are not.
    pub fn check(&self) -> Result<(), String> {
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
        self.time_ms().map(drop)
    }
}

/// Whether a media type is one of JSON.
pub fn is_json(media: &str) -> bool {
    let kind = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json"
        || kind == "text/json"
        || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// The data of an event in structured mode, and its attributes.
///
/// # Errors
/// When it is no CloudEvent, as a dead letter would say it.
pub fn structured(event: &[u8]) -> Result<(Data<'_>, Attributes<'_>), String> {
    let mut attributes = Attributes::default();
    let mut data = Data::None;
    let mut wrong = Ok(());
    let mut member = |name: &[u8], value| match std::str::from_utf8(name) {
        Ok(name) => structured_member(name, value, &mut data, &mut attributes),
        Err(_) => Err("the name of a field is not UTF-8".to_owned()),
    };
    members(event, |name, value| {
        if wrong.is_ok() {
            wrong = member(name, value);
        }
    })?;
    wrong?;
    attributes.check()?;
    Ok((data, attributes))
}

fn structured_member<'a>(
    name: &str,
    value: &'a [u8],
    data: &mut Data<'a>,
    attributes: &mut Attributes<'a>,
) -> Result<(), String> {
    let found = match (name, value.first()) {
        // One that is null is one that is not there.
        (_, Some(b'n')) => return Ok(()),
        ("data", _) => Data::Json(value),
        ("data_base64", _) => Data::Base64(value),
        (_, Some(b'{' | b'[')) => {
            return Err(format!(
                "field `{name}`: a CloudEvents attribute is a string, a number or a boolean"
            ));
        }
        _ => {
            let plain = match value {
                [b'"', inside @ .., b'"'] if !inside.contains(&b'\\') => Cow::Borrowed(inside),
                value => Cow::Owned(plain_text(value)),
            };
            return attributes.add(Cow::Owned(name.to_owned()), plain);
        }
    };
    if *data != Data::None {
        return Err(format!("field `{name}`: the event has data already"));
    }
    *data = found;
    Ok(())
}
