"""Weights from S3: checked before they count, nothing half-downloaded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import boto3

Run = Callable[..., tuple[int, str, str]]
BODY = b"weights" * 1000
DIGEST = hashlib.sha256(BODY).hexdigest()


def spec_with(project: Path, weights: str) -> None:
    """Point the spec at other weights."""
    (project / "endpoints/depth.yaml").write_text(
        f"name: depth\nmodel: {{family: depth_anything_v2, variant: vits, weights: {weights}}}\n"
    )


def test_the_right_object_is_kept_under_its_digest(project: Path, bucket: str, run: Run) -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key="w/depth.safetensors", Body=BODY)
    spec_with(project, f'{{s3: "s3://{bucket}/w/depth.safetensors", sha256: {DIGEST}}}')
    assert run("fetch-weights", "depth", "--root", str(project))[0] == 0
    assert (project / "build/weights" / DIGEST).read_bytes() == BODY


def test_another_object_is_refused_and_leaves_nothing(project: Path, bucket: str, run: Run) -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key="w/depth.safetensors", Body=b"other")
    spec_with(project, f'{{s3: "s3://{bucket}/w/depth.safetensors", sha256: {DIGEST}}}')
    code, _, err = run("fetch-weights", "depth", "--root", str(project))
    assert code == 1
    assert DIGEST in err
    assert hashlib.sha256(b"other").hexdigest() in err
    assert list((project / "build/weights").iterdir()) == []


def test_weights_that_are_not_on_s3_are_wrong_use(project: Path, aws: str, run: Run) -> None:
    code, _, err = run("fetch-weights", "depth", "--root", str(project))
    assert code == 2
    assert "not an s3" in err
