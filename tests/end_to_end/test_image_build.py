"""The stack InferentiaImages by the stock CDK CLI, and builds in the embedded CodeBuild, whose Docker is a stand-in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def record(said: str) -> dict[str, Any]:
    """The JSON that `run` has before what went to standard error."""
    return dict(json.JSONDecoder().raw_decode(said)[0])


def test_an_image_builds_is_proven_and_pinned(project: Project, aws: Aws) -> None:
    assert "not built" in image(project, aws, "status", code=1)
    said = image(project, aws, "build", "one", "--json")
    assert 'prove.py: the server answered {"outputs": [2, 4, 6]' in said
    listed = json.loads((project.root / record(said)["sbom"]).read_text())
    assert listed["bomFormat"] == "CycloneDX"
    assert "uvicorn" in [one["name"] for one in listed["components"]]
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


def test_a_withdrawn_base_comes_from_the_mirror(project: Project, aws: Aws) -> None:
    assert "AWS's" in image(project, aws, "status")
    (built,) = built_images.read(project.root).values()
    withdrawn = {
        **{"kind": "call", "action": "error", "operation": "ecr:DescribeImages", "where": "pytorch-inference-neuron"},
        **{"error": "ImageNotFoundException", "message": "withdrawn", "times": 2},
    }
    aws.control("faults", withdrawn)
    said = image(project, aws, "build", "one", code=1)  # not mirrored: one line names the way out
    assert said.rstrip().splitlines()[-1].startswith("build.sh: the base ")
    assert "take the image's entry out of endpoints/images.lock.json" in said
    aws.control("faults", method="DELETE")
    assert built.base_digest in image(project, aws, "mirror")
    aws.control("faults", withdrawn)
    image(project, aws, "mirror", "one")  # it is there: nothing is asked of AWS's registry
    image(project, aws, "build", "one")
    (again,) = built_images.read(project.root).values()
    assert again.base_digest == built.base_digest
    assert again.base.endswith(f"/{built_images.MIRROR}")
    assert "mirrored" in image(project, aws, "status")
    aws.control("faults", method="DELETE")


def test_packages_come_from_the_bucket_by_their_hashes(project: Project, aws: Aws, tmp_path: Path) -> None:
    wheels = [sys.executable, "-m", "operations", "wheels"]
    kept = record(run(project, aws, [*wheels, str(tmp_path / "set"), "--image", "--keep", "--json"]))
    assert kept["wheels"] >= 6
    bucket, _, prefix = kept["kept"].removeprefix("s3://").partition("/")
    run(project, aws, [*wheels, str(tmp_path / "again"), "--from", prefix.split("/")[1][:12]])
    image(project, aws, "build", "one")
    files = sorted(path.name for path in (tmp_path / "set").glob("*.whl"))
    aws.client("s3").put_object(Bucket=bucket, Key=prefix + files[0], Body=b"other")
    said = image(project, aws, "build", "one", code=1)
    assert "install.sh: the kept wheels are not those of requirements-py310.txt." in said
    said = run(project, aws, [*wheels, str(tmp_path / "third"), "--from", prefix.split("/")[1]], code=1)
    assert f"{files[0]} has sha256" in said
    assert not (tmp_path / "third").exists()
    run(project, aws, [*wheels, str(tmp_path / "set"), "--keep"])  # of another size, so it is sent again


@pytest.mark.parametrize("action", ["ecr:PutImage", "ecr:BatchGetImage", "s3:GetObject", "logs:PutLogEvents"])
def test_a_role_without_a_right_builds_nothing(project: Project, aws: Aws, action: str) -> None:
    before = (project.root / built_images.FILE).read_bytes()
    iam = aws.client("iam")
    (role,) = (one["RoleName"] for one in iam.list_roles()["Roles"] if one["RoleName"].startswith("InferentiaImages"))
    denied = {"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": action, "Resource": "*"}}
    iam.put_role_policy(RoleName=role, PolicyName="less", PolicyDocument=json.dumps(denied))
    try:
        said = image(project, aws, "build", "one", code=1)
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="less")
    assert f"is not authorized to perform: {action} on resource: arn:aws:" in said
    assert (project.root / built_images.FILE).read_bytes() == before
    assert not list((aws.directory / "builds").iterdir())


def test_who_may_not_start_builds_learns_what_it_takes(project: Project, aws: Aws) -> None:
    fault = {"kind": "call", "action": "error", "operation": "codebuild:StartBuild", "error": "AccessDeniedException"}
    aws.control("faults", {**fault, "message": "User is not authorized to perform: codebuild:StartBuild"})
    said = image(project, aws, "build", "one", code=1)
    assert "you may not start builds of InferentiaImages" in said
    assert "inferentia policies --role deployer" in said


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
