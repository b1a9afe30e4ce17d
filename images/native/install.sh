#!/bin/sh
# The image's only step: check the base, install the packages by hash, list them (sbom.json).
# PYTHON, TORCH: the versions that the base has to have. BASE: its address, for the list.
# Packages come from wheels/ beside this file where that is there, and from nowhere else then; else from pip's index.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
refuse() {
  echo "install.sh: the base ${BASE:?} has $1 $2, this image needs $3" >&2
  exit 1
}

found=$(python3 -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[ "$found" = "${PYTHON:?}" ] || refuse Python "$found" "$PYTHON"
found=$(python3 -I -c 'import numpy, torch; print(torch.__version__.partition("+")[0])')
[ "$found" = "${TORCH:?}" ] || refuse torch "$found" "$TORCH"

install() {
  python3 -I -m pip install --quiet --no-cache-dir --disable-pip-version-check \
    --require-hashes --no-deps --only-binary=:all: "$@"
}
lock="$here/requirements-py$(echo "$PYTHON" | tr -d .).txt"
if [ -d "$here/wheels" ]; then
  install --isolated --no-index --find-links "$here/wheels" -r "$lock" || {
    echo "install.sh: the kept wheels are not those of ${lock##*/}. Keep them again: inferentia wheels DIR --image --keep" >&2
    exit 1
  }
else
  install -r "$lock"
fi
found=$(python3 -I -c 'import numpy, torch; print(torch.__version__.partition("+")[0])')
[ "$found" = "$TORCH" ] || refuse torch "$found after the installation" "$TORCH"
python3 -I "$here/sbom.py" "$here/requirements-py$(echo "$PYTHON" | tr -d .).txt" "$BASE" >"$here/sbom.json"
