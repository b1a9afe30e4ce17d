"""application/x-npy and application/x-npz, read without numpy's own loader: no pickle, no allocation by claim.

The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import io
import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from typing import Literal

import numpy as np

from inference_code.errors import BadRequest, TooLarge
from inference_code.request import Array

NPY = "application/x-npy"
NPZ = "application/x-npz"

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000  # numpy refuses longer ones too (its max_header_size)
_TEXT = r"'[^'\\]*'|\"[^\"\\]*\""
_ENTRY = re.compile(rf"\s*(?P<key>{_TEXT})\s*:\s*(?P<value>{_TEXT}|True|False|\([^()]*\)|\[[^\[\]]*\])\s*(?:,|(?=\}}))")
_END = re.compile(r"\s*\}\s*")
_SIZE = re.compile(r"-?[0-9]{1,100}")
_DTYPE = re.compile(r"[<>=|]?(?:b1|[iu][1248]|f[248])")
_MAX_RANK = 32
_MAX_MEMBERS = 64
_MEMBER = b"PK\x01\x02"  # begins each entry of a zip's directory


def read_npy(body: bytes | memoryview, what: str = "the npy body") -> Array:
    """The array in `body`: bool, integer or float of any shape, in native byte order; a view of
    `body` where that is possible.

    Only a body that holds exactly the elements that its header claims is read. Raises BadRequest.
    """
    start, header = _header(body, what)
    dtype, shape = _dtype(header.get("descr"), what), _shape(header.get("shape"), what)
    count = math.prod(shape)
    held = len(body) - start
    if count * dtype.itemsize != held:
        raise BadRequest(
            f"{what} claims {count} elements of {dtype.name} ({count * dtype.itemsize} bytes) and holds {held} bytes"
        )
    order: Literal["F", "C"] = "F" if header.get("fortran_order") is True else "C"
    try:
        if dtype.kind == "b":  # other bytes than 0 and 1 are true as well
            flags: Array = (np.frombuffer(body, np.uint8, count, start) != 0).reshape(shape, order=order)
            return flags
        array: Array = np.frombuffer(body, dtype, count, start).reshape(shape, order=order)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{what} has a shape that numpy refuses: {error}") from None
    native: Array = array if dtype.isnative else array.astype(dtype.newbyteorder("="))
    return native


def _header(body: bytes | memoryview, what: str) -> tuple[int, dict[str, object]]:
    """Where the data starts, and the header's dict."""
    if body[:6] != _MAGIC or len(body) < 12:
        raise BadRequest(f"{what} is not an npy file: it does not begin as numpy.save writes one")
    if body[6] not in (1, 2, 3):
        raise BadRequest(f"{what} has npy version {body[6]}; versions 1 to 3 are read")
    width = 2 if body[6] == 1 else 4
    length = int.from_bytes(body[8 : 8 + width], "little")
    start = 8 + width + length
    if length > _MAX_HEADER or start > len(body):
        raise BadRequest(
            f"{what} has a header of {length} bytes; at most {_MAX_HEADER} are read, {len(body)} were sent"
        )
    return start, _entries(bytes(body[8 + width : start]).decode("latin1").strip(), what)


def _entries(text: str, what: str) -> dict[str, object]:
    """The header's dict, read by its grammar: keys are texts; values are texts, booleans, tuples of whole numbers.

    ast.literal_eval would do, but CPython 3.11's parser counts its depth for all threads together, and raises
    SystemError in one while another parses (github.com/python/cpython/issues/106905).
    """
    found: dict[str, object] = {}
    position = 1
    while text.startswith("{"):
        if _END.fullmatch(text, position):
            return found
        entry = _ENTRY.match(text, position)
        if entry is None:
            break
        found[entry["key"][1:-1]] = _value(entry["value"], what)
        position = entry.end()
    raise BadRequest(f"{what} has a header that cannot be read: it is not a dict as numpy.save writes one")


def _value(text: str, what: str) -> object:
    if text in ("True", "False"):
        return text == "True"
    if text[0] == "[":  # the fields of a structured dtype, which _dtype refuses
        return text
    if text[0] != "(":
        return text[1:-1]
    sizes = [size.strip() for size in text[1:-1].split(",")]
    if len(sizes) > 1 and not sizes[-1]:
        sizes.pop()
    elif len(sizes) == 1:  # "(3)" is a number
        sizes = [] if not sizes[0] else ["none"]
    if not all(_SIZE.fullmatch(size) for size in sizes):
        raise BadRequest(f"{what} has shape {text[:60]}; it must be a tuple of at most {_MAX_RANK} whole numbers")
    return tuple(int(size) for size in sizes)


def _dtype(descr: object, what: str) -> np.dtype[np.generic]:
    if isinstance(descr, str) and _DTYPE.fullmatch(descr):
        return np.dtype(descr)
    raise BadRequest(
        f"{what} has dtype {str(descr)[:60]!r}; bool, integers and floats of up to 8 bytes are read, "
        "objects (pickles) never"
    )


def _shape(shape: object, what: str) -> tuple[int, ...]:
    if isinstance(shape, tuple) and len(shape) <= _MAX_RANK and all(type(size) is int and size >= 0 for size in shape):
        return shape
    raise BadRequest(f"{what} has shape {str(shape)[:60]}; it must be a tuple of at most {_MAX_RANK} whole numbers")


def read_npz(body: bytes | memoryview, limit: int) -> dict[str, Array]:
    """The arrays of an npz file by name. Unpacked they may have `limit` bytes together.

    Raises BadRequest, or TooLarge before anything is unpacked.
    """
    packed = bytes(body)
    count = packed.count(_MEMBER)  # zipfile would read the names of any number of them
    if count > _MAX_MEMBERS:
        raise TooLarge(f"the npz body has {count} members; at most {_MAX_MEMBERS} are read")
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > limit:
                raise TooLarge(f"the npz body unpacks to {unpacked} bytes; at most {limit} are read")
            arrays = {}
            for member in members:
                name = member.filename[:-4] if member.filename.endswith(".npy") else member.filename
                with archive.open(member) as stream:  # zipfile stops at the size that was checked above
                    arrays[name] = read_npy(stream.read(), f"member {name[:60]!r} of the npz body")
            return arrays
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError, OSError, ValueError) as error:
        raise BadRequest(f"the npz body cannot be unpacked: {error}") from None


def write_npy(array: Array) -> bytes:
    """`array` as npy. Raises ValueError for objects."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)  # type: ignore[no-untyped-call]
    return stream.getvalue()


def write_npz(arrays: Mapping[str, Array]) -> bytes:
    """`arrays` as npz, not compressed (floats hardly shrink)."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), write_npy(array))
    return stream.getvalue()


def npy_bytes(shape: tuple[int, ...], itemsize: int = 4) -> int:
    """The size of such an npy body; its header takes 128 bytes for every shape of few axes."""
    return 128 + math.prod(shape) * itemsize
