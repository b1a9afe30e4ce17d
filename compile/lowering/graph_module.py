"""A traced graph, or a part of one, as an ordinary module that runs it node by node.

Run under a trace it records the same operators again, so a part can be analyzed, traced and compiled like any model.
Sizes are fixed, as they are in a lowered module; control flow and what only TorchScript can run is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from compile.ir.aliases import Effects, effects
from compile.ir.graph import Graph, Node

_UNPACK = frozenset({"prim::ListUnpack", "prim::TupleUnpack"})
_BUILD = frozenset({"prim::ListConstruct", "prim::TupleConstruct"})
# Hand a value to Python code or turn a number into a tensor: only where the value is fixed.
_NUMBERS: dict[str, Callable[[Any], Any]] = {
    **{"aten::Int": int, "aten::Float": float, "aten::Bool": bool, "prim::ImplicitTensorToNum": int},
    **{"aten::IntImplicit": int, "aten::FloatImplicit": float, "prim::NumToTensor": torch.tensor},
}


class UnplayableError(Exception):
    """The graph has a node that cannot be run on its own; str() names it."""


@dataclass(frozen=True)
class Ref:
    """A value of the graph as an argument."""

    value: int

    def __repr__(self) -> str:
        return f"%{self.value}"


@dataclass
class Step:
    """One operation: a function, its arguments (constants, and `Ref`s in nested lists), the values that it makes."""

    kind: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[int, ...]
    node: Node | None = None
    refs: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.refs = tuple(dict.fromkeys(refs((self.args, self.kwargs))))

    def __str__(self) -> str:
        return f"  {', '.join(f'%{value}' for value in self.outputs)} = {self.kind}{self.args}"

    @property
    def effects(self) -> Effects:
        """What it writes into and returns a view of; unpacking gives views of what is unpacked."""
        return effects(self.node.schema) if self.node else Effects(views=(0,))

    @property
    def random(self) -> bool:
        """Whether it gives something else every time."""
        return self.node is not None and bool(self.node.handle.isNondeterministic())


def aten(name: str, args: tuple[Any, ...], output: int, overload: str = "default") -> Step:
    """A step of one's own, by the operator's name."""
    return Step(f"aten::{name}", getattr(getattr(torch.ops.aten, name), overload), args, {}, (output,))


def read(graph: Graph) -> tuple[list[Step], list[int]]:
    """The graph in program order, with what is fixed folded away, and its outputs. Raises UnplayableError."""
    reader = _Reader(graph)
    return reader.read(), refs([reader.argument(value) for value in graph.outputs])


class _Reader:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.known: dict[int, Any] = {}  # lists, constants and fixed numbers by value

    def read(self) -> list[Step]:
        found = []
        for node in self.graph.nodes:
            if node.owner is not None or node.kind in ("prim::If", "prim::Loop"):
                raise UnplayableError(f"control flow ({node.kind})")
            if node.kind == "prim::Constant":
                self.known[node.outputs[0]] = node.handle.outputsAt(0).toIValue()
            elif node.kind in _BUILD:
                kind = list if node.kind == "prim::ListConstruct" else tuple
                self.known[node.outputs[0]] = kind(self.argument(value) for value in node.inputs)
            elif not self.fold(node):
                found.append(self.step(node))
        return found

    def argument(self, value: int) -> Any:
        return self.known[value] if value in self.known else Ref(value)

    def fold(self, node: Node) -> bool:
        """Sizes and what is computed from them are numbers."""
        if node.kind == "aten::size":
            shape = self.graph.values[node.inputs[0]].shape
            if shape is None:
                raise UnplayableError("a size that is not fixed")
            self.known[node.outputs[0]] = list(shape) if len(node.inputs) == 1 else shape[self.argument(node.inputs[1])]
            return True
        args = tuple(self.argument(value) for value in node.inputs)
        fixed = not refs(args)
        if node.kind in _NUMBERS:
            if not fixed:
                raise UnplayableError(f"{node.kind} of a value that depends on the inputs")
            self.known[node.outputs[0]] = _NUMBERS[node.kind](args[0])
            return True
        result = self.graph.values[node.outputs[0]] if len(node.outputs) == 1 else None
        if fixed and args and result is not None and (not result.is_tensor or result.shape == ()) and node.counted:
            step = self.step(node)
            self.known[node.outputs[0]] = step.function(*step.args, **step.kwargs)
            return True
        return False

    def step(self, node: Node) -> Step:
        args = tuple(self.argument(value) for value in node.inputs)
        if node.kind in _UNPACK:
            return Step(node.kind, list, args, {}, node.outputs)
        if not node.counted:
            raise UnplayableError(f"{node.kind}, which only a trace of Python code can hold")
        schema = torch._C.parse_schema(node.schema)
        space, _, name = node.kind.partition("::")
        try:
            function = getattr(getattr(getattr(torch.ops, space), name), schema.overload_name or "default")
        except AttributeError:
            raise UnplayableError(f"{node.kind}, which Python cannot call") from None
        positional = tuple(arg for arg, known in zip(args, schema.arguments, strict=True) if not known.kwarg_only)
        named = {known.name: arg for arg, known in zip(args, schema.arguments, strict=True) if known.kwarg_only}
        return Step(node.kind, function, positional, named, node.outputs, node)


def refs(value: Any) -> list[int]:
    """The values of the graph in nested arguments."""
    return [leaf.value for leaf in tree_flatten(value)[0] if isinstance(leaf, Ref)]


class GraphPart(nn.Module):
    """Positional tensors for `inputs` to a tuple of the tensors `outputs`; `state` are the weights that it reads.

    inputs, outputs: values of the graph. The weights keep their names, below `state`.
    """

    def __init__(
        self, parts: Sequence[Step], inputs: Sequence[int], outputs: Sequence[int], state: dict[int, tuple[str, Tensor]]
    ) -> None:
        super().__init__()
        self.steps = list(parts)
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        read = {value for step in parts for value in step.refs}
        self.state = nn.Module()
        self.names = {value: name for value, (name, _) in state.items() if value in read}
        for value, name in self.names.items():
            _hold(self.state, name, state[value][1])
        self.forgotten = _last_uses(self.steps, self.outputs)
        self.training = False

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Runs the steps; a value is forgotten after its last use."""
        values: dict[int, Any] = dict(zip(self.inputs, tensors, strict=True))
        for value, name in self.names.items():
            path, _, leaf = name.rpartition(".")
            values[value] = getattr(self.state.get_submodule(path), leaf)
        for step, forgotten in zip(self.steps, self.forgotten, strict=True):
            args, kwargs = tree_map(
                lambda leaf: values[leaf.value] if isinstance(leaf, Ref) else leaf, (step.args, step.kwargs)
            )
            result = step.function(*args, **kwargs)
            if len(step.outputs) == 1:
                values[step.outputs[0]] = result[0] if step.kind in _UNPACK else result
            else:
                values.update(zip(step.outputs, result, strict=True))
            for value in forgotten:
                values.pop(value, None)
        return tuple(values[value] for value in self.outputs)


def _hold(root: nn.Module, name: str, tensor: Tensor) -> None:
    *path, leaf = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.training = False
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(leaf, tensor)
    else:
        root.register_buffer(leaf, tensor)


def _last_uses(parts: Sequence[Step], outputs: Collection[int]) -> list[tuple[int, ...]]:
    last: dict[int, int] = {}
    for number, step in enumerate(parts):
        last.update(dict.fromkeys((*step.refs, *step.outputs), number))
    found: list[list[int]] = [[] for _ in parts]
    for value, number in last.items():
        if value not in outputs:
            found[number].append(value)
    return [tuple(values) for values in found]
