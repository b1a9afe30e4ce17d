"""The stack that builds the native server's images, and endpoints whose image was not built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cdk.deployment import Deployment
from endpoint_spec import built_images, digests
from tests.cdk.projects import DIGEST, MINIMAL, Assemble, Project, Synthesize, error_annotations
from tests.cdk.reading import only, statements

NATIVE = MINIMAL + "serve: {{server: native}}\n"


def test_without_an_image_of_ones_own_there_is_no_such_stack(synthesize: Synthesize) -> None:
    assert "InferentiaImages" not in synthesize({"stock": MINIMAL + "serve: {{server: torchserve}}\n"})


def test_the_project_may_read_its_sources_pull_the_bases_and_push_its_images(synthesize: Synthesize) -> None:
    inf2 = NATIVE + "compile: {{target: inf2}}\n"
    template = synthesize({"one": NATIVE, "two": NATIVE, "three": inf2})["InferentiaImages"]
    repositories = [row for row in template["Resources"].values() if row["Type"] == "AWS::ECR::Repository"]
    assert sorted(row["Properties"]["RepositoryName"] for row in repositories) == [
        "inferentia-endpoints/bases",
        "inferentia-endpoints/inf1-native",
        "inferentia-endpoints/inf2-native",
    ]
    assert {row["Properties"]["ImageTagMutability"] for row in repositories} == {"IMMUTABLE"}
    assert {row["DeletionPolicy"] for row in repositories} == {"Retain"}
    kept = [row["Properties"]["RepositoryName"] for row in repositories if "LifecyclePolicy" not in row["Properties"]]
    assert kept == ["inferentia-endpoints/bases"]
    project = only(template, "AWS::CodeBuild::Project")
    assert project["Source"]["BuildSpec"] == "images/buildspec.yml"
    assert project["Environment"]["PrivilegedMode"] is True
    allowed = {row["Sid"]: row for _, row in statements(template) if "Sid" in row}
    registry = {"LogInToRegistries", "PullBases", "PushImages"}
    assert set(allowed) == registry | {
        "ReadSources",
        "WriteLogs",
        "ReadFiles",
        "FindFiles",
        "WriteFiles",
        "UseBucketKey",
    }
    assert json.dumps(allowed["ReadFiles"]["Resource"]).count("/wheels/*") == 1
    assert json.dumps(allowed["WriteFiles"]["Resource"]).count("/images/*") == 1
    assert "pytorch-inference-neuronx" in json.dumps(allowed["PullBases"]["Resource"])
    assert "ecr:PutImage" not in allowed["PullBases"]["Action"]
    trust = only(template, "AWS::IAM::Role")["AssumeRolePolicyDocument"]["Statement"][0]
    assert json.dumps(trust["Condition"]).count("project/InferentiaImages") == 1
    assert template["Outputs"]["ImageSources"]["Value"] == digests.image_sources()


def test_the_base_of_the_cpu_is_public_and_needs_no_permission(synthesize: Synthesize) -> None:
    template = synthesize({"one": MINIMAL + "compile: {{target: cpu}}\n"})["InferentiaImages"]
    allowed = {row["Sid"] for _, row in statements(template) if "Sid" in row}
    assert "PullBases" not in allowed
    assert {"ReadSources", "LogInToRegistries", "PushImages", "WriteLogs"} <= allowed
    repositories = [row for row in template["Resources"].values() if row["Type"] == "AWS::ECR::Repository"]
    names = {row["Properties"]["RepositoryName"] for row in repositories}
    assert names == {"inferentia-endpoints/cpu-native", "inferentia-endpoints/bases"}


def test_its_sources_are_images_and_inference_code_alone(assemble: Assemble, project: Project) -> None:
    project.add("one", NATIVE)
    assembly = Path(assemble(project).directory)
    (folder,) = (path for path in assembly.glob("asset.*") if path.is_dir())
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {path.as_posix() for path in digests.image_files()}
    assert {name.split("/")[0] for name in found} == {"images", "inference_code"}
    assert "images/native/Dockerfile" in found


@pytest.mark.parametrize(
    ("written", "deployment", "words"),
    [
        ("{}", Deployment(), "has no image inferentia-endpoints/inf1-native:"),
        ("{", Deployment(), "endpoints/images.lock.json: "),
        ('{"a": {}}', Deployment(), "endpoints/images.lock.json: a.digest: Field required"),
        ("built", Deployment(account="999999999999"), "is in the account 111122223333, not in 999999999999"),
        ("built", Deployment(region="us-east-1"), "is in the region eu-west-1, not in us-east-1"),
    ],
)
def test_an_image_that_is_not_there_refuses_its_endpoint_alone(
    assemble: Assemble, project: Project, written: str, deployment: Deployment, words: str
) -> None:
    project.add("native", NATIVE)
    project.add("stock", MINIMAL + "serve: {{server: torchserve}}\n")
    if written != "built":
        (project.root / built_images.FILE).write_text(written)
    assembly = assemble(project, deployment)
    found = {
        stack.stack_name: error_annotations(Path(assembly.directory), stack.stack_name) for stack in assembly.stacks
    }
    assert {name for name, problems in found.items() if problems} == {"InferentiaEndpoint-native"}
    (problem,) = found["InferentiaEndpoint-native"]
    assert words in problem


def test_what_was_built_is_pinned_by_digest(assemble: Assemble, project: Project) -> None:
    project.add("native", NATIVE)
    assembly = assemble(project)
    assert error_annotations(Path(assembly.directory), "InferentiaEndpoint-native") == []
    (stack,) = (one for one in assembly.stacks if one.stack_name == "InferentiaEndpoint-native")
    image: Any = only(stack.template, "AWS::SageMaker::Model")["PrimaryContainer"]["Image"]
    assert json.dumps(image).endswith(f'/inferentia-endpoints/inf1-native@{DIGEST}"]]}}')
