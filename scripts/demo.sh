#!/usr/bin/env bash
# The main job on a year of real departures, with the gateway and its page. Usage: demo.sh LEVADA
# DEMO_EXIT=1 ends after the replay; SPEED=N replays at N times real time instead of at once;
# DEMO_PORT sets the page's port (default: 8088, or any free one if that is taken).
set -euo pipefail
levada=${1:?usage: demo.sh LEVADA}
data=${DEMO_DATA:-.demo/data}
job=config/jobs/flights.toml

rm -rf "$data"
mkdir -p "$data"
gateway_pid=
producer_pid=
finish() {
  if [ -n "$producer_pid" ]; then kill "$producer_pid" 2>/dev/null || true; fi
  if [ -n "$gateway_pid" ]; then kill "$gateway_pid" 2>/dev/null || true; wait "$gateway_pid" 2>/dev/null || true; fi
}
trap finish EXIT

port=${DEMO_PORT:-8088}
python3 - "$port" <<'PY' || port=0
import socket, sys
with socket.socket() as s:
    s.bind(("127.0.0.1", int(sys.argv[1])))
PY

echo "== 1. the gateway"
address_file=$(mktemp)
"$levada" gateway --data "$data" --job "$job" --listen "127.0.0.1:$port" --address-file "$address_file" &
gateway_pid=$!
until [ -s "$address_file" ]; do
  kill -0 "$gateway_pid" 2>/dev/null || { echo "levada: the gateway did not start" >&2; exit 1; }
  read -r -t 0.1 <> <(:) || true
done
address=$(cat "$address_file")
rm -f "$address_file"
echo "   open http://$address/ to watch"

if [ -n "${SPEED:-}" ]; then
  echo "== 2. the year, as it happened, $SPEED times as fast"
  producing=$(mktemp)
  "$levada" generate flights --from "$LEVADA_FLIGHTS" --data "$data" --speed "$SPEED" > "$producing" &
  producer_pid=$!
  until [ -s "$producing" ]; do
    kill -0 "$producer_pid" 2>/dev/null || { echo "levada: the flights could not be replayed" >&2; exit 1; }
    read -r -t 0.1 <> <(:) || true
  done
  rm -f "$producing"
  "$levada" run "$job" --data "$data"
else
  echo "== 2. the year, as topics in the order in which it happened"
  "$levada" generate flights --from "$LEVADA_FLIGHTS" --data "$data"
  echo "== 3. the job"
  "$levada" run "$job" --data "$data" --until-drained
fi
echo "== 4. what came out"
"$levada" topics list --data "$data"
echo "   the first decisions (all: levada topics export decisions --data $data):"
"$levada" topics export decisions --data "$data" --limit 2
if [ "${DEMO_EXIT:-}" = 1 ]; then
  echo "levada: done"
  exit 0
fi
echo
echo "levada: the page is at http://$address/  (Ctrl-C to stop)"
wait "$gateway_pid"
