"""The script of a compile instance, run by sh with `aws`, `curl` and `shutdown` made up: it always shuts down."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cdk.constructs.compile_instance import LARGEST_USER_DATA, USER_DATA, user_data
from endpoint_spec import jobs

RUN = "depth-0123456789ab-1"
BUCKET = "inferentia-artifacts"
KEYS = ("a" * 64, "b" * 64)
# `aws s3 cp` between a folder that stands for S3 and this machine; uploads to what the file `refused` names fail.
AWS = """\
#!/bin/sh
set -eu
recursive=no
[ "$1 $2" = "s3 cp" ] && shift 2
while [ "${{1#--}}" != "$1" ]; do
    [ "$1" = --recursive ] && recursive=yes
    shift
done
echo "$1 $2" >>"{home}/copies"
source=$1 target=$2
case $source in s3://*) source={home}/s3/${{source#s3://}} ;; esac
case $target in s3://*)
    if [ -f "{home}/refused" ] && echo "$target" | grep -qf "{home}/refused"; then
        echo "upload failed: AccessDenied" >&2
        exit 1
    fi
    target={home}/s3/${{target#s3://}} ;;
esac
if [ $recursive = yes ]; then
    mkdir -p "$target"
    cp -R "$source/." "$target"
else
    mkdir -p "$(dirname "$target")"
    cp "$source" "$target"
fi
"""
CURL = """\
#!/bin/sh
for url in "$@"; do :; done
case $url in
*/latest/api/token) printf token ;;
*/latest/meta-data/tags/instance/inferentia:*)
    case "$*" in *"X-aws-ec2-metadata-token: token"*) ;; *) exit 22 ;; esac
    tag={home}/tags/${{url##*inferentia:}}
    [ -f "$tag" ] || exit 22
    cat "$tag" ;;
*) exit 22 ;;
esac
"""
SHUTDOWN = """\
#!/bin/sh
printf '%s ' "$@" >>"{home}/shutdowns"
echo >>"{home}/shutdowns"
"""


class Instance:
    """A scratch folder as an instance: its tags, an S3, and what it was started with."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "bin").mkdir()
        (home / "tags").mkdir()
        (home / "tmp").mkdir()
        for name, text in (("aws", AWS), ("curl", CURL), ("shutdown", SHUTDOWN)):
            program = home / "bin" / name
            program.write_text(text.format(home=home))
            program.chmod(0o755)
        script = user_data(name="depth", region="us-east-1", python="python3", minutes=180)
        self.script = home / "user-data"
        self.script.write_text(script.replace("sleep 20", "sleep 0.1"))

    @property
    def bucket(self) -> Path:
        return self.home / "s3" / BUCKET

    def holds(self, start: str) -> None:
        """The bundle with this start.sh, empty wheels, two variants and their manifest."""
        prefixes = {"project": jobs.inputs_prefix, "wheels": jobs.wheels_prefix}
        files = {"project": {"start.sh": start, "plan.json": "{}"}, "wheels": {"requirements.txt": ""}}
        for kind, prefix in prefixes.items():
            folder = self.home / kind
            folder.mkdir()
            for name, text in files[kind].items():
                (folder / name).write_text(text)
            key = prefix("depth", jobs.files_digest(jobs.tree_digests(folder)))
            shutil.copytree(folder, self.bucket / key)
            self.tag(kind, key)
        for key in KEYS:
            variant = self.bucket / jobs.variant_key("depth", key)
            variant.parent.mkdir(parents=True)
            variant.write_text(f"variant {key}")
        self.put(jobs.variants_manifest_key("depth", RUN), jobs.variants_manifest(BUCKET, "depth", KEYS))
        self.tag("bucket", BUCKET)
        self.tag("run", RUN)

    def put(self, key: str, text: str) -> None:
        (self.bucket / key).parent.mkdir(parents=True, exist_ok=True)
        (self.bucket / key).write_text(text)

    def tag(self, name: str, value: str | None) -> None:
        if value is None:
            (self.home / "tags" / name).unlink()
        else:
            (self.home / "tags" / name).write_text(value)

    def variant(self) -> None:
        self.tag("task", "variant 3")
        self.tag("key", "c" * 64)

    def gather(self) -> None:
        self.tag("task", "gather")
        self.tag("manifest", jobs.variants_manifest_key("depth", RUN))

    def start(self) -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
            "TMPDIR": str(self.home / "tmp"),
            "PYTHON": sys.executable,
        }
        return subprocess.Popen(
            ["/bin/sh", str(self.script)],
            cwd=self.home,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self) -> int:
        """Run the script; its exit code."""
        process = self.start()
        process.communicate(timeout=60)
        return process.returncode

    @property
    def shutdowns(self) -> list[str]:
        """Every call of shutdown, in order."""
        return [line.strip() for line in (self.home / "shutdowns").read_text().splitlines()]

    def status(self, index: str) -> dict[str, object] | None:
        """What the instance said last."""
        file = (
            self.bucket
            / jobs.record_prefix("depth", RUN, "gather" if index == "gather" else int(index))
            / "status.json"
        )
        return json.loads(file.read_text()) if file.exists() else None

    def log(self, index: str) -> str:
        return (self.bucket / f"jobs/depth/runs/{RUN}/log/{index}.txt").read_text()

    @property
    def uploads(self) -> list[str]:
        """Names of what was put into the bucket, in order."""
        lines = (self.home / "copies").read_text().splitlines()
        return [
            line.split()[1].removeprefix(f"s3://{BUCKET}/") for line in lines if line.split()[1].startswith("s3://")
        ]


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    return Instance(tmp_path)


VARIANT_WORKS = """\
set -eu
test "$1 $2" = "variant 3"
test -f "$3/wheels/requirements.txt"
mkdir -p "$4/variant" "$4/record/main"
echo "compiling for $INFERENTIA_RUN"
echo compiled >"$4/variant/variant.tar"
echo "compiler log" >"$4/record/main/compile.log"
"""
GATHER_WORKS = """\
set -eu
test "$1" = gather
mkdir -p "$3/result" "$3/record"
cat "$2"/variants/*/variant.tar >"$3/result/model.tar.gz"
echo '{}' >"$3/result/result.json"
"""
FAILS = """\
mkdir -p "$4/record"
echo kept >"$4/record/log.txt"
printf 'the "compiler" was killed\\\\ (-9)\\nmore\\n' >"$INFERENTIA_MESSAGE_FILE"
exit 9
"""
ARMED, NOW = "-h +180", "-h now"


def test_a_variant_is_compiled_and_left_in_the_cache(instance: Instance) -> None:
    instance.holds(VARIANT_WORKS)
    instance.variant()
    assert instance.run() == 0
    assert instance.shutdowns == [ARMED, NOW]
    assert (instance.bucket / jobs.variant_key("depth", "c" * 64)).read_text() == "compiled\n"
    assert (instance.bucket / f"jobs/depth/runs/{RUN}/record/3/main/compile.log").read_text() == "compiler log\n"
    assert instance.status("3") == {"exit_code": 0, "message": ""}
    assert f"compiling for {RUN}" in instance.log("3")


def test_the_status_is_uploaded_last(instance: Instance) -> None:
    instance.holds(VARIANT_WORKS)
    instance.variant()
    instance.run()
    names = [Path(name).name for name in instance.uploads]
    assert names[-3:] == ["3", "3.txt", "status.json"]  # record, log, status
    assert names.index("variant.tar") < len(names) - 3


def test_variants_are_gathered_from_the_manifest(instance: Instance) -> None:
    instance.holds(GATHER_WORKS)
    instance.gather()
    assert instance.run() == 0
    assert instance.shutdowns == [ARMED, NOW]
    output = instance.bucket / jobs.output_prefix("depth", RUN)
    assert (output / "model.tar.gz").read_text() == "".join(f"variant {key}" for key in KEYS)
    status = instance.status("gather")
    assert status is not None
    assert status["exit_code"] == 0


def test_a_job_that_fails_without_a_word(instance: Instance) -> None:
    instance.holds("exit 3\n")
    instance.variant()
    assert instance.run() == 3
    assert instance.shutdowns == [ARMED, NOW]
    assert instance.status("3") == {"exit_code": 3, "message": "ended with exit code 3; the log says more"}


def test_a_job_that_fails_tells_its_reason_and_keeps_its_record(instance: Instance) -> None:
    instance.holds(FAILS)
    instance.variant()
    assert instance.run() == 9
    assert instance.shutdowns == [ARMED, NOW]
    assert instance.status("3") == {"exit_code": 9, "message": "the compiler was killed (-9)"}
    assert (instance.bucket / f"jobs/depth/runs/{RUN}/record/3/log.txt").read_text() == "kept\n"
    assert not (instance.bucket / jobs.variant_key("depth", "c" * 64)).exists()


@pytest.mark.parametrize("name", ["bucket", "run", "task", "project", "wheels", "key"])
def test_a_missing_tag_ends_the_instance(instance: Instance, name: str) -> None:
    instance.holds(VARIANT_WORKS)
    instance.variant()
    instance.tag(name, None)
    assert instance.run() == 1
    assert instance.shutdowns == [ARMED, NOW]
    if name in ("project", "wheels", "key"):
        assert instance.status("3") == {"exit_code": 1, "message": f"the instance has no tag inferentia:{name}"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bucket", "x;touch owned"),
        ("bucket", "$(touch owned)"),
        ("run", "other-0123456789ab-1"),
        ("run", f"{RUN}/../../other"),
        ("task", "variant 3; touch owned"),
        ("task", "variant `touch owned`"),
        ("task", "variant -1"),
        ("project", "jobs/other/inputs/" + "a" * 64 + "/"),
        ("project", "jobs/depth/inputs/../../other/"),
        ("wheels", "jobs/depth/inputs/" + "a" * 64 + "/"),
        ("key", "a" * 63),
        ("key", "a" * 64 + "\n" + "a" * 64),
        ("key", "../" * 20),
    ],
)
def test_a_tag_of_another_form_is_refused_and_never_evaluated(instance: Instance, name: str, value: str) -> None:
    instance.holds(VARIANT_WORKS)
    instance.variant()
    instance.tag(name, value)
    assert instance.run() == 1
    assert instance.shutdowns == [ARMED, NOW]
    assert not list(instance.home.rglob("owned"))
    assert not (instance.bucket / jobs.variant_key("depth", "c" * 64)).exists()
    if name in ("project", "wheels", "key"):
        status = instance.status("3")
        assert status is not None
        assert f"tag inferentia:{name}" in str(status["message"])


def test_an_unwritable_bucket_ends_the_instance_before_anything_is_compiled(instance: Instance) -> None:
    instance.holds("touch compiled\n" + VARIANT_WORKS)
    instance.variant()
    (instance.home / "refused").write_text("jobs/")
    assert instance.run() == 1
    assert instance.shutdowns == [ARMED, NOW]
    assert not list(instance.home.rglob("compiled"))


def test_a_variant_that_cannot_be_stored_is_a_failure(instance: Instance) -> None:
    instance.holds(VARIANT_WORKS)
    instance.variant()
    (instance.home / "refused").write_text("cache/")
    assert instance.run() == 1
    assert instance.shutdowns == [ARMED, NOW]
    assert instance.status("3") == {"exit_code": 1, "message": "the variant could not be uploaded"}


@pytest.mark.parametrize("kind", ["project", "wheels"])
def test_inputs_that_are_not_what_their_digest_says_are_not_run(instance: Instance, kind: str) -> None:
    instance.holds(VARIANT_WORKS)
    instance.variant()
    key = (instance.home / "tags" / kind).read_text()
    instance.put(f"{key}start.sh", "touch owned\n")
    assert instance.run() == 1
    assert instance.shutdowns == [ARMED, NOW]
    assert not list(instance.home.rglob("owned"))
    status = instance.status("3")
    assert status is not None
    assert "is not what its digest" in str(status["message"])


@pytest.mark.parametrize("name", ["../../secret", "a/variant.tar", f"{'a' * 64}/variant.tar/../../x"])
def test_a_manifest_may_name_variants_alone(instance: Instance, name: str) -> None:
    instance.holds(GATHER_WORKS)
    instance.gather()
    instance.put(jobs.variants_manifest_key("depth", RUN), json.dumps([{"prefix": "s3://x/"}, name]))
    assert instance.run() == 1
    assert instance.shutdowns == [ARMED, NOW]
    status = instance.status("gather")
    assert status is not None
    assert "is not a list of variants" in str(status["message"])


def test_the_log_is_uploaded_while_the_job_runs_and_the_limit_ends_it(instance: Instance) -> None:
    instance.holds("echo at work; sleep 30 & wait $!\n")
    instance.variant()
    process = instance.start()
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            file = instance.bucket / f"jobs/depth/runs/{RUN}/log/3.txt"
            if file.exists() and "at work" in file.read_text():
                break
            time.sleep(0.1)
        assert "at work" in instance.log("3")
        os.killpg(process.pid, signal.SIGTERM)  # what the armed shutdown sends to everything
        process.communicate(timeout=20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert instance.shutdowns == [ARMED, NOW]
    status = instance.status("3")
    assert status is not None
    assert status["exit_code"] == 143
    assert "limit of 180 minutes" in str(status["message"])


def test_the_shutdown_is_armed_before_anything_else() -> None:
    lines = user_data(name="depth", region="us-east-1", python="python3", minutes=7).splitlines()
    assert lines[0] == "#!/bin/sh"
    assert lines[1].startswith("shutdown -h +7 || exec shutdown -h now")


def test_an_instance_that_cannot_arm_its_shutdown_shuts_down(instance: Instance) -> None:
    program = instance.home / "bin" / "shutdown"
    program.write_text(program.read_text() + '[ "$2" = now ]\n')
    instance.holds("touch compiled\n" + VARIANT_WORKS)
    instance.variant()
    assert instance.run() == 0
    assert instance.shutdowns == [ARMED, NOW]
    assert not list(instance.home.rglob("compiled"))


def test_an_instance_without_a_place_to_work_shuts_down(instance: Instance) -> None:
    (instance.home / "tmp").rmdir()
    instance.holds(VARIANT_WORKS)
    instance.variant()
    assert instance.run() == 1
    assert instance.shutdowns == [ARMED, NOW]


def test_the_script_is_posix_small_and_says_nothing_of_a_run() -> None:
    text = USER_DATA.read_text()
    assert len(text.encode()) < LARGEST_USER_DATA
    assert set(re.findall(r"@[A-Z]+@", text)) == {"@MINUTES@", "@NAME@", "@REGION@", "@PYTHON@"}
    assert not re.search(r"\beval\b|\[\[|\bfunction\b|\bsource\b", text)
    assert subprocess.run(["/bin/sh", "-n", str(USER_DATA)], check=False).returncode == 0


def test_a_word_that_nobody_filled_in_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text("#!/bin/sh\necho @SURPRISE@\n")
    monkeypatch.setattr("cdk.constructs.compile_instance.USER_DATA", script)
    with pytest.raises(ValueError, match="@SURPRISE@"):
        user_data(name="depth", region="us-east-1", python="python3", minutes=7)
