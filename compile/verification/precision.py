"""`verify --precision`: what reduced precision costs a model, by emulation, and the fastest mode that it bears."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from compile.lowering.for_target import lowered
from compile.verification.inputs import VerifiedVariant
from compile.verification.precision_emulation import MODES, Mode, emulated
from compile.verification.tolerance import Closeness
from endpoint_spec.endpoint import Metric


@dataclass
class OutputUnderMode(Closeness):
    """One output under one mode against the original in float32, the worst over all inputs.

    metrics: the task's own, the mean over all inputs. equal: for integer and boolean outputs, which must be.
    """

    output: str = ""
    finite: bool = True
    equal: bool | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    def shortfalls(self, tolerance: Mapping[Metric, float]) -> list[str]:
        """What device_tolerance asks for and this output does not reach, with its name."""
        if self.equal is not None:
            return [] if self.equal else [f"{self.output}: integers differ"]
        if not self.finite:
            return [f"{self.output}: values that are not finite"]
        return [f"{self.output}: {line} (device_tolerance)" for line in super().shortfalls(tolerance)]


@dataclass(frozen=True)
class ModeResult:
    """One graph under one mode."""

    mode: Mode
    outputs: tuple[OutputUnderMode, ...]
    shortfalls: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.shortfalls

    def to_json(self) -> dict[str, Any]:
        return {
            "mode": self.mode.name,
            "fast_math": self.mode.fast_math,
            "within_device_tolerance": self.passed,
            "shortfalls": list(self.shortfalls),
            "outputs": [asdict(output) for output in self.outputs],
        }


@dataclass(frozen=True)
class GraphPrecision:
    """One graph under every mode."""

    name: str
    inputs: int
    tolerance: Mapping[Metric, float]
    modes: tuple[ModeResult, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "graph": self.name,
            "emulation": True,
            "inputs": self.inputs,
            "device_tolerance": dict(self.tolerance),
            "modes": [mode.to_json() for mode in self.modes],
        }


def recommended(graphs: Sequence[GraphPrecision]) -> Mode | None:
    """The fastest mode within device_tolerance for every graph; None when not even fp32 is."""
    for mode in MODES:
        if all(found.passed for graph in graphs for found in graph.modes if found.mode == mode):
            return mode
    return None


def emulate(trial: VerifiedVariant, *, advance: Callable[[int], None] = lambda _: None) -> GraphPrecision:
    """The compiled part of the lowered graph under every mode against the original, on all reference inputs.

    What runs on the host in front of it computes in full precision, as it will.
    `advance(1)` after each mode on each input. Raises CompileError when the graph cannot be lowered.
    """
    parts = lowered(trial.module, tuple(trial.example.values()), trial.target, trial.rewriting, trial.name)
    found = {mode: [OutputUnderMode(output=name) for name in trial.outputs] for mode in MODES}
    with torch.no_grad():
        for reference in trial.references:
            tensors = tuple(reference.values())
            expected = trial.module(*tensors)
            for mode, outputs in found.items():
                results = emulated(parts, tensors, mode)
                for output, one, other in zip(outputs, results, expected, strict=True):
                    _account(output, one, other, _metrics(trial, output.output), len(trial.references))
                advance(1)
    tolerance = trial.accept.device_tolerance
    modes = tuple(
        ModeResult(mode, tuple(outputs), tuple(line for output in outputs for line in output.shortfalls(tolerance)))
        for mode, outputs in found.items()
    )
    return GraphPrecision(trial.name, len(trial.references), tolerance, modes)


TaskMetric = Callable[[Tensor, Tensor], Mapping[str, float]]


def _account(output: OutputUnderMode, found: Tensor, expected: Tensor, metrics: TaskMetric | None, inputs: int) -> None:
    if not expected.is_floating_point():
        output.equal = output.equal is not False and torch.equal(found, expected)
        return
    if not bool(torch.isfinite(found).all()):
        output.finite, output.cosine, output.absolute, output.relative = False, math.nan, math.nan, math.nan
        return
    if not output.finite or not expected.numel():
        return
    output.add(found, expected)
    for name, value in metrics(found.double(), expected.double()).items() if metrics else ():
        output.metrics[name] = output.metrics.get(name, 0.0) + value / inputs


# --- the task's own metrics -----------------------------------------------------------------------------------------


def _metrics(trial: VerifiedVariant, output: str) -> TaskMetric | None:
    if trial.task == "depth-estimation" and output == trial.settings.get("output", output):
        return depth_metrics
    last = output.rpartition(".")[2]
    if last == "alphas":
        return matting_metrics
    return class_metrics if last in ("logits", "probabilities") else None


def depth_metrics(found: Tensor, expected: Tensor) -> dict[str, float]:
    """AbsRel and delta1 (share of pixels within a factor of 1.25) with the original's map in place of the truth, where
    that is above zero. Defined by Eigen et al., 2014 (arXiv 1406.2283)."""
    valid = expected > 0
    if not bool(valid.any()):
        return {}
    one, other = found[valid], expected[valid]
    factor = torch.maximum(one / other, other / one.clamp_min(torch.finfo(one.dtype).tiny))
    return {
        "AbsRel": float(((one - other).abs() / other).mean()),
        "delta1": float((factor < 1.25).double().mean()),
    }


def matting_metrics(found: Tensor, expected: Tensor) -> dict[str, float]:
    """Mean absolute and mean squared difference of alphas (the SAD and MSE of matting, per pixel)."""
    return {"MAD": float((found - expected).abs().mean()), "MSE": float(((found - expected) ** 2).mean())}


def class_metrics(found: Tensor, expected: Tensor) -> dict[str, float]:
    """Share of rows whose highest class (last axis) is the original's."""
    if expected.dim() < 2 or expected.shape[-1] < 2:
        return {}
    return {"top-1 agreement": float((found.argmax(-1) == expected.argmax(-1)).double().mean())}


def metric_words(metrics: Mapping[str, float]) -> Iterable[str]:
    """`AbsRel 0.0123` and so on, for a table."""
    return (f"{name} {value:.4g}" for name, value in metrics.items())
