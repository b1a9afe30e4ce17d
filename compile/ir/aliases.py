"""Which nodes write into memory that other values share, and the order that those writes impose.

A trace is single-assignment: `y = x.add_(1)` reads x and gives y, and later uses of the tensor object x are recorded
as y. What it does not show is that a view taken earlier, or the base of a view, changed as well. This module follows
storages through views (by the alias annotations of each operator's schema) in program order and finds those writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from compile.ir.graph import Graph, Node

# Operators that may return their input unchanged although their schema says nothing of it.
_SILENT_VIEWS = frozenset(
    {
        *("aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout"),
        *("aten::type_as", "aten::broadcast_tensors", "aten::meshgrid", "aten::numpy_T", "aten::__getitem__"),
        *("aten::einsum", "aten::atleast_1d", "aten::atleast_2d", "aten::atleast_3d", "aten::pin_memory"),
    }
)
_CONTAINERS = frozenset(
    {
        *("prim::ListConstruct", "prim::TupleConstruct", "prim::DictConstruct", "prim::ListUnpack"),
        *("prim::TupleUnpack", "prim::TupleIndex", "prim::unchecked_cast", "prim::GetAttr", "prim::TupleSlice"),
    }
)
# What these run cannot be seen, so they are taken to write into everything that they are given.
OPAQUE = frozenset({"prim::If", "prim::Loop", "prim::PythonOp", "prim::CallFunction", "prim::CallMethod"})


@dataclass(frozen=True)
class Effects:
    """Positions of the arguments that an operator writes into, and of those that its result may share memory with."""

    writes: tuple[int, ...] = ()
    views: tuple[int, ...] = ()


@dataclass
class Storage:
    """One piece of memory. `root` says who made it: input, parameter, constant or node."""

    root: str
    epoch: int = 0  # how many writes so far
    last_write: int | None = None
    readers: list[int] = field(default_factory=list)  # since the last write
    all_readers: list[int] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)
    views: list[int] = field(default_factory=list)
    stale_read: bool = False
    maker: int | None = None

    @property
    def hidden_write(self) -> bool:
        """Whether data edges alone would compute something else: a write that is seen through another name."""
        return bool(self.writes) and (self.stale_read or self.root != "node")


@dataclass
class Aliases:
    """Ordering edges (earlier, later) that writes impose, and the nodes that must stay on the host, with the reason.

    `changing` are the nodes that make or read memory which any node writes: their result is no constant.
    """

    edges: list[tuple[int, int]] = field(default_factory=list)
    host: dict[int, str] = field(default_factory=dict)
    hidden_writes: list[int] = field(default_factory=list)
    changing: set[int] = field(default_factory=set)


@lru_cache(maxsize=4096)
def effects(schema: str) -> Effects:
    """Read an operator schema such as `aten::add_(Tensor(a!) self, Tensor other) -> Tensor(a!)`."""
    match = re.match(r"[\w:.]+\((.*)\) -> (.*)$", schema)
    if match is None:
        return Effects()
    returned = set(re.findall(r"\((\w+)[!)\s|]", match.group(2)))
    returned |= set(re.findall(r"\(\w+ -> (\w+)", match.group(2)))
    writes, views = [], []
    # Split at commas outside brackets; a lone `*` only says that what follows has names.
    arguments = [part for part in re.split(r",\s*(?![^\[(]*[\])])", match.group(1)) if part and part != "*"]
    for position, argument in enumerate(arguments):
        marked = re.match(r"[\w?\[\]]+\((\w+)(!?)( -> \*)?", argument)
        if marked is None:
            continue
        if marked.group(2):
            writes.append(position)
        if marked.group(1) in returned or marked.group(3):
            views.append(position)
    return Effects(tuple(writes), tuple(views))


Pair = tuple[Storage, int]


class _Walk:
    """One pass over the graph in program order."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        # Per value: the storages that it may share, each with the epoch at which the value was taken.
        self.held: dict[int, tuple[Pair, ...]] = {}
        self.storages: list[Storage] = []
        self.edges: list[tuple[int, int]] = []
        # What a control-flow node's body touches: its results may be any of it.
        self.touched: dict[int, dict[int, Pair]] = {}

    def fresh(self, value: int, root: str, maker: int | None = None) -> None:
        storage = Storage(root, maker=maker)
        self.storages.append(storage)
        self.held[value] = ((storage, 0),)

    def run(self) -> None:
        for value in self.graph.inputs:
            self.fresh(value, "input")
        for value in self.graph.parameters:
            self.fresh(value, "parameter")
        for node in self.graph.nodes:
            self.visit(node)
            if node.owner is not None:
                self.enclose(node, self.graph.nodes[node.owner])
        for value in self.graph.outputs:
            for storage, epoch in self.held.get(value, ()):
                storage.stale_read |= epoch < storage.epoch

    def visit(self, node: Node) -> None:
        if node.kind == "prim::Constant":
            if self.graph.values[node.outputs[0]].is_tensor:
                self.fresh(node.outputs[0], "constant")
        elif node.kind in _CONTAINERS:
            together = self.pairs(node.inputs, node)
            self.held.update(dict.fromkeys(node.outputs if together else (), together))
        else:
            self.operate(node)

    def pairs(self, values: Iterable[int], node: Node) -> tuple[Pair, ...]:
        """The storages of several values, each once, with the oldest epoch at which one of them was taken."""
        found: dict[int, Pair] = {}
        for value in values:
            _merge(found, self.storages_of(value, node))
        return tuple(found.values())

    def storages_of(self, value: int, node: Node) -> tuple[Pair, ...]:
        """Inside a body, a value without a storage may be an argument of the body: anything given to its owner."""
        if value in self.held or node.owner is None:
            return self.held.get(value, ())
        owner = self.graph.nodes[node.owner]
        return tuple(pair for given in owner.inputs for pair in self.held.get(given, ()))

    def enclose(self, node: Node, owner: Node) -> None:
        touched = self.touched.setdefault(owner.index, {})
        for value in (*node.inputs, *node.outputs):
            _merge(touched, self.storages_of(value, node))
        for output in owner.outputs:
            self.held[output] = tuple(touched.values())

    def operate(self, node: Node) -> None:
        unit = node.index if node.owner is None else node.owner
        opaque = node.kind in OPAQUE
        effect = effects(node.schema)
        every = tuple(range(len(node.inputs)))
        views = every if opaque or node.kind in _SILENT_VIEWS else effect.views
        writes = every if opaque else effect.writes
        for value in node.inputs:
            self.read(self.storages_of(value, node), unit)
        written = set()
        for position in writes:
            written |= self.write(self.storages_of(node.inputs[position], node), unit)
        shared = self.pairs((node.inputs[position] for position in views), node)
        for storage, _ in shared:
            storage.views.append(unit)
        aliases = tuple((s, s.epoch if id(s) in written else epoch) for s, epoch in shared)
        for output in node.outputs:
            if aliases:
                self.held[output] = aliases
            elif self.graph.values[output].type in ("TensorType", "ListType", "TupleType", "AnyType"):
                self.fresh(output, "node", maker=unit)

    def read(self, pairs: Iterable[Pair], unit: int) -> None:
        for storage, epoch in pairs:
            storage.stale_read |= epoch < storage.epoch
            storage.readers.append(unit)
            storage.all_readers.append(unit)
            if storage.last_write is not None and storage.last_write != unit:
                self.edges.append((storage.last_write, unit))

    def write(self, pairs: Iterable[Pair], unit: int) -> set[int]:
        touched = set()
        for storage, _ in pairs:
            self.edges.extend((reader, unit) for reader in dict.fromkeys(storage.readers) if reader != unit)
            storage.readers.clear()
            storage.epoch += 1
            storage.last_write = unit
            storage.writes.append(unit)
            touched.add(id(storage))
        return touched


def _merge(found: dict[int, Pair], pairs: Iterable[Pair]) -> None:
    for storage, epoch in pairs:
        known = found.get(id(storage))
        found[id(storage)] = (storage, epoch if known is None else min(epoch, known[1]))


def follow(graph: Graph) -> Aliases:
    """Follow every storage through the graph. Linear in nodes: each read is charged to at most one write."""
    walk = _Walk(graph)
    walk.run()
    result = Aliases(edges=walk.edges)
    for storage in walk.storages:
        if storage.writes:
            result.changing.update(storage.all_readers)
            result.changing.update([] if storage.maker is None else [storage.maker])
        if not storage.hidden_write:
            continue
        last = storage.writes[-1]
        result.hidden_writes.extend(storage.writes)
        for unit in storage.writes:
            result.host.setdefault(unit, "writes into memory that another value shares")
        for unit in storage.views:
            if unit < last:
                result.host.setdefault(unit, "makes a view of memory that is written later")
        if storage.root in ("parameter", "constant"):
            # A compiled subgraph has its weights built in and would never see the change.
            for unit in storage.all_readers:
                result.host.setdefault(unit, "reads a buffer that the model itself changes")
    result.hidden_writes = sorted(set(result.hidden_writes))
    return result
