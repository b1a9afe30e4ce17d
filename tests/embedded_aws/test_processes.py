"""An endpoint whose spec says `processes: 2`, by boto3: both serve, one may be killed, none is left behind."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from endpoint_spec import load
from endpoint_spec.derive import worker_environment
from inference_code.artifact.manifest import FILE_NAME, file_sha256
from tests.embedded_aws.helpers import Hosting, alive
from tests.embedded_aws.packing import packed
from tests.embedded_aws.running import wait_for
from tests.endpoint_spec.projects import SMALL, a_lock, fill

BODY, KIND = b'{"x": [1, 2, 3]}', "application/json"


def environment(folder: Path, artifact: Path) -> dict[str, str]:
    """What the stack would give the container for an artifact that was packed there."""
    path = fill(folder) / "endpoints" / "depth.yaml"
    path.write_text(SMALL + "serve: {server: native, processes: 2}\n")
    spec = load(path)
    return worker_environment(spec, a_lock(spec, manifest_sha256=file_sha256(artifact / FILE_NAME)))


def config(hosting: Hosting, content: bytes, environment: dict[str, str]) -> str:
    """Publish an artifact; a model with this environment, and its configuration."""
    hosting.s3.put_object(Bucket=hosting.name, Key="model.tar.gz", Body=content)
    container = {"Image": "image", "ModelDataUrl": f"s3://{hosting.name}/model.tar.gz", "Environment": environment}
    role = "arn:aws:iam::123456789012:role/any"
    hosting.sagemaker.create_model(ModelName=hosting.name, PrimaryContainer=container, ExecutionRoleArn=role)
    variant = {"VariantName": "main", "ModelName": hosting.name, "InstanceType": "ml.inf1.2xlarge"}
    hosting.sagemaker.create_endpoint_config(
        EndpointConfigName=hosting.name, ProductionVariants=[{**variant, "InitialInstanceCount": 1}]
    )
    return hosting.name


def test_two_processes_serve_one_endpoint(hosting: Hosting, tmp_path: Path) -> None:
    content = packed(tmp_path / "one", "one")
    given = environment(tmp_path / "project", tmp_path / "one")
    assert (given["ENDPOINT_PROCESSES"], given["NEURON_RT_NUM_CORES"]) == ("2", "4")
    described = hosting.up(config(hosting, content, given))
    assert described["EndpointStatus"] == "InService", described

    def ask(_: int) -> Any:
        try:
            return hosting.invoke(BODY, ContentType=KIND)["doubled"]
        except ClientError as error:
            return error

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in hosting.logs().splitlines() if line.startswith('{"event": "request"')]

    servers = [one.pid for one in hosting.aws.workers() if "--worker-context" in one.cmdline()]
    assert len(servers) == 2
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(20))) == [[2, 4, 6]] * 20
        wait_for(lambda: len(lines()) == 20, "the requests' lines are in CloudWatch Logs")
        os.kill(servers[0], signal.SIGKILL)
        answers = list(pool.map(ask, range(40)))
    assert {line["process"] for line in lines()} == {0, 1}
    failed = [answer for answer in answers if answer != [2, 4, 6]]
    assert len(failed) <= 4, failed  # no more than were inside
    wait_for(lambda: " of the server was ended by signal 9" in hosting.logs(), "the parent says so")

    left = [one.pid for one in hosting.aws.workers() if "inference_code.server" in one.cmdline()]
    hosting.sagemaker.delete_endpoint(EndpointName=hosting.name)
    assert not any(alive(pid) for pid in left)


def test_processes_that_cannot_share_the_cores_fail_the_endpoint_with_one_reason(
    hosting: Hosting, tmp_path: Path
) -> None:
    content = packed(tmp_path / "one", "one")
    given = environment(tmp_path / "project", tmp_path / "one") | {"ENDPOINT_PROCESSES": "3"}
    described = hosting.up(config(hosting, content, given))
    assert described["EndpointStatus"] == "Failed"
    reason = "3 processes cannot share ENDPOINT_WORKERS, 4: 1, 2, 4 can; change serve.processes"
    assert reason in described["FailureReason"] or reason in hosting.logs()


@pytest.mark.parametrize("server", ["native", pytest.param("torchserve", marks=pytest.mark.slow)])
def test_an_artifact_replaced_with_its_manifest_does_not_serve(hosting: Hosting, tmp_path: Path, server: str) -> None:
    """The native image compares it with the lock before any code of it runs; elsewhere the artifact's own code does."""
    packed(tmp_path / "proven", "proven")
    given = environment(tmp_path / "project", tmp_path / "proven") | {"ENDPOINT_SERVER": server}
    described = hosting.up(config(hosting, packed(tmp_path / "other", "other"), given))
    assert described["EndpointStatus"] == "Failed"
    wait_for(lambda: "another artifact" in hosting.logs(), "the log says why")
    assert ("is refused: manifest.json" in hosting.logs()) is (server == "native")
