"""app.py as the CDK CLI runs it: a process of its own in the project's root."""

from __future__ import annotations

import hashlib
import shutil
import socket
from pathlib import Path

import pytest

from tests.cdk.projects import FULL, Project, error_annotations, new_project

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


def test_two_synths_from_two_paths_are_identical_without_torch_or_boto3(tmp_path: Path) -> None:
    found = []
    for folder in ("here", "elsewhere/deeper"):
        project = new_project(tmp_path / folder)
        project.add("full", FULL)
        project.add("small")
        project.write("unbuilt")
        answer = project.run(blocked=BLOCKED)
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


def test_synthesis_needs_no_network_and_no_credentials(project: Project) -> None:
    project.add("one")
    nowhere = socket.socket()
    nowhere.bind(("127.0.0.1", 0))  # taken, never listening: whoever calls it is refused at once
    url = f"http://127.0.0.1:{nowhere.getsockname()[1]}"
    proxies = {"HTTP_PROXY": url, "HTTPS_PROXY": url, "http_proxy": url, "https_proxy": url}
    answer = project.run(environment={**proxies, **NO_CREDENTIALS})
    nowhere.close()
    assert answer.code == 0, answer.stderr


def test_broken_specs_are_told_all_together_without_a_traceback(project: Project) -> None:
    project.add("good")
    project.write("first", "name: {name}\nmodel: {{entry: 'model.py:build', weights: 'random:0'}}\nscale: {{min: 0}}\n")
    project.write("second", "name: {name}\nmodle: 1\n")
    answer = project.run()
    assert answer.code == 2
    assert "Traceback" not in answer.stderr
    assert "endpoints/first.yaml" in answer.stderr
    assert "scale.min" in answer.stderr
    assert "endpoints/second.yaml" in answer.stderr
    assert "modle" in answer.stderr
    assert not list(answer.assembly.glob("*.template.json"))


def test_folder_without_endpoints_is_told_apart(project: Project) -> None:
    shutil.rmtree(project.root / "endpoints")
    answer = project.run()
    assert answer.code == 2
    assert "Traceback" not in answer.stderr
    assert "endpoints/" in answer.stderr


@pytest.mark.parametrize(
    ("environment", "context"),
    [({"CDK_DEFAULT_REGION": "us-west-1"}, {}), ({"CDK_DEFAULT_REGION": "us-east-1"}, {"region": "us-west-1"})],
)
def test_us_west_1_is_refused(project: Project, environment: dict[str, str], context: dict[str, str]) -> None:
    project.add("one")
    answer = project.run(environment=environment, **context)
    assert answer.code == 2
    assert "us-west-1 cannot be deployed to" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_rehearsal_with_credentials_of_an_account_is_refused(project: Project) -> None:
    project.add("one")
    project.lock("one", rehearsal=True)
    answer = project.run(environment={"CDK_DEFAULT_ACCOUNT": "111122223333"}, rehearsal="true")
    assert answer.code == 2
    assert "111122223333" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_rehearsal_is_for_the_embedded_account_only(project: Project) -> None:
    project.write("one")
    project.lock("one", rehearsal=True)
    answer = project.run(rehearsal="true")
    assert answer.code == 0, answer.stderr
    assert '"environment": "aws://123456789012/unknown-region"' in (answer.assembly / "manifest.json").read_text()
    assert error_annotations(answer.assembly, "InferentiaEndpoint-one") == []
