"""`analyze`: trace a model, judge every operator, predict the partition and count the work."""

from __future__ import annotations

import logging
import platform as host
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from compile.analysis import preflight, trace_checks
from compile.analysis.operators import OperatorTable, table
from compile.analysis.partition import Plan, Rules, plan_as_logged, plan_safe
from compile.analysis.report import (
    CoverageReport,
    ModuleLoad,
    OperatorCount,
    Partition,
    Place,
    Stage,
    Subgraph,
    Tensor,
    percent,
)
from compile.analysis.roofline import Core, core_of, estimate
from compile.analysis.support import Verdict, judge
from compile.ir.aliases import OPAQUE, Aliases, follow
from compile.ir.flops import dtype_name, flops
from compile.ir.graph import Graph, Node

_LOG = logging.getLogger(__name__)
_CROSSES = ("TensorType", "ListType")
_PLACES = 20  # source places listed per operator kind; the rest is counted


def analyze(
    module: Any,
    example_inputs: Sequence[Any],
    *,
    sdk: str | None = None,
    grad: bool = True,
    target: str = "inf1",
    op_whitelist: Collection[str] | None = None,
    exclude: Collection[str] = (),
    rules: Rules | None = None,
) -> CoverageReport:
    """Analyze one graph of a model without the Neuron SDK.

    module: an nn.Module (or a function), called with `example_inputs` positionally, as torch.jit.trace does.
    sdk: operators as of this Neuron release. grad: trace with gradients on, as torch_neuron.trace does by default.
    op_whitelist, exclude: kinds such as "aten::linear". rules: torch_neuron.trace's partition arguments.

    Raises compile.errors.CompileError when the model cannot be traced (with the way out) and UnknownReleaseError.
    """
    operators, core = table(sdk), None if target == "cpu" else core_of(target)
    graph = trace_checks.checked_trace(module, tuple(example_inputs), grad=grad)
    started = time.perf_counter()
    verdicts = judge(graph, operators, op_whitelist=op_whitelist, exclude=exclude)
    work = {node.index: flops(graph, node) for node in graph.nodes if node.counted}
    study = _Study(graph, operators, verdicts, work, core)
    aliases = follow(graph)
    rules = rules or Rules()
    inf1 = target == "inf1"
    safe = plan_safe(graph, verdicts, aliases, rules) if inf1 else None
    as_logged = study.partition(plan_as_logged(graph, verdicts, rules), study.unsafe(aliases)) if inf1 else None
    report = CoverageReport(
        name=trace_checks.name_of(module),
        target=target,
        release=(operators.release.sdk or operators.release.package) if inf1 else "",
        environment={"python": host.python_version(), "torch": str(torch.__version__), "grad": grad},
        total=len(verdicts),
        total_with_primitives=len(graph.nodes),
        supported=sum(verdict.supported for verdict in verdicts.values()) if inf1 else None,
        supported_by_name=sum(verdict.by_name for verdict in verdicts.values()) if inf1 else None,
        operators=study.operators(judged=inf1),
        control_flow=_counts(node.kind for node in graph.nodes if node.kind in OPAQUE),
        as_logged=as_logged,
        safe=study.partition(safe) if safe else None,
        flops=sum(work.values()),
        inputs=tuple(study.tensor(value) for value in graph.inputs),
        outputs=tuple(study.tensor(value) for value in graph.outputs),
        weight_bytes=sum(graph.values[value].bytes for value in graph.parameters),
        activation_bytes=max(
            (graph.values[node.outputs[0]].bytes for node in graph.counted if node.outputs), default=0
        ),
        modules=study.modules(safe.device if safe else frozenset(verdicts)),
        notes=trace_checks.notes(graph, module, as_logged),
        findings=tuple(preflight.of_graph(graph)),
        trace_seconds=graph.trace_seconds,
        analysis_seconds=time.perf_counter() - started + graph.read_seconds,
    )
    _log(report)
    return report


def _log(report: CoverageReport) -> None:
    known = "unknown" if report.supported is None else f"{report.supported} supported"
    _LOG.info("%s: traced in %.3f s, %d operators, %s", report.name, report.trace_seconds, report.total, known)
    for kind, found in report.operators.items():
        for place in found.places:
            _LOG.info("%s in %s (%dx) not supported: %s", kind, place.module, place.count, found.reason)
    for name, plan in (("safe", report.safe), ("as logged", report.as_logged)):
        if plan:
            figures = (plan.compiled, plan.subgraphs, plan.candidates)
            _LOG.info("partition %s: %d operators in %d of %d candidate subgraphs", name, *figures)
            for stage in plan.stages:
                where = "device" if stage.device else "host"
                _LOG.debug("partition %s, step %d: %d operators on the %s", name, stage.level, stage.nodes, where)
    _LOG.info("analyzed in %.3f s", report.analysis_seconds)


@dataclass(frozen=True)
class _Study:
    """What the parts of the report are computed from."""

    graph: Graph
    table: OperatorTable
    verdicts: Mapping[int, Verdict]
    work: Mapping[int, int]
    core: Core | None

    def operators(self, judged: bool) -> dict[str, OperatorCount]:
        """Per kind, unsupported ones first, then by how often they occur."""
        groups: dict[str, list[Node]] = {}
        for node in self.graph.counted:
            groups.setdefault(node.kind, []).append(node)
        counts = {kind: self.count(kind, nodes, judged) for kind, nodes in groups.items()}
        return dict(sorted(counts.items(), key=lambda item: (item[1].supported, -item[1].count, item[0])))

    def count(self, kind: str, nodes: Sequence[Node], judged: bool) -> OperatorCount:
        operator = self.table.get(kind)
        refused = [node for node in nodes if not self.verdicts[node.index].supported] if judged else []
        return OperatorCount(
            count=len(nodes),
            supported_count=len(nodes) - len(refused),
            supported_by_name=self.verdicts[nodes[0].index].by_name,
            since=operator.since if operator and judged else "",
            reason=self.verdicts[refused[0].index].reason if refused else "",
            advice=_advice(kind, self.table.advice) if refused else "",
            places=_places(refused),
        )

    def partition(self, plan: Plan, unsafe: tuple[str, ...] = ()) -> Partition:
        total = len(self.verdicts)
        on_device = sum(self.work[index] for index in plan.device)
        segment_of = {index: number for number, part in enumerate(plan.segments) for index in part.nodes}
        crossing = _Crossing(self.graph, segment_of, plan)
        stays = {
            index: plan.host_reasons.get(index, "a small or separate subgraph, or needed by the host before it")
            for index, verdict in self.verdicts.items()
            if verdict.supported and index not in plan.device
        }
        return Partition(
            compiled=len(plan.device),
            percent=percent(len(plan.device), total),
            subgraphs=len(plan.compiled_segments),
            candidates=len(plan.segments),
            flops_device=on_device,
            flops_host=sum(self.work.values()) - on_device,
            host_reasons=_counts(stays.values()),
            details=tuple(self.subgraph(plan, number, crossing) for number in range(len(plan.segments))),
            stages=self.stages(plan),
            unsafe=unsafe,
        )

    def stages(self, plan: Plan) -> tuple[Stage, ...]:
        sums: dict[tuple[int, bool], list[int]] = {}
        for index, level in plan.levels.items():
            if index in self.verdicts:
                row = sums.setdefault((level, index in plan.device), [0, 0])
                row[0] += 1
                row[1] += self.work[index]
        return tuple(Stage(level, device, *row) for (level, device), row in sorted(sums.items()))

    def subgraph(self, plan: Plan, number: int, crossing: _Crossing) -> Subgraph:
        segment = plan.segments[number]
        inputs = tuple(self.tensor(value) for value in crossing.inputs[number])
        outputs = tuple(self.tensor(value) for value in crossing.outputs[number])
        found = Subgraph(
            nodes=len(segment.nodes),
            compiled=segment.compiled,
            operators=_counts(self.graph.nodes[index].kind for index in segment.nodes),
            inputs=inputs,
            outputs=outputs,
            bytes_in=sum(tensor.bytes for tensor in inputs),
            bytes_out=sum(tensor.bytes for tensor in outputs),
            weight_bytes=sum(self.graph.values[value].bytes for value in crossing.weights[number]),
            flops=sum(self.work[index] for index in segment.nodes),
        )
        return estimate(found, self.core) if segment.compiled and self.core else found

    def tensor(self, value: int) -> Tensor:
        known = self.graph.values[value]
        name = self.graph.parameters.get(value, f"%{value}")
        return Tensor(name, known.shape, dtype_name(known.dtype), known.bytes)

    def modules(self, device: Collection[int]) -> dict[str, ModuleLoad]:
        sums: dict[str, list[int]] = {}
        for node in self.graph.counted:
            row = sums.setdefault(node.scope, [0, 0, 0, 0])
            place = 0 if node.index in device else 1
            row[place] += 1
            row[2 + place] += self.work[node.index]
        return {path: ModuleLoad(*row) for path, row in sums.items()}

    def unsafe(self, aliases: Aliases) -> tuple[str, ...]:
        """The writes through shared memory that data edges do not show, one line each place."""
        nodes = [self.graph.nodes[index] for index in aliases.hidden_writes]
        return tuple(f"{node.kind} in {node.scope} ({node.source() or 'no source'})" for node in nodes[:_PLACES]) + (
            (f"and {len(nodes) - _PLACES} more",) if len(nodes) > _PLACES else ()
        )


Tensors = list[dict[int, None]]  # for each segment a set in order


class _Crossing:
    """Per segment: the tensors that enter it, those that leave it, and the weights and constants that it holds."""

    def __init__(self, graph: Graph, segment_of: Mapping[int, int], plan: Plan) -> None:
        self.inputs: Tensors = [{} for _ in plan.segments]
        self.outputs: Tensors = [{} for _ in plan.segments]
        self.weights: Tensors = [{} for _ in plan.segments]
        maker: dict[int, Node] = {}
        parts: dict[int, tuple[int, ...]] = {}  # the tensors that a list or tuple holds

        def read(values: Iterable[int], here: int | None) -> None:
            for tensor in dict.fromkeys(tensor for value in values for tensor in parts.get(value, (value,))):
                made_by = maker.get(tensor)
                if made_by is None or (made_by.index not in plan.fixed and graph.values[tensor].type in _CROSSES):
                    self.cross(graph, tensor, here, made_by, segment_of)

        for node in graph.nodes:
            if not node.counted and node.kind not in OPAQUE and node.kind != "prim::Constant":
                held = tuple(tensor for value in node.inputs for tensor in parts.get(value, (value,)))
                parts.update(dict.fromkeys(node.outputs, held))
                continue
            maker.update(dict.fromkeys(node.outputs, node))
            read(node.inputs, segment_of.get(node.index))
        read(graph.outputs, None)

    def cross(
        self, graph: Graph, tensor: int, here: int | None, made_by: Node | None, segment_of: Mapping[int, int]
    ) -> None:
        """Note a tensor that the segment `here` (None: the host) reads."""
        if tensor in graph.parameters or (made_by is not None and made_by.kind == "prim::Constant"):
            if here is not None and graph.values[tensor].is_tensor:
                self.weights[here][tensor] = None
            return
        there = segment_of.get(made_by.index) if made_by is not None else None
        if there == here:
            return
        if here is not None:
            self.inputs[here][tensor] = None
        if there is not None:
            self.outputs[there][tensor] = None


def _advice(kind: str, known: Mapping[str, str]) -> str:
    if kind in known:
        return known[kind]
    form = "write it with supported operators, or keep that part outside the compiled graph"
    if kind.endswith("_") and not kind.endswith("__"):
        form = "use the out-of-place form"
    return f"{form}; analyze with --lowered to see what `compile build` makes of it"


def _places(nodes: Sequence[Node]) -> tuple[Place, ...]:
    """Where the nodes stand: module paths with the source line of the first node there."""
    groups: dict[str, list[Node]] = {}
    for node in nodes:
        groups.setdefault(node.scope, []).append(node)
    places = [Place(scope, found[0].source(), len(found)) for scope, found in list(groups.items())[:_PLACES]]
    rest = len(nodes) - sum(place.count for place in places)
    return (*places, *([Place("(other modules)", "", rest)] if rest else ()))


def _counts(items: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(items).items(), key=lambda pair: (-pair[1], pair[0])))
