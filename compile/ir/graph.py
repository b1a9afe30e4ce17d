"""The traced graph as plain data: nodes in program order, values with shapes, and where in the model each came from.

Counting rule: take the graph that `torch.jit._get_trace_graph` records, inline scripted helpers, and count every node
that is not a `prim::` one. No optimisation pass runs, because torch-neuron logs the graph before any.
"""

from __future__ import annotations

import math
import re
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from compile.portable.replay import AT, Placed

INTEGER_TYPES = frozenset({torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8})
# A frame of Python code, and a line of TorchScript: `path.py(12): function` and `File "path.py", line 12`.
_ROOM = f"{Path(__file__).parents[1]}/"
_PYTHON_FRAME = re.compile(r"(\S.*?)\((\d+)\): ")
_SCRIPT_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_CONTROL_FLOW = frozenset({"prim::If", "prim::Loop"})


@dataclass
class Value:
    """One value of the graph. `shape` is None where the trace does not know it (inside scripted control flow)."""

    id: int
    type: str
    shape: tuple[int, ...] | None = None
    dtype: torch.dtype | None = None

    @property
    def is_tensor(self) -> bool:
        return self.type == "TensorType"

    @property
    def elements(self) -> int:
        """Number of elements; 0 when the shape is unknown."""
        return math.prod(self.shape) if self.shape is not None else 0

    @property
    def bytes(self) -> int:
        """Size in bytes; 0 when the shape or dtype is unknown."""
        return self.elements * _item_size(self.dtype) if self.dtype else 0


@lru_cache(maxsize=32)
def _item_size(dtype: torch.dtype) -> int:
    return torch.empty((), dtype=dtype).element_size()


@dataclass
class Node:
    """One operation. `owner` is the index of the control-flow node whose body it stands in, or None.

    `counted` says whether torch-neuron counts it among the arithmetic operators: everything that is not `prim::`.
    """

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    scope: str
    schema: str
    owner: int | None
    counted: bool
    handle: Any = field(repr=False)
    replayed: str = ""  # of a step that is run again: the source that it came with

    def argument(self, position: int) -> Any:
        """The constant at an input position; None when there is none or when it is not a constant."""
        return constant(self.handle.inputsAt(position)) if position < len(self.inputs) else None

    def source(self) -> str:
        """File and line of the first frame outside PyTorch and this room, as `path:line`, or empty."""
        if self.replayed:
            return self.replayed
        for line in self.handle.sourceRange().splitlines():
            match = _PYTHON_FRAME.match(line) or _SCRIPT_FRAME.search(line)
            if match and "/torch/" not in match.group(1) and not match.group(1).startswith(_ROOM):
                return f"{short_path(match.group(1))}:{match.group(2)}"
        return ""


@dataclass
class Graph:
    """A traced model. `parameters` maps value ids to state-dict names; `inputs` are the example inputs' tensors."""

    nodes: list[Node]
    values: dict[int, Value]
    inputs: list[int]
    parameters: dict[int, str]
    outputs: list[int]
    raw: Any = field(repr=False)
    trace_seconds: float = 0.0
    read_seconds: float = 0.0
    returns_dict: bool = False
    decisions: tuple[str, ...] = ()  # places where Python decided by the data of a tensor
    counts: tuple[str, ...] = ()  # places where Python took a size that follows the data: len(), or to decide by it

    @property
    def counted(self) -> list[Node]:
        """The nodes of the counting rule."""
        return [node for node in self.nodes if node.counted]


def constant(value: Any) -> Any:
    """The Python value of a graph constant, lists and tuples of constants included; None when it is not constant."""
    node = value.node()
    if node.kind() == "prim::Constant":
        return value.toIValue()
    if node.kind() in ("prim::ListConstruct", "prim::TupleConstruct"):
        return [constant(item) for item in node.inputs()]
    return None


def trace(module: torch.nn.Module, example_inputs: Sequence[Any], *, grad: bool = True) -> Graph:
    """Trace `module` in evaluation mode on clones of the inputs and read the graph.

    Raises what PyTorch's tracer raises; compile.analysis.trace_checks turns it into a message.
    """
    inputs = tree_map(lambda item: item.detach().clone() if isinstance(item, Tensor) else item, tuple(example_inputs))
    training = module.training
    started = time.perf_counter()
    try:
        module.eval()
        with torch.set_grad_enabled(grad), _scopes(module), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a trace fixes is noted by compile.analysis.trace_checks
            raw, result = torch.jit._get_trace_graph(module, inputs)  # type: ignore[attr-defined,no-untyped-call]
            torch._C._jit_pass_inline(raw)
    finally:
        module.train(training)
    traced = time.perf_counter()
    graph = _read(raw, module)
    graph.returns_dict = isinstance(result, dict)
    graph.trace_seconds, graph.read_seconds = traced - started, time.perf_counter() - traced
    return graph


@contextmanager
def _scopes(module: torch.nn.Module) -> Iterator[None]:
    """Have the tracer record each node's module path. Scripted submodules keep no path: they are not called here."""
    from torch.jit import _trace  # noqa: PLC0415 (private: kept beside its only use)

    before = _trace._trace_module_map
    _trace._trace_module_map = {part: name or "." for name, part in module.named_modules()}
    placing = [part for part in module.modules() if isinstance(part, Placed)]
    for part in placing:
        part.placed = True
    try:
        yield
    finally:
        _trace._trace_module_map = before
        for part in placing:
            part.placed = False


def _read(raw: Any, module: torch.nn.Module) -> Graph:
    values: dict[int, Value] = {}
    nodes: list[Node] = []
    handles = list(raw.inputs())
    for handle in handles:
        _value(handle, values)
    _read_block(raw, values, nodes, owner=None)
    # The tracer appends the module's state, each tensor once, after the example inputs.
    names = list(torch.jit._unique_state_dict(module, keep_vars=True))  # type: ignore[attr-defined,no-untyped-call]
    state = handles[len(handles) - len(names) :] if names else []
    return Graph(
        nodes=nodes,
        values=values,
        inputs=[handle.unique() for handle in handles[: len(handles) - len(names)]],
        parameters={handle.unique(): name for handle, name in zip(state, names, strict=True)},
        outputs=[handle.unique() for handle in raw.outputs()],
        raw=raw,
    )


def _read_block(block: Any, values: dict[int, Value], nodes: list[Node], owner: int | None) -> None:
    for handle in block.nodes():
        kind = handle.kind()
        # By position: the bindings' iterators cost twenty times as much as the access itself.
        outputs = tuple([_value(handle.outputsAt(i), values) for i in range(handle.outputsSize())])
        inputs = tuple([handle.inputsAt(i).unique() for i in range(handle.inputsSize())])
        counted = not kind.startswith("prim::")
        schema = handle.schema() if counted else ""
        # The tracer separates the modules that it is inside of by slashes; the innermost is the last.
        modules, _, source = handle.scopeName().partition(AT)
        scope = modules.rsplit("/", 1)[-1] or "." if counted or kind in _CONTROL_FLOW else ""
        node = Node(len(nodes), kind, inputs, outputs, scope, schema, owner, counted, handle, source)
        nodes.append(node)
        if kind in _CONTROL_FLOW:
            for inner in handle.blocks():
                for argument in inner.inputs():
                    _value(argument, values)
                _read_block(inner, values, nodes, owner=node.index if owner is None else owner)


def _value(handle: Any, values: dict[int, Value]) -> int:
    identity: int = handle.unique()
    type_ = handle.type()
    value = values[identity] = Value(identity, type_.kind())
    if value.is_tensor:
        sizes = type_.sizes()
        value.shape = tuple(sizes) if sizes is not None and None not in sizes else None
        value.dtype = type_.dtype()
    return identity


def place_of(error: BaseException, *not_own: str) -> str:
    """` (path:line)` of the last code that an error passed outside PyTorch and folders `not_own`, or nothing."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/torch/" not in frame.filename]
    own = [frame for frame in frames if not frame.filename.startswith(not_own)]
    return f" ({short_path(own[-1].filename)}:{own[-1].lineno})" if own else ""


def short_path(file: str) -> str:
    """A source file's path from its package, or from the current folder, so that reports agree between machines."""
    _, installed, inside = file.rpartition("site-packages/")
    return inside if installed else file.removeprefix(f"{Path.cwd()}/")
