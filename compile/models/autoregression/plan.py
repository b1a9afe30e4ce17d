"""Cached step or whole prefix at every step: which costs less on a target. A prediction, from the graphs themselves.

A cache saves the work of all earlier places, but has to cross between host and device twice at every step, since
torch-neuron keeps no state between calls. Both graphs are lowered and analyzed; a step takes at least its operations
at the core's rate, and at least its weights and transfers at the chip's bandwidth (transfers from the host are slower).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from compile.coverage import analyze
from compile.coverage.roofline import core_of
from compile.definition import Bucket, Inputs, ModelDefinition
from compile.errors import CompileError
from compile.lowering import lower
from compile.models.autoregression import parseq_graphs, seq2seq
from compile.structure import flat_module


@dataclass(frozen=True)
class Cost:
    """One step: operations, bytes of weights in bfloat16, bytes of inputs and outputs, milliseconds at least."""

    flops: int
    weight_bytes: int
    transfer_bytes: int
    milliseconds: float


@dataclass(frozen=True)
class DecodingPlan:
    """Both costs of one step and the choice, "cached" or "prefix"."""

    target: str
    batch: int
    cached: Cost
    prefix: Cost

    @property
    def choice(self) -> str:
        """The cheaper one; the cached step where both cost the same."""
        return "cached" if self.cached.milliseconds <= self.prefix.milliseconds else "prefix"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "choice": self.choice, "predicted": True}

    def __str__(self) -> str:
        def cost(name: str, of: Cost) -> str:
            moved = f"{of.weight_bytes / 1e6:.1f} MB of weights, {of.transfer_bytes / 1e6:.2f} MB in and out"
            return f"{name}: {of.flops / 1e9:.3f} GFLOP, {moved}, at least {of.milliseconds:.3f} ms"

        lines = [cost("cached step", self.cached), cost("whole prefix", self.prefix)]
        return "\n".join([*lines, f"Predicted for {self.target}, batch {self.batch}: {self.choice} costs less a step."])


def plan(definition: ModelDefinition, bucket: Bucket, batch: int = 1, target: str = "inf1") -> DecodingPlan:
    """Weighs the step graph of a definition against its whole-prefix form.

    Raises CompileError for a definition without a step, or whose step is no built-in one.
    """
    if "step" not in definition.graphs:
        raise CompileError("The model has no graph of the role step: there is nothing to plan.")
    graph = definition.graphs["step"]
    inputs = graph.example_inputs(bucket, batch)
    prefix, prefix_inputs = whole_prefix(graph.module, inputs)
    cached, recomputed = _cost(graph.module, inputs, target), _cost(prefix, prefix_inputs, target)
    return DecodingPlan(target, batch, cached, recomputed)


def whole_prefix(step: nn.Module, inputs: Inputs) -> tuple[nn.Module, Inputs]:
    """The whole-prefix form of a step, over the same weights, and its inputs made from the step's."""
    places = inputs["slot"].shape[1]
    if isinstance(step, parseq_graphs.StepGraph):
        return parseq_graphs.PrefixGraph(step), seq2seq.prefix_inputs(inputs, places)
    if isinstance(step, seq2seq.StepGraph):
        return seq2seq.PrefixGraph(step), seq2seq.prefix_inputs(inputs, places)
    raise CompileError(
        f"The step is {type(step).__name__}, not a cached step of a built-in family.",
        "Plan with model.options.decoding: cached (the default); both forms are weighed.",
    )


def _cost(module: nn.Module, inputs: Inputs, target: str) -> Cost:
    core = core_of(target)
    if core is None:
        raise CompileError(f"The platform table knows no core of {target}.")
    tensors = tuple(inputs.values())
    report = analyze(lower(flat_module(module, inputs), tensors).module, tensors, target=target)
    if report.safe is None:
        raise CompileError(f"There is no partition for {target}: its operators are not published.", "Plan for inf1.")
    weights = sum(part.weight_bytes for part in report.safe.details) // 2
    transfers = sum(part.bytes_in + part.bytes_out for part in report.safe.details)
    moving = (weights + transfers) / (core.bandwidth_gib_s * (1 << 30))
    flops = report.safe.flops_device + report.safe.flops_host
    return Cost(flops, weights, transfers, 1e3 * max(flops / (core.tflops * 1e12), moving))
