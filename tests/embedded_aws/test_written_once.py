"""The artifact bucket's policy: a model is written once, by whichever request.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.embedded_aws.running import Aws

KEY = "models/depth/0/model.tar.gz"


@pytest.fixture
def s3(aws: Aws, name: str) -> Any:
    """A client of a bucket of this name with the policy of InferentiaArtifacts."""
    client = aws.client("s3")
    client.create_bucket(Bucket=name)
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    arn = f"arn:aws:s3:::{name}"
    everybody = {"Effect": "Deny", "Principal": {"AWS": "*"}}
    statements = [
        {**everybody, "Action": "s3:*", "Resource": [arn, f"{arn}/*"],
         "Condition": {"Bool": {"aws:SecureTransport": "false"}}},
        {**everybody, "Action": "s3:PutObject", "Resource": f"{arn}/models/*",
         "Condition": {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}}},
    ]  # fmt: skip
    client.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": statements}))
    return client


def put(s3: Any, bucket: str, key: str, **more: Any) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=b"model", **more)


def in_parts(s3: Any, bucket: str, key: str, **more: Any) -> None:
    upload = {"Bucket": bucket, "Key": key, "UploadId": s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]}
    part = s3.upload_part(**upload, PartNumber=1, Body=b"model")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(**upload, MultipartUpload=parts, **more)


def copy(s3: Any, bucket: str, key: str, **more: Any) -> None:
    put(s3, bucket, "jobs/other")
    s3.copy_object(Bucket=bucket, Key=key, CopySource=f"{bucket}/jobs/other", **more)


@pytest.mark.parametrize("write", [put, in_parts, copy])
def test_a_model_is_written_once(s3: Any, name: str, write: Callable[..., None]) -> None:
    def refusal(**more: Any) -> tuple[str, int]:
        with pytest.raises(ClientError) as caught:
            write(s3, name, KEY, **more)
        answer = caught.value.response
        return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]

    assert refusal() == ("AccessDenied", 403)
    write(s3, name, KEY, IfNoneMatch="*")
    assert refusal() == ("AccessDenied", 403)
    assert refusal(IfNoneMatch="*") == ("PreconditionFailed", 412)
    assert refusal(IfNoneMatch='"0"')[0] == "NotImplemented"
    assert len(s3.list_object_versions(Bucket=name, Prefix="models/")["Versions"]) == 1
    assert s3.get_object(Bucket=name, Key=KEY)["Body"].read() == b"model"
    s3.put_object_tagging(Bucket=name, Key=KEY, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})  # writes no object
    write(s3, name, "jobs/depth/0")
    write(s3, name, "jobs/depth/0")
