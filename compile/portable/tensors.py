"""Tensors in one file of the safetensors format, each under the sha256 of what it holds.

Format: https://github.com/huggingface/safetensors (8 bytes of length, JSON of dtypes, shapes and offsets, the bytes).
Read without a copy: the file is mapped into memory. Standard library and torch alone, from Python 3.10 and torch 1.13.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LARGEST_HEADER = 8 << 20  # bytes of JSON: tens of thousands of tensors; Python needs up to thirty times as much
LARGEST_EXTENT = 1 << 62  # items; above, torch's own arithmetic of strides overflows
# Little-endian, as both x86 and the format are.
DTYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8},
    **{"U8": torch.uint8, "BOOL": torch.bool},
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ITEM = {name: torch.empty((), dtype=dtype).element_size() for name, dtype in DTYPES.items()}


class TensorFileError(ValueError):
    """A file of tensors that is not read; the text is one line: what is wrong, and of which tensor."""


class TensorStore:
    """Tensors by digest, each once, to be written."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def add(self, tensor: Tensor) -> str:
        """Keeps a tensor of this machine's memory; returns its digest.

        Raises TensorFileError for a dtype that the format has not, and for a sparse tensor or one without content.
        """
        if tensor.dtype not in _NAMES or tensor.layout != torch.strided or tensor.device.type != "cpu":
            kind = ", ".join(str(part).removeprefix("torch.") for part in (tensor.dtype, tensor.layout, tensor.device))
            raise TensorFileError(f"a tensor of {kind} cannot be kept")
        dense = _dense(tensor)
        digest = digest_of(dense)
        self.tensors.setdefault(digest, dense)
        return digest

    def write(self, path: Path) -> None:
        """All of them, those of the largest items first, so that each is aligned."""
        ordered = sorted(self.tensors.items(), key=lambda one: (-one[1].element_size(), one[0]))
        entries, end = {}, 0
        for digest, tensor in ordered:
            begin, end = end, end + tensor.numel() * tensor.element_size()
            kind = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape)}
            entries[digest] = {**kind, "data_offsets": [begin, end]}
        header = json.dumps(entries, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        with path.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for _, tensor in ordered:
                file.write(_bytes(tensor))


def digest_of(tensor: Tensor) -> str:
    """64 hex digits of dtype, shape and content."""
    dense = _dense(tensor)
    found = hashlib.sha256(f"{_NAMES[dense.dtype]} {list(dense.shape)}\n".encode())
    found.update(_bytes(dense))
    return found.hexdigest()


def _dense(tensor: Tensor) -> Tensor:
    return tensor.detach().resolve_neg().contiguous()  # an imaginary part may be kept with the other sign


def _bytes(dense: Tensor) -> memoryview:
    size = dense.numel() * dense.element_size()
    return memoryview((ctypes.c_ubyte * size).from_address(dense.data_ptr())) if size else memoryview(b"")


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by digest, mapped and not copied; writing into one changes no file.

    Raises TensorFileError for anything but a sound file whose tensors fit their digests; OSError where it cannot be
    read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not length <= min(LARGEST_HEADER, size - 8):
            raise TensorFileError(f"its header would have {length} bytes, the file has {size}")
        text = file.read(length)
    try:
        entries = parsed(text)
    except (ValueError, RecursionError) as error:
        raise TensorFileError(f"its header cannot be read: {error}") from None
    if not isinstance(entries, dict):
        raise TensorFileError("its header is no object")
    start = 8 + length
    begins = _checked(entries, size - start)
    if start == size:
        whole = torch.empty(0, dtype=torch.uint8)
    else:
        whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)[start:]
    found = {}
    for digest, begin in begins.items():
        kind, shape = entries[digest]["dtype"], entries[digest]["shape"]
        piece = whole[begin : begin + math.prod(shape) * _ITEM[kind]]
        if (start + begin) % _ITEM[kind]:
            piece = piece.clone()  # another writer's file: torch takes no view that is not aligned
        tensor = piece.view(DTYPES[kind]).reshape(shape) if piece.numel() else torch.empty(shape, dtype=DTYPES[kind])
        if digest_of(tensor) != digest:
            raise TensorFileError(f"tensor {digest[:80]!r} does not fit its digest: it is {digest_of(tensor)}")
        if kind == "BOOL" and piece.numel() and int(piece.max()) > 1:
            raise TensorFileError(f"tensor {digest} holds {int(piece.max())} as a bool")
        found[digest] = tensor
    return found


def parsed(text: bytes) -> Any:
    """JSON as its standard has it. Raises ValueError also for a key that stands twice, NaN, and numbers past a double;
    RecursionError for what is nested too deeply."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(found)
        if len(content) != len(found):
            raise ValueError("a key stands twice in an object")
        return content

    def number(digits: str) -> float:
        if not math.isfinite(float(digits)):
            raise ValueError(f"{digits:.20} is no finite number")
        return float(digits)

    return json.loads(text.decode("utf-8"), object_pairs_hook=pairs, parse_float=number, parse_constant=number)


def _checked(entries: Mapping[str, Any], size: int) -> dict[str, int]:
    """Where each tensor begins. Raises TensorFileError unless they fill the file without gaps and overlaps."""
    begins, ends = {}, []
    for digest, entry in entries.items():
        try:
            kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            whole = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in (*shape, begin, end))
        except (TypeError, KeyError, ValueError):
            raise TensorFileError(f"tensor {digest[:80]!r} is not described as the format asks") from None
        if not whole or not isinstance(kind, str) or kind not in DTYPES or len(shape) > 64:
            raise TensorFileError(f"tensor {digest[:80]!r} is not described as the format asks")
        extent = math.prod(max(n, 1) for n in shape)
        if extent >= LARGEST_EXTENT or end - begin != math.prod(shape) * _ITEM[kind]:
            what = f"{kind} {shape!r:.80} does not fit its bytes {begin!r:.20} to {end!r:.20}"
            raise TensorFileError(f"tensor {digest[:80]!r}: {what}")
        begins[digest] = begin
        ends.append((begin, end))
    at = 0
    for begin, end in sorted(ends):
        if begin != at:
            raise TensorFileError(f"its tensors overlap or leave a gap at byte {min(at, begin)}")
        at = end
    if at != size:
        raise TensorFileError(f"its tensors end at byte {at!r:.20}, the file has {size}")
    return begins
