#!/usr/bin/env python3
"""Makes the files of this folder: the same readings in each format, by implementations that are not levada's.

    python3 -m venv /tmp/make && /tmp/make/bin/pip install fastavro==1.13.1 grpcio-tools==1.85.1 cloudevents==2.2.0
    /tmp/make/bin/python tests/formats/golden/make.py

The tests read the files alone; this is run again only to change them. In: `reading.proto`, `*.avsc`. Out:
- `events.jsonl`: the readings as JSON;
- `*.records`: records one after another, each behind its length in 4 bytes, the least significant first;
- `cloudevents-binary.jsonl`: a record a line, its headers and its value;
- `reading.desc`: the descriptor set; `fingerprints.json`: the fingerprints of the schemas.
"""

import base64
import copy
import datetime
import decimal
import importlib
import io
import json
import pathlib
import struct
import sys
import tempfile

import fastavro
from cloudevents.core.bindings import kafka
from cloudevents.core.v1.event import CloudEvent
from fastavro.schema import fingerprint, to_parsing_canonical_form
from grpc_tools import protoc

HERE = pathlib.Path(__file__).parent
KINDS = ["PRESS", "OVEN", "DRILL"]
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def reading(n):
    """A reading, with values at the edges of their types here and there."""
    return {
        "id": n if n % 50 else -(2**31) + n,
        "machine": ["press", "öven", "drill \"3\"", ""][n % 4],
        "celsius": n * 0.25 - 3,
        "at": 1_767_600_000_000 + n * 750,
        "count": [n, -n, 2**31 - 1, -(2**31)][n % 4],
        "ok": n % 3 > 0,
        "kind": KINDS[n % 3],
        "note": None if n % 5 else f"note {n}\n",
        "price": f"{n * 7 - 90}.{n % 100:02}",
        "place": {
            "hall": "ABC"[n % 3],
            "row": n % 7,
            "tags": [f"t{i}" for i in range(n % 4)],
            "limits": {} if n % 6 else {"high": 90.5, "low": -n - 0.5},
        },
        "wrapped": None if n % 2 else n * 10**12,
        "person": f"p{n}" if n % 3 == 1 else None,
        "robot": n if n % 3 == 2 else None,
    }


def rfc3339(ms):
    text = (EPOCH + datetime.timedelta(milliseconds=ms)).strftime("%Y-%m-%dT%H:%M:%S")
    return text + (f".{ms % 1000:03}Z" if ms % 1000 else "Z")


def as_json(event):
    return json.dumps({**event, "at": rfc3339(event["at"])}, ensure_ascii=False, separators=(",", ":"))


def write_records(name, records):
    with open(HERE / name, "wb") as out:
        for record in records:
            out.write(struct.pack("<I", len(record)) + record)


def datum(schema, value):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, value, strict=True)
    return out.getvalue()


def avro(events):
    schemas = [fastavro.parse_schema(json.load(open(HERE / f"reading{n}.avsc"))) for n in ["", "-2"]]
    prints = [fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO") for schema in schemas]
    # fastavro prints the eight bytes as they stand in a record: the least significant first.
    first, confluent, single = [], [], []
    for n, event in enumerate(events):
        at = EPOCH + datetime.timedelta(milliseconds=event["at"])
        price = decimal.Decimal(event["price"])
        value = {**event, "at": at, "price": price}
        first.append(datum(schemas[0], value))
        which = 0 if n % 4 == 0 else 1
        if which == 1:
            value = copy.deepcopy(value)
            value["temperature"] = value.pop("celsius")
            value["extra"] = {"a": [None, 5, b"xyz"], "b": []}
            del value["ok"]
        record = datum(schemas[which], value)
        confluent.append(struct.pack(">bI", 0, [7, 100_000][which]) + record)
        single.append(b"\xc3\x01" + bytes.fromhex(prints[which]) + record)
    write_records("avro.records", first)
    write_records("avro-confluent.records", confluent)
    write_records("avro-single-object.records", single)
    (HERE / "fingerprints.json").write_text(json.dumps(dict(zip(["reading.avsc", "reading-2.avsc"], prints))) + "\n")


def protobuf(events):
    with tempfile.TemporaryDirectory() as folder:
        well_known = pathlib.Path(importlib.import_module("grpc_tools").__file__).parent / "_proto"
        code = protoc.main(
            ["protoc", f"-I{HERE}", f"-I{well_known}", f"--python_out={folder}", "--include_imports",
             f"--descriptor_set_out={HERE / 'reading.desc'}", "reading.proto"]
        )
        assert code == 0
        sys.path.insert(0, folder)
        module = importlib.import_module("reading_pb2")
    plain = []
    for event in events:
        message = module.Reading()
        for name in ["id", "machine", "celsius", "count", "ok", "price"]:
            setattr(message, name, event[name])
        message.kind = module.Reading.Kind.Value(event["kind"])
        message.at.FromMilliseconds(event["at"])
        message.place.hall, message.place.row = event["place"]["hall"], event["place"]["row"]
        message.place.tags.extend(event["place"]["tags"])
        message.place.limits.update(event["place"]["limits"])
        for name in ["note", "person", "robot"]:
            if event[name] is not None:
                setattr(message, name, event[name])
        if event["wrapped"] is not None:
            message.wrapped.value = event["wrapped"]
        message.extra = b"unknown to nobody"
        plain.append(message.SerializeToString())
    write_records("protobuf.records", plain)
    # `Reading` is the second message of its file: one number, 1, as zigzag varints.
    write_records("protobuf-confluent.records", [struct.pack(">bI", 0, 9) + b"\x02\x02" + record for record in plain])


def cloudevents(events):
    structured, binary = [], []
    for n, event in enumerate(events):
        attributes = {
            "id": f"event-{n}",
            "source": "/halls/" + event["place"]["hall"],
            "type": "shop.reading",
            "time": EPOCH + datetime.timedelta(milliseconds=event["at"]),
            "datacontenttype": "application/json",
            "subject": event["machine"] or "none",
            "sequence": str(n),
        }
        data = json.loads(as_json(event))
        structured.append(kafka.to_structured_event(CloudEvent(attributes, data)).value)
        message = kafka.to_binary_event(CloudEvent(attributes, data))
        headers = {name: value.decode() for name, value in message.headers.items()}
        binary.append(json.dumps({"headers": headers, "value": message.value.decode()}))
    write_records("cloudevents.records", structured)
    (HERE / "cloudevents-binary.jsonl").write_text("\n".join(binary) + "\n")


def main():
    events = [reading(n) for n in range(120)]
    (HERE / "events.jsonl").write_text("".join(as_json(event) + "\n" for event in events))
    avro(events)
    protobuf(events)
    cloudevents(events)


main()
