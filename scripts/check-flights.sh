#!/usr/bin/env bash
# Runs the flights job on the whole year, and compares what it wrote with what DuckDB makes of the
# same CSV files. Usage: check-flights.sh LEVADA
set -euo pipefail
levada=${1:?usage: check-flights.sh LEVADA}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$levada" generate flights --from "$LEVADA_FLIGHTS" --data "$work/data"
"$levada" run config/jobs/flights.toml --data "$work/data" --until-drained --workers 2
mkdir -p "$work/out"
for topic in delays.origin.hourly delays.origin.daily delays.carrier.hourly delays.carrier.daily \
  delays.dest.hourly delays.dest.daily incidents flights.departures; do
  "$levada" topics export "$topic" --data "$work/data" > "$work/out/$topic.jsonl"
done
"$LEVADA_CACHE/venv/bin/python" tests/flights/compare.py "$LEVADA_FLIGHTS" "$work/out"
