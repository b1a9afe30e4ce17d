"""`conformance` against the embedded AWS: as it is nothing differs, and what is planted is found."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from operations.conformance.project import NAME, STACK
from tests.embedded_aws.running import wait_for
from tests.end_to_end.planted import proxy
from tests.end_to_end.rehearsal import CDK, Rehearsal
from tests.end_to_end.test_compile_on_aws import faults
from tests.end_to_end.test_rehearsal import write_depth

pytestmark = pytest.mark.slow
COMMAND = (
    sys.executable,
    "-m",
    "cli",
    "conformance",
    "--rehearsal",
    "--yes",
    "--budget",
    "2",
    "--hourly-price",
    "0.12",
)


@pytest.fixture  # metrics of one run are still in the alarms' minutes of the next
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    rehearsal = Rehearsal(tmp_path_factory.mktemp("conformance"))
    try:
        rehearsal.start()
        rehearsal.must(CDK, "bootstrap", "aws://123456789012/us-east-1")
        write_depth(rehearsal.folder)
        rehearsal.deploy("InferentiaArtifacts")
        yield rehearsal
    finally:
        rehearsal.stop()


@pytest.fixture
def report(rehearsal: Rehearsal) -> Path:
    return rehearsal.folder / "build" / "conformance" / "report.json"


def left(rehearsal: Rehearsal) -> list[str]:
    """Stacks that are there, but for those that were before, and endpoints."""
    stacks = rehearsal.client("cloudformation").describe_stacks()["Stacks"]
    names = [row["StackName"] for row in stacks if row["StackStatus"] != "DELETE_COMPLETE"]
    endpoints = rehearsal.client("sagemaker").list_endpoints()["Endpoints"]
    return [name for name in names if name not in ("CDKToolkit", "InferentiaArtifacts")] + [
        row["EndpointName"] for row in endpoints
    ]


def test_the_embedded_aws_does_not_differ_from_itself(rehearsal: Rehearsal, report: Path) -> None:
    said = rehearsal.must(*COMMAND)
    found = json.loads(report.read_text())
    assert [(row["check"], row["differences"]) for row in found["outcomes"] if row["differences"]] == []
    assert (found["differing"], found["ended"], found["left"]) == (0, "", [])
    assert len(found["outcomes"]) > 20
    assert all(row["request_id"] for row in found["outcomes"])
    assert "as expected" in said
    assert "**0 of " in report.with_suffix(".md").read_text()
    assert left(rehearsal) == []


def without_triggers(_target: str, body: bytes) -> bytes:
    """CloudFormation is never asked to watch an alarm: a bad update stays."""
    if b"RollbackConfiguration" not in body:
        return body
    pairs = parse_qsl(body.decode(), keep_blank_values=True)
    return urlencode([(key, value) for key, value in pairs if not key.startswith("RollbackConfiguration")]).encode()


def differing(target: str, body: bytes) -> bytes:
    """DescribeEndpoint lacks a member, and no metric is called OverheadLatency."""
    if target.startswith("SageMaker.DescribeEndpoint{"):
        return json.dumps({key: value for key, value in json.loads(body).items() if key != "LastModifiedTime"}).encode()
    if "ListMetrics" in target:
        return re.sub(rb"OverheadLatency", b"OverheadLatenci", body)
    return body


def test_what_is_planted_is_found(rehearsal: Rehearsal, report: Path) -> None:
    port = int(rehearsal.variables["AWS_ENDPOINT_URL"].rsplit(":", 1)[1])
    fault: dict[str, Any] = {
        "kind": "call", "action": "error", "operation": "sagemaker:UpdateEndpoint", "error": "ResourceInUse",
        "where": f"{NAME}-none",
    }  # fmt: skip
    faults(rehearsal, "POST", fault)
    before = rehearsal.variables
    try:
        with proxy(port, request=without_triggers, answer=differing) as address:
            rehearsal.variables = {**before, "AWS_ENDPOINT_URL": address}
            rehearsal.must(*COMMAND)
    finally:
        rehearsal.variables = before
    found = json.loads(report.read_text())
    rows = {row["check"]: row for row in found["outcomes"] if row["differences"]}
    places = {name: [place["where"] for place in row["differences"]] for name, row in rows.items()}
    assert places["the endpoint after the first deployment"] == ["LastModifiedTime"]
    assert places["an update to a configuration that does not exist"] == ["code", "message"]
    assert places["the metrics of invocations"] == ["[6]"]
    assert places["the stack is as before"] == [""]
    assert places["the endpoint has the configuration of before"] == ["config"]
    assert set(rows) == {*places}
    assert len(rows) == 5
    page = report.with_suffix(".md").read_text()
    for name, row in rows.items():
        assert row["request_id"]
        assert f": {name}\n" in page
        assert f"request id {row['request_id']}." in page
    assert left(rehearsal) == []


def test_an_interruption_destroys_what_was_made(rehearsal: Rehearsal, report: Path) -> None:
    process = subprocess.Popen(
        COMMAND, cwd=rehearsal.folder, env=rehearsal.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        wait_for(lambda: STACK in left(rehearsal), "the endpoint's stack is being made", 120)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=180)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert json.loads(report.read_text())["ended"] == "interrupted"
    assert left(rehearsal) == []
