"""A lock that is missing, stale or not allowed refuses its own stack, and no other."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cdk.deployment import Deployment
from tests.cdk.projects import MINIMAL, Assemble, Project, error_annotations
from tests.cdk.reading import only

Errors = Callable[..., dict[str, list[str]]]
GOOD, BAD = "InferentiaEndpoint-good", "InferentiaEndpoint-bad"


@pytest.fixture
def two(project: Project) -> Project:
    """Two endpoints with fitting locks."""
    project.add("good")
    project.add("bad")
    return project


def test_a_region_with_images_of_the_other_target_alone_refuses_that_endpoint(two: Project, errors: Errors) -> None:
    two.add("bad", MINIMAL + "compile: {{target: inf2}}\njob: {{}}\n")
    two.add("good", MINIMAL + "serve: {{server: torchserve}}\n")
    found = errors(two, Deployment(region="ap-east-2"))
    assert set(found) == {BAD, "InferentiaCompile-bad"}
    assert "ap-east-2 cannot be deployed to: it is in no list of regions with Neuron images for inf2" in found[BAD][0]


@pytest.fixture
def errors(assemble: Assemble) -> Errors:
    """The error annotations of a project's stacks, those without any left out."""

    def run(project: Project, deployment: Deployment | None = None) -> dict[str, list[str]]:
        assembly = assemble(project, deployment)
        found = {
            stack.stack_name: error_annotations(Path(assembly.directory), stack.stack_name) for stack in assembly.stacks
        }
        return {name: messages for name, messages in found.items() if messages}

    return run


def test_fitting_locks_are_deployable(two: Project, errors: Errors) -> None:
    assert errors(two) == {}


def test_missing_lock_refuses_its_stack_with_the_command_that_helps(two: Project, errors: Errors) -> None:
    (two.root / "endpoints" / "bad.lock.json").unlink()
    (message,) = errors(two).pop(BAD)
    assert "endpoints/bad.lock.json is missing" in message
    assert "inferentia build bad" in message


def test_changed_build_section_is_refused(two: Project, errors: Errors) -> None:
    two.write("bad", MINIMAL + "compile: {{batch_sizes: [2]}}\n")
    found = errors(two)
    assert set(found) == {BAD}
    assert "stale" in found[BAD][0]
    assert "inferentia build bad" in found[BAD][0]


def test_changed_definition_is_refused_for_all_that_use_it(two: Project, errors: Errors) -> None:
    (two.root / "model.py").write_text("def build():\n    return None\n")
    assert set(errors(two)) == {GOOD, BAD}


def test_changed_handler_asks_for_packaging_only(two: Project, errors: Errors) -> None:
    handler = "def preprocess(request):\n    return 1\n\n\ndef postprocess(outputs, item):\n    return 2\n"
    (two.root / "handler.py").write_text(handler)
    two.add("bad", MINIMAL + "serve: {{handler: handler.py}}\n")
    (two.root / "handler.py").write_text(handler + "# changed\n")
    (message,) = errors(two).pop(BAD)
    assert "inferentia package bad" in message


@pytest.mark.parametrize(
    "lines",
    [
        "alarms: {{p99_latency: 100ms, error_rate: 5%}}\n",
        "scale: {{min: 2, max: 9}}\n",
        "serve: {{instance_type: ml.inf1.6xlarge}}\n",
        "tags: {{team: other}}\n",
    ],
)
def test_changes_that_need_no_new_lock(two: Project, assemble: Assemble, errors: Errors, lines: str) -> None:
    before = _template(assemble(two), BAD)
    two.write("bad", MINIMAL + lines)
    assert errors(two) == {}
    assert _template(assemble(two), BAD) != before


def test_changed_alarm_threshold_arrives_without_a_new_lock(two: Project, assemble: Assemble) -> None:
    two.write("bad", MINIMAL + "alarms: {{p99_latency: 123ms}}\n")
    template = _template(assemble(two), BAD)
    thresholds = [row["Properties"]["Threshold"] for row in template["Resources"].values()
                  if row["Type"] == "AWS::CloudWatch::Alarm"]  # fmt: skip
    assert 123_000 in thresholds


def test_rehearsal_in_the_place_of_a_real_lock_is_refused(two: Project, errors: Errors) -> None:
    two.lock("bad", rehearsal=True).rename(two.root / "endpoints" / "bad.lock.json")
    (message,) = errors(two).pop(BAD)
    assert "rehearsal" in message


def test_stand_in_is_refused(two: Project, errors: Errors) -> None:
    two.lock("bad", stand_in=True)
    (message,) = errors(two).pop(BAD)
    assert "stand-in" in message


@pytest.mark.parametrize("text", ["", "{", '{"format": 99}', base64.b64encode(b"lock").decode()])
def test_damaged_lock_refuses_its_stack_only(two: Project, errors: Errors, text: str) -> None:
    (two.root / "endpoints" / "bad.lock.json").write_text(text)
    found = errors(two)
    assert set(found) == {BAD}
    assert "bad.lock.json" in found[BAD][0]
    assert "inferentia build" in found[BAD][0]


def test_lost_weights_refuse_their_stack_only(two: Project, errors: Errors) -> None:
    (two.root / "weights.safetensors").write_bytes(b"0")
    with_file = 'name: {name}\nmodel: {{entry: "model.py:build", weights: {{file: weights.safetensors}}}}\n'
    two.add("bad", with_file)
    assert errors(two) == {}
    lock = json.loads((two.root / "endpoints" / "bad.lock.json").read_text())
    lock["digests"]["build"] = "0" * 64
    (two.root / "endpoints" / "bad.lock.json").write_text(json.dumps(lock))
    assert set(errors(two)) == {BAD}


def test_rehearsal_uses_rehearsal_locks_only(two: Project, errors: Errors) -> None:
    two.lock("good", rehearsal=True)
    found = errors(two, Deployment(rehearsal=True))
    assert set(found) == {BAD}
    assert "build/rehearsal/bad.lock.json is missing" in found[BAD][0]
    assert "--rehearse" in found[BAD][0]


def test_refused_stacks_are_refused_by_cloudformation_too(two: Project, assemble: Assemble) -> None:
    two.write("bad", MINIMAL + "compile: {{batch_sizes: [2]}}\n")
    assembly = assemble(two)
    assert "Deployable" not in _template(assembly, GOOD)["Rules"]
    (assertion,) = _template(assembly, BAD)["Rules"]["Deployable"]["Assertions"]
    first, second = assertion["Assert"]["Fn::Equals"]
    assert first != second
    assert "stale" in assertion["AssertDescription"]


def test_stack_without_a_lock_is_not_empty(two: Project, assemble: Assemble) -> None:
    """The CDK CLI deletes a deployed stack whose template has become empty."""
    (two.root / "endpoints" / "bad.lock.json").unlink()
    template = _template(assemble(two), BAD)
    assert only(template, "AWS::CloudFormation::WaitConditionHandle") == {}
    assert len(template["Resources"]) == 1


def test_stack_without_a_lock_is_destroyed_before_the_artifacts(two: Project, assemble: Assemble) -> None:
    """What is deployed of it may still import from them."""
    (two.root / "endpoints" / "bad.lock.json").unlink()
    assembly = assemble(two)
    for stack in (GOOD, BAD):
        needed = [artifact.id for artifact in assembly.get_stack_by_name(stack).dependencies]
        assert "InferentiaArtifacts" in needed


def test_other_stacks_do_not_notice(two: Project, assemble: Assemble) -> None:
    before = assemble(two)
    (two.root / "endpoints" / "bad.lock.json").unlink()
    after = assemble(two)
    for stack in ("InferentiaArtifacts", GOOD):
        assert _template(before, stack) == _template(after, stack)


def _template(assembly: Any, stack: str) -> dict[str, Any]:
    template: dict[str, Any] = assembly.get_stack_by_name(stack).template
    return template
