"""What the tasks that take pictures share: one or several pictures from the body of a request.

A file's bytes; npy [height, width, 3] or [height, width], or [pictures, height, width, 3] for several; JSON
{"image": base64 of a file}, Hugging Face's {"inputs": base64 of a file, "parameters": {...}}, or a list of these.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from inference_code.codecs.images import IMAGES, Picture, Target, decode, from_array
from inference_code.codecs.json_text import JSON, read_json
from inference_code.codecs.negotiation import require
from inference_code.codecs.npy import NPY, read_npy
from inference_code.errors import BadRequest, EndpointError, NotAcceptable
from inference_code.request import Item, Request
from inference_code.tasks.items import items

_UNSAID = ("", "application/octet-stream", "application/x-image")  # the last is SageMaker's for any picture
_BEGINNINGS = {
    "image/jpeg": re.compile(rb"\xff\xd8"),
    "image/png": re.compile(rb"\x89PNG"),
    "image/webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    NPY: re.compile(rb"\x93NUMPY"),
    JSON: re.compile(rb"\s*[\[{]"),
}


def each(
    request: Request, kind: str, item: Callable[[Any, Request], Item], *, lone: str | None = None
) -> Item | list[Item | EndpointError]:
    """`item(picture, request)` of the one picture, or of each of several; an EndpointError in a place that failed.

    kind: the request's media type, one that is read. lone: the media type of the answer, where it holds one picture
    only. Raises BadRequest, NotAcceptable, TooLarge.
    """
    if kind in IMAGES:
        return item(request.body, request)
    value = read_json(request.body) if kind == JSON else read_npy(request.view)
    several = isinstance(value, list) if kind == JSON else value.ndim == 4
    if not several:
        return item(value, request)
    if lone is not None:
        raise NotAcceptable(f"several pictures in one request can be answered as {JSON} or {NPY}, not as {lone}")
    return items(list(value), request, item)


def read_kind(request: Request, readable: Sequence[str]) -> str:
    """The media type that a request is read as: its own, or what the body begins with where it names none or any.

    Raises UnsupportedMediaType.
    """
    if request.content_type not in _UNSAID:
        return require(request.content_type, readable)
    found = next((kind for kind, known in _BEGINNINGS.items() if known.match(request.view)), request.content_type)
    return require(found, readable)


def split_parameters(value: Any, known: Sequence[str]) -> tuple[Any, Mapping[str, Any]]:
    """A picture in JSON without its "parameters", and these. Raises BadRequest for others than the known ones."""
    if not isinstance(value, Mapping) or "parameters" not in value:
        return value, {}
    asked = value["parameters"]
    unknown = sorted(set(asked) - set(known)) if isinstance(asked, Mapping) else ["no object"]
    if unknown:
        listed = ", ".join(map(str, unknown))[:100]
        raise BadRequest(f"parameters has {listed}; it can have {', '.join(known) or 'none'}")
    return {key: one for key, one in value.items() if key != "parameters"}, asked


def picture(value: Any, request: Request, target: Target) -> Picture:
    """The picture in a file's bytes, an array, or a JSON object. Raises BadRequest, TooLarge, Unavailable."""
    assert request.model is not None  # noqa: S101
    limits = request.model.limits
    if isinstance(value, np.ndarray):
        return from_array(value, limits)
    return decode(value if isinstance(value, bytes) else _file(value), limits, target)


def _file(value: Any) -> bytes:
    """The file in {"image": base64} or {"inputs": base64}. Raises BadRequest."""
    names = ("image", "inputs")
    text = next(iter(value.values())) if isinstance(value, Mapping) and len(value) == 1 else None
    if not isinstance(text, str) or next(iter(value)) not in names:
        raise BadRequest('a picture in JSON is {"image": "..."} with the base64 of a JPEG, PNG or WebP file')
    if text.startswith("data:"):  # RFC 2397, as browsers write it
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise BadRequest(f"image is the data URI {head[:60]!r}, without ;base64; send base64")
    try:
        return base64.b64decode("".join(text.split()), validate=True)  # MIME breaks lines
    except ValueError:
        raise BadRequest("image is not base64 (A to Z, a to z, 0 to 9, + and /, padded with =)") from None
