"""What `inferentia policies` prints lets each one do their work, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from operations.policies import ROLES, Place, document

Run = Callable[..., tuple[int, str, str]]
ACCOUNT, REGION = "123456789012", "eu-west-1"
PLACE = Place(ACCOUNT, REGION, "depth")
SIMULATOR = "@cloud-copilot/iam-simulate@0.1.173"  # AGPL: a test's tool, no part of the project
BUCKET = "arn:aws:s3:::inferentiaartifacts-artifactsbucket88671897-abcdefghijkl"
MODEL, JOB = f"{BUCKET}/models/depth/0/model.tar.gz", f"{BUCKET}/jobs/depth/inputs/0"
OTHER = f"{BUCKET}/models/other/0/model.tar.gz"
OWN = f"{REGION}:{ACCOUNT}"
ENDPOINT = f"arn:aws:sagemaker:{OWN}:endpoint/depth"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/cdk-hnb659fds-deploy-role-{ACCOUNT}-{REGION}"
KEY = f"arn:aws:kms:{OWN}:key/11111111-2222-3333-4444-555555555555"
RUNS = f"arn:aws:states:{OWN}:stateMachine:RunsRunMachine0A1B2C3D-abcdefghijkl"
VIA_S3 = {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}
# who, action, resource, what the request has beside, allowed
CASES = [
    ("publisher", "s3:PutObject", MODEL, {}, True),
    ("publisher", "s3:GetObject", MODEL, {}, True),
    ("publisher", "s3:ListBucket", BUCKET, {"s3:prefix": "models/depth/*"}, True),
    ("publisher", "kms:GenerateDataKey", KEY, VIA_S3, True),
    ("publisher", "kms:GenerateDataKey", KEY, {}, False),
    ("publisher", "s3:PutObject", OTHER, {}, False),
    ("publisher", "s3:DeleteObject", MODEL, {}, False),
    ("publisher", "s3:PutObject", JOB, {}, False),
    ("submitter", "s3:PutObject", JOB, {}, True),
    ("submitter", "states:StartExecution", RUNS, {}, True),
    ("submitter", "states:StartExecution", f"arn:aws:states:{OWN}:stateMachine:Other", {}, False),
    ("submitter", "sagemaker:CreateProcessingJob", f"arn:aws:sagemaker:{OWN}:processing-job/depth", {}, False),
    ("deployer", "sts:AssumeRole", ROLE, {}, True),
    ("deployer", "sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/admin", {}, False),
    ("deployer", "s3:GetObject", MODEL, {}, True),
    ("deployer", "s3:PutObject", MODEL, {}, False),
    ("deployer", "servicequotas:ListServiceQuotas", "*", {}, True),
    ("deployer", "cloudwatch:DescribeAlarms", f"arn:aws:cloudwatch:{OWN}:alarm:depth-errors", {}, True),
    (
        "deployer",
        "cloudformation:ListStackResources",
        f"arn:aws:cloudformation:{OWN}:stack/InferentiaEndpoint-depth/1",
        {},
        True,
    ),
    ("deployer", "cloudformation:ListStackResources", f"arn:aws:cloudformation:{OWN}:stack/Other/1", {}, False),
    ("deployer", "codebuild:StartBuild", f"arn:aws:codebuild:{OWN}:project/InferentiaImages", {}, True),
    ("deployer", "codebuild:StartBuild", f"arn:aws:codebuild:{OWN}:project/Other", {}, False),
    ("deployer", "sagemaker:InvokeEndpoint", ENDPOINT, {}, False),
    ("invoker", "sagemaker:InvokeEndpoint", ENDPOINT, {}, True),
    ("invoker", "sagemaker:InvokeEndpoint", f"arn:aws:sagemaker:{OWN}:endpoint/other", {}, False),
    ("invoker", "sagemaker:DescribeEndpoint", ENDPOINT, {}, False),
    ("ci", "s3:PutObject", MODEL, {}, True),
    ("ci", "sts:AssumeRole", ROLE, {}, True),
    ("ci", "sagemaker:InvokeEndpoint", ENDPOINT, {}, True),
    ("ci", "iam:PassRole", ROLE, {}, False),
    ("conformance", "cloudformation:DeleteStack", f"arn:aws:cloudformation:{OWN}:stack/Other/1", {}, False),
    (
        "conformance",
        "cloudformation:DeleteStack",
        f"arn:aws:cloudformation:{OWN}:stack/InferentiaEndpoint-depth/1",
        {},
        True,
    ),
    ("conformance", "s3:DeleteObjectVersion", MODEL, {}, True),
    ("conformance", "sagemaker:DeleteEndpoint", ENDPOINT, {}, False),
    ("conformance", "cloudwatch:ListMetrics", "*", {}, True),
    ("conformance", "application-autoscaling:DescribeScalingPolicies", "*", {}, True),
]
PROGRAM = """
import { runSimulation } from '@cloud-copilot/iam-simulate'
import { readFileSync } from 'fs'
const given = JSON.parse(readFileSync(0)), answers = []
for (const [role, action, resource, context, policies] of given.cases)
  answers.push(await runSimulation({
    request: { principal: `arn:aws:iam::${given.account}:role/someone`, action,
               resource: { resource, accountId: given.account }, contextVariables: context },
    identityPolicies: [{ name: role, policy: policies[0] }], serviceControlPolicies: [], resourceControlPolicies: [],
    ...(policies[1] ? { resourcePolicy: policies[1] } : {}),
  }, {}))
console.log(JSON.stringify(answers))
"""


def test_each_role_has_a_policy(run: Run) -> None:
    where = ("--account", ACCOUNT, "--region", REGION)
    code, out, _ = run("policies", "depth", *where, "--json")
    assert (code, set(json.loads(out))) == (0, set(ROLES))
    for role, policy in json.loads(out).items():
        sids = [row["Sid"] for row in policy["Statement"]]
        assert len(sids) == len(set(sids)), role
        assert not [action for row in policy["Statement"] for action in row["Action"] if "*" in action]
        assert len(json.dumps(policy, separators=(",", ":"))) < 6144  # characters of a managed policy
    code, out, _ = run("policies", *where, "--role", "invoker", "--json")
    (statement,) = json.loads(out)["Statement"]
    assert statement["Resource"] == [f"arn:aws:sagemaker:{OWN}:endpoint/*"]


@pytest.mark.parametrize(
    ("arguments", "words"), [(("--account", "12"), "12 digits"), (("--account", ACCOUNT, "--role", "boss"), "one of")]
)
def test_what_cannot_be_meant_is_wrong_use(run: Run, arguments: tuple[str, ...], words: str) -> None:
    code, _, err = run("policies", "--region", REGION, *arguments)
    assert (code, words in err) == (2, True)


@pytest.fixture(scope="module")
def simulate(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[Any]], list[Any]]:
    """Answers of the simulator, which also refuses actions, resources and keys that AWS does not have."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("the policies are NOT simulated here: there is no npm")
    folder = tmp_path_factory.mktemp("simulator")
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "simulate.js").write_text(PROGRAM)
    done = subprocess.run(
        [npm, "install", "--silent", SIMULATOR], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"the policies are NOT simulated here: npm cannot install {SIMULATOR}: {done.stderr[-300:]}")

    def ask(cases: list[Any]) -> list[Any]:
        given = json.dumps({"account": ACCOUNT, "cases": cases})
        command = [node, str(folder / "simulate.js")]
        answer = subprocess.run(command, input=given, cwd=folder, capture_output=True, text=True, check=True)
        answers: list[Any] = json.loads(answer.stdout)
        return answers

    return ask


def _admits(action: str) -> dict[str, Any] | None:
    """The policy of a key or of the CDK's roles, without which nobody may; both leave it to the account's policies."""
    ours = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": action}
    found = {"kms": {**ours, "Resource": "*"}, "sts": ours}.get(action.partition(":")[0])
    return found and {"Version": "2012-10-17", "Statement": [found]}


@pytest.mark.slow
def test_each_may_do_their_work_and_nothing_else(simulate: Callable[[list[Any]], list[Any]]) -> None:
    cases = [[role, action, at, more, [document(role, PLACE), _admits(action)]] for role, action, at, more, _ in CASES]
    answers = simulate(cases)
    found = [answer["overallResult"] if answer["resultType"] != "error" else answer for answer in answers]
    assert found == ["Allowed" if case[4] else "ImplicitlyDenied" for case in CASES]


@pytest.mark.slow
def test_the_buckets_policy_lets_a_publisher_write_once(simulate: Callable[[list[Any]], list[Any]]) -> None:
    """The statement of cdk/constructs/artifact_bucket.py, as the embedded S3 evaluates it (test_written_once.py)."""
    snapshot = (Path(__file__).parents[1] / "cdk/snapshots/InferentiaArtifacts.yaml").read_text()
    assert "s3:if-none-match: 'true'" in snapshot
    assert "s3:ObjectCreationOperation: 'true'" in snapshot
    once = {
        "Effect": "Deny",
        "Principal": {"AWS": "*"},
        "Action": "s3:PutObject",
        "Resource": f"{BUCKET}/models/*",
        "Condition": {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}},
    }
    policies = [document("publisher", PLACE), {"Version": "2012-10-17", "Statement": [once]}]
    requests = [
        {"s3:ObjectCreationOperation": "true"},
        {"s3:ObjectCreationOperation": "true", "s3:if-none-match": "*"},
        {"s3:ObjectCreationOperation": "false"},
    ]
    answers = simulate([["publisher", "s3:PutObject", MODEL, request, policies] for request in requests])
    assert [answer["overallResult"] for answer in answers] == ["ExplicitlyDenied", "Allowed", "Allowed"]
