use std::path::PathBuf;

use levada_types::{Decoded, DecoderFactory as _};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{AvroConfig, AvroFormat, Schema};
use crate::codec::golden::{Dice, columns, events, path, raw, reading, records, rows};

fn of_writer(schema: &str) -> AvroFormat {
    AvroFormat::new(&AvroConfig { writer: Some(PathBuf::from(schema)), ..AvroConfig::default() }, None)
}

fn golden(name: &str) -> AvroFormat {
    of_writer(path(name).to_str().unwrap())
}

/// Decodes records of a schema.
fn decoded(schema: &Value, types: &[(&str, &str)], values: &[&[u8]]) -> Decoded {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("schema.avsc");
    std::fs::write(&file, schema.to_string()).unwrap();
    of_writer(file.to_str().unwrap()).decoder(columns(types)).unwrap().decode(&raw(values))
}

/// The readings as the second schema has most of them.
fn mixed() -> Vec<Value> {
    let mut events = events();
    for event in events.iter_mut().enumerate().filter(|(n, _)| n % 4 != 0).map(|(_, event)| event) {
        event["ok"] = json!(true);
    }
    events
}

#[test]
fn what_fastavro_wrote_is_read() {
    let decoded = golden("reading.avsc").decoder(reading()).unwrap().decode(&raw(&records("avro.records")));
    assert_eq!((decoded.dead, decoded.indices), (Vec::new(), None));
    assert_eq!(rows(&decoded.rows), events());
    let few = columns(&[("kind", "string"), ("at", "timestamp")]);
    let decoded = golden("reading.avsc").decoder(few).unwrap().decode(&raw(&records("avro.records")));
    assert_eq!(decoded.rows.num_rows(), 120);
    assert_eq!(rows(&decoded.rows)[2], json!({ "kind": "DRILL", "at": "2026-01-05T08:00:01.500Z" }));
}

#[test]
fn a_fingerprint_names_the_schema_and_the_reader_s_fills_in() {
    let prints: Value = serde_json::from_slice(&std::fs::read(path("fingerprints.json")).unwrap()).unwrap();
    for name in ["reading.avsc", "reading-2.avsc"] {
        let schema = Schema::parse(&std::fs::read_to_string(path(name)).unwrap(), &[]).unwrap();
        let bytes = schema.fingerprint().to_le_bytes();
        assert_eq!(
            bytes.map(|byte| format!("{byte:02x}")).concat(),
            prints[name].as_str().unwrap(),
            "{name}"
        );
    }
    let mut config = AvroConfig {
        single_object: vec![path("reading.avsc"), path("reading-2.avsc")],
        reader: Some(path("reader.avsc")),
        ..AvroConfig::default()
    };
    let mut all = records("avro-single-object.records");
    let decoded = AvroFormat::new(&config, None).decoder(reading()).unwrap().decode(&raw(&all));
    assert_eq!(decoded.dead, []);
    assert_eq!(rows(&decoded.rows), mixed());

    config.single_object.pop();
    all.truncate(2);
    all.extend([b"\xc3\x01abc".to_vec(), b"{}".to_vec()]);
    let decoded = AvroFormat::new(&config, None).decoder(reading()).unwrap().decode(&raw(&all));
    assert_eq!(decoded.indices, Some(vec![0]));
    let reasons: Vec<&str> = decoded.dead.iter().map(|letter| letter.reason.as_str()).collect();
    let expected = [
        "schema with the fingerprint 97c89767f0c13a10: it is the fingerprint of none of the schemas",
        "not Avro's single-object encoding: it has 5 bytes",
        "not Avro's single-object encoding, which begins with the bytes c3 01",
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn a_record_that_is_damaged_is_singled_out() {
    let good = records("avro.records");
    let mut decoder = golden("reading.avsc").decoder(reading()).unwrap();
    let mut all = good.clone();
    all[3].truncate(20);
    all[5].push(0);
    all[7].clear();
    let decoded = decoder.decode(&raw(&all));
    let letters: Vec<(u64, &str)> =
        decoded.dead.iter().map(|letter| (letter.offset.0, letter.reason.as_str())).collect();
    let expected = [
        (3, "not Avro of this schema: it breaks off after 20 bytes"),
        (5, "not Avro of this schema: 1 bytes follow the record"),
        (7, "not Avro of this schema: it breaks off after 0 bytes"),
    ];
    assert_eq!(letters, expected);
    assert_eq!(decoded.dead[0].bytes, all[3]);
    let expected: Vec<Value> = events()
        .into_iter()
        .enumerate()
        .filter(|(n, _)| ![3, 5, 7].contains(n))
        .map(|(_, event)| event)
        .collect();
    assert_eq!(rows(&decoded.rows), expected);
    // Cut at every byte: never a row of its own, never a panic.
    for record in &good[..4] {
        for end in 0..record.len() {
            let decoded = decoder.decode(&raw(&[&record[..end], record]));
            assert_eq!((decoded.rows.num_rows(), decoded.dead.len()), (1, 1), "{end} of {}", record.len());
        }
    }
}

#[test]
fn each_type_becomes_that_of_its_column_or_says_why_not() {
    let one =
        |kind: Value| json!({ "type": "record", "name": "R", "fields": [{ "name": "x", "type": kind }] });
    let logical = |kind: &str, logical: &str| json!({ "type": kind, "logicalType": logical });
    let value = |kind: Value, column: &str, bytes: &[u8]| {
        let decoded = decoded(&one(kind), &[("x", column)], &[bytes]);
        match decoded.dead.first() {
            Some(letter) => Err(letter.reason.clone()),
            None => Ok(rows(&decoded.rows)[0]["x"].clone()),
        }
    };
    let uuid = json!({ "type": "fixed", "name": "U", "size": 16, "logicalType": "uuid" });
    let sixteen: Vec<u8> = (0..16).collect();
    for (kind, column, bytes, expected) in [
        (json!("int"), "float", &[3][..], json!(-2.0)),
        (json!("long"), "int", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", json!(i64::MAX)),
        (json!("float"), "float", b"\0\0\xc0\x3f", json!(1.5)),
        (json!("bytes"), "string", b"\x04ab", json!("ab")),
        (json!("bytes"), "json", b"\x04ab", json!("YWI=")),
        (uuid.clone(), "string", &sixteen, json!("00010203-0405-0607-0809-0a0b0c0d0e0f")),
        (logical("int", "date"), "timestamp", &[4], json!("1970-01-03T00:00:00Z")),
        (logical("int", "date"), "json", &[1], json!("1969-12-31")),
        (logical("int", "date"), "int", &[4], json!(2)),
        (logical("long", "timestamp-micros"), "timestamp", &[1], json!("1969-12-31T23:59:59.999Z")),
        (logical("long", "timestamp-nanos"), "timestamp", &[0], json!("1970-01-01T00:00:00Z")),
        (json!("long"), "timestamp", &[2], json!("1970-01-01T00:00:00.001Z")),
        (json!("string"), "timestamp", b"\x281970-01-01T00:00:00Z", json!("1970-01-01T00:00:00Z")),
        (
            json!({ "type": "bytes", "logicalType": "decimal", "scale": 3 }),
            "string",
            b"\x02\xff",
            json!("-0.001"),
        ),
        (
            json!({ "type": "bytes", "logicalType": "decimal", "scale": 1 }),
            "float",
            b"\x04\x01\0",
            json!(25.6),
        ),
        (json!({ "type": "bytes", "logicalType": "decimal" }), "json", b"\0", json!(0)),
        (json!(["null", "string"]), "string?", &[0], json!(null)),
        (json!(["int", "string"]), "string", b"\x02\x02a", json!("a")),
        (json!({ "type": "array", "items": "int" }), "json", b"\x03\x04\x02\x04\x02\x06\0", json!([1, 2, 3])),
        (json!("null"), "int?", b"", json!(null)),
    ] {
        assert_eq!(value(kind.clone(), column, bytes), Ok(expected), "{kind} as {column}");
    }
    for (kind, column, bytes, expected) in [
        (
            json!("string"),
            "int",
            &b"\x02a"[..],
            "field `x`: expected an int, but in the Avro schema it is a string",
        ),
        (json!(["null", "int"]), "int", &[0], "field `x`: expected an int, found null"),
        (json!(["int", "string"]), "int", b"\x02\x02a", "field `x`: expected an int, found a string"),
        (json!("double"), "float", b"\0\0\0\0\0\0\xf8\x7f", "field `x`: expected a float, found NaN"),
        (
            json!("string"),
            "timestamp",
            b"\x08noon",
            "field `x`: expected a timestamp as in 2013-01-01T10:17:00Z, found noon",
        ),
        (json!("long"), "timestamp", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "years 0000 to 9999"),
        (logical("long", "local-timestamp-millis"), "timestamp", &[0], "it is a timestamp without time zone"),
        (json!("string"), "string", b"\x02\xff", "not Avro of this schema: a string is not UTF-8 at byte 2"),
        (json!("string"), "string", b"\x01", "a length of -1 at byte 1"),
        (json!("int"), "int", b"\xff\xff\xff\xff\xff\x01", "does not fit an int"),
        (json!("long"), "int", &[0xff; 11], "a number has more than 64 bits at byte 0"),
        (json!("boolean"), "bool", &[7], "a boolean is 0x07 at byte 1"),
        (json!(["null", "int"]), "int?", &[4], "a union has no branch 2"),
        (json!({ "type": "enum", "name": "E", "symbols": ["A"] }), "string", &[2], "an enum has no symbol 1"),
        (
            json!({ "type": "array", "items": "null" }),
            "json",
            b"\xfe\xff\xff\xff\x0f",
            "more items than such a record can have",
        ),
        (
            json!({ "type": "bytes", "logicalType": "decimal" }),
            "string",
            b"\x22\x01aaaaaaaaaaaaaaaa",
            "a decimal of 17 bytes has more digits than 38",
        ),
    ] {
        let found = value(kind.clone(), column, bytes).unwrap_err();
        assert!(found.contains(expected), "{kind} as {column}: {found}");
    }
    // A type that holds itself is as deep as a record may be.
    let list = json!({ "type": "record", "name": "R", "fields": [{ "name": "x", "type": ["null", "R"] }] });
    let deep = [[2].repeat(200), vec![0]].concat();
    let found = decoded(&list, &[("x", "json?")], &[&deep, &[2, 2, 0]]);
    assert!(found.dead[0].reason.contains("nested deeper than 64 levels"), "{}", found.dead[0].reason);
    assert_eq!(rows(&found.rows), [json!({ "x": { "x": { "x": null } } })]);
}

#[test]
fn what_is_no_schema_says_why() {
    for (text, reason) in [
        ("{", "it is not JSON"),
        (
            r#"{"type":"record","name":"R","fields":[{"name":"a","type":"itn"}]}"#,
            "the field `a` of `R`: there is no type `itn`",
        ),
        (r#"{"type":"record","name":"R"}"#, "`R` has no `fields`"),
        (r#"{"type":"record","fields":[]}"#, "record: it has no `name`"),
        (r#"[["null"]]"#, "a union stands in a union"),
        (r#"{"type":"array"}"#, "a type has no `items`"),
        ("7", "a type is a name, a list or an object, not 7"),
    ] {
        let found = Schema::parse(text, &[]).unwrap_err();
        assert!(found.contains(reason), "{text}: {found}");
    }
    let error = Schema::parse("\"int\"", &[]).unwrap().fields().unwrap_err();
    assert_eq!(error, "the schema is an int, where a record is wanted");
    let deep = format!("{}\"int\"{}", "[".repeat(70), "]".repeat(70));
    assert!(Schema::parse(&deep, &[]).unwrap_err().contains("nested deeper than 64 levels"));
}

#[test]
fn names_are_seen_from_their_namespace() {
    let before = r#"{"type":"enum","name":"Unit","namespace":"si","symbols":["C"]}"#.to_owned();
    let text = r#"{"type":"record","name":"a.R","fields":[
        {"name":"k","type":{"type":"fixed","name":"K","size":2}}, {"name":"l","type":"K"},
        {"name":"u","type":"si.Unit"}, {"name":"v","type":{"type":{"type":"string"}}}]}"#;
    let schema = Schema::parse(text, &[before]).unwrap();
    let described: Vec<String> =
        schema.fields().unwrap().iter().map(|field| schema.describe(&field.node)).collect();
    assert_eq!(described, ["the fixed `a.K`", "the fixed `a.K`", "the enum `si.Unit`", "a string"]);
}

#[test]
fn columns_that_no_record_can_fill_are_found_beforehand() {
    let wanted = columns(&[
        ("machin", "string"),
        ("id", "string"),
        ("place", "int"),
        ("none", "int?"),
        ("ok", "bool"),
    ]);
    let misfits = golden("reading.avsc").misfits(wanted.clone()).unwrap();
    let found: Vec<(&str, &str, bool)> = misfits
        .iter()
        .map(|misfit| (misfit.column.as_str(), misfit.message.as_str(), misfit.known.is_some()))
        .collect();
    let expected = [
        ("machin", "the Avro schema has no field `machin`", true),
        ("id", "field `id`: expected a string, but in the Avro schema it is a long", false),
        (
            "place",
            "field `place`: expected an int, but in the Avro schema it is the record `shop.Place`",
            false,
        ),
    ];
    assert_eq!(found, expected);
    let error = of_writer("none.avsc").decoder(wanted).err().unwrap().to_string();
    assert!(error.starts_with("failed to read the Avro schema none.avsc: "), "{error}");
}

proptest! {
    #[test]
    fn random_bytes_become_rows_or_dead_letters(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..10),
    ) {
        let mut decoder = golden("reading-2.avsc").decoder(columns(&[
            ("temperature", "float"), ("place", "json"), ("extra", "json"), ("price", "string"), ("at", "timestamp"),
        ])).unwrap();
        let decoded = decoder.decode(&raw(&records));
        prop_assert_eq!(decoded.rows.num_rows() + decoded.dead.len(), records.len());
    }

    #[test]
    fn damaged_records_become_rows_or_dead_letters(seed in any::<u64>()) {
        let mut dice = Dice(seed);
        let mut all = records("avro.records");
        for record in &mut all {
            let place = dice.below(record.len());
            record[place] = dice.below(256) as u8;
        }
        let decoded = golden("reading.avsc").decoder(reading()).unwrap().decode(&raw(&all));
        prop_assert_eq!(decoded.rows.num_rows() + decoded.dead.len(), all.len());
    }
}
