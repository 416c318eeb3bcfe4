#!/usr/bin/env bash
# Fetches kinesis-local, a server that answers as Amazon Kinesis does, from npm, for the tests.
# Usage: fetch-kinesis.sh DIR
set -euo pipefail
dir=${1:?usage: fetch-kinesis.sh DIR}
version=0.6.2
sha512=98596692c3cc40ffc0de74f6d8dd84f16cd46c971b11dc640a784d0b1da51e3db4096e2fcee547f339f9072460e4b4b97acf2dbe7c76998d43a5b679930f4f3d
[ -f "$dir/.complete-$version" ] && exit 0
echo "levada: fetching kinesis-local $version"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --silent "kinesis-local@$version" >/dev/null)
echo "$sha512  $work/kinesis-local-$version.tgz" | sha512sum --check --quiet
tar -xzf "$work/kinesis-local-$version.tgz" -C "$work"
rm -rf "$dir"
mkdir -p "$dir"
mv "$work/package" "$dir/package"
touch "$dir/.complete-$version"
