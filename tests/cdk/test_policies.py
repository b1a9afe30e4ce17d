"""A walk over every policy statement of every stack: nothing is wide open without a reason written here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cdk.reading import as_list, statements

# Statements whose Resource is "*", by statement id, and why.
ANY_RESOURCE = {
    "LogInToRegistry": "ecr:GetAuthorizationToken knows no resource",
    "LogInToRegistries": "the same",
    "PublishMetrics": "cloudwatch:PutMetricData knows no resource; a condition names the namespaces",
    "DeliverLogs": "log deliveries are no resources; Step Functions checks for all of these",
    "FindInstances": "ec2:DescribeInstances knows no resource",
    "FindJobs": "sagemaker:ListProcessingJobs knows no resource",
}
COMPILED_HERE = ("processing", "ec2")
_BUCKET = "${import InferentiaArtifacts:ExportsOutputFnGetAttArtifactsBucket88671897Arn65502B7F}"
_OWN = "${AWS::Region}:${AWS::AccountId}"
_JOB = "????????????????????????????????-*"
# Resources that end in a wildcard, and why.
RESOURCE_PATTERNS = {
    "${ArtifactsAccessLogs4D97777C.Arn}/artifacts/*": "log delivery names its objects itself",
    f"{_BUCKET}/wheels/*": "sets of wheels are named by their digests",
    f"{_BUCKET}/images/*": "lists of packages are named by their images' tags",
    **{
        f"{_BUCKET}/{prefix}": "what is below is named by digests and runs"
        for name in COMPILED_HERE
        for prefix in (f"jobs/{name}/{kind}/*" for kind in ("inputs", "wheels", "cache", "runs"))
    },
    **{
        f"arn:${{AWS::Partition}}:{service}:{_OWN}:{kind}{name}-{_JOB}": "jobs are named for each run"
        for service, kind, name in (
            ("sagemaker", "processing-job/", "processing"),
            ("logs", "log-group:/aws/sagemaker/ProcessingJobs:log-stream:", "processing"),
        )
    },
    f"arn:${{AWS::Partition}}:logs:{_OWN}:log-group:/aws/sagemaker/ProcessingJobs:*": "a log group is written so",
    "arn:${AWS::Partition}:ecr:${AWS::Region}:*:repository/pytorch-inference-neuron": "AWS's account, by its region",
    **{
        f"arn:${{AWS::Partition}}:ec2:{_OWN}:{kind}/*": "a condition names the launch template, or a tag"
        for kind in ("instance", "network-interface", "volume")
    },
}
PRINCIPALS = {
    "cloudwatch.amazonaws.com",
    "codebuild.amazonaws.com",
    "ec2.amazonaws.com",
    "events.amazonaws.com",
    "logging.s3.amazonaws.com",
    "logs.${AWS::Region}.amazonaws.com",
    "sagemaker.amazonaws.com",
    "states.amazonaws.com",
}
ROOT = {"AWS": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}


@pytest.fixture(scope="module")
def templates(templates: dict[str, dict[str, Any]], compiling: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """All stacks: those of `templates`, and what compiles endpoints."""
    return {**templates, **compiling}


def allowing(templates: dict[str, dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every Allow statement with the resource that holds it."""
    for template in templates.values():
        for name, statement in statements(template):
            gateway = template["Resources"][name]["Type"] == "AWS::EC2::VPCEndpoint"  # a filter, which grants nothing
            if statement["Effect"] == "Allow" and not gateway:
                yield template["Resources"][name], statement


def test_every_policy_is_walked(templates: dict[str, dict[str, Any]]) -> None:
    holders = {resource["Type"] for resource, _ in allowing(templates)}
    assert holders == {"AWS::IAM::Role", "AWS::KMS::Key", "AWS::S3::BucketPolicy", "AWS::SNS::TopicPolicy"}


def test_no_wildcard_in_an_action(templates: dict[str, dict[str, Any]]) -> None:
    for resource, statement in allowing(templates):
        wild = [action for action in as_list(statement["Action"]) if "*" in action]
        if wild == ["kms:*"]:
            # KMS: a key whose policy does not let the account administer it cannot be administered any more.
            assert resource["Type"] == "AWS::KMS::Key"
            assert statement["Principal"] == ROOT
        else:
            assert not wild, statement
        assert "NotAction" not in statement


def test_every_wildcard_resource_has_its_reason(templates: dict[str, dict[str, Any]]) -> None:
    used = set()
    for resource, statement in allowing(templates):
        if resource["Type"] == "AWS::KMS::Key":
            assert statement["Resource"] == "*"  # in a key's policy this is the key itself
            continue
        for target in as_list(statement.get("Resource", [])):
            if target == "*":
                assert statement["Sid"] in ANY_RESOURCE, statement
                used.add(statement["Sid"])
            elif "*" in target:
                assert target in RESOURCE_PATTERNS, statement
        assert "NotResource" not in statement
    assert used == set(ANY_RESOURCE)


def test_no_pattern_without_use(templates: dict[str, dict[str, Any]]) -> None:
    targets = {target for _, row in allowing(templates) for target in as_list(row.get("Resource", []))}
    assert set(RESOURCE_PATTERNS) <= targets


def test_a_role_is_given_to_one_service_only(templates: dict[str, dict[str, Any]]) -> None:
    passing = [row for _, row in allowing(templates) if "iam:PassRole" in as_list(row["Action"])]
    assert len(passing) == len(COMPILED_HERE)
    for statement in passing:
        assert as_list(statement["Action"]) == ["iam:PassRole"]
        assert statement["Resource"].startswith("${Jobs")
        assert set(statement["Condition"]["StringEquals"]) == {"iam:PassedToService"}


def test_nobody_outside_is_let_in(templates: dict[str, dict[str, Any]]) -> None:
    for resource, statement in allowing(templates):
        principal = statement.get("Principal")
        if principal is None:
            assert resource["Type"] == "AWS::IAM::Role"
        elif principal != ROOT:
            assert set(principal) == {"Service"}
            assert principal["Service"] in PRINCIPALS


# Services' resources for which roles, keys and topics may be used, as the end of their ARNs.
SOURCES = {
    "cloudwatch.amazonaws.com": {
        f"alarm:InferentiaEndpoint-{name}-*" for name in ("small", "full", "large", *COMPILED_HERE)
    },
    "codebuild.amazonaws.com": {"project/InferentiaImages"},
    "events.amazonaws.com": {"rule/InferentiaCompile-*", "rule/InferentiaEndpoint-*"},
    "sagemaker.amazonaws.com": {"*", f"processing-job/processing-{_JOB}"},
    "states.amazonaws.com": {"stateMachine:*"},
}


def test_services_are_held_to_this_account_and_to_its_resources(templates: dict[str, dict[str, Any]]) -> None:
    """Against a confused deputy; https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html."""
    found: dict[str, set[str]] = {}
    for resource, statement in allowing(templates):
        service = (statement.get("Principal") or {}).get("Service")
        conditions = statement.get("Condition", {})
        if service == "ec2.amazonaws.com":  # hands a role to instances of the role's own account, and names no source
            assert not conditions
        elif service == "events.amazonaws.com" and resource["Type"] == "AWS::KMS::Key":
            assert not conditions  # it names none to KMS; see encryption_key.py
        elif service == "logs.${AWS::Region}.amazonaws.com":  # the encryption context is the group's whole ARN
            (contexts,) = (
                conditions["ArnLike"].values() if "ArnLike" in conditions else conditions["ArnEquals"].values()
            )
            assert all(f":{_OWN}:log-group:/aws/" in context for context in as_list(contexts))
        elif service is not None:
            assert conditions["StringEquals"] == {"aws:SourceAccount": "${AWS::AccountId}"}
            source = conditions["ArnLike"]["aws:SourceArn"]
            found.setdefault(service, set()).add(source.partition(f":{_OWN}:")[2])
    assert found.pop("logging.s3.amazonaws.com") == {""}  # the artifact bucket's own ARN
    assert found == SOURCES
