#!/bin/sh
# The image's only step: check the base, install the packages by hash, list them (sbom.json).
# PYTHON, TORCH: the versions that the base has to have; a base of Python alone, for which there is a lock torch-py*.txt,
# gets torch here. BASE: its address, for the list.
# Packages come from wheels/ beside this file where that is there, and from nowhere else then; else from pip's index.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
refuse() {
  echo "install.sh: the base ${BASE:?} has $1 $2, this image needs $3" >&2
  exit 1
}
# install LOCK [OPTION...]
install() {
  lock=$1
  shift
  set -- --quiet --no-cache-dir --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: -r "$lock" "$@"
  if [ ! -d "$here/wheels" ]; then
    python3 -I -m pip install "$@"
  elif ! python3 -I -m pip install --isolated --no-index --find-links "$here/wheels" "$@"; then
    echo "install.sh: the kept wheels are not those of ${lock##*/}. Keep them again: inferentia wheels DIR --image --keep" >&2
    return 1
  fi
}

found=$(python3 -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[ "$found" = "${PYTHON:?}" ] || refuse Python "$found" "$PYTHON"
locks=$(find "$here" -name "*-py$(echo "$PYTHON" | tr -d .).txt" | sort)
torch=$(echo "$locks" | grep '/torch-' || true)
if [ -n "$torch" ] && ! python3 -I -c 'import torch' 2>/dev/null; then
  # Where pip is led to by this machine, else from PyTorch's own index of CPU builds: the hash is the same.
  install "$torch" --retries 0 2>/dev/null || install "$torch" --extra-index-url https://download.pytorch.org/whl/cpu
fi
found=$(python3 -I -c 'import numpy, torch; print(torch.__version__.partition("+")[0])')
[ "$found" = "${TORCH:?}" ] || refuse torch "$found" "$TORCH"

install "$(echo "$locks" | grep '/requirements-')"
found=$(python3 -I -c 'import numpy, torch; print(torch.__version__.partition("+")[0])')
[ "$found" = "$TORCH" ] || refuse torch "$found after the installation" "$TORCH"
# shellcheck disable=SC2086  (one argument a lock)
python3 -I "$here/sbom.py" "$BASE" $locks >"$here/sbom.json"
