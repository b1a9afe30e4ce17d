from __future__ import annotations

from typing import Any

from cdk.deployment import Deployment
from tests.cdk.projects import Synthesize
from tests.cdk.reading import as_list, resources, statements, text

BUCKET, LOGS = "ArtifactsBucket88671897", "ArtifactsAccessLogs4D97777C"


def test_bucket_is_versioned_and_encrypted_with_the_customer_key(artifacts: dict[str, Any]) -> None:
    bucket = text(artifacts["Resources"][BUCKET]["Properties"])
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    (key,) = resources(artifacts, "AWS::KMS::Key")
    assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": f"${{{key}.Arn}}"}
    assert bucket["LoggingConfiguration"] == {"DestinationBucketName": f"${{{LOGS}}}", "LogFilePrefix": "artifacts/"}


def test_key_rotates(artifacts: dict[str, Any]) -> None:
    (key,) = resources(artifacts, "AWS::KMS::Key").values()
    assert key["Properties"]["EnableKeyRotation"] is True


def test_both_buckets_are_private(artifacts: dict[str, Any]) -> None:
    buckets = resources(artifacts, "AWS::S3::Bucket")
    assert set(buckets) == {BUCKET, LOGS}
    for bucket in buckets.values():
        blocked = bucket["Properties"]["PublicAccessBlockConfiguration"]
        assert len(blocked) == 4
        assert set(blocked.values()) == {True}
        assert bucket["Properties"]["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
        assert "AccessControl" not in bucket["Properties"]


def test_both_buckets_refuse_requests_without_tls(artifacts: dict[str, Any]) -> None:
    denied = {}
    for policy in resources(artifacts, "AWS::S3::BucketPolicy").values():
        properties = text(policy["Properties"])
        for statement in properties["PolicyDocument"]["Statement"]:
            if statement["Effect"] == "Deny" and "Sid" not in statement:
                assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
                assert statement["Principal"] == {"AWS": "*"}
                denied[properties["Bucket"]] = sorted(statement["Resource"])
    assert denied == {f"${{{name}}}": [f"${{{name}.Arn}}", f"${{{name}.Arn}}/*"] for name in (BUCKET, LOGS)}


def test_models_are_written_once(artifacts: dict[str, Any]) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html"""
    found = [row for _, row in statements(artifacts) if row.get("Sid") == "ModelsAreWrittenOnce"]
    assert found == [
        {
            "Sid": "ModelsAreWrittenOnce",
            "Effect": "Deny",
            "Principal": {"AWS": "*"},
            "Action": "s3:PutObject",
            "Resource": f"${{{BUCKET}.Arn}}/models/*",
            "Condition": {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}},
        }
    ]


def test_production_keeps_key_and_buckets(artifacts: dict[str, Any]) -> None:
    for kind in ("AWS::KMS::Key", "AWS::S3::Bucket", "AWS::S3::BucketPolicy"):  # without it TLS is no longer demanded
        for resource in resources(artifacts, kind).values():
            assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Retain"


def test_rehearsal_can_be_destroyed(synthesize: Synthesize) -> None:
    template = synthesize({}, Deployment(rehearsal=True))["InferentiaArtifacts"]
    (key,) = resources(template, "AWS::KMS::Key").values()
    assert key["DeletionPolicy"] == "Delete"
    assert template["Resources"][BUCKET]["DeletionPolicy"] == "Delete"


def test_access_logs_are_always_kept(synthesize: Synthesize) -> None:
    """Deleting the bucket that they are about adds to them, so their own bucket could not be deleted after it."""
    template = synthesize({}, Deployment(rehearsal=True))["InferentiaArtifacts"]
    assert template["Resources"][LOGS]["DeletionPolicy"] == "Retain"


def test_what_endpoints_import_is_exported_even_without_endpoints(
    synthesize: Synthesize, artifacts: dict[str, Any]
) -> None:
    alone = synthesize({})["InferentiaArtifacts"]
    assert alone == artifacts
    exported = {text(output["Value"]) for output in alone["Outputs"].values() if "Export" in output}
    (key,) = resources(alone, "AWS::KMS::Key")
    assert exported == {f"${{{BUCKET}}}", f"${{{BUCKET}.Arn}}", f"${{{key}.Arn}}"}


def test_outputs_that_operations_read(artifacts: dict[str, Any]) -> None:
    (key,) = resources(artifacts, "AWS::KMS::Key")
    assert text(artifacts["Outputs"]["ArtifactBucketName"]["Value"]) == f"${{{BUCKET}}}"
    assert text(artifacts["Outputs"]["ArtifactKeyArn"]["Value"]) == f"${{{key}.Arn}}"


def test_access_logs_come_from_the_artifact_bucket_only(artifacts: dict[str, Any]) -> None:
    allowed = [
        text(statement)
        for policy in resources(artifacts, "AWS::S3::BucketPolicy").values()
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
    ]
    (statement,) = allowed
    assert statement["Principal"] == {"Service": "logging.s3.amazonaws.com"}
    assert as_list(statement["Action"]) == ["s3:PutObject"]
    assert statement["Condition"]["ArnLike"] == {"aws:SourceArn": f"${{{BUCKET}.Arn}}"}
    assert statement["Resource"] == f"${{{LOGS}.Arn}}/artifacts/*"
