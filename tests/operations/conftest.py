"""A small project with a lock and an artifact, and an S3 and CloudFormation on loopback to publish to."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.loaders import JSONFileLoader
from moto.core import config as moto_config
from moto.server import ThreadedMotoServer

import endpoint_spec as specs
from endpoint_spec.digests import build_digest, handler_digest
from endpoint_spec.lock import artifact_key
from tests.operations.machines import BUCKET

SPEC = 'name: depth\nmodel: {family: depth_anything_v2, variant: vits, weights: "random:0"}\n'
TEMPLATE = {
    "Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": BUCKET}}},
    "Outputs": {"ArtifactBucketName": {"Value": {"Ref": "Bucket"}}},
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with endpoints/depth.yaml, its rehearsal artifact and lock."""
    (tmp_path / "endpoints").mkdir()
    (tmp_path / "endpoints" / "depth.yaml").write_text(SPEC)
    write_lock(tmp_path, rehearsal=True)
    return tmp_path


def write_lock(root: Path, *, rehearsal: bool, spec_name: str = "depth", **changes: Any) -> Path:
    """Write an artifact of a few bytes and the lock that names it."""
    spec = specs.load(root / "endpoints" / f"{spec_name}.yaml", root=root)
    artifact = specs.lock.artifact_path(spec, rehearsal)
    artifact.parent.mkdir(parents=True, exist_ok=True)
    artifact.write_bytes(b"a tarball, as far as S3 can tell" * 100)
    digest = hashlib.sha256(artifact.read_bytes()).hexdigest()
    tensor = {"name": "x", "shape": [1], "dtype": "float32"}
    lock = {
        "format": 1,
        "name": spec_name,
        "rehearsal": rehearsal,
        "target": "inf1",
        "digests": {"build": build_digest(spec), "handler": handler_digest(spec), "artifact": digest},
        "artifact": {"key": artifact_key(spec_name, digest), "bytes": artifact.stat().st_size},
        "manifest_sha256": "0" * 64,
        "versions": {"torch": "1.13.1"},
        "task": {"name": "depth-estimation"},
        "weights": {"source": "random:0"},
        "graphs": [
            {"role": "main", "batch_size": 1, "file": "graphs/main.pt", "inputs": [tensor], "outputs": [tensor]}
        ],
        "parity": {"inputs": 5, "error": 0.0, "bound": 1e-6, "maximum": 1.0},
        **changes,
    }
    path = specs.lock.lock_path(spec, rehearsal)
    path.write_text(json.dumps(lock))
    return path


@pytest.fixture(autouse=True, scope="session")
def _read_once() -> Iterator[None]:
    """Each test has a boto3 session of its own, as a command has; the SDK's descriptions of services are read once."""
    read = functools.cache(JSONFileLoader().load_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: read(path))
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """One moto for all tests of this folder, on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield f"http://localhost:{server.get_host_and_port()[1]}"
    server.stop()


@pytest.fixture
def aws(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty account on loopback, in boto3's environment; its state machines run."""
    monkeypatch.setitem(moto_config.default_user_config["stepfunctions"], "execute_state_machine", True)
    for key in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(key, raising=False)
    for key, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(key, value)
    yield server
    requests.post(f"{server}/moto-api/reset", timeout=10).raise_for_status()


@pytest.fixture
def bucket(aws: str) -> str:
    """The artifacts stack, deployed."""
    boto3.client("cloudformation").create_stack(StackName="InferentiaArtifacts", TemplateBody=json.dumps(TEMPLATE))
    boto3.client("s3").put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    return BUCKET


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Call the command line as a user would: exit code, standard output, standard error."""
    from operations import __main__ as cli  # noqa: PLC0415

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["operations", *arguments])
        monkeypatch.setattr(cli.console, "_width", 1000, raising=False)
        try:
            code = cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(autouse=True)
def no_cache() -> Iterator[None]:
    """Each test starts with boto3's default session unset, so that its environment counts."""
    boto3.DEFAULT_SESSION = None
    yield
    boto3.DEFAULT_SESSION = None
