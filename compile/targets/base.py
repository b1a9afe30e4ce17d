"""What a target is: a compiler behind one name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from compile.acceptance import Account


@dataclass(frozen=True)
class CompiledGraph:
    """A compiled graph, ready to be saved, and what the compiler measured about it.

    account: the compiler's own operators and subgraphs (not predicted), or None when there was no such compiler.
    """

    module: torch.jit.ScriptModule
    unused_inputs: list[str] = field(default_factory=list)
    account: Account | None = None


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
