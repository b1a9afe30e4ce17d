"""A traced graph as steps that can be run one by one and captured.

Sizes are fixed, as they are in a lowered module; control flow and what only TorchScript can run is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from compile.ir.aliases import Effects, effects
from compile.ir.graph import Graph, Node
from compile.portable.replay import Ref, Step, refs

_UNPACK = frozenset({"prim::ListUnpack", "prim::TupleUnpack"})
_BUILD = frozenset({"prim::ListConstruct", "prim::TupleConstruct"})
# Hand a value to Python code or turn a number into a tensor: only where the value is fixed.
_NUMBERS: dict[str, Callable[[Any], Any]] = {
    **{"aten::Int": int, "aten::Float": float, "aten::Bool": bool, "prim::ImplicitTensorToNum": int},
    **{"aten::IntImplicit": int, "aten::FloatImplicit": float, "prim::NumToTensor": torch.tensor},
}


class UnplayableError(Exception):
    """The graph has a node that cannot be run on its own; str() names it."""


@dataclass
class TracedStep(Step):
    """A step of a trace, with the node that it comes from."""

    node: Node | None = None

    @property
    def effects(self) -> Effects:
        """What it writes into and returns a view of."""
        return effects(self.node.schema) if self.node else Effects()

    @property
    def random(self) -> bool:
        """Whether it gives something else every time."""
        return self.node is not None and bool(self.node.handle.isNondeterministic())


def aten(name: str, args: tuple[Any, ...], output: int, overload: str = "default", *, of: Step) -> TracedStep:
    """A step of one's own, by the operator's name. of: the step whose place in the model it takes."""
    function = getattr(getattr(torch.ops.aten, name), overload)
    return TracedStep(f"aten::{name}", function, args, {}, (output,), module=of.module, source=of.source)


def read(graph: Graph) -> tuple[list[TracedStep], list[int]]:
    """The graph in program order, with what is fixed folded away, and its outputs. Raises UnplayableError."""
    reader = _Reader(graph)
    return reader.read(), refs([reader.argument(value) for value in graph.outputs])


class _Reader:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.known: dict[int, Any] = {}  # lists, constants and fixed numbers by value

    def read(self) -> list[TracedStep]:
        found: list[TracedStep] = []
        for node in self.graph.nodes:
            if node.owner is not None or node.kind in ("prim::If", "prim::Loop"):
                raise UnplayableError(f"control flow ({node.kind})")
            if node.kind == "prim::Constant":
                self.known[node.outputs[0]] = node.handle.outputsAt(0).toIValue()
            elif node.kind in _BUILD:
                kind = list if node.kind == "prim::ListConstruct" else tuple
                self.known[node.outputs[0]] = kind(self.argument(value) for value in node.inputs)
            elif node.kind in _UNPACK:
                self.unpack(node, found)
            elif not self.fold(node):
                found.append(self.step(node))
        for step in found:
            if any(self.graph.values[value].type == "ListType" for value in step.outputs):
                raise UnplayableError(f"{step.kind}, whose list is never unpacked")
        return found

    def unpack(self, node: Node, found: list[TracedStep]) -> None:
        """The step that made a list makes its entries instead."""
        (whole,) = node.inputs
        if whole in self.known:
            self.known.update(zip(node.outputs, self.known[whole], strict=True))
            return
        number = next(number for number, step in enumerate(found) if step.outputs == (whole,))
        found[number] = replace(found[number], outputs=node.outputs)
        self.known[whole] = [Ref(value) for value in node.outputs]

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

    def step(self, node: Node) -> TracedStep:
        args = tuple(self.argument(value) for value in node.inputs)
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
        return TracedStep(
            node.kind, function, positional, named, node.outputs, module=node.scope, source=node.source(), node=node
        )
