"""The stock CDK CLI on this app, as far as it goes without AWS, and the files that pin it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from cdk.node import use_supported_node
from tests.cdk.projects import REPOSITORY, Project

CLI = REPOSITORY / "node_modules" / "aws-cdk" / "bin" / "cdk"
VERSION = "2.1148.1"


def test_cli_is_pinned_without_a_registrys_address() -> None:
    package = json.loads((REPOSITORY / "package.json").read_text())
    assert package["private"] is True
    assert package["devDependencies"] == {"aws-cdk": VERSION}
    text = (REPOSITORY / "package-lock.json").read_text()
    assert "://" not in text
    locked = json.loads(text)["packages"]["node_modules/aws-cdk"]
    assert locked["version"] == VERSION
    assert locked["integrity"].startswith("sha512-")


def test_cross_stack_references_are_strong() -> None:
    """A weak reference (Fn::GetStackOutput) lets the artifacts stack be changed under an endpoint that uses it."""
    context = json.loads((REPOSITORY / "cdk.json").read_text())["context"]
    assert context["@aws-cdk/core:defaultCrossStackReferences"] == "strong"


@pytest.mark.skipif(not CLI.exists(), reason="the CDK CLI is not installed: run `make setup`")
def test_cli_refuses_only_the_stack_without_a_lock(project: Project) -> None:
    project.add("good")
    project.write("bad")
    assert cdk(project, "synth", "--quiet", "--app", f"{sys.executable} {REPOSITORY / 'app.py'}").returncode == 1
    wanted = {"InferentiaArtifacts": 0, "InferentiaEndpoint-good": 0, "InferentiaEndpoint-bad": 1}
    found = {stack: cdk(project, "synth", "--quiet", "--app", "cdk.out", stack) for stack in wanted}
    assert {stack: answer.returncode for stack, answer in found.items()} == wanted
    said = found["InferentiaEndpoint-bad"].stderr
    assert "endpoints/bad.lock.json is missing" in said
    assert "inferentia build bad" in said


def cdk(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the CLI with no credentials and no configuration of the user's."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "CDK_"))}
    settings = {
        "CDK_HOME": str(project.root / "home"),
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "CDK_VALIDATION": "false",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return subprocess.run(
        [use_supported_node(), str(CLI), "--no-notices", *arguments],
        cwd=project.root,
        env=inherited | settings,
        capture_output=True,
        text=True,
        check=False,
    )
