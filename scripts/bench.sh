#!/usr/bin/env bash
# Measures this machine and keeps the results. Usage: bench.sh LEVADA
set -euo pipefail
levada=${1:?usage: bench.sh LEVADA}
cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -1)
out="benches/runs/$(date -u +%F)-$(nproc)-cores"
mkdir -p "$out"
commit=$(git rev-parse --short HEAD 2>/dev/null || echo none)
run() {
  name=$1; shift
  echo "levada bench: $name"
  "$@" > "$out/$name.json"
}
run window "$levada" bench window --events 4000000 --keys 10000 --workers 2 --repeat 5
run latency "$levada" bench latency --rate 100000 --seconds 10 --workers 2
{
  echo "machine: $cpu, $(nproc) cores, $(sed -n 's/^MemTotal: *//p' /proc/meminfo) memory"
  echo "date: $(date -u +%FT%TZ)"
  echo "commit: $commit"
  echo "command: make bench"
} > "$out/machine.txt"
cat "$out"/*.json
