"""From what postprocess returned to the body, type and headers of an answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inference_code.codecs.json_text import JSON, write_json
from inference_code.codecs.negotiation import negotiate, parse_accept
from inference_code.codecs.npy import NPY, write_npy
from inference_code.errors import EndpointError, Internal, NotAcceptable, TooLarge
from inference_code.request import CUSTOM_ATTRIBUTES, Answer, ModelInfo

_BYTES = "application/octet-stream"
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Reply:
    """A finished answer."""

    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


def marks(info: ModelInfo | None) -> dict[str, str]:
    """The custom-attributes header that says `rehearsal=true` and `stand_in=true`; no header when neither is so."""
    texts = [f"{name}=true" for name in info.metadata] if info is not None else []
    return {CUSTOM_ATTRIBUTES: "; ".join(texts)} if texts else {}


def error_reply(error: EndpointError, info: ModelInfo | None) -> Reply:
    """The JSON body {error, detail} with the error's status."""
    headers = marks(info)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return Reply(int(error.status), error.body(), JSON, headers)


def encode_one(value: Any, accept: str, info: ModelInfo) -> Reply:
    """The reply for the one item of a request. Raises EndpointError."""
    answer = _as_answer(value, accept)
    return _reply(_body(answer, info), answer, info)


def encode_list(values: Sequence[Any], accept: str, info: ModelInfo) -> Reply:
    """The reply for the items of one request, in order; an EndpointError among `values` fills its own place.

    As JSON a list, with {error, detail} in the failed places; as npy, which has no place for an error, the stacked
    arrays if all succeeded and have one shape, and otherwise JSON if Accept allows it. Raises EndpointError.
    """
    if values and all(isinstance(value, EndpointError) for value in values):
        raise values[0]
    answers = [value if isinstance(value, EndpointError) else _as_answer(value, accept) for value in values]
    kinds = {answer.content_type for answer in answers if isinstance(answer, Answer)}
    if kinds == {NPY}:
        return _stacked(answers, accept, info)
    if kinds != {JSON}:
        raise NotAcceptable(f"several items in one request are answered as {JSON}; this handler gives {_names(kinds)}")
    return _listed(answers, info)


def _stacked(answers: Sequence[Answer | EndpointError], accept: str, info: ModelInfo) -> Reply:
    arrays = [np.asarray(answer.value) for answer in answers if isinstance(answer, Answer)]
    if len(arrays) < len(answers):
        if negotiated(accept, JSON):
            return _listed(answers, info)
        failed = [f"item {i}: {answer}" for i, answer in enumerate(answers) if isinstance(answer, EndpointError)]
        error = next(answer for answer in answers if isinstance(answer, EndpointError))
        raise type(error)(f"{'; '.join(failed)}. Accept {JSON} as well to get the answers of the other items")
    if len({array.shape for array in arrays}) > 1:
        if negotiated(accept, JSON):
            return _listed(answers, info)
        raise NotAcceptable(f"the items' answers have different shapes and do not stack; ask for {JSON}")
    answer = next(answer for answer in answers if isinstance(answer, Answer))
    return _reply(write_npy(np.stack(arrays)), dataclasses.replace(answer, content_type=NPY), info)


def _listed(answers: Sequence[Answer | EndpointError], info: ModelInfo) -> Reply:
    values = [answer.value if isinstance(answer, Answer) else answer.to_dict() for answer in answers]
    answer = next(answer for answer in answers if isinstance(answer, Answer))
    body = write_json(values, info.limits.response_bytes, answer.alternatives)
    return _reply(body, Answer(values, JSON, answer.alternatives), info)


def negotiated(accept: str, content_type: str) -> bool:
    """Whether Accept allows `content_type`."""
    return any(one.quality > 0 and one.specificity(content_type) for one in parse_accept(accept)) or not accept.strip()


def _names(kinds: set[str | None]) -> str:
    return ", ".join(sorted(kind or "none" for kind in kinds))


def _as_answer(value: Any, accept: str) -> Answer:
    """A bare value with the media type that it and Accept lead to."""
    answer = value if isinstance(value, Answer) else Answer(value)
    if answer.content_type is not None:
        if not negotiated(accept, answer.content_type.split(";")[0].strip().lower()):
            raise NotAcceptable(f"Accept is {accept[:200]!r}; this is answered as {answer.content_type}")
        return answer
    if isinstance(answer.value, (bytes, bytearray, memoryview)):
        offers = [_BYTES]
    elif isinstance(answer.value, str):
        offers = [_TEXT.split(";", maxsplit=1)[0]]
    elif isinstance(answer.value, np.ndarray) or hasattr(answer.value, "detach"):
        offers = [JSON, NPY]
    else:
        offers = [JSON]
    return dataclasses.replace(answer, content_type=negotiate(accept, offers).content_type)


def _body(answer: Answer, info: ModelInfo) -> bytes:
    value, kind = answer.value, answer.content_type or JSON
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str) and kind != JSON:
        return value.encode()
    if kind == NPY:
        array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise Internal(f"the handler's answer is an array of {array.dtype}, which cannot be sent as {NPY}")
        return write_npy(array)
    if kind.split(";")[0].strip().lower() == JSON:
        # A text under JSON is taken as JSON already written, as SageMaker's output_fn returns it.
        if isinstance(value, str):
            return value.encode()
        return write_json(value, info.limits.response_bytes, answer.alternatives)
    raise Internal(f"the handler's answer is a {type(value).__name__} for {kind}; give bytes for this type")


def _reply(body: bytes, answer: Answer, info: ModelInfo) -> Reply:
    limit = info.limits.response_bytes
    if len(body) > limit:
        raise TooLarge(
            f"the answer takes {len(body)} bytes as {answer.content_type}; at most {limit} can be sent; "
            f"{answer.alternatives}"
        )
    return Reply(200, body, answer.content_type or JSON, marks(info))
