#!/bin/sh
# Begins a compile job, the same in a SageMaker Processing container and on an EC2 instance:
#   start.sh variant INDEX INPUTS OUTPUTS | start.sh gather INPUTS OUTPUTS
# INPUTS holds project/ (this bundle) and wheels/, for gather also variants/. PYTHON names the interpreter.
# Nothing that was brought along is unpacked, installed or run before its sha256 is the plan's. A failure is said in one
# line, on stderr and in the message file, which is SageMaker's ExitMessage.
set -eu
umask 022

python=${PYTHON:-python3}
message=${INFERENTIA_MESSAGE_FILE:-/opt/ml/output/message}
scratch=

fail() { # fail CODE REASON
    trap - EXIT
    printf 'error: %s\n' "$2" >&2
    mkdir -p "$(dirname "$message")"
    printf '%s\n' "$2" >"$message"
    clean
    exit "$1"
}

clean() {
    if [ -n "$scratch" ]; then
        rm -rf "$scratch"
    fi
}

case "${1:-}" in
    variant)
        [ $# -eq 4 ] || fail 2 "usage: start.sh variant INDEX INPUTS OUTPUTS"
        case "$2" in '' | *[!0-9]*) fail 2 "The variant's index is '$2', not a number." ;; esac
        task="variant $2" inputs=$3 outputs=$4
        ;;
    gather)
        [ $# -eq 3 ] || fail 2 "usage: start.sh gather INPUTS OUTPUTS"
        task=gather inputs=$2 outputs=$3
        ;;
    *) fail 2 "usage: start.sh variant INDEX INPUTS OUTPUTS | start.sh gather INPUTS OUTPUTS" ;;
esac

command -v "$python" >/dev/null || fail 1 "There is no $python here; name an interpreter in PYTHON."
[ -f "$inputs/project/plan.json" ] || fail 1 "There is no plan.json in $inputs/project: the bundle did not arrive."
mkdir -p "$outputs" || fail 1 "$outputs cannot be written."
inputs=$(cd "$inputs" && pwd) outputs=$(cd "$outputs" && pwd)
# Beside the outputs, because that disk is the one whose size the spec chose.
scratch=$(mktemp -d "$(dirname "$outputs")/scratch.XXXXXX") || fail 1 "There is no room for a scratch folder."
trap clean EXIT

wrong=$("$python" - "$inputs/project" <<'PYTHON'
import hashlib, json, pathlib, sys

folder = pathlib.Path(sys.argv[1])
for name, digest in sorted(json.loads((folder / "plan.json").read_text("utf-8"))["files"].items()):
    found = hashlib.sha256()
    try:
        with (folder / name).open("rb") as stream:
            for piece in iter(lambda: stream.read(1 << 20), b""):
                found.update(piece)
    except OSError:
        sys.exit(print(f"{name} of the bundle is missing"))
    if found.hexdigest() != digest:
        sys.exit(print(f"{name} of the bundle has sha256 {found.hexdigest()}, plan.json says {digest}"))
PYTHON
) || fail 1 "plan.json of the bundle cannot be read."
[ -z "$wrong" ] || fail 1 "$wrong. Submit again."

mkdir "$scratch/bundle" "$scratch/wheels"
"$python" "$inputs/project/archives.py" "$inputs/project/project.tar.gz" "$scratch/bundle" ||
    fail 1 "project.tar.gz cannot be unpacked."
if [ -f "$inputs/wheels/requirements.txt" ] && grep -q '^[^#[:space:]]' "$inputs/wheels/requirements.txt"; then
    # Into a folder of its own: what the image or the machine has installed stays as it is.
    "$python" -m pip install --quiet --no-index --no-deps --no-warn-script-location --disable-pip-version-check \
        --find-links "$inputs/wheels" --require-hashes --target "$scratch/wheels" \
        -r "$inputs/wheels/requirements.txt" ||
        fail 1 "The wheels cannot be installed; pip's own words are in the log."
fi

rm -f "$message"
export INFERENTIA_MESSAGE_FILE="$message" PYTHONDONTWRITEBYTECODE=1
export PATH="$scratch/wheels/bin:$PATH" # the compiler, where it came as a wheel
export PYTHONPATH="$scratch/bundle/code:$scratch/wheels${PYTHONPATH:+:$PYTHONPATH}"
cd "$scratch/bundle/code"
# In the background, so that a signal reaches it: a shell that waits for a child in front does not hear one.
# shellcheck disable=SC2086  # the task is one or two words
"$python" -m compile job $task --inputs "$inputs" --outputs "$outputs" --root "$scratch/bundle/project" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null || :' TERM INT
code=0
wait "$child" || code=$?
while kill -0 "$child" 2>/dev/null; do
    code=0
    wait "$child" || code=$?
done
if [ "$code" -ne 0 ] && [ ! -s "$message" ]; then
    reason="The job ended with exit code $code and said nothing; its log shows how far it came."
    if [ "$code" -eq 137 ]; then
        reason="The job was killed (-9), most often for want of memory: choose a larger job.instance_type."
    elif [ "$code" -eq 143 ]; then
        reason="The job was stopped."
    fi
    fail "$code" "$reason"
fi
exit "$code"
