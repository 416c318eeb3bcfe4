//! Records of the Kinesis Producer Library, which puts many into one.
//!
//! ```text
//!  F3 89 9A C2 │ AggregatedRecord (protobuf) │ MD5 of the message, 16 bytes
//!
//!  AggregatedRecord   1 partition_key_table       repeated string
//!                     2 explicit_hash_key_table   repeated string
//!                     3 records                   repeated Record
//!  Record             1 partition_key_index       uint64, into the table
//!                     2 explicit_hash_key_index   uint64, into the table, may be missing
//!                     3 data                      bytes
//! ```
//!
//! By "KPL Aggregated Record Format" of amazon-kinesis-producer. What has the magic and not the checksum is a record
//! that merely looks so. A few fields of two messages: a protobuf library would be more code than this.
//!
//! Cost: the MD5 and a walk, some 2 ns a byte; nothing is copied.

use md5::{Digest, Md5};

use super::lanes::hash_key;

const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
const TRAILER_BYTES: usize = 16;

/// A record within another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inner<'a> {
    pub hash_key: u128,
    pub data: &'a [u8],
}

/// The records that `data` holds; `None` if it is no aggregated record, or a damaged one.
pub(super) fn records(data: &[u8]) -> Option<Vec<Inner<'_>>> {
    let rest = data.strip_prefix(&MAGIC)?;
    let (message, trailer) = rest.split_at_checked(rest.len().checked_sub(TRAILER_BYTES)?)?;
    if Md5::digest(message).as_slice() != trailer {
        return None;
    }
    let (mut partition_keys, mut hash_keys, mut inner) = (Vec::new(), Vec::new(), Vec::new());
    for field in (Fields { rest: message }) {
        match field? {
            (1, Value::Bytes(key)) => partition_keys.push(hash_key(std::str::from_utf8(key).ok()?)),
            (2, Value::Bytes(key)) => hash_keys.push(std::str::from_utf8(key).ok()?.parse::<u128>().ok()?),
            (3, Value::Bytes(record)) => inner.push(record),
            _ => {}
        }
    }
    let record = |message| {
        let (mut partition_key, mut explicit, mut data) = (None, None, None);
        for field in (Fields { rest: message }) {
            match field? {
                (1, Value::Number(index)) => partition_key = Some(*partition_keys.get(index as usize)?),
                (2, Value::Number(index)) => explicit = Some(*hash_keys.get(index as usize)?),
                (3, Value::Bytes(bytes)) => data = Some(bytes),
                _ => {}
            }
        }
        Some(Inner { hash_key: explicit.or(partition_key)?, data: data? })
    };
    inner.into_iter().map(record).collect()
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message, number and value. Ends after a field that is cut off.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made by hand from the format's description: two keys, one hash key, three records.
    fn example() -> Vec<u8> {
        let mut message = Vec::new();
        message.extend(b"\x0a\x01a\x0a\x02bb\x12\x0217");
        for record in [&b"\x08\x00\x1a\x02{}"[..], b"\x08\x01\x10\x00\x1a\x01x", b"\x08\x01\x1a\x00"] {
            message.extend([0x1a, record.len() as u8]);
            message.extend(record);
        }
        let mut data = MAGIC.to_vec();
        data.extend(&message);
        data.extend(Md5::digest(&message));
        data
    }

    #[test]
    fn records_are_taken_out_with_their_hash_keys() {
        let data = example();
        let inner = |hash_key, data| Inner { hash_key, data };
        let expected = [inner(hash_key("a"), &b"{}"[..]), inner(17, b"x"), inner(hash_key("bb"), b"")];
        assert_eq!(records(&data).unwrap(), expected);
    }

    #[test]
    fn what_only_looks_so_is_none() {
        let data = example();
        for end in 0..data.len() {
            assert_eq!(records(&data[..end]), None);
        }
        assert_eq!(records(b"{\"n\":1}"), None);
        // An index that points nowhere.
        let message = b"\x1a\x04\x08\x05\x1a\x00";
        let all = [&MAGIC[..], message, Md5::digest(message).as_slice()].concat();
        assert_eq!(records(&all), None);
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_makes_it_fail(message in proptest::collection::vec(any::<u8>(), 0..200)) {
            let all = [&MAGIC[..], &message, Md5::digest(&message).as_slice()].concat();
            if let Some(inner) = records(&all) {
                prop_assert!(inner.iter().map(|record| record.data.len()).sum::<usize>() <= message.len());
            }
        }
    }
}
