#!/usr/bin/env bash
# Installs the system packages that levada needs and the machine lacks, where it may; otherwise
# prints the exact line to run. Usage: setup.sh build|kafka|test
# `kafka` is for what starts brokers: make demo-kafka, scripts/kafka_*.py; the tests need it too.
set -euo pipefail
stage=${1:?usage: setup.sh build|kafka|test}
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
if [ "$stage" != build ]; then
  # The brokers are Java's.
  need java default-jre-headless
  need mvn maven
  python3 -c 'import venv, ensurepip' >/dev/null 2>&1 || missing+=(python3-venv)
fi
if [ "$stage" = test ]; then
  need chromium chromium
  need promtool prometheus
  need openssl openssl
  need redis-server redis-server
  # Debian keeps the server's programs out of the path, and its start scripts are not used.
  ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing+=(postgresql)
  need setpriv util-linux
  # The Kinesis of the tests is JavaScript; it binds all interfaces, so it gets a network of its own.
  need node nodejs
  need npm npm
  need ip iproute2
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
venv="$LEVADA_CACHE/venv"
# python_package MODULE REQUIREMENT…: what Python needs, in an environment of its own.
python_package() {
  local module=$1
  shift
  "$venv/bin/python" -c "import $module" >/dev/null 2>&1 && return
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}
if [ "$stage" != build ]; then
  # An independent client reads what levada writes to Kafka.
  python_package confluent_kafka 'confluent-kafka>=2.6'
  scripts/fetch-kafka.sh "$LEVADA_CACHE/kafka"
fi
if [ "$stage" = test ]; then
  # DuckDB answers the same questions as the flights job, independently.
  python_package duckdb 'duckdb>=1.3'
  # What answers as Amazon S3 does, of moto's many services that one alone.
  python_package moto.moto_server.threaded_moto_server 'moto[s3]==5.2.5' 'flask>=3' 'flask-cors>=5'
  scripts/fetch-kinesis.sh "$LEVADA_CACHE/kinesis"
  # It runs for a second, so it need not be optimised, which costs time.
  command -v cargo-deny >/dev/null 2>&1 ||
    CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug cargo-deny
fi
