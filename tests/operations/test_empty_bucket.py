"""Emptying the bucket: every version and delete marker, and only when meant."""

from __future__ import annotations

import json
from collections.abc import Callable

import boto3

Run = Callable[..., tuple[int, str, str]]


def fill(bucket: str) -> None:
    """Two versions of one key, a second key, and a delete marker."""
    s3 = boto3.client("s3")
    for body in (b"one", b"two"):
        s3.put_object(Bucket=bucket, Key="models/a", Body=body)
    s3.put_object(Bucket=bucket, Key="models/b", Body=b"three")
    s3.delete_object(Bucket=bucket, Key="models/b")


def test_every_version_goes(bucket: str, run: Run) -> None:
    fill(bucket)
    code, out, _ = run("empty-bucket", "--yes", "--json")
    assert (code, json.loads(out)) == (0, {"bucket": bucket, "deleted": 4})
    left = boto3.client("s3").list_object_versions(Bucket=bucket)
    assert not left.get("Versions")
    assert not left.get("DeleteMarkers")
    boto3.client("s3").delete_bucket(Bucket=bucket)


def test_it_is_not_done_unasked(bucket: str, run: Run) -> None:
    fill(bucket)
    code, _, err = run("empty-bucket")
    assert code == 2
    assert "--yes" in err
    assert len(boto3.client("s3").list_object_versions(Bucket=bucket)["Versions"]) == 3


def test_an_empty_bucket_is_fine(bucket: str, run: Run) -> None:
    assert run("empty-bucket")[0] == 0


def test_without_the_stack_it_says_so(aws: str, run: Run) -> None:
    code, _, err = run("empty-bucket", "--yes")
    assert code == 1
    assert "InferentiaArtifacts is not deployed" in err
