#!/usr/bin/env bash
# Measures what a job over Apache Kafka costs, beside a broker on this machine. Usage: bench_kafka.sh LEVADA
# Results go where those of bench.sh go (BENCH_OUT sets another folder).
set -euo pipefail
levada=${1:?usage: bench_kafka.sh LEVADA}
cache=${LEVADA_CACHE:-$HOME/.cache/levada}
cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -1)
cpu_short=$(tr '[:upper:]' '[:lower:]' <<<"${cpu:-cpu}" | sed 's/([^)]*)//g; s/ @.*//; s/[^a-z0-9]\+/-/g; s/^-//; s/-$//' | cut -c1-24)
out=${BENCH_OUT:-benches/runs/$(date -u +%F)-$(nproc)c-$cpu_short}
mkdir -p "$out"

# measure NAME ARGUMENTS…: one measurement beside a broker of its own.
measure() {
  local name=$1
  shift
  echo "== $name: levada bench kafka $*" >&2
  sync
  "$cache/venv/bin/python" scripts/kafka_brokers.py "$levada" bench kafka "$@" --brokers '{}' >"$out/$name.json"
}

measure kafka-cost cost --events 5000000 --keys 10000 --partitions 2 --repeat 5
measure kafka-latency latency --rate 10000 --seconds 60 --checkpoint 10s --journal
measure kafka-memory memory --events 10000000 --partitions 4
echo "$out"
python3 - "$out" <<'PY'
import json, pathlib, sys
read = lambda name: json.loads((pathlib.Path(sys.argv[1]) / f"{name}.json").read_text())
cost, latency, memory = read("kafka-cost"), read("kafka-latency"), read("kafka-memory")
print(f"cost: {cost['cpu_ratio']:.2f} x the CPU of consuming and decoding alone (best {cost['best_cpu_ratio']:.2f})")
for way in ("exactly_once", "at_least_once", "exactly_once_kafka_journal", "at_least_once_kafka_journal", "kafka_alone"):
    print(f"latency, {way}: p50 {latency[way]['p50_ms']:.1f} ms, p99 {latency[way]['p99_ms']:.1f} ms")
print(f"memory: {memory['peak_memory_mib']:.0f} MiB with a backlog of {memory['backlog'] / 1e6:.0f} M records, "
      f"{memory['peak_memory_mib_of_a_tenth']:.0f} with a tenth; the bound is {memory['bound_mib']:.0f}")
PY
