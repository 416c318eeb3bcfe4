//! What a request asks for, checked: every problem names the parameter and what it may be.

use std::collections::BTreeMap;

use levada_connectors::codec::timestamp;
use levada_connectors::topic::MarkFields;
use warp::http::StatusCode;

use super::begin::Begin;
use super::cursor::Cursor;
use super::problem::Problem;
use super::records::MAX_LIMIT;

/// The most topics of one stream.
const MAX_STREAM_TOPICS: usize = 16;
/// The longest name of a field that `latest` takes.
const MAX_FIELD_BYTES: usize = 200;

/// The parameters of a request.
pub type Pairs = Vec<(String, String)>;

/// The parameters, each at most once and none that the address does not know.
fn known(pairs: Pairs, names: &[&str]) -> Result<BTreeMap<String, String>, Problem> {
    let mut found = BTreeMap::new();
    for (name, value) in pairs {
        if !names.contains(&name.as_str()) {
            let detail = format!("there is no parameter {name:?} here; there are: {}", names.join(", "));
            return Err(Problem::bad_request(detail).with("parameter", name));
        }
        if found.contains_key(&name) {
            return Err(wrong(&name, "it is there twice"));
        }
        found.insert(name, value);
    }
    Ok(found)
}

/// What ends a silence: by whom, and of which step.
pub fn expire(pairs: Pairs) -> Result<(Option<String>, Option<String>), Problem> {
    let mut found = known(pairs, &["by", "step"])?;
    Ok((found.remove("by"), found.remove("step")))
}

fn wrong(name: &str, why: impl AsRef<str>) -> Problem {
    Problem::bad_request(format!("parameter {name}: {}", why.as_ref())).with("parameter", name)
}

fn number(found: &BTreeMap<String, String>, name: &str, most: u64) -> Result<Option<u64>, Problem> {
    let Some(text) = found.get(name) else { return Ok(None) };
    match text.parse() {
        Ok(number) if number <= most => Ok(Some(number)),
        _ => Err(wrong(name, format!("expected a whole number from 0 to {most} and found {text:?}"))),
    }
}

fn truth(found: &BTreeMap<String, String>, name: &str) -> Result<bool, Problem> {
    match found.get(name).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(wrong(name, format!("expected true or false and found {other:?}"))),
    }
}

/// A stream that is asked for.
#[derive(Debug)]
pub struct StreamQuery {
    /// The topics, and where to begin in each without a cursor.
    pub topics: Vec<(String, Begin)>,
    /// Where the client had been.
    pub cursor: Option<Cursor>,
    /// Topics that are not there are waited for.
    pub wait: bool,
}

/// What `…/events` takes. `Last-Event-ID` is what the browser sends when it comes back, so it goes before
/// the address' own cursor.
pub fn stream(
    topic: Option<String>,
    pairs: Pairs,
    last_event_id: Option<String>,
) -> Result<StreamQuery, Problem> {
    let names: &[&str] = match topic {
        Some(_) => &["last", "from", "cursor", "wait"],
        None => &["topics", "last", "from", "cursor", "wait"],
    };
    let found = known(pairs, names)?;
    let topics: Vec<String> = match (topic, found.get("topics")) {
        (Some(topic), _) => vec![topic],
        (None, Some(list)) => list.split(',').map(str::to_owned).collect(),
        (None, None) => return Err(wrong("topics", "expected the names of topics, between commas")),
    };
    if topics.len() > MAX_STREAM_TOPICS {
        return Err(wrong("topics", format!("at most {MAX_STREAM_TOPICS}")));
    }
    if (1..topics.len())
        .any(|index| topics.get(..index).is_some_and(|before| before.contains(&topics[index])))
    {
        return Err(wrong("topics", "a topic is there twice"));
    }
    let (name, begins) = begins(found.get("last"), found.get("from"))?;
    let topics: Vec<(String, Begin)> = match begins.as_slice() {
        [one] => topics.into_iter().map(|topic| (topic, *one)).collect(),
        many if many.len() == topics.len() => topics.into_iter().zip(begins).collect(),
        _ => return Err(wrong(name, "expected one value, or one for each topic")),
    };
    let text = last_event_id.filter(|id| !id.is_empty()).or_else(|| found.get("cursor").cloned());
    let cursor: Option<Cursor> = text
        .map(|text| text.parse())
        .transpose()
        .map_err(|error| Problem::bad_request(format!("{error}")))?;
    if let Some(stranger) =
        cursor.iter().flat_map(Cursor::topics).find(|name| topics.iter().all(|(topic, _)| topic != name))
    {
        return Err(wrong("cursor", format!("it is of topic {stranger:?}, which is not asked for")));
    }
    let wait = truth(&found, "wait")?;
    Ok(StreamQuery { topics, cursor, wait })
}

/// Where to begin, of one topic or of each, and the parameter that says so.
fn begins(last: Option<&String>, from: Option<&String>) -> Result<(&'static str, Vec<Begin>), Problem> {
    let count = |text: &str| {
        let expected =
            format!("expected how many of the newest records of each partition and found {text:?}");
        text.parse().map(Begin::Last).map_err(|_| wrong("last", expected))
    };
    Ok(match (last, from) {
        (None, None) => ("from", vec![Begin::End]),
        (Some(last), None) => ("last", last.split(',').map(count).collect::<Result<_, _>>()?),
        (None, Some(from)) => ("from", from.split(',').map(begin).collect::<Result<_, _>>()?),
        (Some(_), Some(_)) => return Err(wrong("last", "give last or from, not both")),
    })
}

fn begin(text: &str) -> Result<Begin, Problem> {
    let found = match text.split_once(':').unwrap_or((text, "")) {
        ("beginning", "") => Some(Begin::Beginning),
        ("end", "") => Some(Begin::End),
        ("offset", offset) => offset.parse().ok().map(Begin::Offset),
        // A `+` in an address that was not escaped is a space.
        ("time", time) => timestamp::parse(time.replace(' ', "+").as_bytes()).ok().map(Begin::Time),
        _ => None,
    };
    found.ok_or_else(|| {
        let forms = "expected beginning, end, offset:N or time:2013-01-01T10:00:00Z, where each partition of \
                     the topic begins";
        wrong("from", format!("{forms}, and found {text:?}; for the newest N records it is last=N"))
    })
}

/// What `…/records` takes: partition, offset, limit.
pub fn page(pairs: Pairs) -> Result<(u32, Option<u64>, usize), Problem> {
    let mut found = known(pairs, &["partition", "from", "limit"])?;
    let partition = number(&found, "partition", u32::MAX.into())?.unwrap_or(0);
    let limit = number(&found, "limit", MAX_LIMIT as u64)?.unwrap_or(100);
    // As a stream's `from` has it too.
    if let Some(from) = found.get_mut("from")
        && let Some(offset) = from.strip_prefix("offset:")
    {
        *from = offset.to_owned();
    }
    let from = number(&found, "from", u64::MAX).map_err(|_| {
        let text = found.get("from").map_or("", String::as_str);
        wrong("from", format!("expected offset:N, N being a whole number, and found {text:?}"))
    })?;
    Ok((partition as u32, from, limit as usize))
}

/// What `…/latest` takes: the name of a field.
pub fn latest(pairs: Pairs) -> Result<String, Problem> {
    match known(pairs, &["key"])?.remove("key") {
        Some(field) if !field.is_empty() && field.len() <= MAX_FIELD_BYTES => Ok(field),
        Some(_) => Err(wrong("key", format!("expected 1 to {MAX_FIELD_BYTES} bytes"))),
        None => Err(wrong("key", "expected the name of a field of the records")),
    }
}

/// What an address without parameters takes.
pub fn nothing(pairs: Pairs) -> Result<(), Problem> {
    match pairs.first() {
        None => Ok(()),
        Some((name, _)) => Err(wrong(name, "there are no parameters here")),
    }
}

/// What a request to take events asks for, besides its headers.
#[derive(Debug)]
pub struct TakeQuery {
    /// Which fields are a record's key and time.
    pub marks: MarkFields,
    /// Whether the good records are wanted if there are bad ones.
    pub partial: bool,
}

/// What `POST …/events` takes.
pub fn events_to_take(pairs: Pairs) -> Result<TakeQuery, Problem> {
    let mut found = known(pairs, &["key", "time", "partial"])?;
    let mut field = |name: &str| match found.remove(name) {
        Some(field) if field.is_empty() || field.len() > MAX_FIELD_BYTES => {
            Err(wrong(name, format!("expected the name of a field, of 1 to {MAX_FIELD_BYTES} bytes")))
        }
        field => Ok(field),
    };
    let marks = MarkFields { key: field("key")?, time: field("time")? };
    Ok(TakeQuery { marks, partial: truth(&found, "partial")? })
}

/// Whether a client that accepts this takes an event stream.
pub fn accepts_events(accept: Option<&str>) -> Result<(), Problem> {
    let takes = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let refused = parts.any(|part| part.strip_prefix("q=").and_then(|q| q.parse().ok()) == Some(0.0_f32));
        !refused
            && ["text/event-stream", "text/*", "*/*"].iter().any(|known| kind.eq_ignore_ascii_case(known))
    };
    if accept.is_none_or(|accept| accept.split(',').any(takes)) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "this address answers with text/event-stream"))
}
