"""The smoke test's comparison: what passes, what fails, and in which words."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError

from endpoint_spec import built_images, derive, platforms
from endpoint_spec.lock import SampleAnswer
from operations import locked as locking
from operations.errors import OperationError
from operations.smoke import compare, explain_model_error, require_deployed, smoke
from tests.cdk.projects import DIGEST, IMAGES
from tests.operations.conftest import write_lock

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)
EXPECTED = SampleAnswer(
    content_type="application/x-npy",
    shape=[3, 4],
    dtype="float32",
    positions=[0, 5, 11],
    values=[0.0, 5.0, 11.0],
    tolerance=1e-3,
)


def npy(array: np.ndarray) -> bytes:
    """An array as .npy bytes."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_equal_answers_have_no_error() -> None:
    assert compare(npy(VALUES), "application/x-npy", EXPECTED) == (3, 0.0)


def test_the_largest_difference_counts() -> None:
    changed = VALUES.copy()
    changed[1, 1] += 0.25
    assert compare(npy(changed), "application/x-npy", EXPECTED) == (3, 0.25)


def test_a_nan_is_never_right() -> None:
    changed = VALUES.copy()
    changed[0, 0] = np.nan
    assert compare(npy(changed), "application/x-npy", EXPECTED)[1] == np.inf


@pytest.mark.parametrize("other", [VALUES.T, VALUES.astype(np.float64)])
def test_another_shape_or_dtype_fails(other: np.ndarray) -> None:
    with pytest.raises(OperationError, match=r"the build's was float32\[3, 4\]"):
        compare(npy(other), "application/x-npy", EXPECTED)


def test_a_pickle_is_not_opened() -> None:
    body = io.BytesIO()
    np.save(body, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(OperationError, match="not a readable"):
        compare(body.getvalue(), "application/x-npy", EXPECTED)


def test_another_content_type_fails() -> None:
    with pytest.raises(OperationError, match="text/html"):
        compare(npy(VALUES), "text/html", EXPECTED)


def json_answer(value: Any) -> SampleAnswer:
    """An expected JSON answer."""
    return SampleAnswer(content_type="application/json", json=value, tolerance=0.01)


@pytest.mark.parametrize(
    ("found", "numbers", "error"),
    [({"label": "cat", "scores": [0.5, 0.25]}, 2, 0.0), ({"label": "cat", "scores": [0.5, 0.75]}, 2, 0.5)],
)
def test_json_numbers_are_compared(found: Any, numbers: int, error: float) -> None:
    expected = json_answer({"label": "cat", "scores": [0.5, 0.25]})
    assert compare(json.dumps(found).encode(), "application/json; charset=utf-8", expected) == (numbers, error)


@pytest.mark.parametrize(
    ("found", "where"),
    [
        ({"label": "dog", "scores": [0.5]}, r"answer\.label is 'dog'"),
        ({"label": "cat"}, "answer has other keys"),
        ({"label": "cat", "scores": [0.5, 1]}, r"answer\.scores is not a list of 1"),
        ({"label": "cat", "scores": ["0.5"]}, r"answer\.scores\[0\] is '0.5'"),
        ({"label": "cat", "scores": [True]}, r"answer\.scores\[0\] is True"),
    ],
)
def test_json_of_another_form_names_the_place(found: Any, where: str) -> None:
    with pytest.raises(OperationError, match=where):
        compare(json.dumps(found).encode(), "application/json", json_answer({"label": "cat", "scores": [0.5]}))


def test_the_containers_own_words_are_shown() -> None:
    error = ClientError(
        {"Error": {"Code": "ModelError", "Message": "m"}, "OriginalStatusCode": 415, "OriginalMessage": "no text"},  # type: ignore[typeddict-unknown-key]
        "InvokeEndpoint",
    )
    assert explain_model_error("depth", error).endswith("the container answered 415: no text")


def test_a_lock_without_sample_says_so(project: Path, aws: str, run: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = run("smoke", "depth", "--rehearsal", "--root", str(project))
    assert code == 1
    assert "holds no sample" in err


class Runtime:
    """Answers as an endpoint would; one that mixes items adds to the sample what a neighbour sent before."""

    def __init__(self, *, mixes: bool) -> None:
        self.mixes, self.bodies = mixes, []  # type: ignore[var-annotated]

    def invoke_endpoint(self, **request: Any) -> dict[str, Any]:
        self.bodies.append(request["Body"])
        moved = 0.5 if self.mixes and b"another" in self.bodies else 0.0
        return {"Body": io.BytesIO(npy(VALUES + moved)), "ContentType": "application/x-npy"}


def deployed(locked: locking.Locked, endpoint: Any = None, runtime: Any = None, **changes: Any) -> Any:
    """An account in which the endpoint is what spec and lock say, but for changes of its container."""
    image = platforms.image("inf1", "native")
    container = {
        "Image": f"1.dkr.ecr.us-east-1.amazonaws.com/{image.repository}:{image.tag}",
        "ModelDataUrl": f"s3://artifacts/{locked.lock.artifact.key}",
        "Environment": derive.worker_environment(locked.spec, locked.lock)
        | derive.neuron_monitor_environment(locked.spec, "us-east-1"),
        **changes,
    }
    description = {"EndpointStatus": "InService", "EndpointConfigName": "one", **(endpoint or {})}
    sagemaker = SimpleNamespace(
        meta=SimpleNamespace(region_name="us-east-1"),
        describe_endpoint=lambda **_: description,
        describe_endpoint_config=lambda **_: {"ProductionVariants": [{"ModelName": "model"}]},
        describe_model=lambda **_: {"PrimaryContainer": container},
    )
    return SimpleNamespace(runtime=runtime, sagemaker=sagemaker, guard=lambda **_: None, artifact_bucket="artifacts")


def test_an_endpoint_that_serves_something_else_is_not_asked(project: Path) -> None:
    locked = locking.load("depth", project, rehearsal=True)
    require_deployed(locked, deployed(locked))
    other = deployed(locked, ModelDataUrl="s3://artifacts/models/depth/0/model.tar.gz", Image="1.dkr/other:1")
    with pytest.raises(OperationError) as caught:
        require_deployed(locked, other)
    assert (
        f"ModelDataUrl is s3://artifacts/models/depth/0/model.tar.gz, not s3://artifacts/{locked.lock.artifact.key}"
        in (text := str(caught.value))
    )
    assert "Image is /other:1, not /" in text
    with pytest.raises(OperationError, match=r"Environment\.ENDPOINT_SERVER is not there, not native"):
        require_deployed(locked, deployed(locked, Environment={}))


def test_an_image_of_your_own_registry_is_compared_by_digest(project: Path) -> None:
    write_lock(project, rehearsal=False)
    locked = locking.load("depth", project, rehearsal=False)
    with pytest.raises(OperationError, match="has no image inferentia-endpoints/inf1-native:"):
        require_deployed(locked, deployed(locked))
    (project / built_images.FILE).write_text(built_images.text(IMAGES))
    with pytest.raises(OperationError, match=f"not /inferentia-endpoints/inf1-native@{DIGEST}"):
        require_deployed(locked, deployed(locked))  # by tag
    registry = "111122223333.dkr.ecr.eu-west-1.amazonaws.com"
    image = f"{registry}/inferentia-endpoints/inf1-native@{DIGEST}"
    require_deployed(locked, deployed(locked, Image=image))


def test_an_update_that_was_taken_back_in_silence_is_told(project: Path) -> None:
    locked = locking.load("depth", project, rehearsal=True)
    with pytest.raises(OperationError, match=r"InService with one, the configuration before .* took back: no ping"):
        require_deployed(locked, deployed(locked, {"FailureReason": "no ping"}))
    require_deployed(locked, deployed(locked, {"EndpointStatus": "Updating"}, Image="1.dkr/other:1"))


@pytest.mark.parametrize("mixes", [False, True])
def test_an_endpoint_that_batches_is_asked_beside_another_request(project: Path, mixes: bool) -> None:
    request = {"content_type": "text/csv", "accept": "application/x-npy"}
    bodies = {"body": base64.b64encode(b"one").decode(), "neighbour": base64.b64encode(b"another").decode()}
    sample = {"request": {**request, **bodies}, "answer": EXPECTED.model_dump(mode="json", by_alias=True)}
    tensor = {"name": "x", "shape": [4, 1], "dtype": "float32"}
    graph = {"role": "main", "batch_size": 4, "file": "graphs/main.pt", "inputs": [tensor], "outputs": [tensor]}
    write_lock(project, rehearsal=True, sample=sample, graphs=[graph])
    runtime = Runtime(mixes=mixes)
    locked = locking.load("depth", project, rehearsal=True)
    result = smoke(locked, deployed(locked, runtime=runtime))
    assert (result.passed, result.error, result.beside) == (not mixes, 0.5 if mixes else 0.0, 4)
    assert runtime.bodies.count(b"another") == 4
