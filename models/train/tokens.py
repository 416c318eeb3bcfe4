"""Events as token ids: the fields of the model, and the one rule by which a value becomes an id.

The same rule is in Rust (`models/src/tokens.rs`); `models/flights/golden.json` holds both to it.
In every kind 0 is padding and 1 is null or unknown; known values start at 2.

- vocabulary: the place of the value in the list, plus 2
- buckets:    how many edges are <= the value, plus 2
- elapsed:    the same, of the minutes from the column's instant to the time of scoring
- hour:       hour of day of the column's instant after adding `offset_min` minutes to UTC, plus 2
"""

import numpy as np

from flights_data import HOUR_MS, MINUTE_MS

PADDING, UNKNOWN, FIRST = 0, 1, 2

DELAY_EDGES = [-10, -5, -2, 0, 3, 6, 10, 15, 20, 30, 45, 60, 80, 100, 130, 170, 240]
DISTANCE_EDGES = [200, 300, 400, 550, 750, 950, 1150, 1500, 2000, 2450]
ELAPSED_EDGES = [5, 10, 15, 20, 30, 40, 50, 60, 75, 90, 105, 120, 150, 180, 210, 240,
                 300, 360, 420, 480, 540, 600, 660, 720, 900, 1440]
# New York's standard time. One offset all year: in summer this clock is an hour behind the wall.
HOUR_OFFSET_MIN = -300


def fields_of(events):
    """The fields in model order; vocabularies from `events` (the training months only)."""
    vocabulary = lambda get: sorted({get(e) for e in events})
    return [
        {"name": "delay", "column": "delay_min", "kind": "buckets", "edges": DELAY_EDGES},
        {"name": "carrier", "column": "carrier", "kind": "vocabulary", "values": vocabulary(lambda e: e.carrier)},
        {"name": "origin", "column": "origin", "kind": "vocabulary", "values": vocabulary(lambda e: e.origin)},
        {"name": "dest", "column": "dest", "kind": "vocabulary", "values": vocabulary(lambda e: e.dest)},
        {"name": "distance", "column": "distance", "kind": "buckets", "edges": DISTANCE_EDGES},
        {"name": "hour", "column": "at", "kind": "hour", "offset_min": HOUR_OFFSET_MIN},
        {"name": "elapsed", "column": "at", "kind": "elapsed", "edges": ELAPSED_EDGES},
    ]


def column_of(event, column):
    """An event's column by the name it has in the topic (instants as UTC milliseconds)."""
    return getattr(event, column)


def id_of(field, value):
    """One value's id; for `elapsed` the value is minutes."""
    kind = field["kind"]
    if value is None or value != value:
        return UNKNOWN
    if kind == "vocabulary":
        return field["values"].index(value) + FIRST if value in field["values"] else UNKNOWN
    if kind in ("buckets", "elapsed"):
        return int(np.searchsorted(field["edges"], value, side="right")) + FIRST
    if kind == "hour":
        return (value + field["offset_min"] * MINUTE_MS) // HOUR_MS % 24 + FIRST
    raise ValueError(f"unknown kind of field: {kind}")


def ids_of_event(fields, event):
    """An event's ids that do not depend on the time of scoring; `elapsed` stays 0."""
    return [0 if f["kind"] == "elapsed" else id_of(f, column_of(event, f["column"])) for f in fields]


def size_of(field):
    """How many ids the field has: the rows of its embedding."""
    if field["kind"] == "vocabulary":
        return len(field["values"]) + FIRST
    if field["kind"] == "hour":
        return 24 + FIRST
    return len(field["edges"]) + 1 + FIRST


def window_ids(fields, ids, at, t, window):
    """The sequence scored at `t`: the last `window` events with at < t, newest last, left-padded.

    ids: [events, fields] of one key in topic order; at: [events] ascending. -> [window, fields] i64
    """
    end = int(np.searchsorted(at, t, side="left"))
    start = max(0, end - window)
    out = np.zeros((window, len(fields)), dtype=np.int64)
    if end > start:
        tail = out[window - (end - start):]
        tail[:] = ids[start:end]
        for column, field in enumerate(fields):
            if field["kind"] == "elapsed":
                minutes = (t - at[start:end]) / MINUTE_MS
                tail[:, column] = np.searchsorted(field["edges"], minutes, side="right") + FIRST
    return out
