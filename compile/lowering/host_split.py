"""The host prologue: what Neuron leaves to the host, taken out in front of the compiled graph.

Embedding look-ups and the integer arithmetic that makes their indices become a named host part; the device part takes
dense tensors and is a whole graph again. Both parts are made of the lowered module's trace, node by node.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compile.ir.flops import flops
from compile.ir.graph import Graph, trace
from compile.lowering.embedding_placement import Budget, Table, choose
from compile.lowering.graph_module import TracedStep, UnplayableError, aten, read
from compile.portable.capture import own_path
from compile.portable.replay import GraphPart, Joined, Ref, Wiring, refs

_LOG = logging.getLogger(__name__)
_LOOK_UPS = frozenset({"aten::embedding", "aten::embedding_bag", "aten::index_select", "aten::index", "aten::gather"})
_WHOLE = frozenset({torch.int64, torch.int32, torch.int16})


@dataclass(frozen=True)
class DenseInput:
    """One input of the device part; `source` is "host", or "input" for an input of the model itself."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    source: str


@dataclass
class PrologueReport:
    """What went to the host and why; crossing_bytes are those of all inputs of the device part."""

    tables: list[Table] = field(default_factory=list)
    operators: dict[str, int] = field(default_factory=dict)
    host_flops: int = 0
    crossing_bytes: int = 0
    dense: tuple[DenseInput, ...] = ()
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able description."""
        return {
            "tables": [table.to_json() for table in self.tables],
            "operators": dict(self.operators),
            "host_flops": self.host_flops,
            "crossing_bytes": self.crossing_bytes,
            "inputs": [{**vars(dense), "shape": list(dense.shape)} for dense in self.dense],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Prologue:
    """A lowered module in two parts. Without a host part `device` is the lowered module itself.

    device_inputs: what the device part takes for the example, to compile it with; the report names them.
    """

    host: nn.Module | None
    device: nn.Module
    device_inputs: tuple[Tensor, ...]
    report: PrologueReport
    wiring: Wiring | None = None

    @property
    def whole(self) -> nn.Module:
        """Both parts as one module that takes and returns what the model does."""
        if self.host is None or self.wiring is None:
            return self.device
        return Joined(self.host, self.device, self.wiring)


def split(lowered: nn.Module, example_inputs: Sequence[Tensor], budget: Budget | None = None) -> Prologue:
    """Split a lowered module for inputs of the example's shapes. The module is not changed; weights are shared.

    Where nothing belongs on the host, or the trace cannot be split, the module stays whole and the report says
    why; it never guesses.
    """
    inputs, started = tuple(example_inputs), time.perf_counter()
    try:
        with torch.no_grad():
            graph = trace(lowered, inputs, grad=False)
            tensors = torch.jit._unique_state_dict(lowered, keep_vars=True)  # type: ignore[attr-defined,no-untyped-call]
            state = {value: (name, tensors[name]) for value, name in graph.parameters.items()}
            found = _Splitter(graph, state, budget or Budget()).split(lowered, inputs)
    except UnplayableError as error:
        found = Prologue(None, lowered, inputs, PrologueReport(notes=[f"not split: the graph has {error}"]))
    _log(found, time.perf_counter() - started)
    return found


def _log(found: Prologue, seconds: float) -> None:
    report = found.report
    count = sum(report.operators.values())
    _LOG.info("host split in %.3f s: %d operators go to the host, %d tables", seconds, count, len(report.tables))
    for table in report.tables:
        _LOG.info("table %s on the %s: %s", table.name, "host" if table.choice == "host" else "device", table.reason)
    for note in report.notes:
        _LOG.info("note: %s", note)
    for name, part in (("host", found.host), ("device", found.device)):
        if isinstance(part, GraphPart):
            _LOG.debug("%s part, %d steps:\n%s", name, len(part.steps), "\n".join(map(str, part.steps)))


@dataclass(frozen=True)
class _LookUp:
    """One step that reads rows of a table at indices that are data."""

    step: TracedStep
    table: int
    index: int

    @property
    def plain(self) -> bool:
        return self.step.kind == "aten::embedding"


class _Splitter:
    def __init__(self, graph: Graph, state: dict[int, tuple[str, Tensor]], budget: Budget) -> None:
        self.graph, self.state, self.budget = graph, state, budget
        self.steps, self.outputs = read(graph)
        self.maker = {value: number for number, step in enumerate(self.steps) for value in step.outputs}
        self.data: set[int] = set(graph.inputs)
        for step in self.steps:
            if step.random or any(value in self.data for value in step.refs):
                self.data.update(step.outputs)
        self.report = PrologueReport()
        self.fresh = max([*graph.values, 0]) + 1

    def split(self, lowered: nn.Module, inputs: tuple[Tensor, ...]) -> Prologue:
        look_ups, late = self.look_ups()
        host = self.host_steps(look_ups)
        if not host and not late:
            return Prologue(None, lowered, inputs, self.report)
        self.check_writes(host)
        products = self.choose(look_ups)
        before, after = self.parts(host, products, late)
        if not any(step.node is not None for step in after):
            notes = ["not split: everything belongs on the host"]
            return Prologue(None, lowered, inputs, PrologueReport(notes=notes))
        return self.wired(lowered, inputs, before, after) if host else self.whole(lowered, inputs, after)

    # -- what goes to the host

    def look_ups(self) -> tuple[list[_LookUp], list[_LookUp]]:
        """Those whose indices the host can make, and those of plain tables whose indices the device makes."""
        early, late = [], []
        for step in self.steps:
            found = self.look_up(step)
            if found is None:
                continue
            reason = self.heavy(step)
            if reason is None:
                early.append(found)
                continue
            name, table = self.name(found.table), self.state[found.table][1]
            work = 2 * self.graph.values[found.index].elements * table.numel()
            small = found.plain and work <= self.budget.flops and bool(torch.isfinite(table).all())
            done = "a one-hot product on the device" if small else "left as it is"
            self.report.notes.append(f"{name}: its indices depend on {reason}: {done}")
            late += [found] if small else []
        return early, late

    def look_up(self, step: TracedStep) -> _LookUp | None:
        table, *rest = step.args if step.kind in _LOOK_UPS else (None,)
        if not isinstance(table, Ref) or table.value not in self.state:
            return None
        index = next((value for value in refs(rest) if value in self.data), None)
        return None if index is None else _LookUp(step, table.value, index)

    def heavy(self, step: TracedStep) -> str | None:
        """Why the host cannot make what the step reads, or None when it can."""
        work = 0
        for number in self.behind([step]) - {self.maker[step.outputs[0]]}:
            before = self.steps[number]
            if before.random:
                return f"{before.kind}, which is random"
            weights = [self.state[value][1] for value in before.refs if value in self.state]
            if any(weight.is_floating_point() and weight.dim() > 0 for weight in weights):
                return f"{before.kind} with weights"
            work += self.work(before)
        return f"{work:,} FLOP" if work > self.budget.host_flops else None

    def behind(self, after: Sequence[TracedStep]) -> set[int]:
        """Numbers of the steps given and of all that they need."""
        found: set[int] = set()
        waiting = [self.maker[step.outputs[0]] for step in after]
        while waiting:
            number = waiting.pop()
            if number not in found:
                found.add(number)
                waiting += [self.maker[value] for value in self.steps[number].refs if value in self.maker]
        return found

    def host_steps(self, look_ups: Sequence[_LookUp]) -> set[int]:
        """Look-ups with all that they need, and whole-number arithmetic that needs nothing of the device."""
        host = self.behind([found.step for found in look_ups])
        for step in self.steps:
            needs = [value for value in step.refs if value in self.data]
            made = all(value in self.graph.inputs or self.maker.get(value) in host for value in needs)
            # whole numbers that are data go in, or come out
            whole = any(self.graph.values[value].dtype in _WHOLE for value in (*needs, *step.outputs))
            if needs and made and whole and not step.random and self.work(step) <= self.budget.host_flops:
                host |= self.behind([step])
        return host

    def work(self, step: TracedStep) -> int:
        return flops(self.graph, step.node) if step.node else 0

    def check_writes(self, host: set[int]) -> None:
        """Raises UnplayableError where something is written into memory that the other part could see."""
        for number, step in enumerate(self.steps):
            written = [step.node.inputs[place] for place in step.effects.writes] if step.node else []
            for root in map(self.root, written):
                if number in host or root not in self.maker or self.maker[root] in host:
                    raise UnplayableError(f"{step.kind} writing into what both parts may see")

    def root(self, value: int) -> int:
        """The value whose memory this one is a view of."""
        while value in self.maker:
            step = self.steps[self.maker[value]]
            if not step.effects.views or not step.refs:
                break
            value = step.node.inputs[step.effects.views[0]] if step.node else step.refs[0]
        return value

    # -- tables

    def choose(self, look_ups: Sequence[_LookUp]) -> set[int]:
        """Fill the report's tables; returns those that become products."""
        groups: dict[int, list[_LookUp]] = {}
        for found in look_ups:
            groups.setdefault(found.table, []).append(found)
        tables = [self.table(value, found) for value, found in groups.items()]
        finite = [bool(torch.isfinite(self.state[value][1]).all()) for value in groups]
        self.report.tables = choose(tables, finite, self.budget)
        return {value for value, table in zip(groups, self.report.tables, strict=True) if table.choice == "product"}

    def table(self, value: int, found: Sequence[_LookUp]) -> Table:
        tensor = self.state[value][1]
        width = tensor.numel() // max(1, tensor.shape[0])
        results = sum(self.graph.values[one.step.outputs[0]].elements for one in found)
        own = {one.step.outputs[0] for one in found}
        return Table(
            name=self.name(value),
            rows=tensor.shape[0],
            width=width,
            item_bytes=tensor.element_size(),
            look_ups=len(found),
            positions=sum(self.graph.values[one.index].elements for one in found),
            results=results // max(1, width),
            choice="",
            reason="",
            sums=not all(one.plain for one in found),
            shared=any(value in step.refs and step.outputs[0] not in own for step in self.steps),
        )

    def name(self, value: int) -> str:
        """The table's name in the model that was lowered."""
        return own_path(self.state[value][0]).removesuffix(".weight")

    # -- the two parts

    def parts(
        self, host: set[int], products: set[int], late: Sequence[_LookUp]
    ) -> tuple[list[TracedStep], list[TracedStep]]:
        """Host steps and device steps, in order."""
        late_steps = {id(found.step): found for found in late}
        before: list[TracedStep] = []
        after: list[TracedStep] = []
        for number, step in enumerate(self.steps):
            found = self.look_up(step)
            if number not in host:
                after += self.compared(late_steps[id(step)]) if id(step) in late_steps else [step]
            elif found is not None and found.table in products:
                rows = self.new()
                dtype = self.state[found.table][1].dtype
                before += self.one_hot(found, rows, dtype)
                after.append(_product(Ref(rows), found))
            else:
                before.append(step)
        needed = {value for step in after for value in step.refs}
        fixed = [step for step in before if not any(value in self.data for value in step.outputs) and step.node]
        after = [step for step in fixed if any(value in needed for value in step.outputs)] + after
        return before, after

    def new(self) -> int:
        self.fresh += 1
        self.data.add(self.fresh)
        return self.fresh

    def one_hot(self, found: _LookUp, rows: int, dtype: torch.dtype) -> list[TracedStep]:
        """Rows of 0 and 1 of the table's dtype; PyTorch's one_hot refuses an index outside of the table."""
        whole, count = self.new(), self.state[found.table][1].shape[0]
        return [
            aten("to", (Ref(found.index), torch.int64), wide := self.new(), "dtype", of=found.step),
            aten("one_hot", (Ref(wide), count), whole, of=found.step),
            aten("to", (Ref(whole), dtype), rows, "dtype", of=found.step),
        ]

    def compared(self, found: _LookUp) -> list[TracedStep]:
        """A look-up at indices that the device makes: whole numbers compared as whole numbers."""
        table = self.state[found.table][1]
        column, equal, rows = self.new(), self.new(), self.new()
        every = torch.arange(table.shape[0], dtype=self.graph.values[found.index].dtype)
        return [
            aten("unsqueeze", (Ref(found.index), -1), column, of=found.step),
            aten("eq", (Ref(column), every), equal, "Tensor", of=found.step),
            aten("to", (Ref(equal), table.dtype), rows, "dtype", of=found.step),
            _product(Ref(rows), found),
        ]

    # -- wiring

    def whole(self, lowered: nn.Module, inputs: tuple[Tensor, ...], steps: list[TracedStep]) -> Prologue:
        """The lowered module with other steps and no host part."""
        wiring = Wiring(
            host=(),
            device=tuple(("input", number) for number in range(len(inputs))),
            outputs=tuple(("device", number) for number in range(len(self.outputs))),
            single=isinstance(lowered(*inputs), Tensor),
        )
        device = GraphPart(steps, self.graph.inputs, self.outputs, self.state)
        return Prologue(None, Joined(GraphPart([], [], [], {}), device, wiring), inputs, self.report)

    def wired(
        self, lowered: nn.Module, inputs: tuple[Tensor, ...], before: list[TracedStep], after: list[TracedStep]
    ) -> Prologue:
        made_before = {value for step in before for value in step.outputs}
        made_after = {value for step in after for value in step.outputs}
        needs = dict.fromkeys(value for step in after for value in step.refs if value in self.data - made_after)
        crossing = [value for value in needs if value in made_before]
        direct = [value for value in needs if value not in made_before]
        outputs = list(dict.fromkeys(value for value in self.outputs if value in made_after))
        kept = [v for v in dict.fromkeys(self.outputs) if v in made_before and v not in made_after]
        given = list(dict.fromkeys(v for step in before for v in step.refs if v in self.graph.inputs))
        before, after, sent = self.without_booleans(before, after, crossing)
        host = GraphPart(before, given, [*sent, *kept], self.state)
        device = GraphPart(after, [*sent, *direct], outputs, self.state)
        numbers = {value: number for number, value in enumerate(self.graph.inputs)}
        places = {value: ("input", number) for value, number in numbers.items()}
        places |= {value: ("host", len(sent) + number) for number, value in enumerate(kept)}
        places |= {value: ("device", number) for number, value in enumerate(outputs)}
        wiring = Wiring(
            host=tuple(numbers[value] for value in given),
            device=(*(("host", number) for number in range(len(sent))), *(places[value] for value in direct)),
            outputs=tuple(places[value] for value in self.outputs),
            single=len(self.outputs) == 1 and isinstance(lowered(*inputs), Tensor),
        )
        computed = host(*(inputs[number] for number in wiring.host))
        made: dict[str, Sequence[Tensor]] = {"host": computed, "input": inputs}
        tensors = tuple(made[source][number] for source, number in wiring.device)
        self.describe(before, [*crossing, *direct], wiring, tensors)
        return Prologue(host, device, tensors, self.report, wiring)

    def without_booleans(
        self, before: list[TracedStep], after: list[TracedStep], crossing: Sequence[int]
    ) -> tuple[list[TracedStep], list[TracedStep], list[int]]:
        """Booleans cross as 0 and 1 in float32, so that the device takes dense tensors only."""
        sent = []
        for value in crossing:
            known = self.graph.values.get(value)
            if known is None or known.dtype != torch.bool:
                sent.append(value)
                continue
            number, maker = self.new(), self.steps[self.maker[value]]
            before = [*before, aten("to", (Ref(value), torch.float32), number, "dtype", of=maker)]
            after = [aten("ne", (Ref(number), 0), value, "Scalar", of=maker), *after]
            sent.append(number)
        return before, after, sent

    def describe(
        self, before: Sequence[TracedStep], values: Sequence[int], wiring: Wiring, tensors: Sequence[Tensor]
    ) -> None:
        report = self.report
        report.operators = dict(Counter(step.kind for step in before if step.kind.startswith("aten::")))
        report.host_flops = sum(self.work(step) for step in before)
        report.crossing_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        names = _distinct([self.label(value) for value in values])
        report.dense = tuple(
            DenseInput(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), source)
            for name, tensor, (source, _) in zip(names, tensors, wiring.device, strict=True)
        )
        report.notes += [
            f"{dense.name} crosses as {dense.dtype}: the device computes with it and with values of its own"
            for dense in report.dense
            if dense.dtype in ("int64", "int32", "int16")
        ]

    def label(self, value: int) -> str:
        """A name for an input of the device part: the table that it was read from, or the operator that made it."""
        if value in self.graph.inputs:
            return f"input {self.graph.inputs.index(value)}"
        if value not in self.maker:
            return "one-hot rows"
        step = self.steps[self.maker[value]]
        found = self.look_up(step)
        return f"rows of {self.name(found.table)}" if found else step.kind.removeprefix("aten::")


def _product(rows: Ref, found: _LookUp) -> TracedStep:
    return aten("matmul", (rows, Ref(found.table)), found.step.outputs[0], of=found.step)


def _distinct(names: Sequence[str]) -> list[str]:
    """The same names, numbered where one occurs again."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found
