"""The stricter rules of others: cdk-nag's NIST 800-53 and HIPAA packs, and AWS's tables of actions and resources.

What the packs find and is meant stands here with its reason; the app itself runs AwsSolutions alone.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Validations
from cdk_nag import HIPAASecurityChecks, NIST80053R5Checks

import app as application
import endpoint_spec as specs
from cdk.deployment import Deployment
from operations.policies import ROLES, Place, document
from tests.cdk.projects import COMPILED, FULL, MACHINE_IMAGE, MINIMAL, Project
from tests.cdk.reading import as_list, statements

pytestmark = pytest.mark.slow
# A rule of both packs, the end of the constructs' paths, and why it is right there.
MEANT = {
    "CloudWatchLogGroupEncrypted": (
        r"Images/Build/Logs/Resource",
        "names and versions of public packages; a customer key costs by the month",
    ),
    "CodeBuildProjectSourceRepoUrl": (r"Images/Build/Project", "the source is the CDK's archive in S3, no repository"),
    "IAMNoInlinePolicy": (r"/Role/Resource", "a role's policies are part of it, so that nobody meets it without them"),
    "S3BucketReplicationEnabled": (
        r"Artifacts/(AccessLogs|Bucket)/Resource",
        "artifacts are built again from the spec",
    ),
    "S3BucketVersioningEnabled": (r"Artifacts/AccessLogs/Resource", "S3 writes each log once, under a name of its own"),
    "S3DefaultEncryptionKMS": (
        r"Artifacts/AccessLogs/Resource",
        "log delivery supports no customer key as the default",
    ),
    "VPCDefaultSecurityGroupClosed": (r"Network/Network", "nothing is in it; closing it takes a custom resource"),
    "VPCFlowLogsEnabled": (r"Network/Network", "for the hours of a compile run, of public packages; else job.subnets"),
    "VPCNoUnrestrictedRouteToIGW": (r"Network/Out", "to AWS's APIs, over HTTPS alone; else job.subnets"),
    "VPCSubnetAutoAssignPublicIpDisabled": (r"Network/Subnet\d", "no NAT gateway for a few hours; nothing may come in"),
}
TABLES = "policy_sentry==0.15.2"
ASK = """
import json, sys
from policy_sentry.querying.actions import get_action_data
def formats(action):
    service, _, name = action.partition(":")
    data = get_action_data(service, name)
    return data and [row["resource_arn_format"] for row in data[service]]
print(json.dumps({action: formats(action) or None for action in json.load(sys.stdin)}))
"""


def test_two_packs_find_nothing_that_is_not_meant(project: Project, tmp_path: Path) -> None:
    for name, text in {"small": MINIMAL + "serve: {{server: native}}\n", "full": FULL, **COMPILED}.items():
        project.add(name, text)
    cdk_app = App(context=application.feature_flags(), analytics_reporting=False, outdir=str(tmp_path / "out"))
    application.compose(cdk_app, specs.load_all(project.root), Deployment(compile_ami={"inf1": MACHINE_IMAGE}))
    Validations.of(cdk_app).add_plugins(NIST80053R5Checks(cdk_app), HIPAASecurityChecks(cdk_app))
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        cdk_app.synth()
    report = json.loads((tmp_path / "out" / "validation-report.json").read_text())
    found = [
        (violation["ruleName"].rpartition("-")[2], construct["constructPath"])
        for pack in report["pluginReports"]
        for violation in pack["violations"]
        for construct in violation["violatingConstructs"]
    ]
    assert {pack["pluginName"] for pack in report["pluginReports"]} >= {"NIST.800.53.R5", "HIPAA.Security"}
    assert [row for row in found if not re.search(f"{MEANT.get(row[0], ('$^', ''))[0]}$", row[1])] == []
    assert {rule for rule, _ in found} == set(MEANT)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has policy_sentry, in an environment of its own: no dependency of the project."""
    folder = tmp_path_factory.mktemp("tables")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", TABLES]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"actions and resources are NOT compared with AWS's tables: {TABLES}: {done.stderr[-300:]}")
    return python


def kind(arn: str) -> tuple[str, str]:
    """Service and kind of resource of an ARN, or of a format of one."""
    parts = re.sub(r"\$\{[^}]*\}", "x", arn).split(":", 5)
    if parts[2] == "s3":
        return "s3", "object" if "/" in parts[5] else "bucket"
    return parts[2], re.split(r"[/:]", parts[5])[0] if re.search(r"[/:]", parts[5]) else ""


def test_every_action_and_resource_exists(
    tables: Path, templates: dict[str, dict[str, Any]], compiling: dict[str, dict[str, Any]]
) -> None:
    rows = [row for template in {**templates, **compiling}.values() for _, row in statements(template)]
    rows += [row for role in ROLES for row in document(role, Place("123456789012", "eu-west-1"))["Statement"]]
    pairs = {
        (action, target)
        for row in rows
        for action in as_list(row["Action"])
        for target in as_list(row.get("Resource", "*"))
        if not action.endswith(":*") and (row["Effect"] == "Allow" or "Sid" in row)
    }
    asked = json.dumps(sorted({action for action, _ in pairs}))
    answer = subprocess.run([str(tables), "-c", ASK], input=asked, capture_output=True, text=True, check=True)
    known: dict[str, list[str] | None] = json.loads(answer.stdout)
    assert [action for action, formats in known.items() if formats is None] == []
    wrong = []
    for action, target in sorted(pairs):
        kinds = {kind(one) for one in known[action] or () if one != "*"}
        # A resource that only CloudFormation knows (${...}) is of the stack, and its policies are read elsewhere.
        if target.startswith("arn:") and kind(target) not in kinds:
            wrong.append((action, target, kinds))
    assert wrong == []
