//! The messages of an event stream of AWS (`application/vnd.amazon.eventstream`), out of the bytes of an answer.
//!
//! ```text
//!  length of all u32 │ length of the headers u32 │ CRC-32 of the 8 bytes before │ headers │ payload │ CRC-32 of all before
//!
//!  a header   length of the name u8 │ name │ type u8 │ value; a text (type 7) has its length, u16, before it
//! ```
//!
//! Numbers are big-endian; the CRC-32 is that of gzip. By "Event stream encoding" of AWS's documentation.

use std::collections::BTreeMap;

/// The longest message that the encoding allows: headers, payload, and 16 bytes around them.
const MESSAGE_BYTES: usize = (16 << 20) + (128 << 10) + 16;
/// What stands before the headers, and behind the payload.
const PRELUDE_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 4;

/// A message: its headers that are texts, and its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub headers: BTreeMap<String, String>,
    pub payload: Vec<u8>,
}

/// Bytes that have come, of which messages are made.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    /// How many of them are done with.
    taken: usize,
}

impl Frames {
    /// More have come.
    pub fn push(&mut self, chunk: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.taken));
        self.bytes.extend_from_slice(chunk);
    }

    /// Whether all that has come was whole messages.
    pub fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// The next message, if all of it has come.
    ///
    /// # Errors
    /// When the bytes are none, or not those that were sent: of what follows nothing is known then.
    pub fn next(&mut self) -> Result<Option<Message>, String> {
        let rest = self.bytes.get(self.taken..).unwrap_or_default();
        let (Some(length), Some(headers), Some(checksum)) =
            (number(rest, 0), number(rest, 4), number(rest, 8))
        else {
            return Ok(None);
        };
        check("the beginning of a message", rest.get(..8).unwrap_or_default(), checksum)?;
        let (length, headers) = (length as usize, headers as usize);
        if length > MESSAGE_BYTES || length < PRELUDE_BYTES + headers + CHECKSUM_BYTES {
            return Err(format!("a message of {length} bytes with {headers} of headers is none"));
        }
        let Some(message) = rest.get(..length) else { return Ok(None) };
        let (body, checksum) = message.split_at(length - CHECKSUM_BYTES);
        check("a message", body, number(checksum, 0).unwrap_or_default())?;
        let (headers, payload) = body.get(PRELUDE_BYTES..).unwrap_or_default().split_at(headers);
        let headers = texts(headers).ok_or("the headers of a message are not understood")?;
        let message = Message { headers, payload: payload.to_vec() };
        self.taken += length;
        Ok(Some(message))
    }
}

fn check(what: &str, bytes: &[u8], checksum: u32) -> Result<(), String> {
    match crc32fast::hash(bytes) {
        found if found == checksum => Ok(()),
        found => Err(format!("{what} is damaged: its CRC-32 is {found:08x}, and {checksum:08x} was sent")),
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Those of the headers whose values are texts.
fn texts(mut bytes: &[u8]) -> Option<BTreeMap<String, String>> {
    let mut headers = BTreeMap::new();
    while let Some((&length, rest)) = bytes.split_first() {
        let (name, rest) = rest.split_at_checked(length.into())?;
        let (&kind, rest) = rest.split_first()?;
        let (before, length) = match kind {
            0 | 1 => (0, 0),
            2 => (0, 1),
            3 => (0, 2),
            4 => (0, 4),
            5 | 8 => (0, 8),
            6 | 7 => (2, u16::from_be_bytes(rest.get(..2)?.try_into().ok()?).into()),
            9 => (0, 16),
            _ => return None,
        };
        let (value, rest) = rest.get(before..)?.split_at_checked(length)?;
        if kind == 7 {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
            headers.insert(text(name)?, text(value)?);
        }
        bytes = rest;
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The three of AWS's own example messages that are of use here: nothing at all, a payload, and a header.
    #[test]
    fn messages_are_those_of_the_examples() {
        let empty = [0, 0, 0, 0x10, 0, 0, 0, 0, 5, 0xc2, 0x48, 0xeb, 0x7d, 0x98, 0xc8, 0xff];
        let mut payload = vec![0, 0, 0, 0x1d, 0, 0, 0, 0, 0xfd, 0x52, 0x8c, 0x5a];
        payload.extend_from_slice(b"{'foo':'bar'}");
        payload.extend([0xc3, 0x65, 0x39, 0x36]);
        let mut header = vec![0, 0, 0, 0x3d, 0, 0, 0, 0x20, 7, 0xfd, 0x83, 0x96, 12];
        header.extend_from_slice(b"content-type\x07\x00\x10application/json{'foo':'bar'}");
        header.extend([0x8d, 0x9c, 8, 0xb1]);
        let all = [empty.as_slice(), &payload, &header].concat();
        let bar = b"{'foo':'bar'}".to_vec();
        let json = BTreeMap::from([("content-type".to_string(), "application/json".to_string())]);
        let expected = [
            Message::default(),
            Message { payload: bar.clone(), ..Message::default() },
            Message { headers: json, payload: bar },
        ];
        for at_once in [1, 7, all.len()] {
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for chunk in all.chunks(at_once) {
                frames.push(chunk);
                while let Some(message) = frames.next().unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, expected);
            assert!(frames.is_empty());
        }
    }

    #[test]
    fn a_bit_that_changed_anywhere_is_noticed() {
        let mut message = vec![0, 0, 0, 0x1d, 0, 0, 0, 0, 0xfd, 0x52, 0x8c, 0x5a];
        message.extend_from_slice(b"{'foo':'bar'}");
        message.extend([0xc3, 0x65, 0x39, 0x36]);
        for place in 0..message.len() {
            let mut damaged = message.clone();
            damaged[place] ^= 0x10;
            let mut frames = Frames::default();
            frames.push(&damaged);
            assert!(frames.next().is_err(), "byte {place}");
        }
    }
}
