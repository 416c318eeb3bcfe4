//! Entries: what a server replies, and the record that each is.

use redis::{RedisResult, Value};

use super::EntryId;
use super::server::{id, unexpected};

/// An entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub id: EntryId,
    /// Names and values in turn; `None` of an entry that was deleted since it was given to somebody.
    pub fields: Option<Vec<Vec<u8>>>,
}

impl Entry {
    /// The entries of a reply.
    pub(super) fn all(reply: Value) -> RedisResult<Vec<Entry>> {
        match reply {
            Value::Array(entries) => {
                entries.into_iter().filter(|one| *one != Value::Nil).map(Entry::of).collect()
            }
            Value::Nil => Ok(Vec::new()),
            Value::ServerError(error) => Err(error.into()),
            other => Err(unexpected("entries", &other)),
        }
    }

    /// The entries of the one stream that a reply of XREAD or XREADGROUP is about.
    pub(super) fn of_stream(reply: Value) -> RedisResult<Vec<Entry>> {
        let entries = match reply {
            Value::Array(mut streams) => match streams.pop() {
                Some(Value::Array(mut named)) => named.pop(),
                other => return Err(unexpected("a stream's entries", &other.unwrap_or_default())),
            },
            Value::Map(mut streams) => streams.pop().map(|(_, entries)| entries),
            Value::Nil => None,
            Value::ServerError(error) => return Err(error.into()),
            other => return Err(unexpected("a stream's entries", &other)),
        };
        Entry::all(entries.unwrap_or_default())
    }

    fn of(value: Value) -> RedisResult<Entry> {
        let Value::Array(parts) = value else { return Err(unexpected("an entry", &value)) };
        let mut parts = parts.into_iter();
        let id = id(&parts.next().unwrap_or_default())?;
        let fields = match parts.next() {
            Some(Value::Array(fields)) => {
                let bytes = |value| match value {
                    Value::BulkString(bytes) => Ok(bytes),
                    other => Err(unexpected("a field", &other)),
                };
                Some(fields.into_iter().map(bytes).collect::<RedisResult<_>>()?)
            }
            _ => None,
        };
        Ok(Entry { id, fields })
    }

    /// Appends the record that the entry is to `out`: the value of the field that is asked for; without one, that of
    /// the only field, or all of them as one JSON object of texts. What lacks the field becomes a list of all that it
    /// has, which is no record: it goes to the dead letters whole.
    pub(super) fn write(&self, field: Option<&str>, out: &mut Vec<u8>) {
        let fields = self.fields.as_deref().unwrap_or_default();
        let mut pairs = fields.chunks_exact(2).filter_map(|pair| Some((pair.first()?, pair.get(1)?)));
        match field {
            Some(field) => match pairs.clone().find(|(name, _)| name.as_slice() == field.as_bytes()) {
                Some((_, value)) => out.extend_from_slice(value),
                None => {
                    out.push(b'[');
                    for (number, text) in fields.iter().enumerate() {
                        if number > 0 {
                            out.push(b',');
                        }
                        write_text(text, out);
                    }
                    out.push(b']');
                }
            },
            None => {
                if let ([_, value], Some(_)) = (fields, pairs.next()) {
                    return out.extend_from_slice(value);
                }
                out.push(b'{');
                for (number, pair) in fields.chunks_exact(2).enumerate() {
                    if number > 0 {
                        out.push(b',');
                    }
                    for (text, after) in pair.iter().zip([b":".as_slice(), b""]) {
                        write_text(text, out);
                        out.extend_from_slice(after);
                    }
                }
                out.push(b'}');
            }
        }
    }
}

/// Writes a JSON text; bytes that are no UTF-8 become U+FFFD.
fn write_text(bytes: &[u8], out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(out, &String::from_utf8_lossy(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fields: &[&str]) -> Entry {
        let fields = fields.iter().map(|text| text.as_bytes().to_vec()).collect();
        Entry { id: EntryId { ms: 1, sequence: 0 }, fields: Some(fields) }
    }

    #[test]
    fn an_entry_is_its_field_its_only_field_or_an_object() {
        let record = |fields: &[&str], field| {
            let mut out = Vec::new();
            entry(fields).write(field, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(record(&["a", "{}", "value", "{\"n\":1}"], Some("value")), "{\"n\":1}");
        assert_eq!(record(&["data", "{\"n\":1}"], None), "{\"n\":1}");
        assert_eq!(record(&["n", "1", "m", "a\"b"], None), r#"{"n":"1","m":"a\"b"}"#);
        assert_eq!(record(&["n", "1", "m", "2"], Some("value")), r#"["n","1","m","2"]"#);
    }
}
