"""What a graph file must be before anything of it runs: known operators, values in order, sizes within bounds.

Standard library and torch alone, from Python 3.10 and torch 1.13 on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compile.portable import operators, shape_rules
from compile.portable.file import MOST_BYTES, GraphFile, GraphFileError, Node, Part, PortableVariant, function_of
from compile.portable.replay import Ref, ValueType, first_line, refs, replaced, type_of
from compile.portable.tensors import DTYPES

_ITEM = {str(dtype).removeprefix("torch."): torch.empty((), dtype=dtype).element_size() for dtype in DTYPES.values()}
# Arguments that no file gives: the replay's factories follow its inputs.
PLACEMENT = ("device", "pin_memory", "layout")
# As large as an argument at the most (max_pool3d: by one in each size); torch 1.13.1 cannot tell the shape before it
# runs them.
_NO_LARGER = frozenset(
    f"aten::{name}"
    for name in (
        *("argsort.stable", "bucketize.Tensor", "channel_shuffle", "cummax", "cummin", "kthvalue", "logcumsumexp"),
        *("_weight_norm", "max_pool3d", "median", "median.dim", "rrelu", "searchsorted.Tensor", "take"),
    )
)
# Their other results are smaller than the first or an argument, and on a CPU of other sizes than without content.
_FIRST_ALONE = ("aten::embedding_bag.padding_idx",)


def require(file: GraphFile, torch_version: str = "") -> None:
    """Raises GraphFileError naming everything of the file that `torch_version` (default: of this process) cannot run,
    that is wired wrongly, or whose stated shapes and sizes do not hold."""
    version = torch_version or str(torch.__version__)
    problems = [problem for variant in file.variants for problem in _of_variant(variant, file.tensors, version)]
    names = [str(variant) for variant in file.variants]
    problems += [f"{name} stands in it twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    if not problems:
        for variant in file.variants:
            file.parts(variant)  # refuses names that torch.nn.Module has for itself
    if problems:
        more = [f"and {len(problems) - 20} more"] if len(problems) > 20 else []
        raise GraphFileError("\n  ".join([f"{len(problems)} problem(s):", *problems[:20], *more]))


def _of_variant(variant: PortableVariant, tensors: Mapping[str, Tensor], version: str) -> Iterator[str]:
    known: dict[str, list[ValueType]] = {"input": [entry.type for entry in variant.inputs], "host": [], "device": []}
    yield from _of_entries(variant)
    total = sum(map(size_of, known["input"]))
    if total > MOST_BYTES:
        yield f"{variant}: its inputs have {total} bytes, more than {MOST_BYTES}"
        return
    if variant.host is None and variant.wiring.host:
        yield f"{variant}: inputs are wired to its host part, and it has none"
        return
    for name, part, given in (
        ("host", variant.host, [("input", number) for number in variant.wiring.host]),
        ("device", variant.device, list(variant.wiring.device)),
    ):
        if part is None:
            continue
        where = f"{variant}, {name} part"
        wrong = [place for place in given if place[0] == name or place[1] >= len(known[place[0]])]
        if wrong or len(given) != len(part.inputs):
            yield f"{where}: its {len(part.inputs)} inputs are wired to {given!s:.200}"
            return
        checked = _Checked(where, part, [known[source][number] for source, number in given], tensors, version)
        problems = list(checked.problems())
        yield from problems
        if problems:
            return
        known[name] = [checked.types[value] for value in part.outputs]
        total += sum(map(size_of, checked.types.values()))
    if total > MOST_BYTES:
        yield f"{variant}: its values would take {total} bytes, more than {MOST_BYTES}"
    yield from _of_outputs(variant, known)
    yield from _of_references(variant, tensors)


def _of_entries(variant: PortableVariant) -> Iterator[str]:
    for what, entries in (("inputs", variant.inputs), ("outputs", variant.outputs)):
        names = [entry.name for entry in entries]
        if len(names) != len(set(names)):
            yield f"{variant}: two of its {what} have one name"


def _of_outputs(variant: PortableVariant, known: Mapping[str, Sequence[ValueType]]) -> Iterator[str]:
    if len(variant.wiring.outputs) != len(variant.outputs):
        yield f"{variant}: {len(variant.outputs)} outputs are named, {len(variant.wiring.outputs)} are wired"
        return
    for entry, (source, number) in zip(variant.outputs, variant.wiring.outputs, strict=True):
        found = known[source][number] if number < len(known[source]) else None
        if found != entry.type:
            yield f"{variant}: output {entry.name} is {entry.type}, it is wired to {source} {number}, {found}"


def _of_references(variant: PortableVariant, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    for number, reference in enumerate(variant.references):
        for what, entries, digests in (
            ("inputs", variant.inputs, reference.inputs),
            ("outputs", variant.outputs, reference.outputs),
        ):
            if [entry.type for entry in entries] != [type_of(tensors[digest]) for digest in digests]:
                yield f"{variant}: the {what} of reference {number} are of other shapes or dtypes than the graph's"


class _Checked:
    """Looks at a part from its first node to its last; `types` are those of all values so far."""

    def __init__(
        self, where: str, part: Part, given: Sequence[ValueType], tensors: Mapping[str, Tensor], version: str
    ) -> None:
        self.where, self.part, self.version = where, part, version
        self.types: dict[int, ValueType] = dict(zip(part.inputs, given, strict=True))
        names = [one.name for one in part.state]
        self.twice = len(self.types) != len(part.inputs) or len(names) != len(set(names))
        for one in part.state:
            self.twice |= one.value in self.types
            self.types[one.value] = type_of(tensors[one.tensor])

    def problems(self) -> Iterator[str]:
        if self.twice:
            yield f"{self.where}: two of its inputs and weights have one number or one name"
            return
        for number, node in enumerate(self.part.nodes):
            at = f"{self.where}, node {number}{f' ({node.where})' if node.where else ''}: {node.operator}"
            largest = max(map(size_of, node.types), default=0)
            if largest > MOST_BYTES:
                yield f"{at}: it makes {', '.join(map(str, node.types))}, {largest} bytes; the most is {MOST_BYTES}"
                return
            for problem in self.of_node(node):
                yield f"{at}: {problem}"
            if len(node.outputs) != len(set(node.outputs)) or not self.types.keys().isdisjoint(node.outputs):
                yield f"{at}: it makes a value that is there already"
                return
            self.types.update(zip(node.outputs, node.types, strict=True))
        missing = [value for value in self.part.outputs if value not in self.types]
        if missing:
            yield f"{self.where}: nothing makes its output {missing[0]}"

    def of_node(self, node: Node) -> Iterator[str]:
        if node.operator not in operators.allowed():
            yield "it is not among the operators that a graph may hold"
            return
        unknown = [value for value in refs((node.args, node.kwargs)) if value not in self.types]
        if unknown:
            yield f"it reads the value {unknown[0]} before anything makes it"
            return
        problem = operators.problem(self.version, node.operator, node.args, node.kwargs) or _of_kinds(node)
        if problem is not None:
            yield problem
            return
        yield from self.of_shapes(node)

    def of_shapes(self, node: Node) -> Iterator[str]:
        """What the operator makes of tensors without content, where this torch can tell."""

        def empty(leaf: Any) -> Any:
            if not isinstance(leaf, Ref):
                return leaf
            known = self.types[leaf.value]
            return torch.empty(known.shape, dtype=getattr(torch, known.dtype), device="meta")

        args, kwargs = replaced((node.args, dict(node.kwargs)), empty)
        try:
            found = _made(node, args, kwargs)
        except Exception as error:  # whatever torch, or an own rule, says of arguments that are none
            yield f"it takes no such arguments: {first_line(error)}"
            return
        if found is not None and found != list(node.types):
            stated = ", ".join(map(str, node.types))
            yield f"it makes {', '.join(map(str, found))}, the file states {stated}"


def _of_kinds(node: Node) -> str | None:
    """A value of the graph where the operator takes numbers: its content would decide over sizes. A number for a dtype
    or a memory format, which torch looks up in a table without a bound; and a device, which is the replay's choice."""
    for argument, value in named(node.operator, node.args, node.kwargs):
        name = argument.name
        if refs(value) and "Tensor" not in str(argument.type):
            return f"its argument {name} is {value}, a tensor where {argument.type} belongs"
        kind = torch.dtype if "dtype" in name else torch.memory_format if name == "memory_format" else None
        if value is not None and (name in PLACEMENT or (kind and not isinstance(value, kind))):
            return f"its argument {name} is {value!r:.80}"
    return None


def named(operator: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """The schema's arguments (name, type) that are given, each with its value."""
    schema = function_of(operator)._schema.arguments
    given = dict(zip((argument.name for argument in schema), args, strict=False)) | dict(kwargs)
    return [(argument, given[argument.name]) for argument in schema if argument.name in given]


def _made(node: Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[ValueType] | None:
    """What the operator makes of tensors without content; None where torch cannot tell and it is no more than it gets.

    Raises whatever torch raises, also where it cannot tell.
    """
    rule = shape_rules.RULES.get(node.operator)
    if rule is not None:
        return [rule(**{argument.name: value for argument, value in named(node.operator, args, kwargs)})]
    factory = {} if refs((node.args, node.kwargs)) else {"device": "meta"}
    try:
        result = function_of(node.operator)(*args, **kwargs, **factory)
    except NotImplementedError:
        if node.operator in _NO_LARGER:
            return None
        raise
    made = list(map(type_of, result if isinstance(result, (list, tuple)) else (result,)))
    return made[:1] + list(node.types[1:]) if node.operator in _FIRST_ALONE else made


def size_of(kind: ValueType) -> int:
    """Bytes; a size of 0 counts as 1, since strides are made of the others."""
    return math.prod(max(size, 1) for size in kind.shape) * _ITEM[kind.dtype]
