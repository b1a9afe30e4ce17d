"""`inferentia preflight` against the embedded AWS: each thing that is missing is one finding, and nothing changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest

from endpoint_spec import built_images, digests, load, platforms
from endpoint_spec.built_images import BuiltImage
from endpoint_spec.lock import Lock, artifact_key
from operations.account import Account
from operations.errors import OperationError
from operations.preflight import Finding, Subject, preflight
from tests.embedded_aws.running import Aws
from tests.endpoint_spec.projects import SHA, SMALL, a_lock, fill

REGION = "eu-west-1"  # of this file's own: its stacks are none of the other tests'
BUCKET = "preflight-artifacts"
STACK = {
    "Resources": {
        "Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": BUCKET}},
        "Version": {
            "Type": "AWS::SSM::Parameter",
            "Properties": {"Name": "/cdk-bootstrap/hnb659fds/version", "Type": "String", "Value": "28"},
        },
    },
    "Outputs": {"ArtifactBucketName": {"Value": {"Ref": "Bucket"}}},
}


@pytest.fixture(autouse=True)
def account(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Account:
    """An account of this server that has everything but an artifact."""
    for key, value in {
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_ACCESS_KEY_ID": aws.access_key,
        "AWS_SECRET_ACCESS_KEY": aws.secret_key,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
    }.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    cloudformation = aws.client("cloudformation", REGION)
    if not cloudformation.describe_stacks()["Stacks"]:
        cloudformation.create_stack(StackName="InferentiaArtifacts", TemplateBody=json.dumps(STACK))
        cloudformation.get_waiter("stack_create_complete").wait(StackName="InferentiaArtifacts")
    return Account()


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    path = fill(tmp_path) / "endpoints" / "depth.yaml"
    path.write_text(SMALL + "job: {}\nserve: {server: torchserve}\n")
    spec = load(path)
    return Subject(spec, a_lock(spec), [], None)


def wrong(found: list[Finding]) -> list[tuple[str, str]]:
    return [(one.check, one.found) for one in found if one.status in ("problem", "unknown")]


def test_an_unpublished_and_an_overwritten_artifact(account: Account, subject: Subject) -> None:
    key = artifact_key("depth", SHA)
    (missing,) = wrong(preflight(subject, account))
    assert missing == ("artifact", f"s3://{BUCKET}/{key} is not there")
    account.s3.put_object(Bucket=BUCKET, Key=key, Body=b"another")
    (other,) = [one for one in preflight(subject, account) if one.status == "problem"]
    assert (other.check, "was overwritten: its sha256 is" in other.found) == ("artifact", True)
    assert other.remedy
    assert other.later
    account.s3.delete_object(Bucket=BUCKET, Key=key)


def changed(subject: Subject, **changes: Any) -> Subject:
    return Subject(**{**vars(subject), "lock": None, **changes})


def test_everything_is_there(account: Account, subject: Subject) -> None:
    found = preflight(changed(subject), account)
    assert wrong(found) == []
    checks = [one.check for one in found if one.status == "ok"]
    assert checks == ["identity", "bootstrap", "image", "quota", "quota", "endpoint", "log group", "bucket"]
    assert [one.check for one in found if one.status == "note"] == ["service role"]


def test_another_account_is_the_only_finding(account: Account, subject: Subject) -> None:
    (found,) = preflight(changed(subject, account="111122223333"), account)
    assert (found.check, found.status) == ("identity", "problem")
    assert "not of account 111122223333" in found.found


def test_a_region_that_is_not_bootstrapped(account: Account, subject: Subject) -> None:
    assert wrong(preflight(changed(subject, qualifier="other"), account)) == [
        ("bootstrap", "there is no /cdk-bootstrap/other/version: the region is not bootstrapped")
    ]


@pytest.mark.parametrize(("value", "words"), [(0.0, "0, 2 are needed"), (3.0, "3, an update at the maximum needs 4")])
def test_a_quota_that_does_not_do(account: Account, subject: Subject, value: float, words: str) -> None:
    name = f"{subject.spec.serve.instance_type} for endpoint usage"
    client = account.client("service-quotas")
    quotas = client.list_service_quotas(ServiceCode="sagemaker")["Quotas"]
    (quota,) = [row for row in quotas if row["QuotaName"] == name]
    where = {"ServiceCode": "sagemaker", "QuotaCode": quota["QuotaCode"]}
    client.request_service_quota_increase(**where, DesiredValue=value)
    try:
        assert wrong(preflight(changed(subject), account)) == [("quota", f"{name}: {words}")]
    finally:
        client.request_service_quota_increase(**where, DesiredValue=quota["Value"])


def test_an_image_of_your_own_registry(account: Account, subject: Subject, tmp_path: Path) -> None:
    """Not built; built and gone; there; and a rehearsal, which needs none."""
    path = tmp_path / "endpoints" / "depth.yaml"
    path.write_text(SMALL + "serve: {server: native}\n")
    assert subject.lock is not None
    rehearsed = subject.lock.model_copy(update={"rehearsal": True})

    def found(lock: Lock = subject.lock) -> list[tuple[str, str]]:
        rows = wrong(preflight(changed(subject, spec=load(path), lock=lock), account))
        return [row for row in rows if row[0] == "image"]

    assert found(rehearsed) == []
    assert found() == [("image", "not built")]
    image, digest = platforms.image("inf1", "native"), f"sha256:{'0' * 64}"
    built = BuiltImage(
        digest=digest,
        tag="t",
        base="b",
        base_digest=digest,
        sources=digests.image_sources(),
        account="123456789012",
        region=REGION,
    )
    (tmp_path / built_images.FILE).write_text(built_images.text({built_images.key(image): built}))
    assert found() == [("image", f"{digest} is not in {image.repository} of {REGION}")]
    ecr = account.client("ecr")
    ecr.create_repository(repositoryName=image.repository)
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json"}
    ecr.put_image(
        repositoryName=image.repository,
        imageTag="t",
        imageManifest=json.dumps({**manifest, "config": {}, "layers": []}),
        imageDigest=digest,
    )
    try:
        assert found() == []
    finally:
        ecr.delete_repository(repositoryName=image.repository, force=True)
    (tmp_path / built_images.FILE).write_text("{")
    assert "images.lock.json" in found()[0][1]


def test_a_region_without_images(account: Account, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-west-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-1")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    found = wrong(preflight(changed(subject), Account()))
    assert [check for check, _ in found] == ["bootstrap", "image", "bucket"]
    assert "us-west-1" in found[1][1]


def test_names_that_are_taken(account: Account, subject: Subject) -> None:
    group = "/aws/sagemaker/Endpoints/depth"
    account.logs.create_log_group(logGroupName=group)
    try:
        assert wrong(preflight(changed(subject), account)) == [
            ("log group", f"{group} is there, of an earlier endpoint")
        ]
    finally:
        account.logs.delete_log_group(logGroupName=group)


def test_a_rehearsals_guard_holds_for_later_clients(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.guard(what="a rehearsal")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", "https://ssm.example.invalid")
    with pytest.raises(OperationError, match=r"ssm\.example\.invalid"):
        account.client("ssm")
