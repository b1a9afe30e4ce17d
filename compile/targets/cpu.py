"""What a CPU runs: the target cpu, and the rehearsal of a chip's target."""

from __future__ import annotations

import platform
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compile.errors import CompileError, one_line
from compile.ir.flat_module import unused_inputs
from compile.portable.kept import COMPILED
from compile.targets.base import CompilerInput, CompilerOutput, LoweredVariant
from compile.targets.process_runner import finished, run
from endpoint_spec.derive import container_image

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec


class OnCpu:
    """No compiler: what is traced for the CPU is packaged. torch: that it is captured for, by default this one."""

    on_cpu = True
    runs_here = True

    def __init__(self, torch_version: str | None = None) -> None:
        self.torch = torch_version or str(torch.__version__)

    def separates_weights(self, spec: EndpointSpec) -> bool:
        del spec
        return False

    def environment(self) -> dict[str, str]:
        return {"python": platform.python_version(), "torch": str(torch.__version__)}

    def request(self, lowered: LoweredVariant) -> dict[str, Any]:
        del lowered
        return {"target": "cpu", "packages": ["torch", "torch"], "keywords": {}}

    def compile(self, lowered: LoweredVariant, given: CompilerInput) -> None:
        run(lowered, given, Path(sys.executable))

    def judged(self, lowered: LoweredVariant) -> CompilerOutput:
        """The driver's trace, whose replay was proven where it was made."""
        done = finished(lowered)
        return CompilerOutput(
            file=lowered.work / COMPILED,
            versions={**self.environment(), "traced-with-torch": done.found["torch"]},
            cost=done.cost,
            record=lowered.work,
            replayed=done.replayed,
        )


class Rehearsal(OnCpu):
    """Of any target."""

    name = "rehearsal"
    rehearsal = True

    def check(self, spec: EndpointSpec) -> None:
        """Any machine with torch will do."""


class Cpu(OnCpu):
    """The target cpu: the trace is served by torch itself, of the release that the container has."""

    name = "cpu"
    rehearsal = False

    def check(self, spec: EndpointSpec) -> None:
        """Raises CompileError for another torch than the container's."""
        wanted, found = container_image(spec).torch, str(torch.__version__).partition("+")[0]
        if found != wanted:
            raise CompileError(
                f"The container of target cpu has torch {wanted}, this Python has {found}.",
                "Run make setup, which installs the project's torch.",
            )


def trace_for_cpu(
    module: nn.Module, example: tuple[torch.Tensor, ...], names: Sequence[str], *, optimize: bool = False
) -> tuple[torch.jit.ScriptModule, list[str]]:
    """Traces and freezes a module; returns it, one class with its weights as constants, a tied one stored once, and its
    inputs that nothing reads.

    optimize: fold what freezing can into other weights (a batch norm into its convolution); a rehearsal keeps the
    operators that were lowered.
    Raises CompileError with torch's own reason when it cannot be traced.
    """
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # Shapes are fixed by the bucket, so a shape that becomes a constant is meant.
            warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
            traced = torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]
            frozen = torch.jit.freeze(traced.eval(), optimize_numerics=optimize)
    except (RuntimeError, TypeError, ValueError) as error:
        raise CompileError(
            f"The model cannot be traced: {one_line(error)}",
            "Its forward must take and return tensors of fixed shapes, without control flow that depends on data.",
        ) from error
    return frozen, unused_inputs(frozen.graph, names)
