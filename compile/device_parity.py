"""A compiled graph on its own hardware against the original on the CPU: compile.accept.device_tolerance.

The chip computes in bfloat16 where the spec lets it, so equality to float32 is not asked, only closeness.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from compile.definition import Inputs
from compile.errors import CompileError
from compile.targets.inf2 import loaded


@dataclass(frozen=True)
class DeviceParity:
    """One output over all inputs: smallest cosine similarity, largest error, and that as a share of the maximum."""

    cosine: float
    absolute: float
    relative: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    def shortfalls(self, tolerance: Mapping[str, float]) -> list[str]:
        """What device_tolerance asks for and this output does not reach."""
        found = asdict(self)
        return [
            f"{metric} is {found[metric]:.6g}, {'at least' if metric == 'cosine' else 'at most'} {asked:g} is asked for"
            for metric, asked in tolerance.items()
            if not (found[metric] >= asked if metric == "cosine" else found[metric] <= asked)
        ]


def on_device(
    path: Path, eager: nn.Module, references: Sequence[Inputs], names: Sequence[str], *, separate_weights: bool
) -> dict[str, DeviceParity]:
    """Runs the compiled graph and the eager one on every reference input; positional tensors in, flat tuple out.

    Raises CompileError when the graph cannot be loaded or run, or answers in other shapes.
    """
    try:
        compiled = loaded(path, separate_weights)
        pairs = [_pairs(compiled, eager, tuple(reference.values())) for reference in references]
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise CompileError(f"The compiled graph {path.name} does not run here: {reason}") from error
    return {name: _measure([pair[at] for pair in pairs], name) for at, name in enumerate(names)}


Pair = tuple[torch.Tensor, torch.Tensor]


def _pairs(compiled: torch.jit.ScriptModule, eager: nn.Module, tensors: tuple[torch.Tensor, ...]) -> list[Pair]:
    with torch.no_grad():
        found, expected = compiled(*tensors), eager(*tensors)
    leaves = [found] if isinstance(found, torch.Tensor) else list(found)
    return list(zip(leaves, expected, strict=True))


def _measure(pairs: Sequence[Pair], name: str) -> DeviceParity:
    cosine, absolute, maximum = 1.0, 0.0, 0.0
    for found, expected in pairs:
        if found.shape != expected.shape:
            raise CompileError(
                f"Output {name} of the compiled graph is {tuple(found.shape)}, of the original {tuple(expected.shape)}."
            )
        if not expected.numel():
            continue
        one, other = found.double().flatten(), expected.double().flatten()
        absolute = _larger(absolute, float((one - other).abs().max()))
        maximum = max(maximum, float(other.abs().max()))
        scale = float(one.norm() * other.norm())
        same = float(one @ other) / scale if scale else float(torch.equal(one, other))
        cosine = math.nan if math.isnan(same) else min(cosine, same)
    return DeviceParity(cosine, absolute, absolute / maximum if maximum else absolute)


def _larger(one: float, other: float) -> float:
    """max that keeps a NaN, so that a NaN in an output can never pass."""
    return math.nan if math.isnan(one) or math.isnan(other) else max(one, other)
