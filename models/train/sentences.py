"""Trains a small model of sentences, for the tests: alerts that mean the same without a common word get like vectors.

    python3 models/train/sentences.py

Writes into models/sentences: alerts.onnx, its vocabulary alerts.txt and its manifest alerts.json. It needs nothing but
Python, and gives the same files on every machine: the graph is one table of vectors, one a piece of a word, and their sum
over a text. They are learnt from made-up alerts: two that say the same things by other words are to point the same way, two
that say other things are not (a contrastive loss with a margin). It shows how a model is declared; of texts in general it
knows nothing.
"""

import hashlib
import json
import math
import random
import struct
from pathlib import Path

NAME = "alerts"
TOKENS, BATCH, DIMENSIONS = 16, 8, 16
SEED = 20261128
STEPS, RATE, MARGIN = 30_000, 0.05, 0.2

# What an alert may be about, and the words for it.
CONCEPTS = [
    ["disk", "volume", "storage"], ["full", "exhausted", "overflow"], ["slow", "sluggish", "delayed"],
    ["login", "signin", "authentication"], ["denied", "refused", "rejected"], ["memory", "heap", "ram"],
    ["crash", "abort", "panic"], ["network", "link", "connection"], ["lost", "dropped", "vanished"],
    ["deploy", "rollout", "release"], ["query", "statement", "select"], ["queue", "backlog", "buffer"],
    ["certificate", "tls", "handshake"], ["expired", "outdated", "stale"], ["payment", "checkout", "purchase"],
]
FILLERS = ["the", "a", "of", "on", "in", "is", "was", "has", "for", "at", "service", "host"]
PIECES = ["##s", "##ed", "##ing", ".", ",", ":", "-", "!", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]


def main():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *FILLERS, *(word for concept in CONCEPTS for word in concept), *PIECES]
    place = {word: number for number, word in enumerate(words)}
    table = train(place)
    folder = Path(__file__).resolve().parent.parent / "sentences"
    graph, vocabulary = model(table), "".join(f"{word}\n" for word in words).encode()
    sha = hashlib.sha256(graph).hexdigest()
    (folder / f"{NAME}.onnx").write_bytes(graph)
    (folder / f"{NAME}.txt").write_bytes(vocabulary)
    manifest = {
        "format": 1,
        "kind": "sentences",
        "name": NAME,
        "version": f"{NAME}-{sha[:8]}",
        "description": "How alike two alerts are, of a few words that a platform's alerts have. For tests.",
        "onnx": {"file": f"{NAME}.onnx", "sha256": sha},
        "vocabulary": {"file": f"{NAME}.txt", "sha256": hashlib.sha256(vocabulary).hexdigest()},
        "lowercase": True,
        "tokens": TOKENS,
        "batch": BATCH,
        "inputs": {"ids": "ids", "mask": "mask"},
        "output": "sentence",
        "dimensions": DIMENSIONS,
        "pooling": "none",
        "training": {"command": "python3 models/train/sentences.py", "steps": STEPS, "margin": MARGIN, "seed": SEED},
    }
    (folder / f"{NAME}.json").write_text(json.dumps(manifest, indent=2) + "\n")
    tell(table, place)


def train(place):
    """One vector a word."""
    rng = random.Random(SEED)
    table = [[rng.uniform(-0.5, 0.5) for _ in range(DIMENSIONS)] for _ in place]
    table[place["[PAD]"]] = [0.0] * DIMENSIONS
    for _ in range(STEPS):
        about = rng.sample(range(len(CONCEPTS)), 2)
        other = rng.sample([concept for concept in range(len(CONCEPTS)) if concept not in about], 2)
        same, more, less = (says(concepts, rng, place) for concepts in (about, about, other))
        pull(table, same, more, 1.0)
        pull(table, same, less, -1.0)
    return [[round(value, 4) for value in vector] for vector in table]


def says(concepts, rng, place):
    words = [rng.choice(CONCEPTS[concept]) for concept in concepts]
    words += rng.sample([*FILLERS, *PIECES, "[UNK]"], rng.randrange(5))
    rng.shuffle(words)
    return [place[word] for word in ["[CLS]", *words, "[SEP]"]]


def total(table, ids):
    return [sum(table[number][axis] for number in ids) for axis in range(DIMENSIONS)]


def cosine(a, b):
    lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b)) / max(lengths, 1e-9)


def pull(table, first, second, toward):
    """A step down the loss: 1 - cosine for those that are to be alike, cosine - margin for the others, if above 0."""
    a, b = total(table, first), total(table, second)
    alike = cosine(a, b)
    if toward < 0 and alike < MARGIN:
        return
    norm_a, norm_b = (math.sqrt(sum(x * x for x in vector)) + 1e-9 for vector in (a, b))
    for ids, own, far, norm, norm_far in ((first, a, b, norm_a, norm_b), (second, b, a, norm_b, norm_a)):
        slope = [y / (norm * norm_far) - alike * x / (norm * norm) for x, y in zip(own, far)]
        for number in ids:
            for axis in range(DIMENSIONS):
                table[number][axis] += RATE * toward * slope[axis]


def tell(table, place):
    for a, b in [("disk full", "volume exhausted"), ("login denied", "authentication refused"), ("disk full", "login denied")]:
        vectors = [total(table, [place[word] for word in ["[CLS]", *text.split(), "[SEP]"]]) for text in (a, b)]
        print(f"{a} / {b}: {cosine(*vectors):.2f}")


# ONNX, as far as it is needed: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def number(field, value):
    return varint(field << 3) + varint(value)


def part(field, value):
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


FLOAT, INT64 = 1, 7


def tensor(name, kind, dims, raw):
    return b"".join(number(1, size) for size in dims) + number(2, kind) + part(8, name) + part(9, raw)


def value(name, kind, dims):
    shape = b"".join(part(1, number(1, size)) for size in dims)
    return part(1, name) + part(2, part(1, number(1, kind) + part(2, shape)))


def attribute(name, integer):
    return part(5, part(1, name) + number(3, integer) + number(20, 2))


def node(operation, inputs, output, more=b""):
    return b"".join(part(1, name) for name in inputs) + part(2, output) + part(4, operation) + more


def model(table):
    """sum over tokens of table[ids] * mask"""
    rows = b"".join(struct.pack(f"<{DIMENSIONS}f", *vector) for vector in table)
    graph = b"".join([
        part(1, node("Gather", ["table", "ids"], "vectors", attribute("axis", 0))),
        part(1, node("Cast", ["mask"], "weights", attribute("to", FLOAT))),
        part(1, node("Unsqueeze", ["weights", "last"], "columns")),
        part(1, node("Mul", ["vectors", "columns"], "masked")),
        part(1, node("ReduceSum", ["masked", "middle"], "sentence", attribute("keepdims", 0))),
        part(2, NAME),
        part(5, tensor("table", FLOAT, [len(table), DIMENSIONS], rows)),
        part(5, tensor("last", INT64, [1], struct.pack("<q", 2))),
        part(5, tensor("middle", INT64, [1], struct.pack("<q", 1))),
        part(11, value("ids", INT64, [BATCH, TOKENS])),
        part(11, value("mask", INT64, [BATCH, TOKENS])),
        part(12, value("sentence", FLOAT, [BATCH, DIMENSIONS])),
    ])
    return number(1, 8) + part(2, "levada") + part(7, graph) + part(8, part(1, "") + number(2, 13))


if __name__ == "__main__":
    main()
