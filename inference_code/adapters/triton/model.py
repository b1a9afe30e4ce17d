"""The model of Triton's python backend: the handler, the pipeline and the scheduler of the native server.

Input `body` (TYPE_UINT8, one axis) is what would be POSTed to /invocations; its media type, Accept and the custom
attributes are parameters of the request (content_type, accept, custom_attributes). Where there are none, as in a raw
body by SageMaker's frontend, the first bytes decide. Outputs are the answer's `body` and its `content_type`; an error
is a Triton error, `error: detail`.

`execute` only starts the requests: their answers are sent as they become ready, so that requests of several calls share
batches and all cores are used.
"""

from __future__ import annotations

import importlib
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inference_code.codecs.json_text import JSON
from inference_code.codecs.npy import NPY, NPZ
from inference_code.codecs.responses import Reply
from inference_code.errors import Unavailable
from inference_code.handler import ModelHandler, load
from inference_code.request import CUSTOM_ATTRIBUTES
from inference_code.server.pipeline import Pipeline
from inference_code.server.server_request import ServerRequest
from inference_code.settings import Settings

_STARTS = (
    (b"\x93NUMPY", NPY), (b"PK\3\4", NPZ), (b"\x89PNG", "image/png"), (b"\xff\xd8", "image/jpeg"),
    (b"RIFF", "image/webp"),
)  # fmt: skip
# Our statuses in Triton's words, of which its HTTP frontends make 400, 404, 503 and 500 again. Every fault of the
# caller's is INVALID_ARG: UNSUPPORTED would become 501, a fault of the server's.
_CODES = {404: "NOT_FOUND", 503: "UNAVAILABLE"}


def media_type(body: bytes) -> str:
    """What a body is that came without a type: JSON unless its first bytes say otherwise."""
    return next((kind for start, kind in _STARTS if body.startswith(start)), JSON)


class TritonPythonModel:
    """See the top of this file."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the artifact beside model.py. Raises LoadError, which Triton reports; the model is then not ready."""
        self._triton = importlib.import_module("triton_python_backend_utils")
        settings = Settings.from_environment()
        folder = Path(args["model_repository"]) / args["model_version"] / "artifact"
        self._settings = settings
        self._handler = ModelHandler(load(folder, settings))
        self._pipeline = Pipeline(self._handler, settings)
        self._in_progress = 0
        self._lock = threading.Lock()

    def execute(self, requests: Sequence[Any]) -> None:
        """Start the requests; each is answered through its own response sender."""
        for request in requests:
            sender = request.get_response_sender()
            with self._lock:
                full = self._in_progress >= self._settings.max_queue
                self._in_progress += 1
            if full:
                limit = self._settings.max_queue
                busy = Unavailable(f"server is at its limit of {limit} concurrent requests; retry")
                self._respond(sender, self._handler.error_reply(busy))
            else:
                self._pipeline.start(self._server_request(request, sender))

    def finalize(self) -> None:
        """Finish what is in progress."""
        self._pipeline.close(self._settings.drain_s)

    def _server_request(self, request: Any, sender: Any) -> ServerRequest:
        parameters = json.loads(request.parameters() or "{}")
        body = self._triton.get_input_tensor_by_name(request, "body").as_numpy().tobytes()
        names = {"accept": "accept", "custom_attributes": CUSTOM_ATTRIBUTES.lower()}
        headers = {header: str(parameters[name]) for name, header in names.items() if name in parameters}
        headers["content-type"] = str(parameters.get("content_type") or media_type(body))
        return ServerRequest(
            headers,
            body=body,
            respond=lambda reply: self._respond(sender, reply),
            deadline=time.monotonic() + self._settings.deadline_s,
            request_id=request.request_id() or "-",
        )

    def _respond(self, sender: Any, reply: Reply) -> None:
        """Send the one response, from whichever thread."""
        with self._lock:
            self._in_progress -= 1
        if reply.status == 200:
            outputs = {
                "body": np.frombuffer(reply.body, np.uint8),
                "content_type": np.array([reply.content_type.encode()], np.object_),
            }
            tensors = [self._triton.Tensor(name, value) for name, value in outputs.items()]
            response = self._triton.InferenceResponse(tensors)
        else:
            content = json.loads(reply.body)
            code = _CODES.get(reply.status, "INVALID_ARG" if reply.status < 500 else "INTERNAL")
            error = self._triton.TritonError(
                f"{content['error']}: {content['detail']}", getattr(self._triton.TritonError, code)
            )
            response = self._triton.InferenceResponse([], error)
        sender.send(response, flags=self._triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
