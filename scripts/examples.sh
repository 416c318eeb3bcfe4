#!/usr/bin/env bash
# Runs every example of the reference pages, and writes down what comes out: config/examples/VERB/output/TOPIC.jsonl for each
# topic that the job writes. Usage: examples.sh LEVADA [VERB…]
set -euo pipefail
levada=${1:?usage: examples.sh LEVADA [VERB…]}
shift
[ $# -gt 0 ] || set -- $(cd config/examples && ls)
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT
for verb in "$@"; do
    folder=config/examples/$verb
    "$levada" run "$folder/job.toml" --fail-on-dead-letters --data "$data/$verb" > "$data/said" 2>&1 || {
        cat "$data/said" >&2
        exit 1
    }
    rm -rf "$folder/output"
    mkdir "$folder/output"
    # The sources of an example are files, so every topic is one of its sinks.
    sed -n 's/^topic = "\(.*\)"$/\1/p' "$folder/job.toml" | while read -r topic; do
        "$levada" topics export "$topic" --data "$data/$verb" > "$folder/output/$topic.jsonl"
    done
done
