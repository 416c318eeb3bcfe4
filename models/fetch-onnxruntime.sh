#!/bin/sh
# Fetches the ONNX Runtime library that levada scores with, out of PyPI's onnxruntime wheel.
#
#   models/fetch-onnxruntime.sh DEST_DIR
#
# Puts libonnxruntime.so into DEST_DIR and prints its path. Does nothing when it is already there.
# Needs python3 with pip (any version: the library inside the wheel does not depend on Python).
# levada finds it through ORT_DYLIB_PATH, or by itself in $HOME/.cache/levada/onnxruntime.
set -eu

version=1.31.1
dest=${1:?usage: fetch-onnxruntime.sh DEST_DIR}
library=$dest/libonnxruntime.so

case "$(uname -s)-$(uname -m)" in
Linux-x86_64)
    platforms="--platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64"
    sha256=1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536
    ;;
Linux-aarch64)
    platforms="--platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64"
    sha256=0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc
    ;;
*)
    echo "failed to fetch onnxruntime: no pinned wheel for $(uname -s) $(uname -m); set ORT_DYLIB_PATH to an onnxruntime $version library of your own" >&2
    exit 1
    ;;
esac

if [ -f "$library" ] && [ "$(cat "$dest/VERSION" 2>/dev/null)" = "$version" ]; then
    echo "$library"
    exit 0
fi

mkdir -p "$dest"
work=$(mktemp -d "$dest/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
# pip itself checks the pinned hash.
echo "onnxruntime==$version --hash=sha256:$sha256" >"$work/requirements.txt"
# shellcheck disable=SC2086 # two words each, on purpose
python3 -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
    --python-version 3.12 --implementation cp --abi cp312 $platforms \
    --dest "$work" --requirement "$work/requirements.txt" >&2
python3 - "$work" "$version" <<'PY'
import glob, sys, zipfile
work, version = sys.argv[1:]
with zipfile.ZipFile(glob.glob(f"{work}/*.whl")[0]) as wheel:
    for member, name in [(f"onnxruntime/capi/libonnxruntime.so.{version}", "libonnxruntime.so"),
                         ("onnxruntime/LICENSE", "LICENSE"),
                         ("onnxruntime/ThirdPartyNotices.txt", "ThirdPartyNotices.txt")]:
        with open(f"{work}/{name}", "wb") as out:
            out.write(wheel.read(member))
PY
# The library is renamed into place whole, the version last: an interrupted run is simply run again.
rm -f "$dest/VERSION"
mv -f "$work/LICENSE" "$work/ThirdPartyNotices.txt" "$dest/"
mv -f "$work/libonnxruntime.so" "$library"
echo "$version" >"$dest/VERSION"
echo "$library"
