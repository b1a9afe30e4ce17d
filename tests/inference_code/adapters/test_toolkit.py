"""The four functions as SageMaker's toolkit calls them, against a double of its context.

What is doubled: sagemaker_inference/transformer.py of sagemaker-pytorch-inference 2.0.25, which hands its context to
every function of one parameter more, and TorchServe's Context with its request processors and response setters.
"""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
import types
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from inference_code import handler, inference
from inference_code.errors import BadRequest
from tests.inference_code.artifacts import child_environment, depth_artifact, encoded, gradient, read_npy


class Context:
    """TorchServe's, as far as the toolkit and the handler use it."""

    def __init__(self, **headers: str) -> None:
        self.request_processor = [self]
        self._headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.status: tuple[int, str] | None = None
        self.headers: dict[str, str] = {}

    def get_request_properties(self) -> dict[str, str]:
        return self._headers

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.status = (code, phrase)

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        self.headers[key] = value


def run(served: Any, body: bytes, context: Context) -> tuple[bytes, str]:
    """The toolkit's default transform_fn; its default Accept is JSON."""
    headers = context.get_request_properties()
    accept = headers.get("Accept") or "application/json"
    work = inference.input_fn(body, headers.get("Content-Type", ""), context)
    return inference.output_fn(inference.predict_fn(work, served, context), accept, context)


@pytest.fixture
def served(tmp_path: Path) -> Any:
    return inference.model_fn(str(depth_artifact(tmp_path)), Context())


def test_each_function_takes_the_context() -> None:
    """By the number of parameters the toolkit decides whether it passes the context."""
    counts = {name: len(signature(getattr(inference, name)).parameters) for name in inference.__all__}
    assert counts == {"model_fn": 2, "input_fn": 3, "predict_fn": 3, "output_fn": 3}


def test_the_requests_headers_count(served: Any) -> None:
    context = Context(
        Content_Type="image/png",
        Accept="image/png;q=0.1, application/x-npy;q=0.5",
        X_Amzn_SageMaker_Custom_Attributes="size=model",
    )
    body, kind = run(served, encoded(Image.fromarray(gradient())), context)
    assert kind == "application/x-npy"
    assert read_npy(body).shape == (28, 28)
    assert context.status is None
    assert context.headers == {"X-Amzn-SageMaker-Custom-Attributes": "rehearsal=true"}


def test_the_toolkits_default_accept_does_not_replace_the_tasks(served: Any) -> None:
    _, kind = run(served, encoded(Image.fromarray(gradient())), Context(Content_Type="image/png"))
    assert kind == "application/x-npy"


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"x", {"Content_Type": "text/plain"}, (415, "Unsupported Media Type")),
        (b"x", {"Content_Type": "image/png"}, (400, "Bad Request")),
        (b"x", {"Content_Type": "image/png", "Accept": "a/b"}, (406, "Not Acceptable")),
    ],
)
def test_errors_are_json_with_their_status_and_nothing_is_raised(
    served: Any, body: bytes, headers: dict[str, str], status: tuple[int, str]
) -> None:
    context = Context(**headers)
    answer, kind = run(served, body, context)
    assert context.status == status
    assert kind == "application/json"
    assert json.loads(answer).keys() == {"error", "detail"}


def test_where_the_toolkit_is_installed_errors_are_of_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that an error that a caller raises past the context still keeps its status."""

    class BaseInferenceToolkitError(Exception):
        def __init__(self, status_code: int, message: str, phrase: str) -> None:
            self.status_code, self.message, self.phrase = status_code, message, phrase

    module = types.ModuleType("sagemaker_inference.errors")
    module.BaseInferenceToolkitError = BaseInferenceToolkitError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sagemaker_inference", types.ModuleType("sagemaker_inference"))
    monkeypatch.setitem(sys.modules, "sagemaker_inference.errors", module)
    monkeypatch.delitem(sys.modules, "inference_code.errors")
    errors = importlib.import_module("inference_code.errors")
    monkeypatch.setattr(sys.modules["inference_code"], "errors", sys.modules["inference_code.errors"])
    error = errors.TooLarge("much too large")
    assert isinstance(error, BaseInferenceToolkitError)
    assert (error.status_code, json.loads(error.message)["error"], str(error)) == (413, "too_large", "much too large")


def test_elsewhere_they_are_plain_exceptions() -> None:
    assert BadRequest.__mro__[2] is Exception


def test_a_model_that_cannot_load_is_one_line_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(handler.LoadError):
        inference.model_fn(str(tmp_path), Context())
    error = capsys.readouterr().err
    assert error.startswith("The model cannot be served: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=b", "Application/X-WWW-Form-Urlencoded"])
def test_a_body_that_torchserve_parses_is_refused(served: Any, kind: str) -> None:
    context = Context(Content_Type=kind)
    body, _ = inference.output_fn(inference.predict_fn(inference.input_fn(None, kind, context), served), "", context)
    assert context.status == (415, "Unsupported Media Type")
    assert "JSON list" in json.loads(body)["detail"]


@pytest.mark.parametrize("name", ["input_fn", "predict_fn", "output_fn"])
def test_no_exception_leaves_a_function(served: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toolkit would answer it with its traceback."""
    real, failures = getattr(handler, name), iter([MemoryError("no memory"), None])

    def failing(*arguments: Any) -> Any:
        error = next(failures, None)
        if error is not None:
            raise error
        return real(*arguments)

    monkeypatch.setattr(handler, name, failing)
    context = Context(Content_Type="image/png")
    answer, kind = run(served, encoded(Image.fromarray(gradient())), context)
    assert (context.status, kind) == ((500, "Internal Server Error"), "application/json")
    assert json.loads(answer) == {"error": "internal_error", "detail": "MemoryError; the worker's log has the details"}


def test_bodies_come_as_bytes_under_the_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("sagemaker_inference.content_types")
    module.UTF8_TYPES = ["application/json", "text/csv"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sagemaker_inference", types.ModuleType("sagemaker_inference"))
    monkeypatch.setitem(sys.modules, "sagemaker_inference.content_types", module)
    inference.model_fn(str(depth_artifact(tmp_path)), Context())
    assert module.UTF8_TYPES == []


# A parent whose command line names TorchServe's class, as Java's does; each artifact is loaded by a worker, in turn.
SERVER = """
import subprocess, sys
worker = "import sys; from inference_code import inference; inference.model_fn(sys.argv[1])"
name, *artifacts = sys.argv[1:]
for artifact in artifacts:
    print(subprocess.run([sys.executable, "-c", worker, artifact], stderr=subprocess.DEVNULL).returncode, flush=True)
"""


def serve(name: str, *artifacts: Path) -> tuple[int, list[str]]:
    """How such a parent ended, and its workers."""
    command = [sys.executable, "-c", SERVER, name, *map(str, artifacts)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=child_environment())
    return ended.returncode, ended.stdout.split()


def test_the_first_worker_that_cannot_load_ends_torchserve_and_a_later_one_does_not(tmp_path: Path) -> None:
    good = depth_artifact(tmp_path / "good")
    assert serve("org.pytorch.serve.ModelServer", tmp_path) == (-signal.SIGTERM, [])
    assert serve("org.pytorch.serve.ModelServer", good, tmp_path) == (0, ["0", "1"])


def test_only_torchserve_is_ended(tmp_path: Path) -> None:
    assert serve("org.example.ModelServer", tmp_path) == (0, ["1"])
