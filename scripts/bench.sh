#!/usr/bin/env bash
# Measures this machine and keeps the results. Usage: bench.sh LEVADA
set -euo pipefail
levada=${1:?usage: bench.sh LEVADA}
cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -1)
out="benches/runs/$(date -u +%F)-$(nproc)-cores"
mkdir -p "$out"
run() {
  name=$1; shift
  echo "levada bench $*"
  "$levada" bench "$@" > "$out/$name.json"
}
run window window --events 4000000 --keys 10000 --workers 2 --repeat 5
run latency-select latency --job select --rate 100000 --seconds 10 --workers 2
run latency-window latency --job window --rate 100000 --seconds 10 --workers 2
run score score --sequences 400
run micro micro --events 1000000 --repeat 3
{
  echo "machine: $cpu, $(nproc) cores, $(sed -n 's/^MemTotal: *//p' /proc/meminfo) memory"
  echo "date: $(date -u +%FT%TZ)"
  echo "commit: $(git rev-parse --short HEAD 2>/dev/null || echo none)"
  echo "command: make bench"
} > "$out/machine.txt"
cat "$out"/*.json
