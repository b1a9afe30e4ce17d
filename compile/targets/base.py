"""What a target is: a compiler behind one name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from compile.analysis import CoverageReport
from compile.analysis.summary import Account
from compile.portable.process import Cost
from compile.portable.tensors import TensorStore

if TYPE_CHECKING:
    from compile.definition import GraphVariant
    from endpoint_spec import EndpointSpec


@dataclass(frozen=True)
class LoweredVariant:
    """One graph of the build's matrix, captured: what is known of it where its compilation is judged.

    report: the prediction of compile.analysis, of the device's part. work: the folder of its record, where the driver
    leaves what it makes. host_operators: what a host part runs in front of what is compiled.
    """

    spec: EndpointSpec
    variant: GraphVariant
    report: CoverageReport
    work: Path
    host_operators: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CompilerInput:
    """What the driver is given of a variant.

    graph: a graph file with this variant alone. trials: tensors that a chip is asked with. request: the rest of the
    driver's request.json, but for paths; it decides, with the graph, what comes out.
    """

    graph: Path
    trials: TensorStore
    request: Mapping[str, Any]


@dataclass(frozen=True)
class CompilerOutput:
    """What a target makes of a graph beside its trace for the CPU; nothing of it where only that is wanted.

    file: the compiled graph, in a form that only the target's own runtime loads.
    stand_in: whether a test's stand-in answered for the compiler. versions: of Python, torch, compiler, for the lock.
    replayed: how far each output of the graph, in the compiler's torch, is from the recorded answers. answers: what a
    chip answered to each trial.
    account: the compiler's own operators and subgraphs (not predicted), or None when there was no such compiler.
    comparison: the prediction beside the log, as analysis.log_comparison has it. record: log and work directory.
    """

    file: Path | None = None
    stand_in: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
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
    on_cpu: bool  # what is traced for the CPU is what serves; nothing else is compiled

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

    def environment(self) -> dict[str, str]:
        """What compiles here: versions, and whether it is a test's stand-in."""
        ...

    def request(self, lowered: LoweredVariant) -> dict[str, Any]:
        """The target's part of the driver's request: target, packages, keywords. Raises CompileError for options that
        do not fit the graph."""
        ...

    def compile(self, lowered: LoweredVariant, given: CompilerInput) -> None:
        """Compiles one variant here, into its record. Raises CompileError with the compiler's own line, the cause and
        the way out."""
        ...

    def judged(self, lowered: LoweredVariant) -> CompilerOutput:
        """What lies compiled in the variant's record, from here or from a job. Raises CompileError for a fallback."""
        ...
