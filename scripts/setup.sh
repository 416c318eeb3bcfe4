#!/usr/bin/env bash
# Installs the system packages that levada needs and the machine lacks, where it may; otherwise
# prints the exact line to run. Usage: setup.sh build|test
set -euo pipefail
stage=${1:?usage: setup.sh build|test}
missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }

if ! command -v cargo >/dev/null 2>&1; then
  echo "levada: cargo is not installed; see https://rustup.rs" >&2
  exit 1
fi
need cc build-essential
need python3 python3
python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
if [ "$stage" = test ]; then
  need chromium chromium
  need promtool prometheus
  need redis-server redis-server
  python3 -c 'import venv, ensurepip' >/dev/null 2>&1 || missing+=(python3-venv)
fi
if [ ${#missing[@]} -gt 0 ]; then
  line="apt-get install -y --no-install-recommends ${missing[*]}"
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "levada: installing ${missing[*]}"
    apt-get update -qq >/dev/null
    DEBIAN_FRONTEND=noninteractive $line -qq >/dev/null
  else
    echo "levada: some system packages are missing. Please run:" >&2
    echo "  sudo $line" >&2
    exit 1
  fi
fi
if [ "$stage" = test ]; then
  # DuckDB answers the same questions as the flights job, independently.
  venv="$LEVADA_CACHE/venv"
  if ! "$venv/bin/python" -c 'import duckdb' >/dev/null 2>&1; then
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'duckdb>=1.3'
  fi
  command -v cargo-deny >/dev/null 2>&1 || cargo install --quiet --locked cargo-deny
fi
