"""The stack InferentiaImages by the stock CDK CLI, and builds in the embedded CodeBuild, whose Docker is a stand-in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cdk.node import use_supported_node
from endpoint_spec import built_images
from tests.cdk.projects import MINIMAL, Project, new_project
from tests.embedded_aws.running import ROOT, Aws, running
from tests.job_python import OLD, needs_old

pytestmark = [pytest.mark.slow, needs_old]
CLI = ROOT / "node_modules" / "aws-cdk" / "bin" / "cdk"
CODE = ("app.py", "cdk", "cdk.json", "compile", "endpoint_spec", "images", "inference_code", "operations", "cli")


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with running(tmp_path_factory.mktemp("aws"), "--job-python", str(OLD / "bin" / "python")) as server:
        yield server


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, aws: Aws) -> Project:
    """A copy of the project's code, so that its images/ can be changed, with one endpoint; the stack is deployed."""
    made = new_project(tmp_path_factory.mktemp("project"))
    made.add("one", MINIMAL + "serve: {{server: native}}\n")
    (made.root / built_images.FILE).unlink()  # nothing was built
    for name in CODE:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, made.root / name)
    cdk(made, aws, "bootstrap")
    deploy(made, aws)
    return made


def run(project: Project, aws: Aws, command: list[str], code: int = 0) -> str:
    """What a command in the project printed."""
    environment = {**os.environ, **aws.environment(), "PYTHONPATH": str(project.root)}
    done = subprocess.run(command, cwd=project.root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def cdk(project: Project, aws: Aws, *arguments: str) -> None:
    run(project, aws, [use_supported_node(), str(CLI), "--app", f"{sys.executable} app.py", *arguments])


def deploy(project: Project, aws: Aws) -> None:
    cdk(project, aws, "deploy", "--require-approval", "never", "InferentiaImages")


def image(project: Project, aws: Aws, *arguments: str, code: int = 0) -> str:
    return run(project, aws, [sys.executable, "-m", "operations", "image", *arguments], code)


def test_an_image_builds_is_proven_and_pinned(project: Project, aws: Aws) -> None:
    assert "not built" in image(project, aws, "status", code=1)
    said = image(project, aws, "build", "one", "--json")
    assert 'prove.py: the server answered {"outputs": [2, 4, 6]' in said
    assert '"bomFormat": "CycloneDX"' in said
    ((name, built),) = built_images.read(project.root).items()
    assert name.startswith("inferentia-endpoints/inf1-native:")
    (found,) = aws.client("ecr").describe_images(
        repositoryName="inferentia-endpoints/inf1-native", imageIds=[{"imageDigest": built.digest}]
    )["imageDetails"]
    assert found["imageTags"] == [built.tag]
    assert built.base.endswith(":1.13.1-neuron-py310-sdk2.20.2-ubuntu20.04")
    assert image(project, aws, "status").count("ok") == 1
    image(project, aws, "build", "one")  # again, on the base's digest; a tag is never used twice
    again = built_images.read(project.root)[name]
    assert (again.base_digest, again.base.partition(":")[0]) == (built.base_digest, built.base.partition(":")[0])
    assert again.tag != built.tag


def test_a_broken_install_ends_with_its_last_lines_and_nothing_is_written(project: Project, aws: Aws) -> None:
    before = (project.root / built_images.FILE).read_bytes()
    script = project.root / "images" / "native" / "install.sh"
    script.write_text(script.read_text() + "echo 'there is no such package' >&2; exit 9\n")
    said = image(project, aws, "build", "one", code=1)
    assert f'Deploy it again: "cdk deploy {"InferentiaImages"}"' in said  # the project has the sources of before
    deploy(project, aws)
    said = image(project, aws, "build", "one", code=1)
    assert "ended with FAILED. Its last lines:" in said
    assert said.rstrip().splitlines()[-1] == "there is no such package"
    assert (project.root / built_images.FILE).read_bytes() == before
    assert json.loads(before)
    assert not list((aws.directory / "builds").iterdir())


def test_a_buildspec_that_is_not_honoured_says_so(project: Project, aws: Aws) -> None:
    buildspec = project.root / "images" / "buildspec.yml"
    buildspec.write_text(buildspec.read_text() + "  install: {commands: [true]}\n")
    deploy(project, aws)
    said = image(project, aws, "build", "one", code=1)
    assert said.rstrip().splitlines()[-1] == "the embedded AWS does not honour install in a buildspec"


def test_a_digest_that_is_gone_is_told(project: Project, aws: Aws) -> None:
    (built,) = built_images.read(project.root).values()
    aws.client("ecr").batch_delete_image(
        repositoryName="inferentia-endpoints/inf1-native", imageIds=[{"imageDigest": built.digest}]
    )
    assert f"{built.digest} is not in inferentia-endpoints/inf1-native" in image(project, aws, "status", code=1)
