"""A compiled graph on its own hardware against the original on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from compile.definition import Inputs
from compile.errors import CompileError, one_line
from compile.targets.inf2 import loaded
from compile.verification.tolerance import Closeness


def on_device(
    path: Path, eager: nn.Module, references: Sequence[Inputs], names: Sequence[str], *, separate_weights: bool
) -> dict[str, Closeness]:
    """Runs the compiled graph and the eager one on every reference input; positional tensors in, flat tuple out.

    Raises CompileError when the graph cannot be loaded or run, or answers in other shapes.
    """
    try:
        compiled = loaded(path, separate_weights)
        pairs = [_pairs(compiled, eager, tuple(reference.values())) for reference in references]
    except RuntimeError as error:
        raise CompileError(f"The compiled graph {path.name} does not run here: {one_line(error)}") from error
    return {name: _measure([pair[at] for pair in pairs], name) for at, name in enumerate(names)}


Pair = tuple[torch.Tensor, torch.Tensor]


def _pairs(compiled: torch.jit.ScriptModule, eager: nn.Module, tensors: tuple[torch.Tensor, ...]) -> list[Pair]:
    with torch.no_grad():
        found, expected = compiled(*tensors), eager(*tensors)
    leaves = [found] if isinstance(found, torch.Tensor) else list(found)
    return list(zip(leaves, expected, strict=True))


def _measure(pairs: Sequence[Pair], name: str) -> Closeness:
    closeness = Closeness()
    for found, expected in pairs:
        if found.shape != expected.shape:
            raise CompileError(
                f"Output {name} of the compiled graph is {tuple(found.shape)}, of the original {tuple(expected.shape)}."
            )
        closeness.add(found, expected)
    return closeness
