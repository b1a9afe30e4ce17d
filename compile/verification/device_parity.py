"""A compiled graph on its own hardware against the original on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from compile.definition import Inputs
from compile.errors import CompileError, one_line
from compile.targets.inf2 import loaded
from compile.verification.items import Items, item_trials, try_artifact
from compile.verification.parity import Tensors
from compile.verification.tolerance import Closeness


def trials(references: Sequence[Inputs]) -> list[list[torch.Tensor]]:
    """What a chip is asked: the references, then what shows whether it keeps the items of a batch apart."""
    return [*(list(reference.values()) for reference in references), *item_trials(references[0])]


def run_here(path: Path, asked: Sequence[Sequence[torch.Tensor]], *, separate_weights: bool) -> list[Tensors]:
    """What a compiled graph answers to each trial, in this process. Raises CompileError where it does not run."""
    try:
        module = loaded(path, separate_weights)
        with torch.no_grad():
            results = [module(*tensors) for tensors in asked]
    except RuntimeError as error:
        raise CompileError(f"The compiled graph {path.name} does not run here: {one_line(error)}") from error
    return [[result] if isinstance(result, torch.Tensor) else list(result) for result in results]


def on_device(
    answers: Sequence[Tensors],
    references: Sequence[Inputs],
    expected: Sequence[Tensors],
    names: Sequence[str],
    items: Items,
) -> dict[str, Closeness]:
    """How close a chip's answers to `trials(references)` are to what the original answered to the references.

    items: adds how the compiled graph keeps the items of a batch apart; neighbours may move one by what the device is
    off from the original anyway. Raises CompileError for answers of other shapes.
    """
    found = {name: Closeness() for name in names}
    for answer, originals in zip(answers, expected, strict=False):  # the trials of items come after the references
        for name, leaf, original in zip(names, answer, originals, strict=True):
            if leaf.shape != original.shape:
                raise CompileError(
                    f"Output {name} of the compiled graph is {tuple(leaf.shape)}, "
                    f"of the original {tuple(original.shape)}."
                )
            found[name].add(leaf, original)
    rest = iter(answers[len(references) :])
    bounds = [closeness.absolute for closeness in found.values()]
    try_artifact(lambda *_: next(rest), references[0], answers[0], items, bounds)
    return found
