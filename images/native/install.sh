#!/bin/sh
# The image's only step: check the base, install the packages by hash, list them (sbom.json).
# PYTHON, TORCH: the versions that the base has to have. BASE: its address, for the list.
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

python3 -I -m pip install --quiet --no-cache-dir --disable-pip-version-check \
  --require-hashes --no-deps --only-binary=:all: -r "$here/requirements-py$(echo "$PYTHON" | tr -d .).txt"
found=$(python3 -I -c 'import numpy, torch; print(torch.__version__.partition("+")[0])')
[ "$found" = "$TORCH" ] || refuse torch "$found after the installation" "$TORCH"
python3 -I "$here/sbom.py" "$here/requirements-py$(echo "$PYTHON" | tr -d .).txt" "$BASE" >"$here/sbom.json"
