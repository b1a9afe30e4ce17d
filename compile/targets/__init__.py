"""What a traced graph is compiled for. One target a file; `resolve` picks it from the spec and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from compile.errors import CompileError


@dataclass(frozen=True)
class CompiledGraph:
    """A compiled graph, ready to be saved, and what the compiler measured about it.

    coverage: the compiler's own account (marked measured in the lock), or None when there was no such compiler.
    """

    module: torch.jit.ScriptModule
    unused_inputs: list[str] = field(default_factory=list)
    coverage: Mapping[str, Any] | None = None


class Target(Protocol):
    """A compiler behind one name."""

    name: str
    rehearsal: bool
    stand_in: bool

    def check(self) -> None:
        """Raises CompileError when this machine cannot compile for the target."""
        ...

    def versions(self) -> dict[str, str]:
        """Versions of the compiler's packages, for the lock and the manifest."""
        ...

    def compile(self, module: nn.Module, example: tuple[torch.Tensor, ...], names: list[str]) -> CompiledGraph:
        """Compiles a lowered module (positional tensors in, flat tuple out) for these shapes."""
        ...


def resolve(target: str, rehearse: bool) -> Target:
    """The target of a spec, or its rehearsal on this machine's CPU."""
    from compile.targets.inf1 import Inf1
    from compile.targets.inf2 import Inf2
    from compile.targets.rehearsal import Rehearsal

    if rehearse:
        return Rehearsal()
    targets: dict[str, type[Inf1] | type[Inf2]] = {"inf1": Inf1, "inf2": Inf2}
    if target not in targets:
        raise CompileError(f"compile.target {target!r} is not known. Targets: {', '.join(targets)}.")
    return targets[target]()
