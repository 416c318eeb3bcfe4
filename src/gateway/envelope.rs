//! A record as clients see it: one JSON object on one line.
//!
//! ```text
//!   {"topic":"decisions","partition":0,"offset":123,"time":"2013-01-01T10:17:00Z","key":"EWR","value":{…}}
//! ```
//!
//! `value` is the record's value when that is JSON, unchanged but for line breaks between its tokens (a line
//! break would end a line of an event stream). Otherwise `text` holds it when it is UTF-8, or `base64`.
//! `key` is there when the record has one that is UTF-8; `time` is null outside the years that RFC 3339
//! writes. Cost: about 400 ns a record of 200 bytes, most of it checking the JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat};
use levada_connectors::log::RecordRef;
use serde::de::IgnoredAny;

/// The first moment of the year 0, and of the year 10000: RFC 3339 has four digits.
const YEAR_0_MS: i64 = -62_167_219_200_000;
const YEAR_10000_MS: i64 = 253_402_300_800_000;

/// Appends the envelope of a record; what a topic holds can never make it fail.
pub fn write_envelope(out: &mut Vec<u8>, topic: &str, partition: u32, record: &RecordRef<'_>) {
    out.extend_from_slice(b"{\"topic\":");
    write_string(out, topic);
    out.extend_from_slice(
        format!(",\"partition\":{partition},\"offset\":{},\"time\":", record.offset).as_bytes(),
    );
    let written = Some(record.timestamp_ms).filter(|ms| (YEAR_0_MS..YEAR_10000_MS).contains(ms));
    match written.and_then(DateTime::from_timestamp_millis) {
        Some(time) => {
            out.push(b'"');
            out.extend_from_slice(time.to_rfc3339_opts(SecondsFormat::AutoSi, true).as_bytes());
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
    if let Some(key) = record.key.and_then(|key| std::str::from_utf8(key).ok()) {
        out.extend_from_slice(b",\"key\":");
        write_string(out, key);
    }
    match std::str::from_utf8(record.value) {
        Ok(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => {
            out.extend_from_slice(b",\"value\":");
            let start = out.len();
            out.extend_from_slice(text.trim().as_bytes());
            // Between tokens only: within a JSON string a line break is written as an escape.
            for byte in out.get_mut(start..).unwrap_or_default() {
                if matches!(byte, b'\n' | b'\r') {
                    *byte = b' ';
                }
            }
        }
        Ok(text) => {
            out.extend_from_slice(b",\"text\":");
            write_string(out, text);
        }
        Err(_) => {
            out.extend_from_slice(b",\"base64\":\"");
            out.extend_from_slice(STANDARD.encode(record.value).as_bytes());
            out.push(b'"');
        }
    }
    out.push(b'}');
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    // Writing a string to memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use levada_connectors::log::{Log, RecordIn, Start, TopicConfig, WriterOptions};
    use proptest::prelude::*;

    use super::*;

    fn envelopes(records: &[RecordIn<'_>]) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Log::open(folder.path()).expect("a log");
        let topic = log.create_topic("t", TopicConfig::default()).expect("a topic");
        let writer = topic.writer(0, WriterOptions::default()).expect("a writer");
        writer.append(records).expect("an append");
        let mut reader = topic.reader(0, Start::Beginning).expect("a reader");
        let fetched = reader.read(100, usize::MAX).expect("records");
        fetched
            .iter()
            .map(|record| {
                let mut out = Vec::new();
                write_envelope(&mut out, "t", 0, &record);
                String::from_utf8(out).expect("UTF-8")
            })
            .collect()
    }

    #[test]
    fn json_goes_in_as_it_is_and_the_rest_as_text_or_base64() {
        let record = |value| RecordIn { value, ..RecordIn::default() };
        let time = 1_357_035_420_000;
        let records = [
            RecordIn {
                timestamp_ms: time,
                key: Some(b"E\"R"),
                value: b" {\"a\":\r\n1.0}\n",
                ..RecordIn::default()
            },
            record(b"late\n"),
            record(b"\xff"),
            record(b""),
            RecordIn { timestamp_ms: YEAR_10000_MS - 1, value: b"[]", ..RecordIn::default() },
            RecordIn { timestamp_ms: YEAR_10000_MS, key: Some(b"\xff"), value: b"1", ..RecordIn::default() },
        ];
        let expected = [
            r#"{"topic":"t","partition":0,"offset":0,"time":"2013-01-01T10:17:00Z","key":"E\"R","value":{"a":  1.0}}"#,
            r#"{"topic":"t","partition":0,"offset":1,"time":"1970-01-01T00:00:00Z","text":"late\n"}"#,
            r#"{"topic":"t","partition":0,"offset":2,"time":"1970-01-01T00:00:00Z","base64":"/w=="}"#,
            r#"{"topic":"t","partition":0,"offset":3,"time":"1970-01-01T00:00:00Z","text":""}"#,
            r#"{"topic":"t","partition":0,"offset":4,"time":"9999-12-31T23:59:59.999Z","value":[]}"#,
            r#"{"topic":"t","partition":0,"offset":5,"time":null,"value":1}"#,
        ];
        assert_eq!(envelopes(&records), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_value_gives_one_line_of_json(
            value in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                "[\\[\\]{}\",:0-9\\r\\n a]{0,40}".prop_map(String::into_bytes),
            ],
            timestamp_ms in any::<i64>(),
        ) {
            for text in envelopes(&[RecordIn { value: &value, timestamp_ms, ..RecordIn::default() }]) {
                prop_assert!(!text.contains(['\n', '\r']));
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
            }
        }
    }
}
