#!/bin/bash
# Copy a base into the account's own repository as it is, from registry to registry: its digest stays what it is, and
# of an image for several platforms it is that of the index. A pull and a push would compress the layers anew.
# https://docs.docker.com/reference/cli/docker/buildx/imagetools/create/ (--prefer-index=false: no index is made)
# BASE: address by digest. IMAGE: address with its tag. Leaves both addresses by digest, as build.sh does.
set -euo pipefail
cd "$(dirname "$0")/.."
. images/log_in.sh

log_in "$BASE"
log_in "$IMAGE"
docker buildx imagetools create --prefer-index=false --tag "$IMAGE" "$BASE"
copy="${IMAGE%:*}@$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$IMAGE")"
if [ "${copy##*@}" != "${BASE##*@}" ]; then
  echo "mirror.sh: the copy $copy is not $BASE" >&2
  exit 1
fi
echo "$BASE" >base_digest
echo "$copy" >image_digest
