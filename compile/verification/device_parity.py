"""A compiled graph on its own hardware against the original on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from compile.definition import Inputs
from compile.errors import CompileError, one_line
from compile.targets.inf2 import loaded
from compile.verification.items import Items, remembering, try_artifact
from compile.verification.parity import Tensors
from compile.verification.tolerance import Closeness


def on_device(
    path: Path,
    eager: nn.Module,
    references: Sequence[Inputs],
    names: Sequence[str],
    items: Items,
    *,
    separate_weights: bool,
) -> dict[str, Closeness]:
    """Runs the compiled graph and the eager one on every reference input; positional tensors in, flat tuple out.

    items: adds how the compiled graph keeps the items of a batch apart; neighbours may move one by what the device is
    off from the original anyway.
    Raises CompileError when the graph cannot be loaded or run, or answers in other shapes.
    """
    found = {name: Closeness() for name in names}
    try:
        module = loaded(path, separate_weights)

        def compiled(*tensors: torch.Tensor) -> Tensors:
            result = module(*tensors)
            return [result] if isinstance(result, torch.Tensor) else list(result)

        answering, together = remembering(compiled)
        with torch.no_grad():
            for reference in references:
                tensors = tuple(reference.values())
                for name, leaf, original in zip(names, answering(*tensors), eager(*tensors), strict=True):
                    if leaf.shape != original.shape:
                        raise CompileError(
                            f"Output {name} of the compiled graph is {tuple(leaf.shape)}, "
                            f"of the original {tuple(original.shape)}."
                        )
                    found[name].add(leaf, original)
        try_artifact(compiled, references[0], together, items, [closeness.absolute for closeness in found.values()])
    except RuntimeError as error:
        raise CompileError(f"The compiled graph {path.name} does not run here: {one_line(error)}") from error
    return found
