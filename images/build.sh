#!/bin/bash
# Resolve the base's digest, build, prove, push. Leaves both addresses by digest in base_digest and image_digest.
# BASE: address by tag or digest. PYTHON, TORCH: versions of the base. IMAGE: address with its tag. TARGET.
set -euo pipefail
cd "$(dirname "$0")/.."

log_in() { aws ecr get-login-password | docker login --username AWS --password-stdin "${1%%/*}"; }
digest_of() { docker image inspect --format '{{index .RepoDigests 0}}' "$1"; }

# Anybody may pull from public.ecr.aws: https://docs.aws.amazon.com/AmazonECR/latest/public/what-is-ecr.html
case "$BASE" in *.dkr.ecr.*) log_in "$BASE" ;; esac
docker pull --quiet "$BASE"
digest_of "$BASE" >base_digest
docker build --build-arg "BASE=$(cat base_digest)" --build-arg "PYTHON=$PYTHON" --build-arg "TORCH=$TORCH" \
  --tag "$IMAGE" images/native
docker run --rm --volume "$PWD:/sources:ro" --entrypoint python3 "$IMAGE" -I /opt/inferentia/prove.py /sources "$TARGET"
docker run --rm --entrypoint cat "$IMAGE" /opt/inferentia/sbom.json
log_in "$IMAGE"
docker push --quiet "$IMAGE"
digest_of "$IMAGE" >image_digest
