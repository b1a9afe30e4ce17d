"""Work of a node in floating-point operations, from the shapes of the trace.

Two operations per multiply-add of a convolution or matrix product; one per element read or written by any other
operator that computes; none for views, shape arithmetic and copies. Unknown shapes count as zero.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch

from compile.ir.aliases import effects
from compile.ir.graph import INTEGER_TYPES, Graph, Node

_FREE = frozenset(
    {
        *("aten::dropout", "aten::contiguous", "aten::to", "aten::clone", "aten::copy_", "aten::cat", "aten::stack"),
        *("aten::embedding", "aten::index", "aten::index_select", "aten::zeros", "aten::ones", "aten::full"),
        *("aten::empty", "aten::zeros_like", "aten::ones_like", "aten::new_zeros", "aten::arange", "aten::repeat"),
        *("aten::constant_pad_nd", "aten::pad", "aten::flip", "aten::roll", "aten::size", "aten::Int"),
    }
)


def flops(graph: Graph, node: Node) -> int:
    """Floating-point operations of one node."""
    rule = _RULES.get(node.kind)
    if rule is not None:
        return rule(graph, node)
    if not node.counted or node.kind in _FREE:
        return 0
    if effects(node.schema).views and not effects(node.schema).writes:
        return 0
    sizes = [
        graph.values[value].elements
        for value in (*node.inputs, *node.outputs)
        if graph.values[value].is_tensor and graph.values[value].dtype not in INTEGER_TYPES
    ]
    return max(sizes, default=0)


def _shape(graph: Graph, value: int) -> tuple[int, ...]:
    return graph.values[value].shape or ()


def _output(graph: Graph, node: Node) -> int:
    return graph.values[node.outputs[0]].elements


def _product(first: int) -> Callable[[Graph, Node], int]:
    """A matrix product whose left factor is input `first`: twice the output's elements times the inner size."""

    def rule(graph: Graph, node: Node) -> int:
        left = _shape(graph, node.inputs[first])
        return 2 * _output(graph, node) * left[-1] if left else 0

    return rule


def _convolution(graph: Graph, node: Node) -> int:
    kernel = prod(_shape(graph, node.inputs[1])[1:])
    transposed = "transpose" in node.kind or (len(node.inputs) > 8 and node.argument(6) is True)
    spread = graph.values[node.inputs[0]].elements if transposed else _output(graph, node)
    return 2 * spread * kernel


def _attention(graph: Graph, node: Node) -> int:
    # scaled_dot_product_attention(query [..., L, E], key [..., S, E], value [..., S, V])
    query, key, value = (_shape(graph, item) for item in node.inputs[:3])
    if not (query and key and value):
        return 0
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _recurrent(graph: Graph, node: Node) -> int:
    # aten::lstm/gru/rnn(input, hidden, parameters, ...): each weight matrix meets each step of each row once
    steps = prod(_shape(graph, node.inputs[0])[:-1])
    weights = 0
    for item in node.handle.inputs():
        if item.node().kind() == "prim::ListConstruct":
            shapes = (_shape(graph, part.unique()) for part in item.node().inputs() if part.unique() in graph.values)
            weights += sum(prod(shape) for shape in shapes if len(shape) == 2)
    return 2 * steps * weights


def _einsum(graph: Graph, node: Node) -> int:
    equation = node.argument(0)
    operands = [item.unique() for item in node.handle.inputsAt(1).node().inputs()]
    sizes: dict[str, int] = {}
    if not isinstance(equation, str) or "." in equation:
        return 2 * _output(graph, node)
    for letters, operand in zip(equation.replace(" ", "").split("->")[0].split(","), operands, strict=False):
        sizes.update(zip(letters, _shape(graph, operand), strict=False))
    return 2 * prod(sizes.values()) if len(operands) > 1 else 0


_CONVOLUTIONS = (
    *("aten::_convolution", "aten::_convolution_mode", "aten::convolution"),
    *("aten::conv1d", "aten::conv2d", "aten::conv3d"),
    *("aten::conv_transpose1d", "aten::conv_transpose2d", "aten::conv_transpose3d"),
)
_RULES: dict[str, Callable[[Graph, Node], int]] = {
    **dict.fromkeys(("aten::linear", "aten::matmul", "aten::mm", "aten::bmm", "aten::mv", "aten::dot"), _product(0)),
    **dict.fromkeys(("aten::addmm", "aten::baddbmm"), _product(1)),
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    "aten::scaled_dot_product_attention": _attention,
    **dict.fromkeys(("aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu"), _recurrent),
    "aten::einsum": _einsum,
}


def dtype_name(dtype: torch.dtype | None) -> str:
    """`float32` for torch.float32; `unknown` when the trace does not know it."""
    return str(dtype).removeprefix("torch.") if dtype is not None else "unknown"
