"""The tensors of a file that torch.save wrote, of any age, without running anything that the file says.

Since torch 1.6 such a file is a zip: data.pkl describes the tensors, data/KEY has the values of a storage. Before, it
was a stream: five pickles (a magic number, the protocol, the machine, the content, the keys of its storages), then the
storages. Of either the pickle is read as data (unpickler.py), and only the storages that are needed are read.
"""

from __future__ import annotations

import io
import itertools
import json
import pickle
import shlex
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from compile.errors import CompileError
from compile.frontend.unpickler import Described, Opaque, Storage, Unpickler
from endpoint_spec.archives import ArchiveError, ZipReader

_MAGIC = 0x1950A86A20F9469CFC6C  # torch.serialization.MAGIC_NUMBER
_PROTOCOL = 1001
_DEEPEST = 3  # dictionaries below each other in which weights are looked for
_MOST_ENTRIES = 1_000_000  # modules and tensors of a module that was saved whole
_SHOWN = 10
_PICKLED = 'pickle.load(open({path}, "rb"))'
# Opened before: by its name torch.load of torch 2.13 takes a file for safetensors.
_SAVED = 'torch.load(open({path}, "rb"), map_location="cpu", weights_only=False)'


def read_state_dict(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """The state dict in a file of torch.save, or under `key` in it; without a key also under the only one that has it.

    Raises CompileError for a file that is none, is damaged, holds no tensors, or several sets of them and no key says
    which.
    """
    loader = _SAVED
    try:
        with path.open("rb") as stream:
            if stream.read(2) == b"PK":
                with _opened_zip(path) as (content, buffer):
                    return _tensors(_chosen(content, path, key), buffer)
            stream.seek(0)
            loader = _PICKLED
            _require_magic(stream)
            loader = _SAVED
            content, buffer = _legacy(stream, path.stat().st_size)
            return _tensors(_chosen(content, path, key), buffer)
    except CompileError:
        raise
    except _ForeignContentError as error:
        raise _refused(path, str(error), conversion(path, key, loader)) from None
    except (ArchiveError, EOFError) as error:
        raise _refused(path, f"{str(error) or 'it ends in the middle'}", "Get the file again.") from None
    except Exception as error:  # a damaged archive or pickle raises nearly anything, MemoryError too
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise _refused(path, f"{reason} (it is damaged, or made to harm)", "Get the file again.") from None


class _ForeignContentError(ValueError):
    """A sound file that has to be converted first."""


@contextmanager
def _opened_zip(path: Path) -> Iterator[tuple[Any, Callable[[Storage], bytearray]]]:
    with ZipReader(path) as archive:
        names = archive.names()
        roots = [name[: -len("/data.pkl")] for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1:
            problem = f"The weights {path} were not read: this zip archive is none of torch.save."
            raise CompileError(problem, "Where the weights are a file in it, unpack them and name that file.")
        root = roots[0]
        if f"{root}/constants.pkl" in names:
            raise _ForeignContentError("it is a TorchScript module")
        if f"{root}/byteorder" in names and archive.read(f"{root}/byteorder") != b"little":
            raise _ForeignContentError("its values are in the byte order of another kind of machine")
        pickled = archive.read(f"{root}/data.pkl")
        yield Unpickler(io.BytesIO(pickled)).load(), lambda storage: archive.read(f"{root}/data/{storage.key}")


def _require_magic(stream: IO[bytes]) -> None:
    """Reads a legacy file's first pickle."""
    if Unpickler(stream).load() != _MAGIC:
        raise _ForeignContentError("it is a plain pickle, which torch.save did not write")


def _legacy(stream: IO[bytes], size: int) -> tuple[Any, Callable[[Storage], bytearray]]:
    """The content of a legacy file, and what reads a storage. Its magic number was read."""
    protocol, machine = Unpickler(stream).load(), Unpickler(stream).load()
    if protocol != _PROTOCOL:
        raise pickle.UnpicklingError(f"its protocol is {protocol!r}, not {_PROTOCOL}")
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise _ForeignContentError("its values are in the byte order of another kind of machine")
    reader = Unpickler(stream)
    content, keys = reader.load(), Unpickler(stream).load()
    places: dict[str, tuple[int, int]] = {}
    for key in keys if isinstance(keys, list) else []:
        if key not in reader.storages or key in places:
            raise pickle.UnpicklingError("its list of storages does not fit its tensors")
        (count,) = struct.unpack("<q", stream.read(8))
        length = count * _item_size(reader.storages[key].dtype)
        if count < 0 or stream.tell() + length > size:
            raise EOFError
        places[key] = (stream.tell(), length)
        stream.seek(length, io.SEEK_CUR)

    def read(storage: Storage) -> bytearray:
        place, length = places[storage.key]
        stream.seek(place)
        data = bytearray(length)
        stream.readinto(data)  # type: ignore[attr-defined]
        return data

    return content, read


def _chosen(content: Any, path: Path, key: str | None) -> dict[str, Described]:
    """Of what a file holds the weights: all of it, the value of `key`, or the only value that has weights."""
    if key is not None:
        if not isinstance(content, dict) or key not in content:
            there = ", ".join(_sets(content)) or "no key with weights"
            raise CompileError(
                f"The weights {path} have no key {key}.", f"Correct model.weights.key; there is {there}."
            )
        content = content[key]
    for _ in range(_DEEPEST):
        if _is_module(content):
            return _of_module(content)
        if _is_state(content):
            return dict(content)
        sets = _sets(content)
        if len(sets) > 1:
            raise _ambiguous(path, sets)
        if not sets:
            break
        content = content[next(iter(sets))]
    if isinstance(content, dict):
        others = [str(name)[:60] for name, value in content.items() if not isinstance(value, Described)]
        if others and len(others) < len(content):
            raise _ForeignContentError(f"these entries are no tensors: {', '.join(others[:5])}")
    raise _ForeignContentError("it holds no dictionary of tensors")


def _ambiguous(path: Path, sets: dict[str, str]) -> CompileError:
    each = ", ".join(f"{name} ({what})" for name, what in list(sets.items())[:_SHOWN])
    averages = [name for name in sets if "ema" in name.lower()]
    remedy = f"Say which with model.weights: {{file: ..., key: {(averages or list(sets))[0]}}}, or another of them."
    if averages:
        remedy += f" {averages[0]} is probably the average over the training (EMA), usually the one for inference."
    return CompileError(f"The weights {path} hold {len(sets)} sets of tensors: {each}.", remedy)


def _sets(content: Any) -> dict[str, str]:
    """The keys of a dictionary under which weights are, each with what is there."""
    known: dict[tuple[int, int], int] = {}
    found = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        count = _count(value, _DEEPEST - 1, known) if isinstance(key, str) else 0
        if count:
            found[key] = "a whole module" if _is_module(value) else f"{count} tensors"
    return found


def _count(value: Any, deepest: int, known: dict[tuple[int, int], int]) -> int:
    """The tensors of the state dicts in a value; a whole module counts as one. Each object is looked at once."""
    where = (id(value), deepest)
    if where not in known:
        if _is_module(value):
            known[where] = 1
        elif _is_state(value):
            known[where] = len(value)
        elif isinstance(value, dict) and deepest:
            inside = [item for key, item in value.items() if isinstance(key, str)]
            known[where] = sum(_count(item, deepest - 1, known) for item in inside)
        else:
            known[where] = 0
    return known[where]


def _is_state(value: Any) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    return all(isinstance(name, str) and isinstance(tensor, Described) for name, tensor in value.items())


def _is_module(value: Any) -> bool:
    return isinstance(value, Opaque) and isinstance(value.state, dict) and "_parameters" in value.state


def _of_module(module: Opaque) -> dict[str, Described]:
    """The state dict of a module that was saved whole: torch.nn.Module keeps its tensors in these attributes."""
    found: dict[str, Described] = {}
    waiting: list[tuple[str, Any]] = [("", module)]
    budget = _MOST_ENTRIES
    while waiting:
        prefix, one = waiting.pop()
        if not _is_module(one):
            continue
        parts = [one.state.get(kind) for kind in ("_parameters", "_buffers", "_modules")]
        parameters, buffers, modules = [part if isinstance(part, dict) else {} for part in parts]
        budget -= 1 + len(parameters) + len(buffers) + len(modules)
        if budget < 0:
            raise pickle.UnpicklingError(f"its module has more than {_MOST_ENTRIES} parts")
        passing = one.state.get("_non_persistent_buffers_set")
        kept = {name: value for name, value in buffers.items() if name not in (passing or ())}
        tensors = {name: value for name, value in {**parameters, **kept}.items() if isinstance(value, Described)}
        found |= {f"{prefix}{name}": value for name, value in tensors.items()}
        waiting += [(f"{prefix}{name}.", item) for name, item in reversed(modules.items())]
    if not found:
        raise _ForeignContentError("it holds a module without tensors")
    return found


def _tensors(state: dict[str, Described], buffer: Callable[[Storage], bytearray]) -> dict[str, Tensor]:
    """The tensors with their values. Those that share a storage share memory."""
    read: dict[str, bytearray] = {}
    found = {}
    for name, one in state.items():
        storage = one.storage
        if storage.key not in read:
            read[storage.key] = buffer(storage)
        data, dtype = read[storage.key], one.dtype or storage.dtype
        there = len(data) // _item_size(storage.dtype)
        if there < storage.size:
            raise pickle.UnpicklingError(f"storage {storage.key} holds {there} values, {storage.size} are announced")
        values = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        found[name] = torch.as_strided(values, tuple(one.size), tuple(one.stride), storage.offset + one.offset)
    return found


def _item_size(dtype: torch.dtype) -> int:
    return torch.empty(0, dtype=dtype).element_size()


def _refused(path: Path, reason: str, remedy: str) -> CompileError:
    return CompileError(f"The weights {path} were not read: {reason}.", f"Nothing in the file was executed. {remedy}")


def conversion(path: Path, key: str | None = None, loader: str = _SAVED) -> str:
    """The command that writes the file's tensors as safetensors; it executes what the file says."""
    code = "; ".join(
        [
            "import pickle, torch, safetensors.torch as s",
            f"x = {loader.format(path=_quoted(str(path)))}",
            *([f"x = x[{_quoted(key)}]"] if key else []),
            'x = next((x[k] for k in ("state_dict", "model") if isinstance(x, dict) and k in x), x)',
            'x = x.state_dict() if hasattr(x, "state_dict") else x',
            'x = {k: torch.as_tensor(v) for k, v in x.items() if hasattr(v, "__array__")}',
            "x = {k: v.dequantize() if v.is_quantized else v for k, v in x.items()}",
            "x = {k: v.to_dense() if v.layout != torch.strided else v for k, v in x.items()}",
            "x = {k: v.detach().contiguous().clone() for k, v in x.items()}",
            f"s.save_file(x, {_quoted(str(_new_name(path)))})",
        ]
    )
    return f"Where you trust it, convert it once, which does execute it: python -c {shlex.quote(code)}"


def _new_name(path: Path) -> Path:
    """A file beside `path` that does not exist: NAME.safetensors, or NAME-2.safetensors and so on."""
    numbered = (path.with_name(f"{path.stem}-{number}.safetensors") for number in itertools.count(2))
    names = itertools.chain([path.with_suffix(".safetensors")], numbered)
    return next(name for name in names if not name.exists() and not name.is_symlink())


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
