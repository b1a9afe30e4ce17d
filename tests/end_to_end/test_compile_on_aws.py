"""Compile runs on the embedded AWS: stacks deployed by the stock CDK CLI, state machines that run jobs, faults.

Most runs compile nothing: their bundle has a module that keeps to the contract of a job, so that a run takes seconds
and every fault can be tried. The last test submits a real one, whose jobs run on torch 1.13.1 and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint_spec import jobs
from tests.compile.projects import TINY
from tests.end_to_end.rehearsal import ROOT, Rehearsal
from tests.job_python import bare, needs_old

DIGEST = "0123456789abcdef" * 4
JOB = """
import os, pathlib, signal, sys, time
index, inputs, outputs = sys.argv[1], *map(pathlib.Path, sys.argv[2:])
size, before = 1000, lambda index: None

def fail(text):
    pathlib.Path(os.environ["INFERENTIA_MESSAGE_FILE"]).write_text(text + "\\n")
    sys.exit(1)

exec((inputs / "project" / "code" / "behaviour.py").read_text())
print("compiling variant", index, "of", os.environ["INFERENTIA_RUN"], flush=True)
for name in ("variant", "record/main"):
    (outputs / name).mkdir(parents=True, exist_ok=True)
(outputs / "record/main/compile.log").write_text("log of " + index)
before(index)
(outputs / "variant/variant.part").write_bytes(bytes(size))
(outputs / "variant/variant.part").rename(outputs / "variant/variant.tar")
"""
FAIL = "before = lambda index: index == '0' or fail('aten::frobnicate cannot be compiled')"
HANG = "before = lambda index: time.sleep(1000)"
LARGE = "size = 20_000_000"


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    """The artifact stack and one compile stack, deployed; waits pass 100 times as fast as on AWS."""
    speeds = {"EMBEDDED_AWS_WAIT_SPEED": "100"}
    rehearsal = Rehearsal(tmp_path_factory.mktemp("compile-rehearsal"), variables=speeds)
    (rehearsal.folder / "endpoints").mkdir()
    for name, job in (("jobs", "where: processing"), ("boxes", "where: ec2, spot: true")):
        write_spec(rehearsal.folder, name, f"job: {{{job}, time_limit: 10min, max_parallel: 2}}")
    try:
        rehearsal.start()
        rehearsal.must(ROOT / ".venv" / "bin" / "cdk", "bootstrap", "aws://123456789012/us-east-1")
        rehearsal.deploy("InferentiaArtifacts", "InferentiaCompile-jobs")
        yield rehearsal
    finally:
        rehearsal.stop()


@pytest.fixture(scope="module")
def boxes(rehearsal: Rehearsal) -> str:
    """The stack that compiles on EC2, which only the long tests use, is deployed too."""
    rehearsal.deploy("InferentiaCompile-boxes", synthesized=True)
    return "boxes"


def write_spec(folder: Path, name: str, job: str) -> None:
    """A tiny endpoint that is compiled on AWS."""
    model = f'{{family: depth_anything_v2, variant: vits, weights: "random:0", options: {TINY}}}'
    text = f"name: {name}\nmodel: {model}\ncompile: {{timeout: 5min, batch_sizes: [1, 2]}}\n{job}\n"
    (folder / "endpoints" / f"{name}.yaml").write_text(text)


def faults(rehearsal: Rehearsal, method: str, fault: dict[str, Any] | None = None) -> None:
    """POST arms a fault, DELETE disarms all."""
    found = json.loads((rehearsal.folder / "aws" / "server.json").read_text())
    url = f"http://127.0.0.1:{found['port']}/_embedded_aws/faults"
    headers = {"Authorization": f"Bearer {found['token']}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(fault or {}).encode(), headers, method=method)
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30).close()


class Runs:
    """Runs of one endpoint, started with boto3 as `operations submit` starts them."""

    def __init__(self, rehearsal: Rehearsal, name: str) -> None:
        self.rehearsal, self.name = rehearsal, name
        self.states, self.s3 = rehearsal.client("stepfunctions"), rehearsal.client("s3")
        stack = rehearsal.client("cloudformation").describe_stacks(StackName=f"InferentiaCompile-{name}")["Stacks"][0]
        self.machine = {item["OutputKey"]: item["OutputValue"] for item in stack["Outputs"]}["StateMachineArn"]
        found = [row["Name"] for row in self.s3.list_buckets()["Buckets"] if "artifactsbucket" in row["Name"]]
        (self.bucket,) = found
        self.keys: list[str] = []

    def start(self, behaviour: str = "", keys: list[str] | None = None) -> str:
        """Upload a bundle and start a run of two variants; the execution's ARN."""
        modules = {"compile/__init__.py": "", "compile/portable/__init__.py": "", "compile/portable/job.py": JOB}
        files = {**modules, "behaviour.py": behaviour}
        project = self._put(jobs.inputs_prefix, {f"{jobs.CODE}/{name}": text for name, text in files.items()})
        wheels = self._put(jobs.wheels_prefix, {jobs.REQUIREMENTS: ""})
        self.keys = keys or [hashlib.sha256(uuid.uuid4().bytes).hexdigest() for _ in range(2)]
        number = 1 + len(self.states.list_executions(stateMachineArn=self.machine)["executions"])
        run = jobs.run_name(self.name, DIGEST, number)
        variants = [
            {"index": str(index), "key": key, "label": f"variant {index}"} for index, key in enumerate(self.keys)
        ]
        given = {
            "run": run, "submission": uuid.uuid4().hex, "bucket": self.bucket, "build_digest": DIGEST,
            "project": project, "wheels": wheels, "variants": variants,
        }  # fmt: skip
        started = self.states.start_execution(stateMachineArn=self.machine, name=run, input=json.dumps(given))
        return str(started["executionArn"])

    def _put(self, prefix: Any, files: dict[str, str]) -> str:
        digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
        where = str(prefix(self.name, jobs.files_digest(digests)))
        for name, text in files.items():
            self.s3.put_object(Bucket=self.bucket, Key=where + name, Body=text.encode())
        return where

    def ended(self, execution: str, seconds: float = 120) -> dict[str, Any]:
        """The description once it has ended."""
        return dict(eventually(lambda: self._over(execution), "the run ends", seconds))

    def _over(self, execution: str) -> dict[str, Any] | None:
        found: dict[str, Any] = self.states.describe_execution(executionArn=execution)
        return None if found["status"] == "RUNNING" else found

    def run(self, behaviour: str = "", keys: list[str] | None = None) -> dict[str, Any]:
        """Start and wait."""
        return self.ended(self.start(behaviour, keys))

    def stored(self, prefix: str) -> list[str]:
        """Keys below a prefix."""
        rows = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])
        return [row["Key"] for row in rows]

    def published(self) -> list[str]:
        """Keys of published artifacts."""
        return self.stored(f"models/{self.name}/")

    def arm(self, **fault: Any) -> None:
        """Arm a fault, as `inferentia rehearsal fault` does."""
        faults(self.rehearsal, "POST", fault)

    def jobs_running(self) -> list[str]:
        """Processing jobs and instances that still cost."""
        sagemaker, ec2 = self.rehearsal.client("sagemaker"), self.rehearsal.client("ec2")
        rows = sagemaker.list_processing_jobs(StatusEquals="InProgress", NameContains=self.name)
        costing = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
        found = ec2.describe_instances(Filters=costing)["Reservations"]
        boxes = [instance["InstanceId"] for item in found for instance in item["Instances"]]
        return [row["ProcessingJobName"] for row in rows["ProcessingJobSummaries"]] + boxes


def eventually(condition: Any, what: str, seconds: float = 60) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.2)


@pytest.fixture(autouse=True)
def no_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test armed and did not use is disarmed."""
    yield
    if "rehearsal" in request.fixturenames:
        faults(request.getfixturevalue("rehearsal"), "DELETE")


@pytest.fixture(params=["jobs", pytest.param("boxes", marks=pytest.mark.slow)])
def runs(request: pytest.FixtureRequest, rehearsal: Rehearsal) -> Runs:
    if request.param == "boxes":
        request.getfixturevalue("boxes")
    return Runs(rehearsal, request.param)


@pytest.fixture
def on_jobs(rehearsal: Rehearsal) -> Runs:
    return Runs(rehearsal, "jobs")


@pytest.fixture
def on_boxes(rehearsal: Rehearsal, boxes: str) -> Runs:
    return Runs(rehearsal, boxes)


def test_a_run_compiles_and_is_cached(runs: Runs) -> None:
    ended = runs.run()
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    variants = [{"index": str(index), "key": item, "cached": False} for index, item in enumerate(runs.keys)]
    assert json.loads(ended["output"]) == {"run": ended["name"], "variants": variants}
    for index, key in enumerate(runs.keys):
        made = runs.s3.get_object(Bucket=runs.bucket, Key=jobs.variant_key(runs.name, key))
        assert made["Body"].read() == bytes(1000)
        record = jobs.record_prefix(runs.name, ended["name"], index)
        assert f"{record}main/compile.log" in runs.stored(record)
    assert runs.jobs_running() == []
    assert runs.published() == []
    again = json.loads(runs.run(keys=runs.keys)["output"])
    assert [variant["cached"] for variant in again["variants"]] == [True, True]


def test_a_failing_variant_ends_the_run_with_its_reason(runs: Runs) -> None:
    ended = runs.run(FAIL)
    assert (ended["status"], ended["error"]) == ("FAILED", "CompileJobFailed")
    assert "aten::frobnicate cannot be compiled" in ended["cause"]
    assert not runs.stored(jobs.variant_key(runs.name, runs.keys[1]))
    record = jobs.record_prefix(runs.name, ended["name"], 1)
    assert f"{record}main/compile.log" in runs.stored(record), "the record is kept also after a failure"
    eventually(lambda: runs.jobs_running() == [], "what the run left running is stopped")


def test_a_stopped_run_leaves_nothing_running(runs: Runs) -> None:
    execution = runs.start(HANG)
    eventually(lambda: len(runs.jobs_running()) == 2, "both variants run")
    runs.states.stop_execution(executionArn=execution)
    assert runs.ended(execution)["status"] == "ABORTED"
    eventually(lambda: runs.jobs_running() == [], "the cleanup has ended them")


@pytest.mark.slow
def test_shortages_pass(on_jobs: Runs, on_boxes: Runs) -> None:
    """Capacity, quotas and throttling are waited for, on both kinds of machines."""
    for error in ("ResourceLimitExceeded", "ThrottlingException"):
        on_jobs.arm(kind="call", action="error", operation="sagemaker:CreateProcessingJob", error=error, times=2)
    on_jobs.arm(kind="job", action="no-capacity", where="^jobs-")
    on_boxes.arm(
        kind="call", action="error", operation="ec2:RunInstances", error="InsufficientInstanceCapacity", times=3
    )
    on_boxes.arm(kind="instance", action="crash", where="inferentia:endpoint=boxes")
    both = [(runs, runs.start()) for runs in (on_jobs, on_boxes)]
    for runs, execution in both:
        ended = runs.ended(execution)
        assert ended["status"] == "SUCCEEDED", ended.get("cause")


@pytest.mark.slow
def test_a_stopped_job_fails_the_run(on_jobs: Runs) -> None:
    on_jobs.arm(kind="job", action="stop", where="-1-0$", after_seconds=1)
    ended = on_jobs.run("before = lambda index: time.sleep(3)")
    assert ended["status"] == "FAILED"
    assert "-1-0: " in ended["cause"]


@pytest.mark.slow
def test_an_interrupted_upload_leaves_nothing_half_and_the_next_run_completes(on_jobs: Runs) -> None:
    on_jobs.arm(kind="call", action="drop", operation="s3:UploadPart", where="/cache/.*partNumber=2")
    ended = on_jobs.run(LARGE)
    assert ended["status"] == "FAILED"
    variants = [key for key in on_jobs.keys if on_jobs.stored(jobs.variant_key("jobs", key))]
    assert len(variants) < 2, "no variant is half there: the one whose upload broke off is not there at all"
    ended = on_jobs.run(LARGE, keys=on_jobs.keys)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")


@pytest.mark.slow
def test_a_place_that_cannot_be_written_is_named(on_jobs: Runs, on_boxes: Runs) -> None:
    on_jobs.arm(kind="call", action="error", operation="s3:PutObject", error="AccessDenied", where="/cache/", times=20)
    both = [(runs, runs.start()) for runs in (on_jobs, on_boxes)]
    for runs, execution in both:
        ended = runs.ended(execution)
        assert ended["status"] == "FAILED"
        said = "AccessDenied" if runs is on_jobs else "the variant could not be uploaded"
        assert said in ended["cause"]


@pytest.mark.slow
def test_what_hangs_is_gone_after_its_limit(on_jobs: Runs, on_boxes: Runs) -> None:
    """10 minutes, here 15 seconds: the run times out, and its jobs do not outlive it."""
    where = "--directory", str(on_jobs.rehearsal.folder / "aws")
    on_jobs.rehearsal.python("embedded_aws", "clock", *where, "--limit-speed", "40")
    both = [(runs, runs.start(HANG)) for runs in (on_jobs, on_boxes)]
    for runs, execution in both:
        assert runs.ended(execution)["status"] == "TIMED_OUT"
    on_jobs.rehearsal.python("embedded_aws", "clock", *where, "--limit-speed", "1")
    for runs, _ in both:
        eventually(lambda runs=runs: runs.jobs_running() == [], "nothing costs any more")


@pytest.mark.slow
def test_spot_capacity_that_is_taken_away(on_boxes: Runs) -> None:
    on_boxes.arm(kind="instance", action="interrupt", where="inferentia:index=0", after_seconds=3)
    ended = on_boxes.run("before = lambda index: index == '0' and time.sleep(8)")
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    tags = {"inferentia:run": ended["name"], "inferentia:index": "0"}
    filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]
    found = on_boxes.rehearsal.client("ec2").describe_instances(Filters=filters)["Reservations"]
    reasons = [instance["StateReason"]["Code"] for item in found for instance in item["Instances"]]
    assert sorted(reasons) == ["Client.InstanceInitiatedShutdown", "Server.SpotInstanceTermination"]


@pytest.mark.slow
@pytest.mark.usefixtures("boxes")
def test_the_stacks_can_be_destroyed(rehearsal: Rehearsal) -> None:
    answer = rehearsal.cdk("destroy", "--force", "InferentiaCompile-jobs", "InferentiaCompile-boxes")
    assert answer.returncode == 0, answer.stdout
    assert rehearsal.client("stepfunctions").list_state_machines()["stateMachines"] == []
    vpcs = rehearsal.client("ec2").describe_vpcs()["Vpcs"]
    assert [vpc["CidrBlock"] for vpc in vpcs if not vpc["IsDefault"]] == []


@needs_old
@pytest.mark.slow
@pytest.mark.parametrize("where", ["processing", "ec2"])
def test_submit_makes_an_artifact_of_what_jobs_compiled_on_torch_1_13(tmp_path: Path, where: str) -> None:
    """`submit` from capture to the published artifact; the jobs have torch 1.13.1 and the bundle, no library."""
    rehearsal = Rehearsal(tmp_path, variables={"EMBEDDED_AWS_WAIT_SPEED": "60"})
    rehearsal.job_python = bare(tmp_path / "python310")
    (tmp_path / "endpoints").mkdir()
    write_spec(tmp_path, "depth", f"job: {{where: {where}, time_limit: 1h, max_parallel: 2}}")
    try:
        rehearsal.start()
        rehearsal.must(ROOT / ".venv" / "bin" / "cdk", "bootstrap", "aws://123456789012/us-east-1")
        rehearsal.deploy("InferentiaArtifacts", "InferentiaCompile-depth")
        said = rehearsal.must(sys.executable, "-m", "operations", "submit", "depth", "--rehearsal")
        assert "built, locked and published" in said
        lock = json.loads((tmp_path / "build" / "rehearsal" / "depth.lock.json").read_text())
        assert lock["versions"]["traced-with-torch"].startswith("1.13.1"), lock["versions"]
        runs = Runs(rehearsal, "depth")
        assert runs.published() == [lock["artifact"]["key"]]
        sent = {Path(key).name for key in runs.stored("jobs/depth/inputs/")}
        own = {path.name for path in (ROOT / "compile" / "portable").rglob("*") if path.is_file()}
        assert sent - own == {"graph.json", "tensors.safetensors", jobs.TRIALS, jobs.PLAN}
        rehearsal.deploy("InferentiaEndpoint-depth")
        assert "smoke passed" in rehearsal.python("operations", "smoke", "depth", "--rehearsal")
        again = rehearsal.must(sys.executable, "-m", "operations", "submit", "depth", "--rehearsal")
        assert again.count(": cached") == 2, again
    finally:
        rehearsal.stop()
