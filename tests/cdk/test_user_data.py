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
KEY = "c" * 64
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

    def holds(self, job: str) -> None:
        """A bundle whose module that compiles is this, and empty wheels."""
        prefixes = {"project": jobs.inputs_prefix, "wheels": jobs.wheels_prefix}
        code = f"{jobs.CODE}/compile"
        bundle = {f"{code}/__init__.py": "", f"{code}/portable/__init__.py": "", f"{code}/portable/job.py": HEAD + job}
        files = {"project": {**bundle, jobs.PLAN: "{}"}, "wheels": {jobs.REQUIREMENTS: ""}}
        for kind, prefix in prefixes.items():
            folder = self.home / kind
            folder.mkdir()
            for name, text in files[kind].items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text)
            key = prefix("depth", jobs.files_digest(jobs.tree_digests(folder)))
            shutil.copytree(folder, self.bucket / key)
            self.tag(kind, key)
        self.tag("bucket", BUCKET)
        self.tag("run", RUN)
        self.tag("index", "3")
        self.tag("key", KEY)

    def put(self, key: str, text: str) -> None:
        (self.bucket / key).parent.mkdir(parents=True, exist_ok=True)
        (self.bucket / key).write_text(text)

    def tag(self, name: str, value: str | None) -> None:
        if value is None:
            (self.home / "tags" / name).unlink()
        else:
            (self.home / "tags" / name).write_text(value)

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

    @property
    def status(self) -> dict[str, object] | None:
        """What the instance said last."""
        file = self.bucket / jobs.record_prefix("depth", RUN, 3) / "status.json"
        return json.loads(file.read_text()) if file.exists() else None

    @property
    def log(self) -> str:
        return (self.bucket / f"jobs/depth/runs/{RUN}/log/3.txt").read_text()

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


HEAD = """\
import os, pathlib, signal, sys, time
index, inputs, outputs = sys.argv[1], *map(pathlib.Path, sys.argv[2:])
def leave(name, text):
    (outputs / name).parent.mkdir(parents=True, exist_ok=True)
    (outputs / name).write_text(text)
"""
WORKS = """\
assert index == "3" and (inputs / "wheels" / "requirements.txt").is_file()
print("compiling for", os.environ["INFERENTIA_RUN"])
leave("variant/variant.tar", "compiled\\n")
leave("record/main/compile.log", "compiler log\\n")
"""
TOUCHES = "pathlib.Path('compiled').touch()\n"
FAILS = """\
leave("record/log.txt", "kept\\n")
pathlib.Path(os.environ["INFERENTIA_MESSAGE_FILE"]).write_text('the "compiler" was killed\\\\ (-9)\\nmore\\n')
sys.exit(9)
"""
ARMED, NOW = "-h +180", "-h now"


def test_a_variant_is_compiled_and_left_in_the_cache(instance: Instance) -> None:
    instance.holds(WORKS)
    assert instance.run() == 0
    assert instance.shutdowns == [ARMED, NOW]
    assert (instance.bucket / jobs.variant_key("depth", KEY)).read_text() == "compiled\n"
    assert (instance.bucket / f"jobs/depth/runs/{RUN}/record/3/main/compile.log").read_text() == "compiler log\n"
    assert instance.status == {"exit_code": 0, "message": ""}
    assert f"compiling for {RUN}" in instance.log


def test_the_status_is_uploaded_last(instance: Instance) -> None:
    instance.holds(WORKS)
    instance.run()
    names = [Path(name).name for name in instance.uploads]
    assert names[-3:] == ["3", "3.txt", "status.json"]  # record, log, status
    assert names.index("variant.tar") < len(names) - 3


def test_a_job_that_fails_without_a_word(instance: Instance) -> None:
    instance.holds("sys.exit(3)\n")
    assert instance.run() == 3
    assert instance.shutdowns == [ARMED, NOW]
    assert instance.status == {"exit_code": 3, "message": "ended with exit code 3; the log says more"}


def test_a_job_that_fails_tells_its_reason_and_keeps_its_record(instance: Instance) -> None:
    instance.holds(FAILS)
    assert instance.run() == 9
    assert instance.shutdowns == [ARMED, NOW]
    assert instance.status == {"exit_code": 9, "message": "the compiler was killed (-9)"}
    assert (instance.bucket / f"jobs/depth/runs/{RUN}/record/3/log.txt").read_text() == "kept\n"
    assert not (instance.bucket / jobs.variant_key("depth", KEY)).exists()


@pytest.mark.parametrize("name", ["bucket", "run", "index", "project", "wheels", "key"])
def test_a_missing_tag_ends_the_instance(instance: Instance, name: str) -> None:
    instance.holds(WORKS)
    instance.tag(name, None)
    assert instance.run() == 1
    assert instance.shutdowns == [ARMED, NOW]
    if name in ("project", "wheels", "key"):
        assert instance.status == {"exit_code": 1, "message": f"the instance has no tag inferentia:{name}"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bucket", "x;touch owned"),
        ("bucket", "$(touch owned)"),
        ("run", "other-0123456789ab-1"),
        ("run", f"{RUN}/../../other"),
        ("index", "3; touch owned"),
        ("index", "`touch owned`"),
        ("index", "-1"),
        ("index", "gather"),
        ("project", "jobs/other/inputs/" + "a" * 64 + "/"),
        ("project", "jobs/depth/inputs/../../other/"),
        ("wheels", "jobs/depth/inputs/" + "a" * 64 + "/"),
        ("key", "a" * 63),
        ("key", "a" * 64 + "\n" + "a" * 64),
        ("key", "../" * 20),
    ],
)
def test_a_tag_of_another_form_is_refused_and_never_evaluated(instance: Instance, name: str, value: str) -> None:
    instance.holds(WORKS)
    instance.tag(name, value)
    assert instance.run() == 1
    assert instance.shutdowns == [ARMED, NOW]
    assert not list(instance.home.rglob("owned"))
    assert not (instance.bucket / jobs.variant_key("depth", KEY)).exists()
    if name in ("project", "wheels", "key"):
        status = instance.status
        assert status is not None
        assert f"tag inferentia:{name}" in str(status["message"])


def test_an_unwritable_bucket_ends_the_instance_before_anything_is_compiled(instance: Instance) -> None:
    instance.holds(TOUCHES + WORKS)
    (instance.home / "refused").write_text("jobs/")
    assert instance.run() == 1
    assert instance.shutdowns == [ARMED, NOW]
    assert not list(instance.home.rglob("compiled"))


def test_a_variant_that_cannot_be_stored_is_a_failure(instance: Instance) -> None:
    instance.holds(WORKS)
    (instance.home / "refused").write_text("cache/")
    assert instance.run() == 1
    assert instance.shutdowns == [ARMED, NOW]
    assert instance.status == {"exit_code": 1, "message": "the variant could not be uploaded"}


@pytest.mark.parametrize("kind", ["project", "wheels"])
def test_inputs_that_are_not_what_their_digest_says_are_not_run(instance: Instance, kind: str) -> None:
    instance.holds(TOUCHES + WORKS)
    key = (instance.home / "tags" / kind).read_text()
    instance.put(f"{key}surprise", "more\n")
    assert instance.run() == 1
    assert instance.shutdowns == [ARMED, NOW]
    assert not list(instance.home.rglob("compiled"))
    status = instance.status
    assert status is not None
    assert "is not what its digest" in str(status["message"])


def test_the_log_is_uploaded_while_the_job_runs_and_the_limit_ends_it(instance: Instance) -> None:
    instance.holds("print('at work', flush=True); time.sleep(30)\n")
    process = instance.start()
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            file = instance.bucket / f"jobs/depth/runs/{RUN}/log/3.txt"
            if file.exists() and "at work" in file.read_text():
                break
            time.sleep(0.1)
        assert "at work" in instance.log
        os.killpg(process.pid, signal.SIGTERM)  # what the armed shutdown sends to everything
        process.communicate(timeout=20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert instance.shutdowns == [ARMED, NOW]
    status = instance.status
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
    instance.holds(TOUCHES + WORKS)
    assert instance.run() == 0
    assert instance.shutdowns == [ARMED, NOW]
    assert not list(instance.home.rglob("compiled"))


def test_an_instance_without_a_place_to_work_shuts_down(instance: Instance) -> None:
    (instance.home / "tmp").rmdir()
    instance.holds(WORKS)
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
