#!/usr/bin/env bash
# Measures what levada costs here, in about four minutes. Usage: bench.sh LEVADA
# Results go to benches/runs/DATE-CORESc-CPU/ (BENCH_OUT sets another folder); benches/README.md says what
# they mean. A busy machine makes wall times and latencies worse; machine.json tells the load.
set -euo pipefail
levada=${1:?usage: bench.sh LEVADA}
cache=${LEVADA_CACHE:-$HOME/.cache/levada}
export ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-$cache/onnxruntime/libonnxruntime.so}
events=12000000
keys=10000

cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -1)
cpu_short=$(tr '[:upper:]' '[:lower:]' <<<"${cpu:-cpu}" | sed 's/([^)]*)//g; s/ @.*//; s/[^a-z0-9]\+/-/g; s/^-//; s/-$//' | cut -c1-24)
out=${BENCH_OUT:-benches/runs/$(date -u +%F)-$(nproc)c-$cpu_short}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
load_before=$(cut -d' ' -f1-3 /proc/loadavg)
commands=()

# measure NAME ARGUMENTS…: a measurement of levada's own.
measure() {
  local name=$1
  shift
  commands+=("levada bench $*")
  echo "== $name: levada bench $*" >&2
  # What the one before left to be written or freed would stall this one's syncs.
  sync
  "$levada" bench "$@" >"$out/$name.json"
}

measure window window --events $events --keys $keys --workers 2 --repeat 7
measure window-1k-keys window --events $events --keys 1000 --workers 2 --repeat 3
measure latency-select latency --job select --rate 100000 --seconds 11 --workers 1
measure latency-select-2-workers latency --job select --rate 100000 --seconds 11 --workers 2
measure latency-window latency --job window --rate 100000 --seconds 11 --workers 1
measure checkpoint checkpoint --keys 1000000 --events 24000000 --repeat 3 --rate 50000 --seconds 30 --workers 1
measure correlate correlate --events 600000
measure ingest-single ingest --connections 64 --batch 1 --seconds 10
measure ingest-batch ingest --connections 4 --batch 1000 --seconds 10
measure micro micro --events 1000000 --keys $keys --repeat 5
measure formats formats --events 1000000 --repeat 5
if [ -e "$ORT_DYLIB_PATH" ]; then measure score score --sequences 800; fi

# The same question put to DuckDB, which reads the file as a batch, on one thread.
if "$cache/venv/bin/python" -c 'import duckdb' 2>/dev/null; then
  echo "== duckdb" >&2
  "$levada" generate bench --events $events --keys $keys --out "$work/events.jsonl" >/dev/null
  commands+=("levada generate bench --events $events --keys $keys --out EVENTS" "python scripts/bench_duckdb.py EVENTS")
  "$cache/venv/bin/python" scripts/bench_duckdb.py "$work/events.jsonl" >"$out/duckdb.json"
fi

git_commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
git diff --quiet HEAD -- . ':!benches/runs' 2>/dev/null || git_commit="$git_commit with changes"
python3 - "$cpu" "$git_commit" "$load_before" "${commands[@]}" >"$out/machine.json" <<'PY'
import json, os, platform, sys, time
cpu, commit, load_before, *commands = sys.argv[1:]
memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
print(json.dumps({
    "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    "cpu": cpu,
    "cores": os.cpu_count(),
    "memory_gib": round(memory, 1),
    "kernel": platform.release(),
    "load_before": load_before,
    "load_after": " ".join(f"{x:.2f}" for x in os.getloadavg()),
    "commit": commit,
    "build": "cargo build --release --workspace --locked",
    "commands": commands,
}, indent=2))
PY
echo "$out"
python3 - "$out" <<'PY'
import json, pathlib, sys
out = pathlib.Path(sys.argv[1])
read = lambda name: json.loads(path.read_text()) if (path := out / f"{name}.json").exists() else None
if w := read("window"):
    print(f"window: {w['one_worker']['events_per_cpu_s'] / 1e6:.2f} M events a CPU second; "
          f"{w['cpu_ratio']:.2f} x the CPU of decoding alone ({w['cpu_ratio_all_columns']:.2f} x of decoding all columns); "
          f"{w['workers']} workers take {w['wall_ratio']:.2f} of one worker's time")
for name in ("latency-select", "latency-window"):
    if l := read(name):
        print(f"{name}: p50 {l['p50_ms']:.1f} ms, p99 {l['p99_ms']:.1f} ms, at {l['rate']} records a second")
if s := read("score"):
    print(f"score: {s['eight_at_a_time']['sequences_per_s']:.0f} sequences a second, eight at a time; "
          f"p99 {s['one_at_a_time']['p99_us_per_sequence'] / 1e3:.1f} ms for one alone")
if d := read("duckdb"):
    print(f"duckdb: {d['events_per_cpu_s'] / 1e6:.2f} M events a CPU second")
PY
