"""InvokeEndpoint: the request goes to the variant's worker, its answer comes back, both are measured.

Of the two other ways to invoke, a stream brings the whole answer as its first part, since no container here answers in
parts; and a request for later is refused, since no endpoint here is asynchronous.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html, and there
API_runtime_InvokeEndpointWithResponseStream.html and API_runtime_InvokeEndpointAsync.html
"""

from __future__ import annotations

import http.client
import json
import re
import struct
import time
import uuid
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from werkzeug.wrappers import Request, Response

from endpoint_spec.platforms import limits

from ..access import LOOPBACK
from .endpoint import Endpoint, Variant
from .hosted import Hosted
from .logs import log_group

PATH = re.compile(r"/endpoints/([^/]+)/(invocations|invocations-response-stream|async-invocations)/?")
INPUT_LOCATION = "X-Amzn-SageMaker-InputLocation"
CUSTOM = "X-Amzn-SageMaker-Custom-Attributes"
TARGET = "X-Amzn-SageMaker-Target-Variant"
INFERENCE_ID = "X-Amzn-SageMaker-Inference-Id"
CUSTOM_CHARACTERS = 1024
# Headers that ask for what is not here; they are refused instead of being dropped.
UNSUPPORTED = (
    "X-Amzn-SageMaker-Target-Model",
    "X-Amzn-SageMaker-Target-Container-Hostname",
    "X-Amzn-SageMaker-Inference-Component",
    "X-Amzn-SageMaker-Session-Id",
    "X-Amzn-SageMaker-Enable-Explanations",
)

Record = Callable[[str, str, str, dict[str, float]], None]


@dataclass(frozen=True)
class Answer:
    """What the container answered; status 0 when it gave no answer at all."""

    status: int
    body: bytes
    content_type: str | None = None
    custom: str | None = None


class RefusedError(Exception):
    """A request that never reaches the container."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


class Runtime:
    """Answers InvokeEndpoint. `record(region, endpoint, variant, metrics)` keeps the metrics of one invocation."""

    def __init__(self, account: str, hosted: Mapping[str, Hosted], record: Record) -> None:
        """hosted: what is hosted, by region."""
        self.account, self.hosted, self.record = account, hosted, record

    def answer(self, request: Request, name: str, way: str, region: str) -> Response:
        """One call of any of the three ways, `way` being the last part of its path."""
        if way == "async-invocations":
            return self._refused_for_later(request, name, region)
        response = self.invoke(request, name, region)
        return _streamed(response) if way != "invocations" and response.status_code == http.client.OK else response

    def _refused_for_later(self, request: Request, name: str, region: str) -> Response:
        message = f"Endpoint {name} of account {self.account} is not asynchronous: it has no AsyncInferenceConfig."
        if name not in self.hosted[region].endpoints:
            message = f"Endpoint {name} of account {self.account} not found."
        elif INPUT_LOCATION not in request.headers:
            message = f"The header {INPUT_LOCATION} is missing."
        return _error(400, "ValidationError", {"message": message})

    def invoke(self, request: Request, name: str, region: str) -> Response:
        """One invocation from beginning to end."""
        began = time.perf_counter()
        try:
            self._check(request)
            body = self._body(request)
            endpoint, variant = self._target(request, name, region)
        except RefusedError as error:
            return _error(error.status, error.kind, {"message": str(error)})
        try:
            asked = time.perf_counter()
            answer = ask(variant, request, body)
            answered = time.perf_counter()
        finally:
            variant.leave()
        response = self._response(answer, endpoint, variant)
        whole = time.perf_counter() - began
        model = answered - asked
        self.record(region, name, variant.name, metrics(answer.status, model, whole - model, variant.count))
        return response

    def _check(self, request: Request) -> None:
        for header in UNSUPPORTED:
            if header in request.headers:
                raise RefusedError(400, "ValidationError", f"the embedded AWS does not honour the header {header}")
        if len(request.headers.get(CUSTOM, "")) > CUSTOM_CHARACTERS:
            raise RefusedError(400, "ValidationError", f"{CUSTOM} has more than {CUSTOM_CHARACTERS} characters")

    def _target(self, request: Request, name: str, region: str) -> tuple[Endpoint, Variant]:
        """The variant that answers, entered: an update waits until it is left before it ends the worker."""
        endpoint = self.hosted[region].endpoints.get(name)
        if endpoint is None:
            raise RefusedError(400, "ValidationError", f"Endpoint {name} of account {self.account} not found.")
        variant = endpoint.choose(request.headers.get(TARGET))
        try:
            self._serving(request, name, endpoint, variant)
        except RefusedError:
            if variant is not None:
                variant.leave()
            raise
        assert variant is not None  # noqa: S101 - checked by _serving
        return endpoint, variant

    def _serving(self, request: Request, name: str, endpoint: Endpoint, variant: Variant | None) -> None:
        if endpoint.status not in {"InService", "Updating"} or (variant is None and TARGET not in request.headers):
            raise RefusedError(
                400,
                "ValidationError",
                f"Endpoint {name} of account {self.account} is not InService but {endpoint.status}.",
            )
        if variant is None:
            raise RefusedError(
                400,
                "ValidationError",
                f"Endpoint {name} has no variant {request.headers[TARGET]}; it has {', '.join(endpoint.variants)}.",
            )
        if variant.worker is None or not variant.worker.healthy:
            # the container is being started again
            raise RefusedError(
                503, "ServiceUnavailable", f"Variant {variant.name} of endpoint {name} has no healthy worker"
            )

    def _body(self, request: Request) -> bytes:
        limit = limits().request_bytes
        if (request.content_length or 0) > limit:
            raise RefusedError(413, "RequestEntityTooLarge", f"HTTP content length exceeded {limit} bytes.")
        body = request.get_data(cache=False, parse_form_data=False)
        if len(body) > limit:
            raise RefusedError(413, "RequestEntityTooLarge", f"HTTP content length exceeded {limit} bytes.")
        return body

    def _response(self, answer: Answer, endpoint: Endpoint, variant: Variant) -> Response:
        """Only content type, variant and custom attributes of the container's headers come back."""
        if answer.status != http.client.OK:
            return model_error(answer, endpoint, variant)
        limit = limits().response_bytes
        if len(answer.body) > limit:
            text = f"the container's answer has {len(answer.body)} bytes, more than the {limit} that can be returned"
            return model_error(Answer(0, text.encode()), endpoint, variant)
        headers = {"x-Amzn-Invoked-Production-Variant": variant.name, "x-amzn-RequestId": str(uuid.uuid4())}
        if answer.custom is not None:
            headers[CUSTOM] = answer.custom
        return Response(answer.body, 200, headers, content_type=answer.content_type or "application/octet-stream")


def ask(variant: Variant, request: Request, body: bytes) -> Answer:
    """POST /invocations to the worker; at most the 60 s that a model has."""
    assert variant.worker is not None  # noqa: S101 - checked by Runtime._serving
    seconds = limits().invocation_seconds
    headers = {"Content-Length": str(len(body))}
    for name in ("Content-Type", "Accept", CUSTOM, INFERENCE_ID):
        if name in request.headers:
            headers[name] = request.headers[name]
    connection = http.client.HTTPConnection(LOOPBACK, variant.worker.port, timeout=seconds)
    try:
        connection.request("POST", "/invocations", body=body, headers=headers)
        got = connection.getresponse()
        return Answer(got.status, got.read(), got.getheader("Content-Type"), got.getheader(CUSTOM))
    except TimeoutError:
        text = (
            "Your invocation timed out while waiting for a response from container primary. "
            "Review the latency metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
        )
        return Answer(0, text.encode())
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, f"the container closed the connection without an answer ({error})".encode())
    finally:
        connection.close()


def metrics(status: int, model_seconds: float, overhead_seconds: float, instances: int) -> dict[str, float]:
    """The metrics of one invocation; latencies in microseconds.

    Source: "Monitor Amazon SageMaker AI with Amazon CloudWatch", endpoint invocation metrics,
    https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
    """
    return {
        "Invocations": 1,
        "InvocationsPerInstance": 1 / max(instances, 1),
        "ModelLatency": model_seconds * 1e6,
        "OverheadLatency": overhead_seconds * 1e6,
        "Invocation4XXErrors": float(400 <= status < 500),
        "Invocation5XXErrors": float(status == 0 or status >= 500),
        "InvocationModelErrors": float(status != http.client.OK),
    }


def model_error(answer: Answer, endpoint: Endpoint, variant: Variant) -> Response:
    """ModelError (424): https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html#API_runtime_InvokeEndpoint_Errors"""
    text = answer.body.decode("utf-8", "replace")
    side = "client" if 400 <= answer.status < 500 else "server"
    group, region, account = log_group(endpoint.name), endpoint.region, endpoint.host.account
    where = f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:group={group}"
    message = (
        f'Received {side} error ({answer.status}) from primary with message "{text}". '
        f"See {where} in account {account} for more information."
    )
    details = {
        "ErrorCode": f"{side.upper()}_ERROR_FROM_MODEL",
        "LogStreamArn": f"arn:aws:logs:{region}:{account}:log-group:{group}:log-stream:{variant.stream}",
        "Message": message,
        "OriginalMessage": text,
        "OriginalStatusCode": answer.status,
    }
    return _error(424, "ModelError", details)


def _streamed(response: Response) -> Response:
    """An answer as an event stream of one PayloadPart."""
    headers = {
        name: value for name, value in response.headers.items() if name not in ("Content-Type", "Content-Length")
    }
    headers["X-Amzn-SageMaker-Content-Type"] = response.headers["Content-Type"]
    part = event({":message-type": "event", ":event-type": "PayloadPart"}, response.get_data())
    return Response(part, 200, headers, content_type="application/vnd.amazon.eventstream")


def event(headers: Mapping[str, str], payload: bytes) -> bytes:
    """A message of an event stream: lengths, their CRC, headers, payload, and the CRC of all.

    Source: https://docs.aws.amazon.com/transcribe/latest/dg/streaming-setting-up.html#streaming-event-stream
    """
    head = b""
    for name, value in {**headers, ":content-type": "application/octet-stream"}.items():
        text = value.encode()
        head += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(text)) + text
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + head + payload
    return message + struct.pack(">I", zlib.crc32(message))


def _error(status: int, kind: str, details: dict[str, object]) -> Response:
    headers = {"x-amzn-ErrorType": kind, "x-amzn-RequestId": str(uuid.uuid4())}
    return Response(json.dumps(details), status, headers, content_type="application/json")
