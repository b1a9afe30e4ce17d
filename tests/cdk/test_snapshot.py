"""The templates as they are, to read and to review. After a change that is meant:

pytest tests/cdk/test_snapshot.py --update-snapshots
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cdk.reading import text

SNAPSHOTS = Path(__file__).parent / "snapshots"


def readable(template: dict[str, Any]) -> str:
    """YAML with intrinsic functions as Fn::Sub writes them; dashboards, state machines and user data as data."""
    document = text(template)
    for resource in document["Resources"].values():
        if resource["Type"] == "AWS::CloudWatch::Dashboard":
            resource["Properties"]["DashboardBody"] = json.loads(resource["Properties"]["DashboardBody"])
        if resource["Type"] == "AWS::StepFunctions::StateMachine":
            resource["Properties"]["DefinitionString"] = json.loads(resource["Properties"]["DefinitionString"])
        if resource["Type"] == "AWS::EC2::LaunchTemplate":
            resource["Properties"]["LaunchTemplateData"]["UserData"] = "(cdk/user_data/compile_instance.sh)"
    for part in ("Parameters", "Rules"):  # the CDK's own check of the bootstrap stack
        document.pop(part)
    return str(yaml.safe_dump(document, sort_keys=False, width=110))


REVIEWED = {
    "templates": ["InferentiaArtifacts", "InferentiaEndpoint-full", "InferentiaEndpoint-large"],
    "compiling": ["InferentiaCompile-processing", "InferentiaCompile-ec2"],
}


@pytest.mark.parametrize(
    ("fixture", "stack"), [(fixture, stack) for fixture, stacks in REVIEWED.items() for stack in stacks]
)
def test_template_is_as_reviewed(fixture: str, stack: str, request: pytest.FixtureRequest) -> None:
    templates: dict[str, dict[str, Any]] = request.getfixturevalue(fixture)
    snapshot = SNAPSHOTS / f"{stack}.yaml"
    now = readable(templates[stack])
    if request.config.getoption("--update-snapshots"):
        snapshot.write_text(now)
    assert now.splitlines() == snapshot.read_text().splitlines()
