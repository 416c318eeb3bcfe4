use levada_types::{DecoderFactory as _, RawRecords, push_header};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::CloudEventsFormat;
use crate::codec::golden::{columns, events, path, raw, reading, records, rows};

/// Records with headers.
fn with_headers(records: &[(Vec<(String, String)>, Vec<u8>)]) -> RawRecords {
    let values: Vec<&[u8]> = records.iter().map(|(_, value)| value.as_slice()).collect();
    let mut raw = raw(&values);
    let mut data = raw.data.to_vec();
    for (headers, _) in records {
        let start = data.len() as u32;
        headers.iter().for_each(|(name, value)| push_header(name.as_bytes(), value.as_bytes(), &mut data));
        raw.headers.push((start, data.len() as u32));
    }
    raw.data = data.into();
    raw
}

/// The golden records in binary mode; their headers begin with `prefix`.
fn binary(prefix: &str) -> RawRecords {
    let text = std::fs::read_to_string(path("cloudevents-binary.jsonl")).unwrap();
    let record = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        let headers = record["headers"].as_object().unwrap().iter();
        let headers =
            headers.map(|(name, value)| (name.replace("ce_", prefix), value.as_str().unwrap().to_owned()));
        (headers.collect(), record["value"].as_str().unwrap().as_bytes().to_vec())
    };
    with_headers(&text.lines().map(record).collect::<Vec<_>>())
}

#[test]
fn both_modes_give_the_data_and_the_attributes() {
    let mut decoder = CloudEventsFormat.decoder(reading()).unwrap();
    let wanted = [
        ("ce_type", "string"),
        ("ce_sequence", "int"),
        ("ce_time", "timestamp"),
        ("ce_subject", "json"),
        ("ce_none", "string?"),
        ("ce_datacontenttype", "string"),
        ("id", "int"),
    ];
    let mut of_attributes = CloudEventsFormat.decoder(columns(&wanted)).unwrap();
    for records in [raw(&records("cloudevents.records")), binary("ce_"), binary("ce-")] {
        let decoded = decoder.decode(&records);
        assert_eq!((decoded.dead, decoded.indices), (Vec::new(), None));
        assert_eq!(rows(&decoded.rows), events());
        let decoded = of_attributes.decode(&records);
        assert_eq!(decoded.dead, []);
        for (number, (row, event)) in rows(&decoded.rows).iter().zip(events()).enumerate() {
            let subject = event["machine"].as_str().filter(|machine| !machine.is_empty()).unwrap_or("none");
            let expected = json!({ "ce_type": "shop.reading", "ce_sequence": number, "ce_time": event["at"],
                "ce_subject": subject, "ce_none": null, "ce_datacontenttype": "application/json", "id": event["id"] });
            assert_eq!(*row, expected);
        }
    }
}

const HEAD: &str = r#""specversion":"1.0","id":"1","source":"/a","type":"t""#;

#[test]
fn a_bad_event_is_a_dead_letter_with_its_reason() {
    let event = |rest: &str| format!("{{{HEAD}{rest}}}");
    let cases = [
        (event(r#","data":{"n":1,"ce_id":"other"}"#), None),
        (event(r#","data":{"n":"x"}"#), Some("field `n`: expected an int, found \"x\"")),
        (event(r#","data":[1]"#), Some("a JSON array, where a record is one object")),
        (event(""), Some("field `n`: expected an int, but it is missing")),
        (event(r#","data":null"#), Some("field `n`: expected an int, but it is missing")),
        (event(r#","data_base64":"eyJuIjo3fQ==""#), None),
        (event(r#","data_base64":"?""#), Some("field `data_base64`: not base64")),
        (event(r#","data":{"n":1},"data_base64":"""#), Some("the event has data already")),
        (event(r#","data":{"n":1},"level":"high""#), Some("field `ce_level`: expected an int, found high")),
        (
            event(r#","data":{"n":1},"datacontenttype":"text/xml""#),
            Some("field `datacontenttype`: expected JSON"),
        ),
        (r#"{"n":1}"#.to_owned(), Some("field `specversion`: expected \"1.0\", but it is missing")),
        (event("").replace("1.0", "0.3"), Some("field `specversion`: expected \"1.0\", found \"0.3\"")),
        (event("").replace("\"id\":\"1\"", "\"id\":\"\""), Some("field `id`: a CloudEvent has to have one")),
        (format!("[{}]", event("")), Some("a JSON array")),
        (String::new(), Some("the record is empty")),
    ];
    let texts: Vec<&String> = cases.iter().map(|(text, _)| text).collect();
    let wanted = columns(&[("n", "int"), ("ce_level", "int?"), ("ce_id", "string")]);
    let decoded = CloudEventsFormat.decoder(wanted).unwrap().decode(&raw(&texts));
    let good = [
        json!({ "n": 1, "ce_level": null, "ce_id": "1" }),
        json!({ "n": 7, "ce_level": null, "ce_id": "1" }),
    ];
    assert_eq!(rows(&decoded.rows), good);
    assert_eq!(decoded.indices, Some(vec![0, 5]));
    let mut dead = decoded.dead.iter();
    for (place, (text, reason)) in cases.iter().enumerate() {
        let Some(reason) = reason else { continue };
        let letter = dead.next().unwrap();
        assert_eq!((letter.offset.0, letter.bytes.as_slice()), (place as u64, text.as_bytes()));
        assert!(letter.reason.contains(reason), "{text}: {}", letter.reason);
    }
}

#[test]
fn headers_that_are_no_event_are_dead_letters() {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let version = || header("ce_specversion", "1.0");
    let more = || [header("ce_id", "1"), header("ce_source", "/a"), header("ce_type", "t")];
    let all = |extra: Vec<(String, String)>| [vec![version()], more().to_vec(), extra].concat();
    let records = with_headers(&[
        (all(vec![]), br#"{"n":1}"#.to_vec()),
        (vec![version()], br#"{"n":1}"#.to_vec()),
        (all(vec![header("content-type", "application/avro")]), br#"{"n":1}"#.to_vec()),
        (all(vec![header("ce_a b", "")]), br#"{"n":1}"#.to_vec()),
        (all(vec![]), b"".to_vec()),
        (more().to_vec(), br#"{"n":1}"#.to_vec()),
    ]);
    let decoded = CloudEventsFormat.decoder(columns(&[("n", "int?")])).unwrap().decode(&records);
    assert_eq!(rows(&decoded.rows), [json!({ "n": 1 }), json!({ "n": null })]);
    let reasons: Vec<(u64, &str)> =
        decoded.dead.iter().map(|letter| (letter.offset.0, letter.reason.as_str())).collect();
    let expected = [
        (1, "field `id`: a CloudEvent has to have one"),
        (2, "field `datacontenttype`: expected JSON, found \"application/avro\""),
        (3, "field `a b`: a CloudEvents attribute is named by letters and digits"),
        (5, "field `specversion`: expected \"1.0\", but it is missing"),
    ];
    assert_eq!(reasons, expected);
}

proptest! {
    #[test]
    fn whatever_bytes_come_become_rows_or_dead_letters(
        records in prop::collection::vec((
            prop::collection::vec(("(ce_|ce-)?[a-zé]{0,12}", "[ -~]{0,6}"), 0..4),
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                "[\\[\\]{}:,\"a-d0-9 ]{0,40}".prop_map(String::into_bytes),
            ],
        ), 0..8),
    ) {
        let raw = with_headers(&records);
        let wanted = columns(&[("n", "int?"), ("ce_id", "string")]);
        let decoded = CloudEventsFormat.decoder(wanted).unwrap().decode(&raw);
        prop_assert_eq!(decoded.rows.num_rows() + decoded.dead.len(), records.len());
    }
}
