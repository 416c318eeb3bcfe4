"""What DuckDB needs for the question of `levada bench window`, as a batch from file to file, on one thread.

Usage: bench_duckdb.py EVENTS.jsonl
"""

import json
import os
import sys
import tempfile
import time

import duckdb

REPEAT = 3
QUERY = """
    copy (select time_bucket(interval '1 minute', "at") as minute, "user", count(*), sum(amount), avg(amount),
           min(latency_ms), max(latency_ms)
    from read_json('{}', format = 'newline_delimited', columns = {{
        'user': 'varchar', 'amount': 'double', 'latency_ms': 'bigint', 'at': 'timestamp'}})
    group by all) to '{}' (format json)
"""


def main() -> None:
    connection = duckdb.connect()
    connection.execute("set threads = 1")
    cpu, wall, rows = [], [], 0
    folder = tempfile.TemporaryDirectory()
    query = QUERY.format(sys.argv[1].replace("'", "''"), os.path.join(folder.name, "minutes.jsonl"))
    for _ in range(REPEAT):
        began, before = time.perf_counter(), sum(os.times()[:2])
        (rows,) = connection.execute(query).fetchone()
        wall.append(time.perf_counter() - began)
        cpu.append(sum(os.times()[:2]) - before)
    with open(sys.argv[1], "rb") as file:
        events = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    cpu_s, wall_s = sorted(cpu)[REPEAT // 2], sorted(wall)[REPEAT // 2]
    print(json.dumps({
        "duckdb": duckdb.__version__,
        "threads": 1,
        "repeat": REPEAT,
        "events": events,
        "windows": rows,
        "cpu_s": round(cpu_s, 3),
        "wall_s": round(wall_s, 3),
        "events_per_cpu_s": round(events / cpu_s),
    }, indent=2))


main()
