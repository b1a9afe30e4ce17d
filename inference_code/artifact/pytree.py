"""Nested model outputs, flattened to a tuple of named tensors and put back together.

A compiled graph answers with a flat tuple. `flatten` turns what a model returned (dict, dataclass, named tuple, list,
tuple, constants between them) into that tuple and a JSON-able description; `restore` reverses it. Standard library
only.

    value                     description
    a tensor                  {"kind": "tensor", "index": 0}
    list, tuple               {"kind": "list" | "tuple", "items": [description, ...]}
    dict                      {"kind": "dict", "entries": [[key, description], ...]}
    dataclass, named tuple    {"kind": "dataclass" | "namedtuple", "type": "Name", "entries": [[field, ...], ...]}
    dict that is a dataclass  {"kind": "record", "type": "Name", "entries": [...]}   (transformers' ModelOutput)
    None, bool, number, str   {"kind": "constant", "value": ...}
"""

from __future__ import annotations

import collections
import dataclasses
import keyword
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

SINGLE_OUTPUT = "output"
_SEQUENCES = ("list", "tuple")
_ENTRIES = ("dict", "dataclass", "namedtuple", "record")


class StructureError(ValueError):
    """A value that cannot be described, or a description that cannot be read."""


class Record(dict[str, Any]):
    """A dict whose entries are attributes too, as transformers' ModelOutput offers them."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no output {name!r}; there are: {', '.join(self)}") from None


@dataclasses.dataclass(frozen=True)
class Flattened:
    """Tensors in order, one dotted name each (`output` for a lone tensor), and the description to restore them."""

    leaves: tuple[Any, ...]
    names: tuple[str, ...]
    structure: dict[str, Any]


def flatten(value: Any, is_leaf: Callable[[Any], bool]) -> Flattened:
    """Flatten `value`; `is_leaf` says what a tensor is (`lambda v: isinstance(v, torch.Tensor)`).

    A None field of a dict that is a dataclass (ModelOutput) is left out, as transformers leaves it out.
    Raises StructureError for a value of another type, keys that are not text, two outputs with one name, or no tensor.
    """
    leaves: list[Any] = []
    names: list[str] = []

    def visit(node: Any, path: tuple[str, ...]) -> dict[str, Any]:
        if is_leaf(node):
            leaves.append(node)
            names.append(".".join(path) or SINGLE_OUTPUT)
            return {"kind": "tensor", "index": len(leaves) - 1}
        kind, entries = _open(node, path)
        if kind == "constant":
            return {"kind": kind, "value": node}
        described = [[key, visit(child, (*path, key))] for key, child in entries]
        if kind in _SEQUENCES:
            return {"kind": kind, "items": [description for _, description in described]}
        description: dict[str, Any] = {"kind": kind, "entries": described}
        if kind != "dict":
            description["type"] = type(node).__name__
        return description

    structure = visit(value, ())
    if not leaves:
        raise StructureError(f"the output holds no tensor: {type(value).__name__}")
    repeated = sorted(name for name, times in collections.Counter(names).items() if times > 1)
    if repeated:
        raise StructureError(f"two outputs have one name: {', '.join(repeated)}; rename the keys that hold a dot")
    return Flattened(tuple(leaves), tuple(names), structure)


def _open(node: Any, path: tuple[str, ...]) -> tuple[str, list[tuple[str, Any]]]:
    """The kind of a node that is not a tensor, and its children with their keys."""
    if node is None or isinstance(node, (bool, int, str)) or (isinstance(node, float) and math.isfinite(node)):
        return "constant", []
    is_dataclass = dataclasses.is_dataclass(node) and not isinstance(node, type)
    if isinstance(node, Mapping):
        for key in node:
            if not isinstance(key, str):
                raise StructureError(f"output {'.'.join(path) or '(top)'}: key {key!r} is not text")
        return ("record" if is_dataclass else "dict"), list(node.items())
    if is_dataclass:
        return "dataclass", [(field.name, getattr(node, field.name)) for field in dataclasses.fields(node)]
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return "namedtuple", list(zip(node._fields, node, strict=True))
    if isinstance(node, (list, tuple)):
        kind = "list" if isinstance(node, list) else "tuple"
        return kind, [(str(index), child) for index, child in enumerate(node)]
    raise StructureError(
        f"output {'.'.join(path) or '(top)'} is a {type(node).__name__}; "
        "outputs may be tensors, dicts, dataclasses, named tuples, lists, tuples and constants"
    )


def restore(structure: Mapping[str, Any], leaves: Sequence[Any]) -> Any:
    """Put `leaves` back into the shape that `structure` describes.

    Dataclasses and named tuples come back as new types of the same name and fields: the model's own code is not in the
    artifact. Raises StructureError for a description that does not fit.
    """
    kind = structure.get("kind")
    if kind == "tensor":
        return leaves[structure["index"]]
    if kind == "constant":
        return structure["value"]
    if kind in _SEQUENCES:
        items = [restore(item, leaves) for item in structure["items"]]
        return items if kind == "list" else tuple(items)
    if kind in _ENTRIES:
        return _close(kind, structure, {key: restore(child, leaves) for key, child in structure["entries"]})
    raise StructureError(f"unknown kind {kind!r} in the structure of the outputs")


def _close(kind: str, structure: Mapping[str, Any], entries: dict[str, Any]) -> Any:
    """The opposite of `_open`: a value of the described kind with these entries."""
    if kind == "dict":
        return entries
    if kind == "record":
        return Record(entries)
    if kind == "namedtuple":
        return collections.namedtuple(structure["type"], list(entries))(**entries)
    return dataclasses.make_dataclass(structure["type"], list(entries))(**entries)


def check(structure: Any, leaves: int) -> None:
    """Raise StructureError unless `structure` is well formed and uses each of the `leaves` tensors exactly once."""
    seen: list[int] = []
    _check_node(structure, seen)
    if sorted(seen) != list(range(leaves)):
        raise StructureError(f"the structure uses outputs {sorted(seen)}, the graph has {leaves}")


def _check_node(node: Any, seen: list[int]) -> None:
    if not isinstance(node, Mapping):
        raise StructureError(f"a structure is an object with a kind, not {node!r}")
    kind = node.get("kind")
    if kind == "tensor" and isinstance(node.get("index"), int):
        seen.append(node["index"])
    elif kind in _SEQUENCES and isinstance(node.get("items"), list):
        for child in node["items"]:
            _check_node(child, seen)
    elif kind in _ENTRIES and isinstance(node.get("entries"), list):
        _check_entries(node, seen)
    elif not (kind == "constant" and "value" in node):
        raise StructureError(f"this is no description of outputs: {node!r}")


def _check_entries(node: Mapping[str, Any], seen: list[int]) -> None:
    names = []
    for entry in node["entries"]:
        if not (isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[0], str)):
            raise StructureError(f"an entry is a pair of name and description, not {entry!r}")
        names.append(entry[0])
        _check_node(entry[1], seen)
    if node["kind"] in ("dataclass", "namedtuple"):
        for name in (node.get("type"), *names):
            if not (isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name)):
                raise StructureError(f"{name!r} is not the name of a {node['kind']} or of a field of one")
