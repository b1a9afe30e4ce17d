"""Whether one node of a graph is supported, by its name and by its own arguments, and why not."""

from __future__ import annotations

from collections import Counter
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


def judge(
    graph: Graph, table: OperatorTable, *, op_whitelist: Collection[str] | None = None, exclude: Collection[str] = ()
) -> dict[int, Verdict]:
    """A verdict for every counted node, by node index.

    `op_whitelist` replaces the table as torch_neuron.trace's argument does; `exclude` keeps kinds on the host.
    """
    reads = Counter(value for node in graph.nodes for value in node.inputs) + Counter(graph.outputs)
    found: dict[int, Verdict] = {}
    for node in graph.counted:
        operator = table.get(node.kind)
        if node.kind in exclude:
            found[node.index] = Verdict(False, False, "excluded by --exclude")
        elif op_whitelist is not None:
            allowed = node.kind in op_whitelist
            found[node.index] = Verdict(allowed, allowed, "" if allowed else "not in --op-whitelist")
        elif operator is None:
            found[node.index] = Verdict(False, False, f"not in the operator table of {_name(table)}")
        elif not operator.listed:
            found[node.index] = Verdict(False, False, f"removed by torch-neuron {operator.since}")
        else:
            reason = _refused(_Site(node, graph, table, reads), operator.condition)
            found[node.index] = Verdict(not reason, True, reason)
    return found


@dataclass(frozen=True)
class _Site:
    """A node with what its conditions look at; reads: how often each value is read, graph outputs included."""

    node: Node
    graph: Graph
    table: OperatorTable
    reads: Mapping[int, int]


def _refused(site: _Site, condition: str | None) -> str:
    """Why a node of a listed kind runs on the host all the same; empty when it does not."""
    if site.node.owner is not None:
        return "inside scripted control flow, which runs on the host"
    if condition and not _CONDITIONS[condition](site):
        return f"supported with a limit: {site.table.conditions[condition]}"
    return ""


def _name(table: OperatorTable) -> str:
    return f"Neuron {table.release.sdk}" if table.release.sdk else f"torch-neuron {table.release.package}"


def _norm_p(site: _Site) -> bool:
    p = site.node.argument(1)
    return p in ("fro", 1, 2, float("inf"), float("-inf")) and not isinstance(p, bool)


def _lstm_static(site: _Site) -> bool:
    # torch.nn.LSTM records the padded length; without total_length the trace fixes it to the example's longest row.
    if site.node.kind == "aten::_pad_packed_sequence":
        return isinstance(site.node.argument(len(site.node.inputs) - 1), int)
    return all(site.graph.values[output].type != "AnyType" for output in site.node.outputs)


def _static_num_classes(site: _Site) -> bool:
    classes = site.node.argument(1)
    return isinstance(classes, int) and classes >= 0


def _avg_pool_ceil(site: _Site) -> bool:
    # aten::avg_pool2d(input, kernel_size, stride, padding, ceil_mode, ...)
    if site.node.argument(4) is not True:
        return True
    before = tuple(int(part) for part in site.table.release.package.split(".")) < (2, 5, 0, 0)
    return not before and not any(site.node.argument(3) or [])


def _reduce_int64_dim0(site: _Site) -> bool:
    # aten::max.dim(input, dim, keepdim); the binary form takes two tensors and has no such limit
    reduced = site.graph.values[site.node.inputs[0]]
    if reduced.dtype != torch.int64 or len(site.node.inputs) != 3:
        return True
    dim = site.node.argument(1)
    return not (isinstance(dim, int) and dim in (0, -len(reduced.shape or ())))


_CONDITIONS: dict[str, Callable[[_Site], bool]] = {
    # aten::upsample_bilinear2d(input, output_size, align_corners, scales...)
    "align_corners_false": lambda site: site.node.argument(2) is False,
    "where_three_arguments": lambda site: len(site.node.inputs) == 3,
    "norm_p": _norm_p,
    "lstm_static": _lstm_static,
    "indices_unused": lambda site: len(site.node.outputs) < 2 or not site.reads.get(site.node.outputs[1]),
    "static_num_classes": _static_num_classes,
    "avg_pool_ceil": _avg_pool_ceil,
    "reduce_int64_dim0": _reduce_int64_dim0,
}
