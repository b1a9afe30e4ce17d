"""Cached step or whole prefix at every step: which costs less on a target. A prediction, from the graphs themselves.

A cache saves the work of all earlier places, but has to cross between host and device twice at every step, since
torch-neuron keeps no state between calls. Both forms are lowered and split as `build` does it, so look-ups that the
host does are no work of the device, and what crosses is what the device part takes and gives. A step takes at least
its operations at the core's rate, and at least its weights and transfers at the chip's bandwidth (transfers from the
host are slower).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from compile.analysis import analyze
from compile.analysis.roofline import core_of
from compile.definition import Bucket, GraphVariant, Inputs, ModelDefinition
from compile.errors import CompileError
from compile.ir.flat_module import flat_module
from compile.lowering.config import ALL, Rewriting
from compile.lowering.for_target import lowered
from compile.models.autoregression import parseq_graphs, seq2seq

ROLE = "step"
_STEPS = (parseq_graphs.StepGraph, seq2seq.StepGraph)
_PREFIXES = (parseq_graphs.PrefixGraph, seq2seq.PrefixGraph)
_CACHE = ("cache_keys", "cache_values")


@dataclass(frozen=True)
class Cost:
    """One step: operations on the device, bytes of its weights in bfloat16 and of what crosses, milliseconds at least.

    host_flops: operations that stay on the host; they count in no time, since hosts differ.
    """

    flops: int
    weight_bytes: int
    transfer_bytes: int
    milliseconds: float
    host_flops: int = 0

    def __str__(self) -> str:
        moved = f"{self.weight_bytes / 1e6:.3g} MB of weights, {self.transfer_bytes / 1e6:.3g} MB in and out"
        host = f", {self.host_flops / 1e9:.3g} GFLOP on the host" if self.host_flops else ""
        return f"{self.flops / 1e9:.3g} GFLOP, {moved}{host}, at least {self.milliseconds:.3g} ms"


@dataclass(frozen=True)
class DecodingPlan:
    """Both costs of one step, the choice, and which of the two the definition builds, "cached" or "prefix"."""

    variant: str
    target: str
    batch: int
    cached: Cost
    prefix: Cost
    built: str = "cached"

    @property
    def choice(self) -> str:
        """The cheaper one; the cached step where both cost the same."""
        return "cached" if self.cached.milliseconds <= self.prefix.milliseconds else "prefix"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "choice": self.choice, "predicted": True}

    @property
    def verdict(self) -> str:
        """The choice in words, and what to write where the definition builds the other form."""
        change = "" if self.built == self.choice else f"; model.options {{decoding: {self.choice}}} builds it"
        names = {"cached": "the cached step", "prefix": "the whole prefix"}
        return f"{names[self.choice]} costs less on {self.target} (predicted; built is {names[self.built]}){change}"

    def __str__(self) -> str:
        return f"cached step: {self.cached}\nwhole prefix: {self.prefix}\n{self.verdict}"


def plans(
    definition: ModelDefinition,
    buckets: Sequence[Bucket],
    batches: Sequence[int],
    target: str,
    rewriting: Rewriting = ALL,
) -> list[DecodingPlan]:
    """A plan for the step at each bucket and batch size; none for a model without a step of a built-in family.

    Raises CompileError when a form cannot be lowered.
    """
    graph = definition.graphs.get(ROLE)
    if graph is None or not is_step(graph.module):
        return []
    variants = [GraphVariant(ROLE, bucket, batch) for bucket in buckets for batch in batches]
    return [plan(graph.module, graph.example_inputs(c.bucket, c.batch), target, str(c), rewriting) for c in variants]


def is_step(module: nn.Module) -> bool:
    """Whether a module is the step of a built-in family, in either form."""
    return isinstance(module, (*_STEPS, *_PREFIXES))


def plan(
    step: nn.Module, inputs: Inputs, target: str = "inf1", variant: str = ROLE, rewriting: Rewriting = ALL
) -> DecodingPlan:
    """Weighs a step, in whichever form it is, against its other form. Raises CompileError for any other module."""
    cached, recomputed = (_cost(*form, target, rewriting) for form in forms(step, inputs))
    built = "prefix" if isinstance(step, _PREFIXES) else "cached"
    return DecodingPlan(variant, target, inputs["slot"].shape[0], cached, recomputed, built)


def forms(step: nn.Module, inputs: Inputs) -> Iterator[tuple[nn.Module, Inputs]]:
    """The cached step and the whole prefix over the same weights, each with inputs, from either and its inputs.

    Raises CompileError for another module.
    """
    places = inputs["slot"].shape[1]
    if isinstance(step, _STEPS):
        yield step, inputs
        kind = parseq_graphs if isinstance(step, parseq_graphs.StepGraph) else seq2seq
        yield kind.PrefixGraph(step), seq2seq.prefix_inputs(inputs, places)
    elif isinstance(step, _PREFIXES):
        # The cache has the cross-attention's shape, with a place a slot.
        batch, layers, heads, _, width = inputs["cross_keys"].shape
        cache = {name: torch.zeros(batch, layers, heads, places, width) for name in _CACHE}
        kept = {name: value for name, value in inputs.items() if name != "tokens"}
        yield step.step, {"token": inputs["tokens"][:, :1], **kept, **cache}
        yield step, inputs
    else:
        raise CompileError(
            f"The step is {type(step).__name__}, not that of a built-in family.",
            "Only the decoders of compile/models/autoregression/ have both forms.",
        )


def _cost(module: nn.Module, inputs: Inputs, target: str, rewriting: Rewriting) -> Cost:
    core = core_of(target)
    parts = lowered(flat_module(module, inputs), tuple(inputs.values()), target, rewriting)
    report = analyze(parts.device, parts.device_inputs, target=target)
    if report.safe is None:  # on Inf2 no partition is predicted: the whole graph is on the device
        flops, left, weights = report.flops, 0, report.weight_bytes // 2
        transfers = sum(tensor.bytes for tensor in (*report.inputs, *report.outputs))
    else:
        flops, left, details = report.safe.flops_device, report.safe.flops_host, report.safe.details
        weights = sum(part.weight_bytes for part in details) // 2
        transfers = sum(part.bytes_in + part.bytes_out for part in details)
    moving = (weights + transfers) / (core.bandwidth_gib_s * (1 << 30))
    milliseconds = 1e3 * max(flops / (core.tflops * 1e12), moving)
    return Cost(flops, weights, transfers, milliseconds, left + parts.report.host_flops)
