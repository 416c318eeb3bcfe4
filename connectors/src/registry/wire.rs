//! Confluent's wire format: what a record begins with whose schema is in a registry.

/// `00`, then the schema's id in 4 bytes, the most significant first.
pub const PREFIX_BYTES: usize = 5;

/// The id of a record's schema, if it has one.
#[inline]
pub fn id(record: &[u8]) -> Option<u32> {
    match record.first_chunk::<PREFIX_BYTES>() {
        Some([0, id @ ..]) => Some(u32::from_be_bytes(*id)),
        _ => None,
    }
}

/// Why a record has none.
#[cold]
pub fn reason(record: &[u8]) -> String {
    match record.first() {
        None => "not of the wire format of a schema registry: the record is empty".to_owned(),
        Some(0) => {
            format!("not of the wire format of a schema registry: it has {} bytes, and no id", record.len())
        }
        Some(first) => format!(
            "not of the wire format of a schema registry, which begins with the byte 00: it begins with {first:02x}"
        ),
    }
}
