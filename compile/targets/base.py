"""What a target is: a compiler behind one name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from compile.analysis import CoverageReport
from compile.analysis.summary import Account

if TYPE_CHECKING:
    from compile.definition import GraphVariant
    from endpoint_spec import EndpointSpec


@dataclass(frozen=True)
class LoweredVariant:
    """One graph of the build's matrix, captured and ready for the compiler.

    graph: a graph file with this variant alone. bounds: how far the replay in the compiler's torch may be from the
    recorded answers, by output. trials: inputs for a chip. report: the prediction of compile.analysis, of the device's
    part. work: an existing folder where the build's record goes. host_operators: what a host part runs in front of what
    is compiled.
    """

    spec: EndpointSpec
    variant: GraphVariant
    graph: Path
    bounds: Sequence[float]
    trials: Sequence[Sequence[torch.Tensor]]
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
    """What a target makes of a graph beside its trace for the CPU; nothing of it in a rehearsal.

    file: the compiled graph, in a form that only the target's own runtime loads.
    replayed: how far each output of the graph, in the compiler's torch, is from the recorded answers. answers: what a
    chip answered to each trial.
    account: the compiler's own operators and subgraphs (not predicted), or None when there was no such compiler.
    comparison: the prediction beside the log, as analysis.log_comparison has it. record: log and work directory.
    """

    file: Path | None = None
    account: Account | None = None
    cost: Cost | None = None
    comparison: dict[str, Any] | None = None
    record: Path | None = None
    replayed: Mapping[str, float] | None = None
    answers: Sequence[Sequence[torch.Tensor]] | None = None


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
        """Whether this Python can run what the target compiles."""
        ...

    @property
    def torch(self) -> str:
        """Version of the torch that the graph is captured for."""
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
