"""A pickle read as data: every class, function and call that it names stays a description, nothing of it is looked up.

`torch.load(weights_only=True)` is not safe in the torch of the Inf1 container (CVE-2025-32434 concerns 1.13 to 2.5), so
this reader does without torch.load in every environment. The standard library's unpickler in Python takes the opcodes;
those that would call, import or set attributes are replaced.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, ClassVar, NoReturn

import torch

LARGEST_PICKLE = 32 << 20  # bytes; a pickle describes tensors, their values are beside it
MOST_PIECES = 4_000_000  # an opcode is one, its argument another; a tensor takes about 60, without its optimizer
_DTYPES = {
    **{"FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16},
    **{"BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32},
    **{"ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool},
    **{"ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128},
    **{"QInt8Storage": torch.int8, "QUInt8Storage": torch.uint8, "QInt32Storage": torch.int32},
    "UntypedStorage": torch.uint8,
}
_SETS = {("builtins", "set"), ("__builtin__", "set"), ("builtins", "frozenset"), ("__builtin__", "frozenset")}


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names."""

    module: str
    name: str


@dataclass
class Opaque:
    """An object of a class that is none of a state dict; `state` is what would have become its attributes."""

    kind: Any
    state: Any = None


@dataclass(frozen=True)
class Storage:
    """Values beside the pickle: `size` of them under `key`; a view begins at `offset` of what the key names."""

    key: str
    dtype: torch.dtype
    size: int
    offset: int = 0


@dataclass(frozen=True)
class Described:
    """A tensor whose values were not read yet. dtype: where it is another than the storage's."""

    storage: Storage
    offset: Any
    size: Any
    stride: Any
    dtype: torch.dtype | None = None


@dataclass
class BoundedFile:
    """What the unpickler reads from: a bounded number of bytes and pieces, whatever length the pickle announces."""

    file: IO[bytes]
    left: int = LARGEST_PICKLE
    pieces: int = MOST_PIECES

    def read(self, size: int) -> bytes:
        return self._counted(self.file.read(min(size, self.left + 1)))

    def readline(self) -> bytes:
        return self._counted(self.file.readline(self.left + 1))

    def _counted(self, data: bytes) -> bytes:
        self.left, self.pieces = self.left - len(data), self.pieces - 1
        if self.left < 0 or self.pieces < 0:
            raise pickle.UnpicklingError(f"its pickle has more than {LARGEST_PICKLE} bytes or {MOST_PIECES} parts")
        return data


def _forbidden(_: Any) -> NoReturn:
    raise pickle.UnpicklingError("its pickle has an opcode that is no part of a state dict")


class Unpickler(pickle._Unpickler):
    """Gives dictionaries, lists, tuples, plain values, `Described` tensors, and `Opaque` for everything else.

    storages: every storage that the pickle refers to, by its key.
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: IO[bytes]) -> None:
        # Strings of Python 2 are bytes; what is no UTF-8 among them is no name of a tensor.
        super().__init__(BoundedFile(file), encoding="utf-8", errors="replace")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        return Name(module, name)

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module":
            return pid[1]  # a class with its source text, as torch before 1.6 writes it
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise pickle.UnpicklingError(f"it has an unknown reference {str(pid)[:60]!r}")
        _, kind, key, _location, size, *view = pid
        dtype = _DTYPES.get(kind.name) if isinstance(kind, Name) and kind.module.startswith("torch") else None
        if dtype is None or not isinstance(key, str) or not _is_size(size):
            raise pickle.UnpicklingError("it has a storage of an unknown kind")
        found = self.storages.setdefault(key, Storage(key, dtype, size))
        if view and view[0] is not None:
            _view_key, offset, view_size = view[0]
            if not (_is_size(offset) and _is_size(view_size) and offset + view_size <= size):
                raise pickle.UnpicklingError(f"it has a view that lies outside of storage {key}")
            return Storage(key, dtype, view_size, offset)
        return found

    def _pop_pairs(self) -> None:
        values = self.pop_mark()
        self._set_pairs(list(zip(values[::2], values[1::2], strict=True)))

    def _pop_pair(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_pairs([(key, value)])

    def _set_pairs(self, pairs: list[tuple[Any, Any]]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict | Opaque):
            raise pickle.UnpicklingError("it sets an entry of what is no dictionary")
        if isinstance(target, dict):
            # Hashing nested tuples can take all of the stack; a state dict has no such keys.
            target.update((key, value) for key, value in pairs if isinstance(key, str | int | float | bytes))

    def _new_dict(self) -> None:
        values = self.pop_mark()
        self.stack.append({})
        self._set_pairs(list(zip(values[::2], values[1::2], strict=True)))

    def _pop_items(self) -> None:
        self._extend(self.pop_mark())

    def _pop_item(self) -> None:
        self._extend([self.stack.pop()])

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list | Opaque):
            raise pickle.UnpicklingError("it appends to what is no list")
        if isinstance(target, list):
            target.extend(items)

    def _new_list(self) -> None:
        self.stack.append([])

    def _marked_list(self) -> None:
        self.stack.append(self.pop_mark())

    def _build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Opaque):
            self.stack[-1].state = state

    def _reduce(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        self.stack.append(_made(kind, arguments))

    def _new(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        self.stack.append({} if _is_dictionary(kind) and arguments == () else Opaque(kind))

    def _new_with_keywords(self) -> None:
        del self.stack[-2:]
        self.stack.append(Opaque(self.stack.pop()))

    def _frame(self) -> None:
        self.read(8)  # its length: frames are for reading ahead

    def _old_instance(self) -> None:
        module, name = self.readline(), self.readline()
        self.pop_mark()
        self.stack.append(Opaque(Name(module[:-1].decode("ascii"), name[:-1].decode("ascii"))))

    def _old_object(self) -> None:
        values = self.pop_mark()
        self.stack.append(Opaque(values[0]))

    _REPLACED: ClassVar[dict[bytes, Callable[[Any], None]]] = {
        **{pickle.SETITEM: _pop_pair, pickle.SETITEMS: _pop_pairs, pickle.DICT: _new_dict},
        **{pickle.APPEND: _pop_item, pickle.APPENDS: _pop_items},
        # Sets are kept as lists: nothing of them is hashed.
        **{pickle.EMPTY_SET: _new_list, pickle.ADDITEMS: _pop_items, pickle.FROZENSET: _marked_list},
        **{pickle.BUILD: _build, pickle.REDUCE: _reduce, pickle.NEWOBJ: _new, pickle.NEWOBJ_EX: _new_with_keywords},
        pickle.FRAME: _frame,
        **{pickle.INST: _old_instance, pickle.OBJ: _old_object},
        **dict.fromkeys([pickle.EXT1, pickle.EXT2, pickle.EXT4], _forbidden),
        **dict.fromkeys([pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER], _forbidden),
    }
    dispatch.update({code[0]: function for code, function in _REPLACED.items()})


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_dictionary(kind: Any) -> bool:
    return isinstance(kind, Name) and kind.module == "collections" and kind.name in ("OrderedDict", "defaultdict")


def _made(kind: Any, arguments: Any) -> Any:
    """What a call is known to give; Opaque for any other call."""
    if not isinstance(kind, Name) or not isinstance(arguments, tuple):
        return Opaque(kind)
    if _is_dictionary(kind):
        return _dictionary(arguments)
    if (kind.module, kind.name) in _SETS:
        return list(arguments[0]) if arguments and isinstance(arguments[0], list) else []
    if kind.module in ("torch._utils", "torch._tensor") and arguments:
        return _tensor(kind, arguments)
    return Opaque(kind)


def _dictionary(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Of OrderedDict's arguments: none, or (as Python 2 writes it) a list of pairs. defaultdict has a factory first."""
    pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
    return {pair[0]: pair[1] for pair in pairs if isinstance(pair, list | tuple) and isinstance(pair[0], str | int)}


def _tensor(kind: Name, arguments: tuple[Any, ...]) -> Any:
    if kind.name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
        return arguments[0]
    if kind.name == "_rebuild_from_type_v2" and len(arguments) == 4:  # a tensor that has attributes of its own
        return _made(arguments[0], arguments[2])
    if kind.name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
        storage, offset, size, stride, *more = arguments
        if not isinstance(storage, Storage):
            return Opaque(kind)
        dtype = None
        if kind.name == "_rebuild_tensor_v3":
            name = more[2].name if isinstance(more[2], Name) and more[2].module == "torch" else ""
            dtype = vars(torch).get(name)
            if not isinstance(dtype, torch.dtype):
                raise pickle.UnpicklingError(f"it has a tensor of the unknown dtype {name!r}")
        return Described(storage, offset, size, stride, dtype)
    return Opaque(kind)
