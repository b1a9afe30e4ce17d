"""The least time that a subgraph can take on one core: an estimate from the platform table, never a measurement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import endpoint_spec.platforms
from compile.analysis.report import Roofline, Subgraph

# One chip is the same in every instance size of its family, so the smallest stands for all.
_SMALLEST = {"inf1": "ml.inf1.xlarge", "inf2": "ml.inf2.xlarge"}
_GIB = 1 << 30


@dataclass(frozen=True)
class Core:
    """One core: TFLOPS in bfloat16, and the bandwidth of its chip's memory in GiB/s."""

    name: str
    tflops: float
    bandwidth_gib_s: float


@lru_cache(maxsize=4)
def core_of(target: str) -> Core:
    """The core of a chip's target, from the platform table."""
    platform = endpoint_spec.platforms.platform(_SMALLEST[target])
    assert platform.tflops_per_core is not None and platform.bandwidth_gib_s is not None  # noqa: S101,PT018  (a chip)
    return Core(platform.instance_type, platform.tflops_per_core, platform.bandwidth_gib_s)


def estimate(subgraph: Subgraph, core: Core) -> Subgraph:
    """The subgraph with its roofline: every operand once, in bfloat16 (half the bytes of float32), nothing overlapped.

    Transfers are counted at the chip's memory bandwidth; the way from the host's memory is slower, so the true time
    of a transfer-bound subgraph is longer.
    """
    compute = subgraph.flops / (core.tflops * 1e12) * 1e3
    weights = subgraph.weight_bytes / 2 / (core.bandwidth_gib_s * _GIB) * 1e3
    transfers = (subgraph.bytes_in + subgraph.bytes_out) / 2 / (core.bandwidth_gib_s * _GIB) * 1e3
    times = {"compute": compute, "weights": weights, "transfers": transfers}
    roofline = Roofline(
        compute_ms=round(compute, 4),
        weights_ms=round(weights, 4),
        transfer_ms=round(transfers, 4),
        bound=max(times, key=lambda name: times[name]),
        assumes=f"one core of {core.name}: {core.tflops:g} TFLOPS bf16, {core.bandwidth_gib_s:g} GiB/s",
    )
    return replace(subgraph, roofline=roofline)
