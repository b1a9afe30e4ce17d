"""Compile runs on the embedded AWS: the real stacks, jobs that run, and each fault that a run has to survive."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint_spec import jobs
from tests.compile.projects import write_entry
from tests.embedded_aws.running import wait_for
from tests.end_to_end.rehearsal import ROOT, Rehearsal

pytestmark = pytest.mark.slow

# An endpoint for each fault, with weights of its own, so that no cache of another helps it.
SHORT = "compile: {timeout: 1min}\njob: {time_limit: 2min}\n"
ENDPOINTS = {
    "good": "job: {}\n",
    "failing": "job: {}\n",
    "stopped": "job: {}\n",
    "aborted": "job: {}\n",
    "racing": "job: {}\n",
    "denied": "job: {}\n",
    "cut": "job: {}\n",
    "tagless": "job: {}\n",
    "changing": "job: {}\n",
    "hanging": SHORT,
    "lost": SHORT.replace("job: {", "job: {where: ec2, "),
}
# Waits of the state machines, and limits: 2 min are 15 s.
SPEEDS = {"EMBEDDED_AWS_WAIT_SPEED": "30", "EMBEDDED_AWS_LIMIT_SPEED": "8"}


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    """Every endpoint's compile stack, deployed."""
    rehearsal = Rehearsal(tmp_path_factory.mktemp("runs"), variables=dict(SPEEDS))
    for seed, (name, more) in enumerate(ENDPOINTS.items()):
        write_entry(rehearsal.folder, name=name, weights=f'"random:{seed}"', more=more)
    try:
        rehearsal.start()
        rehearsal.must(ROOT / ".venv" / "bin" / "cdk", "bootstrap", "aws://123456789012/us-east-1")
        stacks = [f"InferentiaCompile-{name}" for name in ENDPOINTS]
        rehearsal.deploy("-c", "compile_ami=ami-0123456789abcdef0", "InferentiaArtifacts", *stacks)
        yield rehearsal
    finally:
        rehearsal.stop()


def submit(rehearsal: Rehearsal, name: str, *more: str) -> subprocess.CompletedProcess[str]:
    """`operations submit NAME --rehearsal`."""
    return rehearsal.run(sys.executable, "-m", "operations", "submit", name, "--rehearsal", *more)


def attach(rehearsal: Rehearsal, name: str) -> subprocess.CompletedProcess[str]:
    """`operations attach NAME`."""
    return rehearsal.run(sys.executable, "-m", "operations", "attach", name)


def fault(rehearsal: Rehearsal, kind: str, *arguments: str) -> None:
    """Arm a fault."""
    rehearsal.python("embedded_aws", "fault", kind, *arguments, "--directory", str(rehearsal.folder / "aws"))


def keys(rehearsal: Rehearsal, prefix: str) -> list[str]:
    """What the artifact bucket holds."""
    stacks = rehearsal.client("cloudformation").describe_stacks(StackName="InferentiaArtifacts")["Stacks"]
    (bucket,) = [row["OutputValue"] for row in stacks[0]["Outputs"] if row["OutputKey"] == "ArtifactBucketName"]
    rows = rehearsal.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return [row["Key"] for row in rows]


def lock(rehearsal: Rehearsal, name: str) -> Path:
    """Where a rehearsal's lock lies."""
    return rehearsal.folder / "build" / "rehearsal" / f"{name}.lock.json"


def nothing_came_of(rehearsal: Rehearsal, name: str) -> None:
    """Neither lock nor artifact, here or published."""
    assert not lock(rehearsal, name).exists()
    assert keys(rehearsal, f"models/{name}/") == []


def machine(rehearsal: Rehearsal, name: str) -> str:
    """The ARN of an endpoint's state machine."""
    (stack,) = rehearsal.client("cloudformation").describe_stacks(StackName=f"InferentiaCompile-{name}")["Stacks"]
    (arn,) = [row["OutputValue"] for row in stack["Outputs"] if row["OutputKey"] == "StateMachineArn"]
    return str(arn)


def running_jobs(rehearsal: Rehearsal, name: str) -> list[Any]:
    """Processing jobs of an endpoint that still cost money."""
    found = rehearsal.client("sagemaker").list_processing_jobs(NameContains=f"{name}-", StatusEquals="InProgress")
    return list(found["ProcessingJobSummaries"])


def left_machines(rehearsal: Rehearsal, name: str) -> list[Any]:
    """EC2 instances of an endpoint that still cost money."""
    states = ["pending", "running", "stopping", "stopped"]
    tags = [{"Name": "tag:inferentia:endpoint", "Values": [name]}, {"Name": "instance-state-name", "Values": states}]
    return list(rehearsal.client("ec2").describe_instances(Filters=tags)["Reservations"])


def settled(rehearsal: Rehearsal, name: str) -> None:
    """Wait until nothing of an endpoint runs any more."""
    wait_for(
        lambda: not running_jobs(rehearsal, name) and not left_machines(rehearsal, name),
        f"the end of {name}'s machines",
    )


def test_a_run_is_published_and_locked_and_the_next_starts_no_job(rehearsal: Rehearsal) -> None:
    first = submit(rehearsal, "good")
    assert first.returncode == 0, first.stdout
    locked = json.loads(lock(rehearsal, "good").read_text())
    assert keys(rehearsal, "models/good/") == [locked["artifact"]["key"]]
    assert "already published" in rehearsal.python("operations", "publish", "good", "--rehearsal")

    for folder in (lock(rehearsal, "good"), rehearsal.folder / "build" / "rehearsal" / "good"):
        folder.unlink() if folder.is_file() else shutil.rmtree(folder)

    again = submit(rehearsal, "good")
    assert again.returncode == 0, again.stdout
    assert "batch 1: cached" in again.stdout
    assert json.loads(lock(rehearsal, "good").read_text())["digests"]["build"] == locked["digests"]["build"]


def test_a_job_that_fails_says_why(rehearsal: Rehearsal) -> None:
    fault(rehearsal, "job", "fail", "--where", "^failing-", "--message", "the disk is on fire")
    ended = submit(rehearsal, "failing")
    assert ended.returncode == 1, ended.stdout
    assert "the disk is on fire" in ended.stdout
    assert "whole log: CloudWatch Logs, group /aws/sagemaker/ProcessingJobs" in ended.stdout
    nothing_came_of(rehearsal, "failing")


def test_a_job_that_somebody_stops(rehearsal: Rehearsal) -> None:
    fault(rehearsal, "job", "stop", "--where", "^stopped-", "--after", "1")
    ended = submit(rehearsal, "stopped")
    assert ended.returncode == 1, ended.stdout
    assert "was stopped" in ended.stdout
    nothing_came_of(rehearsal, "stopped")


def test_a_run_that_somebody_stops_leaves_no_job(rehearsal: Rehearsal) -> None:
    fault(rehearsal, "job", "hang", "--where", "^aborted-")
    started = submit(rehearsal, "aborted", "--detach")
    assert started.returncode == 0, started.stdout
    wait_for(lambda: running_jobs(rehearsal, "aborted"), "the job")
    client = rehearsal.client("stepfunctions")
    (row,) = client.list_executions(stateMachineArn=machine(rehearsal, "aborted"), statusFilter="RUNNING")["executions"]
    client.stop_execution(executionArn=row["executionArn"])
    ended = attach(rehearsal, "aborted")
    assert ended.returncode == 1
    assert "was stopped" in ended.stdout
    settled(rehearsal, "aborted")
    nothing_came_of(rehearsal, "aborted")


def test_of_two_submissions_one_wins(rehearsal: Rehearsal) -> None:
    command = [sys.executable, "-m", "operations", "submit", "racing", "--rehearsal"]
    both = [
        subprocess.Popen(command, cwd=rehearsal.folder, env=rehearsal.environment, text=True, stdout=-1, stderr=-2)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes == [0, 1], said
    (lost,) = [text for process, text in zip(both, said, strict=True) if process.returncode]
    assert "is running since" in lost
    assert "inferentia attach racing" in lost
    client = rehearsal.client("stepfunctions")
    executions = client.list_executions(stateMachineArn=machine(rehearsal, "racing"))["executions"]
    assert sum(row["status"] == "SUCCEEDED" for row in executions) == 1
    assert lock(rehearsal, "racing").exists()


def test_an_unwritable_bucket(rehearsal: Rehearsal) -> None:
    fault(rehearsal, "call", "s3:PutObject", "AccessDenied", "--where", "jobs/denied/inputs/", "--times", "9")
    ended = submit(rehearsal, "denied")
    assert ended.returncode == 1, ended.stdout
    assert "AccessDenied" in ended.stdout
    assert "s3:PutObject" in ended.stdout
    assert keys(rehearsal, "jobs/denied/runs/") == []


def test_an_upload_that_is_cut_is_completed_by_the_next(rehearsal: Rehearsal) -> None:
    fault(rehearsal, "call", "s3:PutObject", "drop", "--where", f"jobs/cut/inputs/.*/{jobs.PLAN}", "--times", "2")
    ended = submit(rehearsal, "cut")
    assert ended.returncode == 1, ended.stdout
    assert "No run was started" in ended.stdout
    there = keys(rehearsal, "jobs/cut/inputs/")
    assert there
    assert not [key for key in there if key.endswith(jobs.PLAN)]
    nothing_came_of(rehearsal, "cut")
    again = submit(rehearsal, "cut")
    assert again.returncode == 0, again.stdout
    assert lock(rehearsal, "cut").exists()


def test_an_image_tag_that_does_not_exist(rehearsal: Rehearsal) -> None:
    client = rehearsal.client("stepfunctions")
    arn = machine(rehearsal, "tagless")
    definition = client.describe_state_machine(stateMachineArn=arn)["definition"]
    wrong = definition.replace("1.13.1-neuron-py310-sdk2.20.2-ubuntu20.04", "1.13.1-neuron-py310-sdk9.9.9")
    assert wrong != definition
    client.update_state_machine(stateMachineArn=arn, definition=wrong)
    ended = submit(rehearsal, "tagless")
    assert ended.returncode == 1, ended.stdout
    assert "sdk9.9.9" in ended.stdout
    assert "not found" in ended.stdout
    nothing_came_of(rehearsal, "tagless")


def test_a_spec_that_changes_while_its_job_runs(rehearsal: Rehearsal) -> None:
    started = submit(rehearsal, "changing", "--detach")
    assert started.returncode == 0, started.stdout
    write_entry(rehearsal.folder, name="changing", weights='"random:99"', more="job: {}\n")
    ended = attach(rehearsal, "changing")
    assert ended.returncode == 1, ended.stdout
    assert "changing changed since it was sent" in ended.stdout
    assert not lock(rehearsal, "changing").exists()


def test_a_job_that_hangs_is_ended_by_the_limit(rehearsal: Rehearsal) -> None:
    fault(rehearsal, "job", "hang", "--where", "^hanging-")
    ended = submit(rehearsal, "hanging")
    assert ended.returncode == 1, ended.stdout
    assert "its time limit is 2min (job.time_limit)" in ended.stdout or "at its limit of 120 seconds" in ended.stdout
    settled(rehearsal, "hanging")
    nothing_came_of(rehearsal, "hanging")


def test_an_instance_that_hangs_is_gone_after_the_limit(rehearsal: Rehearsal) -> None:
    fault(rehearsal, "instance", "hang", "--where", "inferentia:endpoint=lost")
    ended = submit(rehearsal, "lost")
    assert ended.returncode == 1, ended.stdout
    assert "instances: " in ended.stdout
    settled(rehearsal, "lost")
    nothing_came_of(rehearsal, "lost")
