"""What a caller with boto3 sees of an endpoint that is busy: the project's own server behind the embedded AWS."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import inference_code
from tests.embedded_aws.helpers import Hosting
from tests.embedded_aws.running import Aws, wait_for
from tests.inference_code.artifacts import doubling_artifact

HANDLER = """
import time
import numpy as np

def preprocess(request):
    print("began", request.body.decode(), flush=True)
    time.sleep(float(request.body))
    return np.ones(3)

def postprocess(outputs, item):
    return outputs
"""


def artifact(folder: Path) -> bytes:
    """model.tar.gz of a model whose handler sleeps as many seconds as the body says."""
    code = folder / "code"
    shutil.copytree(
        Path(inference_code.__file__).parent,
        code / "inference_code",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    doubling_artifact(folder, HANDLER)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, ".")
    return buffer.getvalue()


@pytest.fixture
def busy(aws: Aws, name: str, tmp_path: Path) -> Iterator[Hosting]:
    """An endpoint that takes one request at a time."""
    hosting = Hosting(aws, name)
    hosting.s3.put_object(Bucket=name, Key="models/one/model.tar.gz", Body=artifact(tmp_path / "model"))
    container = {
        "Image": "image",
        "ModelDataUrl": f"s3://{name}/models/one/model.tar.gz",
        "Environment": {"ENDPOINT_MAX_QUEUE": "1", "OMP_NUM_THREADS": "1"},
    }
    role = "arn:aws:iam::123456789012:role/any"
    hosting.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role)
    variant = {"VariantName": "main", "ModelName": name, "InstanceType": "ml.inf1.xlarge", "InitialInstanceCount": 1}
    hosting.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    assert hosting.up(name)["EndpointStatus"] == "InService"
    yield hosting
    hosting.sagemaker.delete_endpoint(EndpointName=name)


def patiently(runtime: Any, name: str, body: bytes, *, attempts: int, pause: float) -> Any:
    """The way that docs/invoking.md shows: try again after a 503, with longer and longer pauses."""
    for attempt in range(attempts):
        try:
            answer = runtime.invoke_endpoint(EndpointName=name, ContentType="text/plain", Body=body)
            return json.loads(answer["Body"].read())
        except runtime.exceptions.ModelError as error:
            if error.response["OriginalStatusCode"] != 503 or attempt == attempts - 1:
                raise
            time.sleep(pause * 2**attempt)
    raise AssertionError("no attempt was made")


def test_a_full_endpoint_is_a_model_error_with_503_inside(busy: Hosting) -> None:
    runtime = busy.runtime
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(runtime.invoke_endpoint, EndpointName=busy.name, ContentType="text/plain", Body=b"5")
        wait_for(lambda: "began 5" in busy.logs(), "the first request is inside")
        with pytest.raises(runtime.exceptions.ModelError) as caught:
            runtime.invoke_endpoint(EndpointName=busy.name, ContentType="text/plain", Body=b"0")
        response = caught.value.response
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
        assert response["OriginalStatusCode"] == 503
        said = json.loads(response["OriginalMessage"])
        assert said["error"] == "unavailable"
        assert "limit of" in said["detail"]
        assert "retry-after" not in response["ResponseMetadata"]["HTTPHeaders"]
        assert response["ResponseMetadata"]["RetryAttempts"] == 0  # botocore does not try again by itself
        assert not first.done()
        assert patiently(runtime, busy.name, b"0", attempts=8, pause=0.1) == [2, 2, 2]
        assert json.loads(first.result()["Body"].read()) == [2, 2, 2]
    with pytest.raises(ClientError) as other:  # a fault of the caller is not tried again
        patiently(runtime, busy.name, b"no number", attempts=3, pause=0.01)
    assert other.value.response["OriginalStatusCode"] == 400
    wait_for(lambda: busy.logs().count("began no number") == 1, "it has arrived once")
