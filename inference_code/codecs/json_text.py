"""application/json: read strictly, written with arrays and structures inside."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from inference_code.errors import BadRequest, Internal, TooLarge, Unprocessable
from inference_code.request import Array

JSON = "application/json"
_COUNTED_FROM = 64 * 1024

# numpy before 1.24 warns of uneven lists and makes an array of objects, which is refused below.
warnings.filterwarnings("ignore", message="Creating an ndarray from ragged nested sequences")


def read_json(body: bytes) -> Any:
    """The JSON value in `body` (UTF-8, with or without a byte order mark). NaN and Infinity are no JSON.

    Raises BadRequest.
    """
    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {str(error)[:200]}") from None


def json_memory(body: bytes) -> int:
    """Bytes of memory that reading `body` takes at most; 0 for a small one, which is not worth counting.

    By CPython's sizes: a list of one place takes 88 bytes, a dict of one key 232, a place more 8, a number up to 32, a
    text 49 and its characters, for each of which the body decoded takes another.
    """
    if len(body) < _COUNTED_FROM:
        return 0
    width = 2 if body.isascii() else 8  # bytes a character, twice
    counts = {b"[": 88, b"{": 232, b",": 57, b":": 57}
    return width * len(body) + sum(size * body.count(sign) for sign, size in counts.items())


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def read_array(value: Any, what: str) -> Array:
    """Nested lists of numbers or booleans as an array of bool, int64 or float64. Raises BadRequest."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadRequest(f"{what} is not an even nested list of numbers: {str(error)[:100]}") from None
    if array.dtype.kind not in "biuf":
        raise BadRequest(f"{what} must be an even nested list of numbers or of booleans")
    return array


def write_json(value: Any, limit: int, alternatives: str = "ask for less") -> bytes:
    """`value` as JSON; arrays become nested lists, dataclasses and named tuples objects.

    float32 is written with 9 digits, which give the same float32 back. Raises TooLarge as soon as more than `limit`
    bytes are needed, Unprocessable for NaN or infinity, which JSON does not have.
    """
    pieces, size = [], 0
    for piece in _pieces(value):
        size += len(piece)
        if size > limit:
            raise TooLarge(f"the answer as JSON exceeds the {limit} bytes that can be sent; {alternatives}")
        pieces.append(piece)
    return "".join(pieces).encode("ascii")


def _pieces(value: Any) -> Iterator[str]:
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach().cpu().numpy()
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        yield from _array(value)
    elif isinstance(value, Mapping):
        yield from _object(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from _object({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        yield from _object(value._asdict())
    elif isinstance(value, (list, tuple)):
        yield "["
        for index, item in enumerate(value):
            yield ", " if index else ""
            yield from _pieces(item)
        yield "]"
    else:
        yield _scalar(value)


def _object(value: Mapping[Any, Any]) -> Iterator[str]:
    yield "{"
    for index, (key, item) in enumerate(value.items()):
        yield f"{', ' if index else ''}{json.dumps(str(key))}: "
        yield from _pieces(item)
    yield "}"


def _scalar(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        raise Unprocessable(f"the answer holds {value}, which JSON cannot represent; ask for application/x-npy")
    try:
        return json.dumps(value)
    except TypeError:
        raise Internal(f"the handler's answer holds a {type(value).__name__}, which JSON cannot represent") from None


def _array(array: Array) -> Iterator[str]:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise Unprocessable(
            f"{count} of {array.size} values of the answer are not finite, which JSON cannot represent; "
            "ask for application/x-npy"
        )
    if array.dtype.kind not in "biuf":
        raise Internal(f"the handler's answer holds an array of {array.dtype}, which JSON cannot represent")
    yield from _rows(array)


def _rows(array: Array) -> Iterator[str]:
    if array.ndim > 1:
        yield "["
        for index, row in enumerate(array):
            yield ", " if index else ""
            yield from _rows(row)
        yield "]"
        return
    if array.dtype.kind == "f" and array.dtype.itemsize <= 4:
        texts = [f"{number:.9g}" for number in np.atleast_1d(array).tolist()]
    else:
        texts = [json.dumps(number) for number in np.atleast_1d(array).tolist()]
    yield f"[{', '.join(texts)}]" if array.ndim else texts[0]
