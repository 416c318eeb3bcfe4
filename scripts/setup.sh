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
# librdkafka is built from source; it looks for curl's headers where it finds OpenSSL.
need cmake cmake
need pkg-config pkg-config
header() { [ -e "/usr/include/$1" ] || [ -e "/usr/include/$(uname -m)-linux-gnu/$1" ] || missing+=("$2"); }
header openssl/ssl.h libssl-dev
header zlib.h zlib1g-dev
header curl/curl.h libcurl4-openssl-dev
if [ "$stage" = test ]; then
  # The brokers of the Kafka tests are Java's.
  need java default-jre-headless
  need mvn maven
  need chromium chromium
  need promtool prometheus
  need openssl openssl
  need redis-server redis-server
  # The Kinesis of the tests is JavaScript; it binds all interfaces, so it gets a network of its own.
  need node nodejs
  need npm npm
  need ip iproute2
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
  scripts/fetch-kafka.sh "$LEVADA_CACHE/kafka"
  scripts/fetch-kinesis.sh "$LEVADA_CACHE/kinesis"
  command -v cargo-deny >/dev/null 2>&1 || cargo install --quiet --locked cargo-deny
fi
