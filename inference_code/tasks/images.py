"""What the tasks that take pictures share: one or several pictures from the body of a request.

A file's bytes; npy [height, width, 3] or [height, width], or [pictures, height, width, 3] for several; JSON
{"image": base64 of a file}, or a list of these.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from inference_code.codecs.images import IMAGES, Picture, Target, decode, from_array
from inference_code.codecs.json_text import JSON, read_json
from inference_code.codecs.npy import NPY, read_npy
from inference_code.errors import BadRequest, EndpointError, NotAcceptable
from inference_code.request import Item, Request
from inference_code.tasks.items import items


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


def picture(value: Any, request: Request, target: Target) -> Picture:
    """The picture in a file's bytes, an array, or a JSON object. Raises BadRequest, TooLarge, Unavailable."""
    assert request.model is not None  # noqa: S101
    limits = request.model.limits
    if isinstance(value, np.ndarray):
        return from_array(value, limits)
    return decode(value if isinstance(value, bytes) else _file(value), limits, target)


def _file(value: Any) -> bytes:
    """The file in {"image": base64}. Raises BadRequest."""
    if not isinstance(value, Mapping) or set(value) != {"image"} or not isinstance(value["image"], str):
        raise BadRequest('a picture in JSON is {"image": "..."} with the base64 of a JPEG, PNG or WebP file')
    text = value["image"]
    if text.startswith("data:"):  # RFC 2397, as browsers write it
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise BadRequest(f"image is the data URI {head[:60]!r}, without ;base64; send base64")
    try:
        return base64.b64decode("".join(text.split()), validate=True)  # MIME breaks lines
    except ValueError:
        raise BadRequest("image is not base64 (A to Z, a to z, 0 to 9, + and /, padded with =)") from None
