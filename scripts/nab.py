#!/usr/bin/env python3
"""Lays a directory of series through the job nab, and writes a score beside each value.

Usage: nab.py LEVADA DATA OUT [--workers N]

DATA  holds category/file.csv with columns timestamp,value, as the Numenta Anomaly Benchmark has them
OUT   gets category/file.csv with columns timestamp,score, a row for each of the series', score from 0 to 1

All series are one topic, in the order of their times, and each is a key of the job. A value is judged by those before it
in its file: where a file's times go back, a row counts as of the latest time before it. A row without a number has score 0.
"""
import argparse, csv, datetime, json, math, resource, subprocess, sys, tempfile, time
from pathlib import Path

JOB = Path(__file__).resolve().parent.parent / "config/jobs/nab.toml"


def read(path):
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        missing = {"timestamp", "value"} - set(reader.fieldnames or [])
        if missing:
            sys.exit(f"levada: {path} has no column {sorted(missing)[0]}: its first line names timestamp and value")
        return [(row["timestamp"], row["value"]) for row in reader]


def number_of(text):
    """A value; None for what is no finite number."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def time_of(timestamp, name, number):
    """A timestamp, in UTC where it says nothing else, in milliseconds since 1970."""
    try:
        time = datetime.datetime.fromisoformat(timestamp.strip().replace("Z", "+00:00"))
    except (AttributeError, ValueError):
        sys.exit(f"levada: {name}, line {number + 2}: `{timestamp}` is no timestamp, as 2014-04-01 00:05:00 is one")
    return round((time if time.tzinfo else time.replace(tzinfo=datetime.timezone.utc)).timestamp() * 1000)


def records(name, rows):
    """The rows of a series as records, none before the one before it."""
    latest = -sys.maxsize
    for number, (timestamp, value) in enumerate(rows):
        latest = max(latest, time_of(timestamp, name, number))
        yield latest, number, {"row": number, "series": name, "at": latest, "value": number_of(value)}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("levada")
    ap.add_argument("data", type=Path)
    ap.add_argument("out", type=Path)
    ap.add_argument("--workers", default="1")
    a = ap.parse_args()
    if not a.data.is_dir():
        sys.exit(f"levada: {a.data} is not a directory of series")
    series = {str(path.relative_to(a.data)): read(path) for path in sorted(a.data.rglob("*.csv"))}
    if not series:
        sys.exit(f"levada: there is no .csv file under {a.data}")
    every = ((at, name, number, record) for name, rows in series.items() for at, number, record in records(name, rows))
    merged = sorted(every, key=lambda row: row[:3])

    with tempfile.TemporaryDirectory() as folder:
        def levada(*arguments, **more):
            done = subprocess.run([a.levada, *arguments, "--data", folder], **more)
            if done.returncode:
                sys.exit(done.returncode)  # It has said why.
            return done

        lines = "".join(json.dumps(record) + "\n" for *_, record in merged)
        levada("topics", "produce", "series", "--file", "-", "--key", "series", input=lines.encode(), stdout=subprocess.DEVNULL)
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        levada("run", JOB, "--until-drained", "--workers", a.workers)
        wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        told = levada("topics", "export", "scores", stdout=subprocess.PIPE).stdout

    scores = {name: [0.0] * len(rows) for name, rows in series.items()}
    judged, sent = told.splitlines(), sum(record["value"] is not None for *_, record in merged)
    if len(judged) != sent:
        sys.exit(f"levada: of {sent} values {len(judged)} were judged")
    for line in judged:
        row = json.loads(line)
        scores[row["series"]][row["row"]] = row["score"]
    for name, rows in series.items():
        path = a.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["timestamp", "score"])
            out.writerows((timestamp, repr(score)) for (timestamp, _), score in zip(rows, scores[name]))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{len(series)} series, {len(merged):,} values in {wall:.1f} s and {cpu:.1f} CPU seconds "
          f"({len(merged) / cpu:,.0f} a CPU second); scores in {a.out}")


if __name__ == "__main__":
    main()
