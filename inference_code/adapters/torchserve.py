"""The four functions as TorchServe and SageMaker's toolkit need them.

A model that cannot be loaded ends the server. TorchServe answers /ping with 200 as soon as its workers' processes run,
and starts one that could not load the model again and again, /ping going up and down meanwhile; SageMaker takes the
first 200 for a healthy container (https://github.com/aws/deep-learning-containers/issues/2917). So the first worker
that cannot load the model ends the server: /ping is not answered any more, and the log has the reason.

Once a worker has been in service this is not done: a worker that was killed may find its NeuronCores still taken, and
TorchServe's next attempt succeeds.

No exception leaves a function: the toolkit would answer it with its traceback. It also decodes JSON and CSV itself
before it calls input_fn, outside of anybody's reach, unless its list of such types is empty; then bytes arrive.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from inference_code import handler
from inference_code.codecs.multipart import MULTIPART
from inference_code.errors import EndpointError, UnsupportedMediaType, as_endpoint_error
from inference_code.handler import ModelHandler, Request, RequestItem

# TorchServe parses these bodies by itself, and the toolkit then looks for a part named "body".
_PARSED = (MULTIPART, "application/x-www-form-urlencoded")
_SERVER = b"org.pytorch.serve.ModelServer"
_log = logging.getLogger(__name__)


def model_fn(model_dir: str, context: Any = None) -> ModelHandler:
    """See handler.model_fn. Raises LoadError, after it has ended the TorchServe that this process is a worker of."""
    _bodies_as_bytes()
    server = _server()
    try:
        model = handler.model_fn(model_dir, context)
    except Exception:
        if server is not None and not _mark(server).exists():
            _log.error("the server ends: no worker of it could load the model")
            os.kill(server, signal.SIGTERM)
        raise
    if server is not None:
        _mark(server).touch()
    return model


def input_fn(body: bytes | str | None, content_type: str, context: Any = None) -> list[RequestItem]:
    """See handler.input_fn. A body that TorchServe has parsed is refused: its parts' types are lost."""
    kind = (content_type or "").split(";")[0].strip().lower()
    if kind in _PARSED:
        return _failed(
            UnsupportedMediaType(
                f"TorchServe parses {kind} before the model sees it; send several items as a JSON list or "
                "as an npy batch, or deploy with server: native"
            )
        )
    try:
        return handler.input_fn(b"" if body is None else body, content_type, context)
    except Exception as error:
        return _failed(error)


def predict_fn(items: Sequence[RequestItem], model: ModelHandler, context: Any = None) -> list[RequestItem]:
    """See handler.predict_fn."""
    try:
        return handler.predict_fn(items, model, context)
    except Exception as error:
        mistake = as_endpoint_error(error)
        return [replace(one, error=one.error or mistake) for one in items]


def output_fn(items: Sequence[RequestItem], accept: str, context: Any = None) -> tuple[bytes, str]:
    """See handler.output_fn."""
    try:
        return handler.output_fn(items, accept, context)
    except Exception as error:
        if isinstance(error, EndpointError):  # there is no context to carry the status: the toolkit reads it from here
            raise
        return handler.output_fn(_failed(error), accept, context)


def _failed(error: Exception) -> list[RequestItem]:
    return [RequestItem(Request(b""), error=as_endpoint_error(error))]


def _bodies_as_bytes() -> None:
    try:
        module = importlib.import_module("sagemaker_inference.content_types")
    except ImportError:  # not under the toolkit
        return
    module.UTF8_TYPES.clear()


def _server() -> int | None:
    """The process id of TorchServe if it started this process."""
    parent = os.getppid()
    try:
        command = Path(f"/proc/{parent}/cmdline").read_bytes()
    except OSError:
        return None
    return parent if _SERVER in command.split(b"\0") else None


def _mark(server: int) -> Path:
    """The file that says that a worker of this server has loaded the model."""
    began = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[19]  # in clock ticks since the boot
    return Path(tempfile.gettempdir()) / f"endpoint-in-service-{server}-{began}"
