#!/bin/bash
# Resolve the base's digest, build, prove, push. Leaves both addresses by digest in base_digest and image_digest.
# BASE: address by tag or digest. PYTHON, TORCH: versions of the base. IMAGE: address with its tag. TARGET.
# WHEELS: s3:// address of what install.sh installs; empty: it asks an index. SBOM: s3:// address for the list of it.
set -euo pipefail
cd "$(dirname "$0")/.."
. images/log_in.sh

digest_of() { docker image inspect --format '{{index .RepoDigests 0}}' "$1"; }
fail() {
  echo "build.sh: $1" >&2
  exit 1
}

log_in "$BASE"
docker pull --quiet "$BASE" || fail "the base $BASE cannot be pulled. A digest that AWS has withdrawn and that was not\
 mirrored (inferentia image mirror) is gone: take the image's entry out of endpoints/images.lock.json, and the next build\
 takes what AWS's tag names now."
digest_of "$BASE" >base_digest
if [ -n "${WHEELS:-}" ]; then
  aws s3 cp --recursive --only-show-errors "$WHEELS" images/native/wheels
  [ -f images/native/wheels/requirements.txt ] || fail "$WHEELS is no whole set of wheels."
fi
docker build --build-arg "BASE=$(cat base_digest)" --build-arg "PYTHON=$PYTHON" --build-arg "TORCH=$TORCH" \
  --tag "$IMAGE" images/native
docker run --rm --volume "$PWD:/sources:ro" --entrypoint python3 "$IMAGE" -I /opt/inferentia/prove.py /sources "$TARGET"
docker run --rm --entrypoint cat "$IMAGE" /opt/inferentia/sbom.json >sbom.json
log_in "$IMAGE"
docker push --quiet "$IMAGE"
digest_of "$IMAGE" >image_digest
aws s3 cp --only-show-errors sbom.json "$SBOM"
