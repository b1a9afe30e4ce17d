"""How long the host's part would take on a CPU: only ever from a measurement on the machine at hand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from compile.analysis.report import CoverageReport

RUNS = 3


def measure(report: CoverageReport, module: Any, inputs: Sequence[Any]) -> dict[str, Any]:
    """Run the model on this machine's CPU and scale by the host's share of the work.

    Returns seconds: `model` measured (median of 3 runs after one to warm up), `host` estimated from it.
    """
    with torch.no_grad():
        times = [_run(module, inputs) for _ in range(RUNS + 1)][1:]
    whole = statistics.median(times)
    share = report.safe.host_share / 100 if report.safe else 1.0
    return {
        "model_seconds": round(whole, 4),
        "host_seconds": round(whole * share, 4),
        "host_share_percent": round(100 * share, 2),
        "how": f"measured on this machine: the whole model on its CPU with {torch.get_num_threads()} threads, median "
        f"of {RUNS} runs; the host's part is estimated from its share of the floating-point operations",
    }


def _run(module: Any, inputs: Sequence[Any]) -> float:
    copies = [item.clone() if isinstance(item, Tensor) else item for item in inputs]
    if isinstance(module, torch.nn.Module):
        module.eval()
    started = time.perf_counter()
    module(*copies)
    return time.perf_counter() - started
