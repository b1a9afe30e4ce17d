"""What the tests of lowering share: a function lowered, compared with itself, and traced."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compile.analysis import CoverageReport, analyze
from compile.lowering import Lowered, Rewrite, lower


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.training = False

    def forward(self, *inputs: Tensor) -> Any:
        """Whatever the function returns."""
        return self.function(*inputs)


def lowered(function: Callable[..., Any], *inputs: Tensor, **options: Any) -> Lowered:
    """The function lowered for these inputs."""
    return lower(Function(function), inputs, **options)


def kinds(module: nn.Module, inputs: Sequence[Tensor]) -> dict[str, int]:
    """Operators of the trace, by the counting rule."""
    counts: dict[str, int] = {}
    with torch.no_grad():
        graph = torch.jit._get_trace_graph(module, tuple(inputs))[0]
    for node in graph.nodes():
        if not node.kind().startswith("prim::"):
            counts[node.kind()] = counts.get(node.kind(), 0) + 1
    return counts


def distance(actual: Any, expected: Any) -> float:
    """max|actual - expected| / max|expected|, the largest of all outputs; shapes and dtypes must agree."""
    if not isinstance(expected, Tensor):
        assert len(actual) == len(expected)
        return max(distance(one, other) for one, other in zip(actual, expected, strict=True))
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    if expected.numel() == 0:
        return 0.0
    scale = expected.abs().max().item()
    return float((actual - expected).abs().max().item() / scale) if scale else float(actual.abs().max().item())


def redrawn(tensor: Tensor) -> Tensor:
    """Other values of the same shape and dtype."""
    if tensor.is_floating_point():
        return torch.randn(tensor.shape, dtype=tensor.dtype)
    return tensor.clone()


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _as_double(value: Any) -> Any:
    return _cast(value, torch.float64) if isinstance(value, Tensor) else tuple(map(_as_double, value))


def agree(
    function: Callable[..., Any],
    *inputs: Tensor,
    rewrite: str | None = None,
    fresh: Sequence[Tensor] | None = None,
    exact: float = 1e-12,
    single: float = 2e-6,
    extra: Sequence[Rewrite] = (),
) -> Lowered:
    """Lowered equals original on fresh inputs, in float64 and float32, run and traced; and the rewrite was applied.

    In float32 the bound is at least twice the original's own distance from float64, on the same inputs.
    """
    result = truth = None
    drawn = fresh or [redrawn(tensor) for tensor in inputs]
    for dtype in (torch.float64, torch.float32):
        example, others = ([_cast(tensor, dtype) for tensor in given] for given in (inputs, drawn))
        with torch.no_grad():
            result = lowered(function, *(tensor.clone() for tensor in example), extra=extra)
            expected = function(*(tensor.clone() for tensor in others))
            if dtype is torch.float64:
                truth, bound = expected, exact
            else:
                bound = max(single, 2 * distance(_as_double(expected), truth)) if single else 0.0
            traced = torch.jit.trace(result.module, tuple(tensor.clone() for tensor in example), check_trace=False)
            assert distance(result.module(*(tensor.clone() for tensor in others)), expected) <= bound
            for _ in range(2):  # a graph that writes into its constants is wrong the second time
                assert distance(traced(*(tensor.clone() for tensor in others)), expected) <= bound
        if rewrite is not None:
            assert result.report.applied.get(rewrite, 0) > 0
    assert result is not None
    return result


def unsupported(module: nn.Module, inputs: Sequence[Tensor]) -> dict[str, int]:
    """Operators of the trace that Neuron does not take, by the operator table."""
    report: CoverageReport = analyze(module, tuple(inputs))
    return {
        kind: operator.count - operator.supported_count
        for kind, operator in report.operators.items()
        if operator.supported_count < operator.count
    }


def whole(module: nn.Module, inputs: Sequence[Tensor], besides: Collection[str] = ()) -> bool:
    """Whether every operator of the trace is supported, besides those named."""
    return set(unsupported(module, inputs)) <= set(besides)
