"""Publishing: by digest, only what is locked, a rehearsal only to loopback."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig

from operations import publish as publishing
from operations.account import Account, translate_aws_errors
from operations.errors import OperationError
from tests.operations.conftest import write_lock

Run = Callable[..., tuple[int, str, str]]


def keys(bucket: str) -> list[str]:
    """Every key in a bucket."""
    return [row["Key"] for row in boto3.client("s3").list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_the_artifact_lies_under_its_digest(project: Path, bucket: str, run: Run) -> None:
    code, out, _ = run("publish", "depth", "--rehearsal", "--json", "--root", str(project))
    assert code == 0
    record = json.loads(out)
    lock = json.loads((project / "build/rehearsal/depth.lock.json").read_text())
    assert record["key"] == f"models/depth/{lock['digests']['artifact']}/model.tar.gz"
    assert record["uploaded"] is True
    stored = boto3.client("s3").get_object(Bucket=bucket, Key=record["key"])["Body"].read()
    assert stored == (project / "build/rehearsal/depth/model.tar.gz").read_bytes()


def test_publishing_twice_uploads_once(project: Path, bucket: str, run: Run) -> None:
    run("publish", "depth", "--rehearsal", "--root", str(project))
    code, out, _ = run("publish", "depth", "--rehearsal", "--json", "--root", str(project))
    assert (code, json.loads(out)["uploaded"]) == (0, False)
    versions = boto3.client("s3").list_object_versions(Bucket=bucket)["Versions"]
    assert len(versions) == 1


def test_a_changed_artifact_is_refused_with_both_digests(project: Path, bucket: str, run: Run) -> None:
    (project / "build/rehearsal/depth/model.tar.gz").write_bytes(b"something else")
    code, _, err = run("publish", "depth", "--rehearsal", "--root", str(project))
    lock = json.loads((project / "build/rehearsal/depth.lock.json").read_text())
    assert code == 1
    assert lock["digests"]["artifact"] in err
    assert "inferentia build depth --rehearse" in err
    assert keys(bucket) == []


def test_a_missing_artifact_names_the_command(project: Path, bucket: str, run: Run) -> None:
    (project / "build/rehearsal/depth/model.tar.gz").unlink()
    code, _, err = run("publish", "depth", "--rehearsal", "--root", str(project))
    assert code == 1
    assert "inferentia build depth --rehearse" in err


def test_another_object_under_the_key_is_not_overwritten(project: Path, bucket: str, run: Run) -> None:
    lock = json.loads((project / "build/rehearsal/depth.lock.json").read_text())
    size = (project / "build/rehearsal/depth/model.tar.gz").stat().st_size
    boto3.client("s3").put_object(Bucket=bucket, Key=lock["artifact"]["key"], Body=b"x" * size)
    code, _, err = run("publish", "depth", "--rehearsal", "--root", str(project))
    assert code == 1
    assert "holds another object than the lock's: its sha256 is" in err
    assert len(boto3.client("s3").list_object_versions(Bucket=bucket)["Versions"]) == 1


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("theirs", ["the same", "another"])
def test_what_somebody_else_published_meanwhile_is_compared(
    project: Path, bucket: str, run: Run, monkeypatch: pytest.MonkeyPatch, parts: bool, theirs: str
) -> None:
    """S3 answers 412 to If-None-Match: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html"""
    path = project / "build/rehearsal/depth/model.tar.gz"
    if parts:
        monkeypatch.setattr(publishing, "TRANSFER", TransferConfig(multipart_threshold=1, use_threads=False))
    looked = publishing.stored_sha256

    def look(account: Account, bucket: str, key: str) -> str | None:
        found = looked(account, bucket, key)
        if found is None:
            boto3.client("s3").put_object(
                Bucket=bucket, Key=key, Body=path.read_bytes() if theirs == "the same" else b""
            )
        return found

    monkeypatch.setattr(publishing, "stored_sha256", look)
    code, out, err = run("publish", "depth", "--rehearsal", "--json", "--root", str(project))
    assert len(boto3.client("s3").list_object_versions(Bucket=bucket)["Versions"]) == 1
    if theirs == "the same":
        assert (code, json.loads(out)["uploaded"]) == (0, False)
    else:
        assert (code, "holds another object" in err) == (1, True)


def test_what_s3_knows_the_digest_of_is_not_read() -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html: ChecksumType, ChecksumSHA256"""
    digest = hashlib.sha256(b"model")
    checksum = base64.b64encode(digest.digest()).decode()
    head = {"ChecksumType": "FULL_OBJECT", "ChecksumSHA256": checksum}
    account: Any = SimpleNamespace(s3=SimpleNamespace(head_object=lambda **_: head))
    assert publishing.stored_sha256(account, "bucket", "key") == digest.hexdigest()


def test_an_upload_in_parts_is_read_to_be_compared(
    project: Path, bucket: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "TRANSFER", TransferConfig(multipart_threshold=1))
    for uploaded in (True, False):
        code, out, _ = run("publish", "depth", "--rehearsal", "--json", "--root", str(project))
        assert (code, json.loads(out)["uploaded"]) == (0, uploaded)


def test_a_stale_lock_is_refused(project: Path, bucket: str, run: Run) -> None:
    spec = project / "endpoints/depth.yaml"
    spec.write_text(spec.read_text().replace("random:0", "random:1"))
    code, _, err = run("publish", "depth", "--rehearsal", "--root", str(project))
    assert code == 1
    assert "stale" in err
    assert keys(bucket) == []


def test_a_missing_lock_names_the_command(project: Path, aws: str, run: Run) -> None:
    code, _, err = run("publish", "depth", "--root", str(project))
    assert code == 1
    assert "inferentia build depth" in err
    assert "--rehearse" not in err


def test_an_unknown_endpoint_is_wrong_use(project: Path, aws: str, run: Run) -> None:
    code, _, err = run("publish", "deep", "--root", str(project))
    assert code == 2
    assert "depth" in err


def test_a_path_is_no_name(project: Path, aws: str, run: Run) -> None:
    (project / "zoo").mkdir()
    (project / "zoo/depth.yaml").write_text((project / "endpoints/depth.yaml").read_text())
    for command in ("publish", "fetch-weights", "smoke"):
        code, _, err = run(command, "../zoo/depth", "--root", str(project))
        assert code == 2
        assert "no endpoint '../zoo/depth'" in err


def test_without_the_stack_the_command_that_helps(project: Path, aws: str, run: Run) -> None:
    code, _, err = run("publish", "depth", "--rehearsal", "--root", str(project))
    assert code == 1
    assert "cdk deploy InferentiaArtifacts" in err


def test_a_rehearsal_never_leaves_the_machine(
    project: Path, aws: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    code, _, err = run("publish", "depth", "--rehearsal", "--root", str(project))
    assert code == 1
    assert "rehearsal" in err
    assert "amazonaws.com" in err


def test_one_service_pointed_elsewhere_is_enough_to_refuse(
    project: Path, bucket: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3.example.invalid")
    code, _, err = run("publish", "depth", "--rehearsal", "--root", str(project))
    assert code == 1
    assert "s3.example.invalid" in err


def test_an_artifact_of_a_stand_in_never_leaves_the_machine(
    project: Path, aws: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lock(project, rehearsal=True, stand_in=True)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    code, _, err = run("publish", "depth", "--rehearsal", "--root", str(project))
    assert code == 1
    assert "refused" in err


@pytest.mark.parametrize("url", ["http://[bad", "localhost:4566", "nonsense"])
def test_an_endpoint_that_is_no_address_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
    with pytest.raises(OperationError, match=r"AWS_ENDPOINT_URL_S3=.* is no address"), translate_aws_errors():
        pytest.fail("nothing may be tried")
