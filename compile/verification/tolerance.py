"""How close outputs in reduced precision are to the original's in float32: what compile.accept.device_tolerance asks.

Equality to float32 is not asked where a chip, or its emulation, computes in bfloat16: only closeness.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from endpoint_spec.endpoint import Metric


@dataclass
class Closeness:
    """One output, the worst over all inputs: smallest cosine similarity, largest error max|found - expected|, and the
    largest share of it in an input's max|expected|. A NaN stays: nothing is close to it."""

    cosine: float = 1.0
    absolute: float = 0.0
    relative: float = 0.0

    def add(self, found: torch.Tensor, expected: torch.Tensor) -> None:
        """Accounts for one more input; both tensors have one shape."""
        one, other = found.double().flatten(), expected.double().flatten()
        if not other.numel():
            return
        error, maximum = float((one - other).abs().max()), float(other.abs().max())
        norms = float(one.norm() * other.norm())
        same = float(one @ other) / norms if norms else float(torch.equal(one, other))
        self.cosine = math.nan if math.isnan(same) or math.isnan(self.cosine) else min(self.cosine, same)
        self.absolute = larger(self.absolute, error)
        self.relative = larger(self.relative, error / maximum if maximum else error)

    def shortfalls(self, tolerance: Mapping[Metric, float]) -> list[str]:
        """What device_tolerance asks for and this output does not reach."""
        problems = []
        for metric, asked in tolerance.items():
            found: float = getattr(self, metric)
            if metric == "cosine" and not found >= asked:
                problems.append(f"cosine is {found:.6g}, at least {asked:g} is asked for")
            elif metric != "cosine" and not found <= asked:
                problems.append(f"{metric} is {found:.6g}, at most {asked:g} is asked for")
        return problems


def larger(*values: float) -> float:
    """max that keeps a NaN, so that a NaN in an output can never pass; 0 of nothing."""
    return math.nan if any(map(math.isnan, values)) else max(values, default=0.0)
