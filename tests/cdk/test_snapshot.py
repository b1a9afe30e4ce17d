"""The templates of artifacts and endpoints as they are, to read and to review. After a change that is meant:

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
    """YAML with intrinsic functions as Fn::Sub writes them; dashboards as data."""
    document = text(template)
    for resource in document["Resources"].values():
        if resource["Type"] == "AWS::CloudWatch::Dashboard":
            resource["Properties"]["DashboardBody"] = json.loads(resource["Properties"]["DashboardBody"])
    for part in ("Parameters", "Rules"):  # the CDK's own check of the bootstrap stack
        document.pop(part)
    return str(yaml.safe_dump(document, sort_keys=False, width=110))


@pytest.mark.parametrize("stack", ["InferentiaArtifacts", "InferentiaEndpoint-full", "InferentiaEndpoint-large"])
def test_template_is_as_reviewed(
    stack: str, templates: dict[str, dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    snapshot = SNAPSHOTS / f"{stack}.yaml"
    now = readable(templates[stack])
    if request.config.getoption("--update-snapshots"):
        snapshot.write_text(now)
    assert now.splitlines() == snapshot.read_text().splitlines()
