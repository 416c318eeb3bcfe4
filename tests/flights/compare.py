#!/usr/bin/env python3
"""Compare the flights job's output with what DuckDB makes of the same CSV files.

Usage: compare.py CSV_DIR EXPORT_DIR

Every window row of the six window steps must be there once, with equal counts and with floats within
1e-9 relative. The days of the ten largest incidents must be among the 20 worst days of the year, by a
count of cancelled departures and of those at least 15 minutes late (what the US Department of
Transportation calls delayed), and again with 60 minutes.
"""
import sys
from pathlib import Path

import duckdb

csv, out = Path(sys.argv[1]), Path(sys.argv[2])
db = duckdb.connect()
db.execute("set timezone = 'UTC'")
failures = 0


def check(what, good, detail=""):
    global failures
    failures += not good
    print(f"{'ok  ' if good else 'FAIL'}  {what}{'  ' + detail if detail else ''}")


# The input, read independently of levada: NA is missing, time_hour is UTC.
for name in ("flights", "weather", "airlines", "airports", "planes"):
    db.execute(f"create table {name}_csv as select * from read_csv('{csv / name}.csv', nullstr='NA', header=true, sample_size=-1)")
db.execute("""
create table departures as
select carrier, origin, dest, tailnum, distance, dep_delay::double as delay_min, dep_delay is null as cancelled,
       (time_hour::timestamp + to_minutes(minute::int) + to_minutes(coalesce(dep_delay, 0)::int)) as t,
       year, month, day
from flights_csv""")
db.execute("""
create table weather as
select origin, time_hour::timestamp as t, "temp"::double as temp_f, wind_speed::double as wind_mph,
       wind_gust::double as gust_mph, precip::double as precip_in, visib::double as visibility_mi
from weather_csv""")
db.execute("""
create table enriched as
select d.*, a.name as airline, p.name as dest_name, s.seats,
       case when d.t - w.t <= interval '6 hours' then temp_f end as temp_f,
       case when d.t - w.t <= interval '6 hours' then wind_mph end as wind_mph,
       case when d.t - w.t <= interval '6 hours' then precip_in end as precip_in,
       case when d.t - w.t <= interval '6 hours' then visibility_mi end as visibility_mi
from departures d
left join airlines_csv a using (carrier)
left join airports_csv p on p.faa = d.dest
left join planes_csv s using (tailnum)
asof left join weather w on w.origin = d.origin and d.t >= w.t""")
total = db.execute("select count(*) from departures").fetchone()[0]
check("departures", total == 336776 == db.execute("select count(*) from enriched").fetchone()[0], f"{total:,}")

HOUR = "time_bucket(interval '1 hour', t)"
DAY = "time_bucket(interval '1 day', t - interval '5 hours') + interval '5 hours'"
WINDOWS = {
    "delays.origin.hourly": (HOUR, "1 hour", ["origin"], {
        "flights": "count(*)", "cancelled": "count(*) filter (where cancelled)",
        "delayed": "count(*) filter (where delay_min >= 60)", "delay_avg": "avg(delay_min)",
        "delay_max": "max(delay_min)", "delay_sd": "stddev_samp(delay_min)",
        "carriers": "count(distinct carrier)", "seats": "sum(seats)", "temp_avg": "avg(temp_f)",
        "wind_max": "max(wind_mph)", "precip_max": "max(precip_in)", "visibility_min": "min(visibility_mi)"}),
    "delays.origin.daily": (DAY, "1 day", ["origin"], {
        "flights": "count(*)", "cancelled": "count(*) filter (where cancelled)",
        "delayed": "count(*) filter (where delay_min >= 60)", "delay_avg": "avg(delay_min)",
        "delay_min": "min(delay_min)", "delay_max": "max(delay_min)", "precip": "sum(precip_in)"}),
    "delays.carrier.hourly": (HOUR, "1 hour", ["carrier", "airline"], {
        "flights": "count(*)", "cancelled": "count(*) filter (where cancelled)",
        "delay_avg": "avg(delay_min)", "delay_max": "max(delay_min)"}),
    "delays.carrier.daily": (DAY, "1 day", ["carrier", "airline"], {
        "flights": "count(*)", "cancelled": "count(*) filter (where cancelled)", "delay_avg": "avg(delay_min)",
        "delay_sd": "stddev_samp(delay_min)", "seats": "sum(seats)", "planes": "count(distinct tailnum)"}),
    "delays.dest.hourly": (HOUR, "1 hour", ["dest", "dest_name"], {
        "flights": "count(*)", "cancelled": "count(*) filter (where cancelled)",
        "delay_avg": "avg(delay_min)", "distance": "max(distance)"}),
    "delays.dest.daily": (DAY, "1 day", ["dest", "dest_name"], {
        "flights": "count(*)", "cancelled": "count(*) filter (where cancelled)", "delay_avg": "avg(delay_min)",
        "delay_max": "max(delay_min)", "carriers": "count(distinct carrier)"}),
}
FLOATS = {"delay_avg", "delay_max", "delay_min", "delay_sd", "temp_avg", "wind_max", "precip_max", "precip", "visibility_min"}
rows_compared = 0
for topic, (bucket, span, keys, aggregates) in WINDOWS.items():
    columns = ", ".join(f'{sql} as "{name}"' for name, sql in aggregates.items())
    db.execute(f"""create or replace table expected as
        select {', '.join(keys)}, {bucket} as window_start, {bucket} + interval '{span}' as window_end, {columns}
        from enriched group by all""")
    db.execute(f"""create or replace table seen as
        select * from read_json('{out / topic}.jsonl', format='newline_delimited', sample_size=-1)""")
    db.execute("alter table seen alter window_start type timestamp")
    db.execute("alter table seen alter window_end type timestamp")
    same_key = " and ".join(f"e.{k} is not distinct from s.{k}" for k in keys + ["window_start", "window_end"])
    one = lambda sql: db.execute(sql).fetchone()[0]
    rows = one("select count(*) from expected")
    missing = one(f"select count(*) from expected e where not exists (select 1 from seen s where {same_key})")
    extra = one(f"select count(*) from seen s where not exists (select 1 from expected e where {same_key})")
    doubled = one("select count(*) from seen") - one(
        f"select count(*) from (select distinct {', '.join(keys)}, window_start from seen)")
    def differs(name):
        if name in FLOATS:
            near = f"abs(e.{name} - s.{name}) <= 1e-9 * greatest(abs(e.{name}), abs(s.{name}))"
            # DuckDB sums floats as they come; where the true result is 0 only an absolute bound makes sense.
            return f"not coalesce({near} or abs(e.{name} - s.{name}) < 1e-12, e.{name} is null and s.{name} is null)"
        return f"e.{name} is distinct from s.{name}"
    wrong = {name: one(f"select count(*) from expected e join seen s on {same_key} where {differs(name)}")
             for name in aggregates}
    wrong = {name: count for name, count in wrong.items() if count}
    rows_compared += rows
    check(f"{topic}: {rows:,} windows, {len(aggregates)} aggregates",
          rows > 0 and missing == extra == doubled == 0 and not wrong,
          f"missing {missing}, extra {extra}, doubled {doubled}, wrong {wrong or 'none'}")
check("windows compared", rows_compared > 0, f"{rows_compared:,}")

# Incidents: the day on which most of an incident lies is the New York day of its middle; the largest ones last hours.
db.execute(f"create table incidents as select * from read_json('{out / 'incidents'}.jsonl', format='newline_delimited', sample_size=-1)")
largest = db.execute("""
select incident, events, (first_at::timestamp - interval '5 hours')::date as first_day,
       (first_at::timestamp - interval '5 hours' + (last_at::timestamp - first_at::timestamp) / 2)::date as day
from incidents where kind = 'closed' order by events desc, incident limit 10""").fetchall()
for minutes in (15, 60):
    worst = [row[0] for row in db.execute(f"""
        select make_date(year::int, month::int, day::int) as d from departures
        group by d order by count(*) filter (where cancelled or delay_min >= {minutes}) desc, d limit 20""").fetchall()]
    hits = [row for row in largest if row[3] in worst]
    check(f"the ten largest incidents fall on the 20 worst days (cancelled or {minutes} min late)",
          len(largest) == 10 and len(hits) == 10,
          ", ".join(f"{row[3]} ({row[1]} events)" for row in largest))
sys.exit(1 if failures else 0)
