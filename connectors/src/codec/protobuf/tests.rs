use levada_types::{Decoded, DecoderFactory as _};
use proptest::prelude::*;
use serde_json::json;

use super::{Framing, ProtobufConfig, ProtobufFormat};
use crate::codec::golden::{Dice, columns, events, path, raw, reading, records, rows};

fn format(message: &str, framing: Framing) -> ProtobufFormat {
    let descriptor_set = path("reading.desc");
    ProtobufFormat::new(&ProtobufConfig { descriptor_set, message: message.into(), framing })
}

fn decoded(types: &[(&str, &str)], values: &[&[u8]]) -> Decoded {
    format("shop.Reading", Framing::None).decoder(columns(types)).unwrap().decode(&raw(values))
}

fn reasons(decoded: &Decoded) -> Vec<(u64, &str)> {
    decoded.dead.iter().map(|letter| (letter.offset.0, letter.reason.as_str())).collect()
}

#[test]
fn what_protobuf_s_own_library_wrote_is_read() {
    for (name, framing) in
        [("protobuf.records", Framing::None), ("protobuf-confluent.records", Framing::Confluent)]
    {
        let decoded =
            format("shop.Reading", framing).decoder(reading()).unwrap().decode(&raw(&records(name)));
        assert_eq!((decoded.dead, decoded.indices), (Vec::new(), None));
        assert_eq!(rows(&decoded.rows), events(), "{name}");
    }
}

/// A map's entries have no order of their own, and come out of a hash map.
#[test]
fn what_is_nested_is_the_same_text_each_time() {
    let all = records("protobuf.records");
    let message = all[6].as_slice();
    let found = decoded(&[("place", "json")], &[message; 40]);
    let column = arrow::array::AsArray::as_string::<i32>(found.rows.column(0));
    let expected = r#"{"hall":"A","row":6,"tags":["t0","t1"],"limits":{"high":90.5,"low":-6.5}}"#;
    assert!(column.iter().all(|place| place == Some(expected)), "{:?}", column.value(0));
}

#[test]
fn a_message_that_is_damaged_is_singled_out() {
    let mut all = records("protobuf.records");
    all.truncate(4);
    all[1].pop();
    all[2] = b"{}".to_vec();
    let decoded = format("shop.Reading", Framing::None).decoder(reading()).unwrap().decode(&raw(&all));
    assert_eq!(decoded.indices, Some(vec![0, 3]));
    let reasons = reasons(&decoded);
    assert_eq!((reasons[0].0, reasons[1].0), (1, 2));
    assert!(reasons.iter().all(|(_, why)| why.starts_with("not a message `shop.Reading`: ")), "{reasons:?}");
    assert_eq!(decoded.dead[1].bytes, b"{}");
}

#[test]
fn what_a_message_lacks_is_null_or_its_default() {
    let types = [
        ("id", "int"),
        ("kind", "string"),
        ("note", "string?"),
        ("at", "timestamp?"),
        ("wrapped", "int?"),
        ("robot", "int?"),
        ("place", "json?"),
        ("unknown", "int?"),
    ];
    // Nothing; an enum's value without a name; an empty wrapper, an empty timestamp and an empty place.
    let found = decoded(&types, &[b"", b"\x38\x07", b"\x5a\0\x22\0\x52\0"]);
    assert_eq!(found.dead, []);
    let row = |kind: &str, at, wrapped, place| {
        json!({ "id": 0, "kind": kind, "note": null, "at": at, "wrapped": wrapped, "robot": null,
            "place": place, "unknown": null })
    };
    let place = json!({ "hall": "", "row": 0, "tags": [], "limits": {} });
    let expected = [
        row("PRESS", json!(null), json!(null), json!(null)),
        row("7", json!(null), json!(null), json!(null)),
        row("PRESS", json!("1970-01-01T00:00:00Z"), json!(0), place),
    ];
    assert_eq!(rows(&found.rows), expected);
    // Two of a `oneof`: the later one counts. And what must be there is missed.
    let found =
        decoded(&[("person", "string"), ("robot", "int?")], &[b"\x62\x01a", b"\x62\x01a\x6d\x01\0\0\0"]);
    assert_eq!(rows(&found.rows), [json!({ "person": "a", "robot": null })]);
    assert_eq!(reasons(&found), [(1, "field `person`: expected a string, but it is missing")]);
    // A year that no timestamp has, a double that is no number.
    let far = b"\x22\x07\x08\xff\xff\xff\xff\xff\x7f".as_slice();
    let found = decoded(&[("at", "timestamp?"), ("celsius", "float")], &[far, b"\x19\0\0\0\0\0\0\xf0\x7f"]);
    let expected = [
        (0, "field `at`: expected a timestamp in the years 0000 to 9999"),
        (1, "field `celsius`: expected a float, found inf"),
    ];
    assert_eq!(reasons(&found), expected);
}

#[test]
fn the_wire_format_says_which_message_it_is() {
    let reading = records("protobuf.records").swap_remove(1);
    let framed = |before: &[u8]| [before, &reading].concat();
    let all = [
        framed(b"\0\0\0\0\x09\x02\x02"),
        framed(b"\0\0\0\0\x09\0"),
        framed(b"\0\0\0\0\x09\x02\x08"),
        framed(b"\x01\0\0\0\x09\0"),
        b"\0\0\0\0\x09".to_vec(),
        b"\0\0\0\0\x09\x01".to_vec(),
        Vec::new(),
    ];
    let wanted = columns(&[("machine", "string")]);
    let found = format("shop.Reading", Framing::Confluent).decoder(wanted).unwrap().decode(&raw(&all));
    assert_eq!(rows(&found.rows), [json!({ "machine": "öven" })]);
    let expected = [
        (1, "expected a message `shop.Reading`, found a `shop.Other`"),
        (2, "the file of `shop.Reading` has no message at [4]"),
        (3, "not of the wire format of a schema registry, which begins with the byte 00: it begins with 01"),
        (4, "not Confluent's wire format: no place of the message's type"),
        (5, "not Confluent's wire format: no place of the message's type"),
        (6, "not of the wire format of a schema registry: the record is empty"),
    ];
    assert_eq!(reasons(&found), expected);
}

#[test]
fn columns_that_no_message_can_fill_are_found_beforehand() {
    let wanted = columns(&[("machin", "string"), ("id", "bool"), ("place", "string"), ("note", "string")]);
    let misfits = format("shop.Reading", Framing::None).misfits(wanted.clone()).unwrap();
    let found: Vec<(&str, &str, bool)> = misfits
        .iter()
        .map(|misfit| (misfit.column.as_str(), misfit.message.as_str(), misfit.known.is_some()))
        .collect();
    let expected = [
        ("machin", "the message `shop.Reading` has no field `machin`", true),
        ("id", "field `id`: expected a bool, but in Protobuf it is int64", false),
        (
            "place",
            "field `place`: expected a string, but in Protobuf it is the message `shop.Reading.Place`",
            false,
        ),
    ];
    assert_eq!(found, expected);
    let error = format("shop.Readin", Framing::None).misfits(wanted.clone()).unwrap_err().to_string();
    assert!(error.contains("it has no message `shop.Readin`; did you mean `shop.Reading`?"), "{error}");
    let config = ProtobufConfig { descriptor_set: path("reading.proto"), ..ProtobufConfig::default() };
    let error = ProtobufFormat::new(&config).misfits(wanted).unwrap_err().to_string();
    assert!(error.contains("`protoc --include_imports --descriptor_set_out=FILE` writes one"), "{error}");
}

proptest! {
    #[test]
    fn random_bytes_become_rows_or_dead_letters(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..10),
    ) {
        for framing in [Framing::None, Framing::Confluent] {
            let decoded = format("shop.Reading", framing).decoder(reading()).unwrap().decode(&raw(&records));
            prop_assert_eq!(decoded.rows.num_rows() + decoded.dead.len(), records.len());
        }
    }

    #[test]
    fn damaged_messages_become_rows_or_dead_letters(seed in any::<u64>()) {
        let mut dice = Dice(seed);
        let mut all = records("protobuf.records");
        for record in &mut all {
            let place = dice.below(record.len());
            record[place] = dice.below(256) as u8;
        }
        let decoded = format("shop.Reading", Framing::None).decoder(reading()).unwrap().decode(&raw(&all));
        prop_assert_eq!(decoded.rows.num_rows() + decoded.dead.len(), all.len());
    }
}
