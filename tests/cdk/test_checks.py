"""cdk-nag and cfn-lint: both run on every template, and both can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App
from aws_cdk import aws_s3 as s3

import app as application
from cdk.deployment import Deployment
from tests.cdk.projects import COMPILED, MACHINE_IMAGE, Assemble, Project


def lint(*templates: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), "--", *templates], capture_output=True, text=True, check=False
    )


def test_cfn_lint_finds_nothing(
    templates: dict[str, dict[str, Any]], compiling: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    files = []
    compiled = {stack: body for stack, body in compiling.items() if stack.startswith("InferentiaCompile")}
    assert len(compiled) == 2
    for stack, template in {**templates, **compiled}.items():
        files.append(tmp_path / f"{stack}.json")
        files[-1].write_text(json.dumps(template))
    answer = lint(*files)
    assert (answer.returncode, answer.stdout) == (0, "")


def test_cfn_lint_knows_these_resources(full: dict[str, Any], tmp_path: Path) -> None:
    broken = json.loads(json.dumps(full))
    for resource in broken["Resources"].values():
        if resource["Type"] == "AWS::SageMaker::Endpoint":
            resource["Properties"]["Surprise"] = 1
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    assert "Surprise" in lint(tmp_path / "broken.json").stdout


def test_nag_fails_the_synthesis_of_an_open_bucket() -> None:
    cdk_app = App(context=application.feature_flags(), analytics_reporting=False)
    application.compose(cdk_app, {}, Deployment())
    (stack,) = [child for child in cdk_app.node.children if child.node.id == "InferentiaArtifacts"]
    s3.CfnBucket(stack, "Open")
    with pytest.raises(RuntimeError, match=r"(?s)ValidationFailed.*AwsSolutions-S1.*AwsSolutions-S10"):
        cdk_app.synth()


def test_every_acknowledgment_has_a_reason(project: Project, assemble: Assemble) -> None:
    project.add("one")
    for where, text in COMPILED.items():
        project.add(where, text)
    found = []
    deployment = Deployment(compile_ami={"inf1": MACHINE_IMAGE})
    for file in Path(assemble(project, deployment).directory).glob("*.metadata.json"):
        for entries in json.loads(file.read_text()).values():
            found += [entry["data"] for entry in entries if "acknowledge" in entry["type"].lower()]
    assert found
    assert all(len(str(reason)) > 40 for data in found for reason in _reasons(data))


def _reasons(data: Any) -> list[Any]:
    rows = data if isinstance(data, list) else [data]
    return [row["reason"] if "reason" in row else next(iter(row.values())) for row in rows]
