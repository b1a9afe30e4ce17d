#!/bin/sh
shutdown -h +@MINUTES@ || exec shutdown -h now # first of all: whatever happens below, the bill ends
set -eu
trap 'shutdown -h now' EXIT # until there is more to do at the end
# One job of a compile run, on an instance that is terminated when it shuts down. Words in @...@ are filled in when the
# stack is synthesized; nothing is ever filled in for a run. What a run wants stands in the instance's tags: each is read
# through IMDSv2, held against a pattern, and never evaluated. Ends with runs/RUN/record/INDEX/status.json in the bucket.
umask 077
endpoint='@NAME@' bucket='' run='' index='' uploader=''
PYTHON=${PYTHON:-@PYTHON@}
AWS_DEFAULT_REGION=${AWS_DEFAULT_REGION:-@REGION@}
work=$(mktemp -d)
HOME=${HOME:-$work}
export PYTHON AWS_DEFAULT_REGION HOME
inputs=$work/inputs outputs=$work/outputs log=$work/log.txt message=$work/message
mkdir -p "$inputs/project" "$inputs/wheels" "$outputs"
: >"$message"
exec >>"$log" 2>&1

fail() {
	printf '%s\n' "$1" >>"$message"
	printf '%s\n' "$1" >&2 # not into the value of a command substitution
	exit 1
}

copy() {
	aws s3 cp --only-show-errors "$@" </dev/null
}

upload_log() {
	copy "$log" "s3://$bucket/jobs/$endpoint/runs/$run/log/$index.txt"
}

# {"exit_code": N, "message": "..."}: of the message the first line, without what JSON would want escaped.
status() {
	line=$(head -n 1 "$message" | cut -c 1-1000 | LC_ALL=C tr -cd '[:alnum:] !#-/:-@[]^_`{|}~')
	if [ "$1" -ne 0 ] && [ -z "$line" ]; then
		line="ended with exit code $1; the log says more"
	fi
	printf '{"exit_code": %d, "message": "%s"}\n' "$1" "$line"
}

finish() {
	code=$?
	trap - EXIT
	trap '' HUP INT TERM
	set +e
	if [ -n "$uploader" ]; then
		: >"$work/over" # a shell that has only just been forked loses the signal; it does not overlook the file
		kill "$uploader"
		wait "$uploader" # so that no older log comes after the last one
	fi
	if [ -n "$index" ]; then # only then is there a place to write to
		record=s3://$bucket/jobs/$endpoint/runs/$run/record/$index
		if [ -d "$outputs/record" ]; then
			copy --recursive "$outputs/record" "$record"
		fi
		upload_log
		status "$code" >"$work/status.json"
		copy "$work/status.json" "$record/status.json"
	fi
	shutdown -h now
}
trap finish EXIT
trap 'printf "%s\n" "ended from outside, or at the limit of @MINUTES@ minutes" >>"$message"; exit 143' HUP INT TERM

metadata=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}
metadata=${metadata%/}
token=$(curl -fsS --retry 5 --max-time 10 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$metadata/latest/api/token")

# The value of a tag that fits the pattern as a whole: one line, and only characters that are harmless everywhere.
tag() {
	value=$(curl -fsS --retry 5 --max-time 10 -H "X-aws-ec2-metadata-token: $token" \
		"$metadata/latest/meta-data/tags/instance/inferentia:$1") || fail "the instance has no tag inferentia:$1"
	case $value in
	*[!a-zA-Z0-9./-]*) fail "tag inferentia:$1 has a character that no value has" ;;
	esac
	printf '%s\n' "$value" | LC_ALL=C grep -Eqx -- "$2" || fail "tag inferentia:$1 is not of the form $2"
	printf '%s\n' "$value"
}

# The digest that a prefix ends in, as endpoint_spec/jobs.py makes it: over the names and digests of all files below it.
verify() {
	"$PYTHON" -I - "$1" "$2" <<'END' || fail "what was downloaded to $1 is not what its digest $2 says"
import hashlib, json, pathlib, sys

root = pathlib.Path(sys.argv[1])
files = {}
for path in root.rglob("*"):
    if path.is_file():
        digest = hashlib.sha256()
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
        files[path.relative_to(root).as_posix()] = digest.hexdigest()
text = json.dumps(files, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
sys.exit(hashlib.sha256(text.encode()).hexdigest() != sys.argv[2])
END
}

# Downloads a prefix that ends in a digest, and checks it.
fetch() {
	copy --recursive "s3://$bucket/$1" "$2" || fail "s3://$bucket/$1 could not be downloaded"
	digest=${1%/}
	verify "$2" "${digest##*/}"
}

bucket=$(tag bucket '[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]')
run=$(tag run "$endpoint-[0-9a-f]{12}-[1-9][0-9]{0,2}")
index=$(tag index '0|[1-9][0-9]{0,3}')
upload_log || fail "s3://$bucket cannot be written to" # before anything is compiled in vain
(
	trap 'exit 0' TERM
	while [ ! -e "$work/over" ]; do
		upload_log || :
		sleep 20 &
		wait $!
	done
) &
uploader=$!
project=$(tag project "jobs/$endpoint/inputs/[0-9a-f]{64}/")
wheels=$(tag wheels "jobs/$endpoint/wheels/[0-9a-f]{64}/")
key=$(tag key '[0-9a-f]{64}')
command -v "$PYTHON" || fail "the machine image has no $PYTHON: compile_ami names another image than the stack expects"

fetch "$project" "$inputs/project"
fetch "$wheels" "$inputs/wheels"
INFERENTIA_RUN=$run INFERENTIA_MESSAGE_FILE=$message PYTHONPATH=$inputs/project/code \
	"$PYTHON" -m compile.portable.job "$index" "$inputs" "$outputs"
copy "$outputs/variant/variant.tar" "s3://$bucket/jobs/$endpoint/cache/$key/variant.tar" || fail "the variant could not be uploaded"
