"""Whether one node of a graph is supported, by its name and by its own arguments, and why not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch

from compile.analysis.operators import OperatorTable
from compile.ir.graph import Graph, Node


@dataclass(frozen=True)
class Verdict:
    """`by_name` is what AWS's tool logs (it looks at the kind alone); `supported` looks at the arguments too."""

    supported: bool
    by_name: bool
    reason: str = ""


@dataclass(frozen=True)
class Uses:
    """How often each value is read, graph outputs included."""

    counts: Mapping[int, int]

    @classmethod
    def of(cls, graph: Graph) -> Uses:
        counts: dict[int, int] = {}
        for node in graph.nodes:
            for value in node.inputs:
                counts[value] = counts.get(value, 0) + 1
        for value in graph.outputs:
            counts[value] = counts.get(value, 0) + 1
        return cls(counts)


def judge(
    graph: Graph,
    table: OperatorTable,
    *,
    op_whitelist: Collection[str] | None = None,
    exclude: Collection[str] = (),
) -> dict[int, Verdict]:
    """A verdict for every counted node, by node index.

    `op_whitelist` replaces the table as torch_neuron.trace's argument does; `exclude` keeps kinds on the host.
    """
    uses = Uses.of(graph)
    return {node.index: _judge(node, graph, table, uses, op_whitelist, exclude) for node in graph.nodes if node.counted}


def _judge(
    node: Node,
    graph: Graph,
    table: OperatorTable,
    uses: Uses,
    op_whitelist: Collection[str] | None,
    exclude: Collection[str],
) -> Verdict:
    if node.kind in exclude:
        return Verdict(False, False, "excluded by --exclude")
    if op_whitelist is not None:
        allowed = node.kind in op_whitelist
        return Verdict(allowed, allowed, "" if allowed else "not in --op-whitelist")
    operator = table.get(node.kind)
    if operator is None or not operator.listed:
        why = (
            f"removed by torch-neuron {operator.since}" if operator else f"not in the operator table of {_name(table)}"
        )
        return Verdict(False, False, why)
    return _judge_arguments(node, graph, table, uses)


def _judge_arguments(node: Node, graph: Graph, table: OperatorTable, uses: Uses) -> Verdict:
    if node.owner is not None:
        return Verdict(False, True, "inside scripted control flow, which runs on the host")
    condition = table.operators[node.kind].condition
    if condition and not _CONDITIONS[condition](node, graph, table, uses):
        return Verdict(False, True, f"supported with a limit: {table.conditions[condition]}")
    return Verdict(True, True)


def _name(table: OperatorTable) -> str:
    return f"Neuron {table.release.sdk}" if table.release.sdk else f"torch-neuron {table.release.package}"


Condition = Callable[[Node, Graph, OperatorTable, Uses], bool]


def _align_corners_false(node: Node, _graph: Graph, _table: OperatorTable, _uses: Uses) -> bool:
    # aten::upsample_bilinear2d(input, output_size, align_corners, scales...)
    return node.argument(2) is False


def _where_three_arguments(node: Node, _graph: Graph, _table: OperatorTable, _uses: Uses) -> bool:
    return len(node.inputs) == 3


def _norm_p(node: Node, _graph: Graph, _table: OperatorTable, _uses: Uses) -> bool:
    p = node.argument(1)
    return p in ("fro", 1, 2, float("inf"), float("-inf")) and not isinstance(p, bool)


def _lstm_static(node: Node, graph: Graph, _table: OperatorTable, _uses: Uses) -> bool:
    # torch.nn.LSTM records the padded length; without total_length the trace fixes it to the example's longest row.
    if node.kind == "aten::_pad_packed_sequence":
        return isinstance(node.argument(len(node.inputs) - 1), int)
    return all(graph.values[output].type != "AnyType" for output in node.outputs)


def _indices_unused(node: Node, _graph: Graph, _table: OperatorTable, uses: Uses) -> bool:
    return len(node.outputs) < 2 or uses.counts.get(node.outputs[1], 0) == 0


def _static_num_classes(node: Node, _graph: Graph, _table: OperatorTable, _uses: Uses) -> bool:
    classes = node.argument(1)
    return isinstance(classes, int) and classes >= 0


def _avg_pool_ceil(node: Node, _graph: Graph, table: OperatorTable, _uses: Uses) -> bool:
    # aten::avg_pool2d(input, kernel_size, stride, padding, ceil_mode, ...)
    if node.argument(4) is not True:
        return True
    before = tuple(int(part) for part in table.release.package.split(".")) < (2, 5, 0, 0)
    return not before and not any(node.argument(3) or [])


def _reduce_int64_dim0(node: Node, graph: Graph, _table: OperatorTable, _uses: Uses) -> bool:
    # aten::max.dim(input, dim, keepdim); the binary form takes two tensors and has no such limit
    if graph.values[node.inputs[0]].dtype != torch.int64 or len(node.inputs) != 3:
        return True
    rank = len(graph.values[node.inputs[0]].shape or ())
    dim = node.argument(1)
    return not (isinstance(dim, int) and dim in (0, -rank))


_CONDITIONS: dict[str, Condition] = {
    "align_corners_false": _align_corners_false,
    "where_three_arguments": _where_three_arguments,
    "norm_p": _norm_p,
    "lstm_static": _lstm_static,
    "indices_unused": _indices_unused,
    "static_num_classes": _static_num_classes,
    "avg_pool_ceil": _avg_pool_ceil,
    "reduce_int64_dim0": _reduce_int64_dim0,
}
