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
from tests.end_to_end.rehearsal import ROOT, Road

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
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    """Every endpoint's compile stack, deployed."""
    road = Road(tmp_path_factory.mktemp("runs"), variables=dict(SPEEDS))
    for seed, (name, more) in enumerate(ENDPOINTS.items()):
        write_entry(road.folder, name=name, weights=f'"random:{seed}"', more=more)
    try:
        road.start()
        road.must(ROOT / ".venv" / "bin" / "cdk", "bootstrap", "aws://123456789012/us-east-1")
        stacks = [f"InferentiaCompile-{name}" for name in ENDPOINTS]
        road.deploy("-c", "compile_ami=ami-0123456789abcdef0", "InferentiaArtifacts", *stacks)
        yield road
    finally:
        road.stop()


def submit(road: Road, name: str, *more: str) -> subprocess.CompletedProcess[str]:
    """`operations submit NAME --rehearsal`."""
    return road.run(sys.executable, "-m", "operations", "submit", name, "--rehearsal", *more)


def attach(road: Road, name: str) -> subprocess.CompletedProcess[str]:
    """`operations attach NAME`."""
    return road.run(sys.executable, "-m", "operations", "attach", name)


def fault(road: Road, kind: str, *arguments: str) -> None:
    """Arm a fault."""
    road.python("embedded_aws", "fault", kind, *arguments, "--directory", str(road.folder / "aws"))


def keys(road: Road, prefix: str) -> list[str]:
    """What the artifact bucket holds."""
    stacks = road.client("cloudformation").describe_stacks(StackName="InferentiaArtifacts")["Stacks"]
    (bucket,) = [row["OutputValue"] for row in stacks[0]["Outputs"] if row["OutputKey"] == "ArtifactBucketName"]
    rows = road.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return [row["Key"] for row in rows]


def lock(road: Road, name: str) -> Path:
    """Where a rehearsal's lock lies."""
    return road.folder / "build" / "rehearsal" / f"{name}.lock.json"


def nothing_came_of(road: Road, name: str) -> None:
    """Neither lock nor artifact, here or published."""
    assert not lock(road, name).exists()
    assert keys(road, f"models/{name}/") == []


def machine(road: Road, name: str) -> str:
    """The ARN of an endpoint's state machine."""
    (stack,) = road.client("cloudformation").describe_stacks(StackName=f"InferentiaCompile-{name}")["Stacks"]
    (arn,) = [row["OutputValue"] for row in stack["Outputs"] if row["OutputKey"] == "StateMachineArn"]
    return str(arn)


def running_jobs(road: Road, name: str) -> list[Any]:
    """Processing jobs of an endpoint that still cost money."""
    found = road.client("sagemaker").list_processing_jobs(NameContains=f"{name}-", StatusEquals="InProgress")
    return list(found["ProcessingJobSummaries"])


def left_machines(road: Road, name: str) -> list[Any]:
    """EC2 instances of an endpoint that still cost money."""
    states = ["pending", "running", "stopping", "stopped"]
    tags = [{"Name": "tag:inferentia:endpoint", "Values": [name]}, {"Name": "instance-state-name", "Values": states}]
    return list(road.client("ec2").describe_instances(Filters=tags)["Reservations"])


def settled(road: Road, name: str) -> None:
    """Wait until nothing of an endpoint runs any more."""
    wait_for(lambda: not running_jobs(road, name) and not left_machines(road, name), f"the end of {name}'s machines")


def test_a_run_is_published_and_locked_and_the_next_starts_no_job(road: Road) -> None:
    first = submit(road, "good")
    assert first.returncode == 0, first.stdout
    locked = json.loads(lock(road, "good").read_text())
    assert keys(road, "models/good/") == [locked["artifact"]["key"]]
    assert "already published" in road.python("operations", "publish", "good", "--rehearsal")

    for folder in (lock(road, "good"), road.folder / "build" / "rehearsal" / "good"):
        folder.unlink() if folder.is_file() else shutil.rmtree(folder)

    again = submit(road, "good")
    assert again.returncode == 0, again.stdout
    assert "batch 1: cached" in again.stdout
    assert json.loads(lock(road, "good").read_text())["digests"]["build"] == locked["digests"]["build"]


def test_a_job_that_fails_says_why(road: Road) -> None:
    fault(road, "job", "fail", "--where", "^failing-", "--message", "the disk is on fire")
    ended = submit(road, "failing")
    assert ended.returncode == 1, ended.stdout
    assert "the disk is on fire" in ended.stdout
    assert "whole log: CloudWatch Logs, group /aws/sagemaker/ProcessingJobs" in ended.stdout
    nothing_came_of(road, "failing")


def test_a_job_that_somebody_stops(road: Road) -> None:
    fault(road, "job", "stop", "--where", "^stopped-", "--after", "1")
    ended = submit(road, "stopped")
    assert ended.returncode == 1, ended.stdout
    assert "was stopped" in ended.stdout
    nothing_came_of(road, "stopped")


def test_a_run_that_somebody_stops_leaves_no_job(road: Road) -> None:
    fault(road, "job", "hang", "--where", "^aborted-")
    started = submit(road, "aborted", "--detach")
    assert started.returncode == 0, started.stdout
    wait_for(lambda: running_jobs(road, "aborted"), "the job")
    client = road.client("stepfunctions")
    (row,) = client.list_executions(stateMachineArn=machine(road, "aborted"), statusFilter="RUNNING")["executions"]
    client.stop_execution(executionArn=row["executionArn"])
    ended = attach(road, "aborted")
    assert ended.returncode == 1
    assert "was stopped" in ended.stdout
    settled(road, "aborted")
    nothing_came_of(road, "aborted")


def test_of_two_submissions_one_wins(road: Road) -> None:
    command = [sys.executable, "-m", "operations", "submit", "racing", "--rehearsal"]
    both = [
        subprocess.Popen(command, cwd=road.folder, env=road.environment, text=True, stdout=-1, stderr=-2)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes == [0, 1], said
    (lost,) = [text for process, text in zip(both, said, strict=True) if process.returncode]
    assert "is running since" in lost
    assert "operations attach racing" in lost
    client = road.client("stepfunctions")
    executions = client.list_executions(stateMachineArn=machine(road, "racing"))["executions"]
    assert sum(row["status"] == "SUCCEEDED" for row in executions) == 1
    assert lock(road, "racing").exists()


def test_an_unwritable_bucket(road: Road) -> None:
    fault(road, "call", "s3:PutObject", "AccessDenied", "--where", "jobs/denied/inputs/", "--times", "9")
    ended = submit(road, "denied")
    assert ended.returncode == 1, ended.stdout
    assert "AccessDenied" in ended.stdout
    assert "s3:PutObject" in ended.stdout
    assert keys(road, "jobs/denied/runs/") == []


def test_an_upload_that_is_cut_is_completed_by_the_next(road: Road) -> None:
    fault(road, "call", "s3:PutObject", "drop", "--where", f"jobs/cut/inputs/.*/{jobs.PROJECT}", "--times", "2")
    ended = submit(road, "cut")
    assert ended.returncode == 1, ended.stdout
    assert "No run was started" in ended.stdout
    there = keys(road, "jobs/cut/inputs/")
    assert there
    assert not [key for key in there if key.endswith(jobs.PROJECT)]
    nothing_came_of(road, "cut")
    again = submit(road, "cut")
    assert again.returncode == 0, again.stdout
    assert lock(road, "cut").exists()


def test_an_image_tag_that_does_not_exist(road: Road) -> None:
    client = road.client("stepfunctions")
    arn = machine(road, "tagless")
    definition = client.describe_state_machine(stateMachineArn=arn)["definition"]
    wrong = definition.replace("1.13.1-neuron-py310-sdk2.20.2-ubuntu20.04", "1.13.1-neuron-py310-sdk9.9.9")
    assert wrong != definition
    client.update_state_machine(stateMachineArn=arn, definition=wrong)
    ended = submit(road, "tagless")
    assert ended.returncode == 1, ended.stdout
    assert "sdk9.9.9" in ended.stdout
    assert "not found" in ended.stdout
    nothing_came_of(road, "tagless")


def test_a_spec_that_changes_while_its_job_runs(road: Road) -> None:
    started = submit(road, "changing", "--detach")
    assert started.returncode == 0, started.stdout
    write_entry(road.folder, name="changing", weights='"random:99"', more="job: {}\n")
    ended = attach(road, "changing")
    assert ended.returncode == 1, ended.stdout
    assert "changing changed since it was sent" in ended.stdout
    assert not lock(road, "changing").exists()


def test_a_job_that_hangs_is_ended_by_the_limit(road: Road) -> None:
    fault(road, "job", "hang", "--where", "^hanging-")
    ended = submit(road, "hanging")
    assert ended.returncode == 1, ended.stdout
    assert "its time limit is 2min (job.time_limit)" in ended.stdout or "at its limit of 120 seconds" in ended.stdout
    settled(road, "hanging")
    nothing_came_of(road, "hanging")


def test_an_instance_that_hangs_is_gone_after_the_limit(road: Road) -> None:
    fault(road, "instance", "hang", "--where", "inferentia:endpoint=lost")
    ended = submit(road, "lost")
    assert ended.returncode == 1, ended.stdout
    assert "instances: " in ended.stdout
    settled(road, "lost")
    nothing_came_of(road, "lost")
