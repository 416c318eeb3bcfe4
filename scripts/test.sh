#!/usr/bin/env bash
# Everything that must hold. Usage: test.sh LEVADA (where the build puts the binary)
set -euo pipefail
export LEVADA_BIN=${1:?usage: test.sh LEVADA}
# Another clone may have built the same tests; they are to read this one's snapshots.
export INSTA_WORKSPACE_ROOT=$PWD
step() { printf '\n== %s\n' "$*"; }

step "format"
cargo fmt --all --check
step "tests"
# Most of them wait for servers most of the time.
RUST_TEST_THREADS=${RUST_TEST_THREADS:-4} cargo test --release --workspace --locked --no-fail-fast
step "lints"
# By the same profile, so that what build scripts make of C is not made again.
cargo clippy --release --workspace --all-targets --locked --quiet -- -D warnings
step "licences and sources of dependencies"
cargo deny --log-level error check licenses bans sources
step "every window row against DuckDB; the worst days; the demo's figures"
scripts/check-flights.sh "$LEVADA_BIN"
step "a month of the demo over Apache Kafka against the embedded log"
DEMO_EXIT=1 "$LEVADA_CACHE/venv/bin/python" scripts/demo_kafka.py "$LEVADA_BIN" "$LEVADA_FLIGHTS" --month 1
