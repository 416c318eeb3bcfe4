#!/usr/bin/env bash
# Runs the flights job on the whole year with two workers and with one, and compares the two byte for byte
# and what they wrote with what DuckDB makes of the same CSV files. Usage: check-flights.sh LEVADA
set -euo pipefail
levada=${1:?usage: check-flights.sh LEVADA}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# year WORKERS: runs the year; the exported topics are then in $work/WORKERS.
year() {
  "$levada" generate flights --from "$LEVADA_FLIGHTS" --data "$work/data"
  "$levada" run config/jobs/flights.toml --data "$work/data" --until-drained --workers "$1"
  mkdir -p "$work/$1"
  for topic in $("$levada" topics list --data "$work/data" | awk 'NR > 1 { print $1 }'); do
    "$levada" topics export "$topic" --data "$work/data" > "$work/$1/$topic.jsonl"
  done
  rm -rf "$work/data"
}
year 2
year 1
diff -rq "$work/1" "$work/2"
echo "one worker and two: the same bytes in $(ls "$work/1" | wc -l) topics"
"$LEVADA_CACHE/venv/bin/python" tests/flights/compare.py "$LEVADA_FLIGHTS" "$work/2"
