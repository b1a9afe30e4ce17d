"""Reading the tensors of a .pth file without running anything that the file says.

`torch.load(weights_only=True)` is not safe in the torch of the Inf1 container (CVE-2025-32434 concerns 1.13 to 2.5), so
this reader does without torch.load in every environment: it opens the zip itself, lets the pickle name only the handful
of constructors that a state dict needs, and makes the tensors from the raw bytes.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor

from compile.errors import CompileError
from endpoint_spec.archives import ArchiveError, ZipReader

_DTYPES = {
    **{"FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16},
    **{"BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32},
    **{"ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool},
}


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Tensor):
        raise pickle.UnpicklingError("a tensor without a storage")
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)


class _StateDictUnpickler(pickle.Unpickler):
    """Knows the constructors of a state dict and nothing else."""

    _ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
        **{("torch", name): dtype for name, dtype in _DTYPES.items()},
    }

    def __init__(self, archive: ZipReader, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self._archive = archive
        self._root = root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        found = self._ALLOWED.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of a state dict")
        return found

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _location, size = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"an unknown reference {kind!r}")
        if key not in self._storages:
            data = self._archive.read(f"{self._root}/data/{key}")
            tensor = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            if tensor.numel() < size:
                raise pickle.UnpicklingError(f"storage {key} holds {tensor.numel()} values, {size} are announced")
            self._storages[key] = tensor
        return self._storages[key]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict in a .pth file written by torch 1.6 or newer; also one under the key state_dict or model.

    Raises CompileError when the file is not such an archive, asks for any other constructor, or holds no tensors.
    """
    try:
        with ZipReader(path) as archive:
            roots = [name[: -len("/data.pkl")] for name in archive.names() if name.endswith("/data.pkl")]
            if len(roots) != 1 or f"{roots[0]}/constants.pkl" in archive.names():
                _refuse(path, "it is no archive of a state dict (a TorchScript module?)")
            content = _StateDictUnpickler(archive, roots[0]).load()
    except ArchiveError as error:
        _refuse(path, f"{error} (written by torch before 1.6, or damaged)")
    except CompileError:
        raise
    except Exception as error:  # a damaged archive or pickle raises nearly anything, MemoryError too
        _refuse(path, str(error) or type(error).__name__)
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        _refuse(path, "it holds no dictionary of tensors")
    others = [key for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if others:
        _refuse(path, f"these entries are no tensors: {', '.join(map(str, others[:5]))}")
    return dict(content)


def _refuse(path: Path, reason: str) -> NoReturn:
    raise CompileError(
        f"The weights {path} were not read: {reason}.",
        "Nothing in the file was executed. Where you trust it, convert it once with a torch of 2.6 or newer: "
        'python -c "import torch, safetensors.torch as s; '
        f"s.save_file(torch.load('{path.name}', weights_only=True), '{path.stem}.safetensors')\"",
    )
