"""`inferentia status`: what is there of each endpoint, and what is there without a spec."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

Run = Callable[..., tuple[int, str, str]]
TEMPLATE = json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}})


@pytest.mark.usefixtures("aws")
def test_what_has_no_spec_is_listed_with_the_command_that_removes_it(project: Path, run: Run) -> None:
    (project / "endpoints/old.lock.json").write_text("{}")
    cloudformation = boto3.client("cloudformation")
    for stack in (
        "InferentiaEndpoint-gone",
        "InferentiaCompile-gone",
        "InferentiaEndpoint-depth",
        "InferentiaArtifacts",
    ):
        cloudformation.create_stack(StackName=stack, TemplateBody=TEMPLATE)
    delete = "aws cloudformation delete-stack --stack-name"
    old = f"no spec; remove it: {delete} InferentiaEndpoint-old; git rm endpoints/old.lock.json"
    code, out, _ = run("status", "--root", str(project), "--json")
    found = {row["name"]: row["lock"] for row in json.loads(out)}
    assert code == 0
    assert list(found) == ["depth", "gone", "old"]
    assert found["gone"] == f"no spec; remove it: {delete} InferentiaCompile-gone; {delete} InferentiaEndpoint-gone"
    assert found["old"] == old
    _, out, _ = run("status", "--root", str(project), "--json", "--offline")
    assert [(row["name"], row["deployed"]) for row in json.loads(out)] == [("depth", "not asked"), ("old", "not asked")]
