"""app.py as the CDK CLI runs it, in the project's root; a process of its own where that shows something."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import app as application
from tests.cdk.projects import FULL, REPOSITORY, Project, error_annotations, new_project

OBSOLETE = REPOSITORY / "node_modules/aws-cdk/lib/commands/flags/obsolete-flags.js"
BLOCKED = ("torch", "transformers", "boto3", "botocore", "moto", "compile", "inference_code", "operations")


NO_CREDENTIALS = {
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def contents(assembly: Path) -> dict[str, str]:
    """Every file of an assembly with its digest."""
    files = sorted(path for path in assembly.rglob("*") if path.is_file())
    return {str(path.relative_to(assembly)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def nowhere() -> Iterator[dict[str, str]]:
    """An environment without credentials, in which every way to a network is a port that refuses."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, never listening
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), url)
        yield {**proxies, **NO_CREDENTIALS}


def test_synths_are_identical_wherever_and_need_no_torch_boto3_network_or_credentials(
    tmp_path: Path, nowhere: dict[str, str]
) -> None:
    found = []
    for folder in ("here", "elsewhere/deeper"):
        project = new_project(tmp_path / folder)
        project.add("full", FULL)
        project.add("small")
        project.write("unbuilt")
        answer = project.run(blocked=BLOCKED, environment={**nowhere, "CDK_VALIDATION": "true"})
        assert (answer.code, answer.stderr) == (0, "")
        found.append(contents(answer.assembly))
        for file in answer.assembly.rglob("*"):
            if file.is_file():
                assert str(tmp_path) not in file.read_text()
    assert found[0] == found[1]
    assert "InferentiaEndpoint-unbuilt.template.json" in found[0]


def test_blocked_imports_would_be_noticed(project: Project) -> None:
    project.add("one")
    answer = project.run(blocked=("cdk.nag",))
    assert answer.code != 0
    assert "cdk.nag" in answer.stderr


FIRST = "name: {name}\nmodel: {{entry: 'model.py:build', weights: 'random:0'}}\nscale: {{min: 0}}\njob: {{}}\n"


def test_a_broken_spec_is_an_error_of_its_own_stacks_alone(project: Project) -> None:
    project.add("good")
    project.write("first", FIRST)
    project.write("second", "name: {name}\nmodle: 1\n")
    answer = project.run()
    assert answer.code == 0, answer.stderr
    folder = answer.assembly
    for stack in ("InferentiaEndpoint-first", "InferentiaCompile-first"):
        (problem,) = error_annotations(folder, stack)
        assert problem.startswith("endpoints/first.yaml:3: scale.min: 0 is not possible")
        assert "Deployable" in json.loads((folder / f"{stack}.template.json").read_text())["Rules"]
    assert len(error_annotations(folder, "InferentiaEndpoint-second")) == 2
    for stack in ("InferentiaEndpoint-good", "InferentiaArtifacts"):
        assert not error_annotations(folder, stack)
    bucket = (folder / "InferentiaArtifacts.template.json").read_text()
    assert "ExpireRuns-first" in bucket  # of what compiled it nothing changes
    assert not unset_flags(json.loads((folder / "manifest.json").read_text()))


def unset_flags(manifest: dict[str, Any]) -> set[str]:
    """The feature flags that the CDK CLI announces (aws-cdk's cdk-toolkit.js, displayFlagsMessage)."""
    flags = manifest["artifacts"]["aws-cdk-lib/feature-flag-report"]["properties"]["flags"]
    assert flags
    return {
        name
        for name, flag in flags.items()
        if flag.get("userValue") is None
        and flag.get("unconfiguredBehavesLike", {}).get("v2", False) != flag["recommendedValue"]
        and f'"{name}"' not in OBSOLETE.read_text().replace("'", '"')
    }


def test_a_broken_file_that_names_no_stack_ends_the_synthesis(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.add("good")
    (project.root / "endpoints/good.yml").write_text("name: good\n")
    monkeypatch.chdir(project.root)
    assert application.main() == 2
    assert "ends in .yml, which no command looks for" in capsys.readouterr().err


def test_folder_without_endpoints_is_told_apart(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project.root / "endpoints")
    monkeypatch.chdir(project.root)
    assert application.main() == 2
    assert "endpoints/" in capsys.readouterr().err


def test_us_west_1_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.add("one")
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("CDK_DEFAULT_REGION", "us-west-1")
    assert application.main() == 2
    assert "us-west-1 cannot be deployed to" in capsys.readouterr().err


def test_rehearsal_with_credentials_of_an_account_is_refused(project: Project) -> None:
    project.add("one")
    project.lock("one", rehearsal=True)
    answer = project.run(environment={"CDK_DEFAULT_ACCOUNT": "111122223333"}, rehearsal="true")
    assert answer.code == 2
    assert "111122223333" in answer.stderr
    assert "Traceback" not in answer.stderr
