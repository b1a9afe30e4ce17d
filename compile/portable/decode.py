"""graph.json back into a graph: every field is looked at, and what is wrong is named by its place."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compile.portable import tensors as tensor_files
from compile.portable.file import (
    FORMAT,
    GRAPH,
    LARGEST_GRAPH,
    MEMORY_FORMATS,
    TENSORS,
    GraphFile,
    GraphFileError,
    Node,
    Part,
    PortableVariant,
    Reference,
    State,
    TensorEntry,
)
from compile.portable.replay import Ref, ValueType, Wiring
from compile.portable.tensors import DTYPES, parsed

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES.values()}
# What an argument is that JSON has no kind for.
_KINDS: Mapping[str, Mapping[str, Any]] = {
    "number": {name: float(name) for name in ("inf", "-inf", "nan")},
    "dtype": _DTYPES,
    "memory_format": {name: getattr(torch, name) for name in MEMORY_FORMATS},
}
_WIRED = ("input", "host", "device")
# Far more than any operator has: what comes next walks through names and nested lists without looking again.
LONGEST_NAME, DEEPEST_NAME, DEEPEST_ARGUMENT = 1024, 64, 4


def read(folder: Path) -> GraphFile:
    """A graph file that was unpacked into `folder`.

    Raises GraphFileError for a newer format, a field that is missing or of another kind, and a tensor that does not fit
    its digest; OSError where a file cannot be read. What the graph computes is not looked at: check.require does that.
    """
    path = folder / GRAPH
    if path.stat().st_size > LARGEST_GRAPH:
        raise GraphFileError(f"{GRAPH} has {path.stat().st_size} bytes, more than {LARGEST_GRAPH}")
    try:
        content = parsed(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise GraphFileError(f"{GRAPH} cannot be read: {error}") from None
    top = _Object(content, GRAPH)
    found = top.integer("format")
    if found != FORMAT:
        newer = "a newer version of the project wrote it" if found > FORMAT else "it is older than this project reads"
        raise GraphFileError(f"{GRAPH} has the format {found!r:.20}, this project reads {FORMAT}: {newer}")
    try:
        tensors = tensor_files.read(folder / TENSORS)
    except tensor_files.TensorFileError as error:
        raise GraphFileError(f"{TENSORS}: {error}") from None
    graphs = [_variant(graph, tensors) for graph in top.objects("graphs")]
    if not graphs:
        raise GraphFileError(f"{GRAPH} has no graph")
    return GraphFile(top.mapping("header"), tuple(graphs), tensors)


class _Object:
    """An object of the JSON with its place, which every message names."""

    def __init__(self, content: Any, place: str) -> None:
        if not isinstance(content, dict):
            raise GraphFileError(f"{place} is no object")
        self.content, self.place = content, place

    def value(self, name: str, kind: Any, default: Any = ...) -> Any:
        found = self.content.get(name, default)
        if found is ...:
            raise GraphFileError(f"{self.place} has no {name!r}")
        if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
            raise GraphFileError(f"{self.place}.{name} is {found!r:.80}")
        return found

    def text(self, name: str, default: Any = ...) -> str:
        return _name(self.value(name, str, default), f"{self.place}.{name}")

    def integer(self, name: str) -> int:
        return int(self.value(name, int))

    def mapping(self, name: str) -> Mapping[str, Any]:
        return dict(self.value(name, dict))

    def entries(self, name: str, default: Any = ...) -> list[tuple[Any, str]]:
        """Entries with their places."""
        found = self.value(name, list, default)
        return [(entry, f"{self.place}.{name}[{number}]") for number, entry in enumerate(found)]

    def objects(self, name: str) -> list[_Object]:
        return [_Object(entry, place) for entry, place in self.entries(name)]


def _variant(graph: _Object, tensors: Mapping[str, Tensor]) -> PortableVariant:
    host = graph.value("host", (dict, type(None)))
    wiring = _Object(graph.value("wiring", dict), f"{graph.place}.wiring")
    place = f"{graph.place}.bucket"
    return PortableVariant(
        role=graph.text("role"),
        bucket={_name(axis, place): _size(size, f"{place}.{axis}") for axis, size in graph.mapping("bucket").items()},
        batch_size=_count(graph.integer("batch_size"), f"{graph.place}.batch_size"),
        inputs=tuple(_entry(*entry) for entry in graph.entries("inputs")),
        outputs=tuple(_entry(*entry) for entry in graph.entries("outputs")),
        structure=graph.mapping("structure"),
        host=None if host is None else _part(_Object(host, f"{graph.place}.host"), tensors),
        device=_part(_Object(graph.value("device", dict), f"{graph.place}.device"), tensors),
        wiring=Wiring(
            tuple(_count(*entry) for entry in wiring.entries("host")),
            tuple(_place(*entry) for entry in wiring.entries("device")),
            tuple(_place(*entry) for entry in wiring.entries("outputs")),
            single=False,
        ),
        references=tuple(
            Reference(
                *(tuple(_digest(*entry, tensors) for entry in one.entries(name)) for name in ("inputs", "outputs"))
            )
            for one in graph.objects("references")
        ),
    )


def _size(value: Any, place: str) -> int | list[int]:
    return [_count(part, place) for part in value] if isinstance(value, list) else _count(value, place)


def _count(value: Any, place: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise GraphFileError(f"{place} is {value!r:.80}, no count")
    return value


def _tuple(value: Any, length: int, place: str) -> list[Any]:
    if not isinstance(value, list) or len(value) != length:
        raise GraphFileError(f"{place} is {value!r:.80}, not {length} entries")
    return value


def _name(value: Any, place: str) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_NAME or not value.isprintable():
        raise GraphFileError(f"{place} is {value!r:.80}, no name")
    return value


def _type(dtype: Any, shape: Any, place: str) -> ValueType:
    if not isinstance(dtype, str) or dtype not in _DTYPES or not isinstance(shape, list) or len(shape) > 64:
        raise GraphFileError(f"{place} is {dtype!r:.80} {shape!r:.80}, no dtype and shape")
    return ValueType(dtype, tuple(_count(size, place) for size in shape))


def _entry(value: Any, place: str) -> TensorEntry:
    name, dtype, shape = _tuple(value, 3, place)
    return TensorEntry(_name(name, place), _type(dtype, shape, place))


def _place(value: Any, place: str) -> tuple[str, int]:
    source, number = _tuple(value, 2, place)
    if source not in _WIRED:
        raise GraphFileError(f"{place} is {source!r:.80}, not one of {', '.join(_WIRED)}")
    return source, _count(number, place)


def _digest(value: Any, place: str, tensors: Mapping[str, Tensor]) -> str:
    if not isinstance(value, str) or value not in tensors:
        raise GraphFileError(f"{place} is {value!r:.80}, no tensor of the file")
    return value


def _part(part: _Object, tensors: Mapping[str, Tensor]) -> Part:
    return Part(
        inputs=tuple(_count(*entry) for entry in part.entries("inputs")),
        state=tuple(_state(*entry, tensors) for entry in part.entries("state")),
        nodes=tuple(_node(node) for node in part.objects("nodes")),
        outputs=tuple(_count(*entry) for entry in part.entries("outputs")),
    )


def _state(value: Any, place: str, tensors: Mapping[str, Tensor]) -> State:
    number, name, digest, parameter = _tuple(value, 4, place)
    path = _name(name, place).split(".")  # of modules in the replay
    if len(path) > DEEPEST_NAME or not all(part.replace("-", "_").replace("_", "a").isalnum() for part in path):
        raise GraphFileError(f"{place} is {name!r:.80}, no name of a weight")
    if not isinstance(parameter, bool):
        raise GraphFileError(f"{place} is {parameter!r:.80}, neither true nor false")
    return State(_count(number, place), name, _digest(digest, place, tensors), parameter)


def _node(node: _Object) -> Node:
    made = [_tuple(entry, 3, place) for entry, place in node.entries("outputs")]
    largest = tuple(_finite(*entry) for entry in node.entries("largest", []))
    if largest and len(largest) != len(made):
        raise GraphFileError(f"{node.place}.largest has {len(largest)} numbers for {len(made)} outputs")
    return Node(
        operator=node.text("operator"),
        args=tuple(_argument(*entry) for entry in node.entries("args")),
        kwargs={
            _name(name, node.place): _argument(value, f"{node.place}.kwargs.{name}")
            for name, value in node.value("kwargs", dict, {}).items()
        },
        outputs=tuple(_count(value, node.place) for value, _, _ in made),
        types=tuple(_type(dtype, shape, node.place) for _, dtype, shape in made),
        largest=largest,
        module=node.text("module", ""),
        source=node.text("source", ""),
    )


def _finite(value: Any, place: str) -> float:
    if type(value) not in (int, float) or not -sys.float_info.max <= value <= sys.float_info.max:
        raise GraphFileError(f"{place} is {value!r:.80}, no number")
    return float(value)


def _argument(value: Any, place: str, depth: int = 0) -> Any:
    if isinstance(value, str):
        return _name(value, place)
    if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and -(1 << 63) <= value < 1 << 63):
        return value
    if isinstance(value, list) and depth < DEEPEST_ARGUMENT:
        return [_argument(part, place, depth + 1) for part in value]
    kind, content = next(iter(value.items())) if isinstance(value, dict) and len(value) == 1 else ("", None)
    if kind == "value":
        return Ref(_count(content, place))
    known = _KINDS.get(kind, {})
    if not isinstance(content, str) or content not in known:
        raise GraphFileError(f"{place} is {value!r:.80}, no argument")
    return known[content]
