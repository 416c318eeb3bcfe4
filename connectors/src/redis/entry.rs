//! Entries: what a server replies, and the record that each is.

use bytes::Bytes;
use levada_types::RawRecords;
use redis::{RedisResult, Value};

use super::server::{id, unexpected};
use super::{EntryId, UnpackableId};

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

/// Records that were read and not yet given.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    data: Vec<u8>,
    spans: Vec<(u32, u32)>,
    offsets: Vec<u64>,
}

/// Bytes of records that one read gives at most (one record more than fits): only records of more than 64 KiB on
/// average get there. It is counted record by record, so that it does not depend on how they arrived.
const MAX_READ_BYTES: usize = 256 << 20;

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Whether there is as much as one read gives.
    pub(super) fn fills(&self, max_records: usize) -> bool {
        self.len() >= max_records || self.bytes() >= MAX_READ_BYTES
    }

    /// Adds the record that an entry is, under an offset.
    pub(super) fn add(&mut self, entry: &Entry, field: Option<&str>, offset: u64) {
        let start = self.data.len() as u32;
        entry.write(field, &mut self.data);
        self.spans.push((start, self.data.len() as u32));
        self.offsets.push(offset);
    }

    /// Adds the record that an entry is, under its own offset.
    ///
    /// # Errors
    /// When the id does not fit one.
    pub(super) fn add_own(&mut self, entry: &Entry, field: Option<&str>) -> Result<(), UnpackableId> {
        self.add(entry, field, entry.id.offset()?);
        Ok(())
    }

    /// The first of them.
    pub(super) fn take(&mut self, max_records: usize) -> RawRecords {
        let fits = self.spans.iter().position(|(_, end)| *end as usize >= MAX_READ_BYTES);
        let count = max_records.min(fits.map_or(usize::MAX, |last| last + 1));
        let mut taken = std::mem::take(self);
        if count < taken.len() {
            let (spans, offsets) = (taken.spans.split_off(count), taken.offsets.split_off(count));
            let from = spans.first().map_or(0, |(start, _)| *start);
            self.data = taken.data.split_off(from as usize);
            self.spans = spans.into_iter().map(|(start, end)| (start - from, end - from)).collect();
            self.offsets = offsets;
        }
        RawRecords {
            data: Bytes::from(taken.data),
            spans: taken.spans,
            offsets: taken.offsets,
            ..RawRecords::default()
        }
    }
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

    #[test]
    fn what_waits_is_given_in_order_and_cut_where_it_is_asked() {
        let mut waiting = Waiting::default();
        for n in 0..10u64 {
            waiting.add(&entry(&["v", &"x".repeat(n as usize)]), None, n);
        }
        let (mut offsets, mut lengths) = (Vec::new(), Vec::new());
        while !waiting.is_empty() {
            let records = waiting.take(3);
            offsets.extend(&records.offsets);
            lengths.extend((0..records.len()).map(|i| records.value(i).len() as u64));
        }
        assert_eq!((offsets, lengths), ((0..10).collect(), (0..10).collect()));
    }
}
