"""What a target is: a compiler behind one name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from compile.analysis import CoverageReport
from compile.analysis.summary import Account

if TYPE_CHECKING:
    from compile.definition import GraphVariant
    from endpoint_spec import EndpointSpec


@dataclass(frozen=True)
class LoweredVariant:
    """One graph of the build's matrix, lowered and ready for the compiler.

    module: positional tensors in (named by `names`), flat tuple out. example: what it is compiled for.
    report: the prediction of compile.analysis, of the device's part. work: an existing folder where the build's record
    goes. host_operators: what a host part runs in front of what is compiled; `module` is both together.
    """

    spec: EndpointSpec
    build_digest: str
    variant: GraphVariant
    module: nn.Module
    example: tuple[torch.Tensor, ...]
    names: list[str]
    report: CoverageReport
    work: Path
    host_operators: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What compiling one variant took. peak_bytes: the largest sum of resident memory of the compiler's processes."""

    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class CompilerOutput:
    """A compiled graph, and what the compiler reported of it. Exactly one of `module` and `file` is there.

    module: ready to be saved. file: saved already, in a form that only the target's own runtime loads.
    account: the compiler's own operators and subgraphs (not predicted), or None when there was no such compiler.
    comparison: the prediction beside the log, as analysis.log_comparison has it. record: log and work directory.
    """

    module: torch.jit.ScriptModule | None = None
    file: Path | None = None
    unused_inputs: list[str] = field(default_factory=list)
    account: Account | None = None
    cost: Cost | None = None
    comparison: dict[str, Any] | None = None
    record: Path | None = None


class Target(Protocol):
    """A compiler behind one name."""

    name: str
    rehearsal: bool

    @property
    def stand_in(self) -> bool:
        """Whether a test's stand-in answers for the compiler."""
        ...

    @property
    def runs_here(self) -> bool:
        """Whether this machine can run what the target compiles."""
        ...

    def check(self, spec: EndpointSpec) -> None:
        """Raises CompileError when this machine cannot compile the spec for the target."""
        ...

    def separates_weights(self, spec: EndpointSpec) -> bool:
        """Whether the runtime has to move the weights of a compiled graph to a core."""
        ...

    def versions(self) -> dict[str, str]:
        """Versions of the compiler's packages, for the lock and the manifest."""
        ...

    def compile(self, lowered: LoweredVariant) -> CompilerOutput:
        """Compiles one variant. Raises CompileError with the compiler's own line, the cause and the way out."""
        ...
