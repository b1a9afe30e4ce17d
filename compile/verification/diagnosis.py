"""Why an artifact is not the model: what is known of it, for the message of a build that fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from compile.analysis.report import Finding
from compile.definition import Inputs
from compile.errors import CompileError
from compile.ir.flat_module import FlatModule
from compile.lowering.operator_names import tensors
from compile.verification.inputs import VerifiedVariant
from compile.verification.parity import run
from compile.verification.per_module import per_module

# What a finding of these kinds can have to do with a difference.
_SUSPECTS = {
    "data-dependent": "a decision by the data, which the trace keeps as the example took it",
    "state": "forward writes into it, so that a later answer differs",
    "hook": "a hook, which may answer otherwise in the trace",
    "input-written": "an input that forward writes into",
    "float64": "float64",
}


def causes(trial: VerifiedVariant, findings: Sequence[Finding]) -> list[str]:
    """What is known of why parity failed: NaN of the original itself, or the first module that differs and by how much;
    and what the preflight found."""
    known = [f"the original itself answers {text}" for text in _nan(trial.module, trial.references)]
    if not known:
        known += _first_module(trial)
    known += [f"{_SUSPECTS[f.kind]} ({f.where})" for f in findings if f.kind in _SUSPECTS]
    fused = [path for path, part in trial.module.model.named_modules() if type(part) is nn.TransformerEncoderLayer]
    if fused:
        known.append(
            f"PyTorch's fused inference path, which {fused[0] or 'the model'} takes when it is not traced "
            "(torch.backends.mha.set_fastpath_enabled(False) turns it off)"
        )
    return known or ["no single module differs by itself: rounding adds up, or an output is no function of the inputs"]


def _nan(flat: FlatModule, references: Sequence[Inputs]) -> Iterator[str]:
    """The first reference on which the original answers NaN, with the module where it first appears."""
    for number, reference in enumerate(references):
        if any(bool(leaf.isnan().any()) for leaf in run(flat, reference.values()) if leaf.is_floating_point()):
            yield f"NaN on reference input {number}{_first_nan(flat, reference)}"
            return


def _first_nan(flat: FlatModule, reference: Inputs) -> str:
    """The innermost module that answers NaN first, although nothing that goes in is NaN."""
    found: list[str] = []

    def look(path: str, part: nn.Module, given: Any, answered: Any) -> None:
        if not found and _has_nan(answered) and not _has_nan(given):
            found.append(f": first in {path or 'forward'} ({type(part).__name__})")

    def hook(path: str) -> Any:
        return lambda part, given, answered: look(path, part, given, answered)

    handles = [part.register_forward_hook(hook(path)) for path, part in flat.model.named_modules()]
    try:
        run(flat, reference.values())
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


def _has_nan(value: Any) -> bool:
    return any(one.is_floating_point() and bool(torch.isnan(one).any()) for one in tensors(value))


def _first_module(trial: VerifiedVariant) -> Iterator[str]:
    try:
        found = per_module(trial)
    except CompileError as error:
        yield f"its modules cannot be tried one by one ({error.problem})"
        return
    for row in found.rows:
        if row.module == found.first:
            where = "by itself" if row.diverges else "inside the whole model"
            by = row.error if row.diverges else row.in_place
            size = row.note if by is None else f"by {by:.3e}"
            yield f"the first module that differs {where} is {row.module} ({row.kind}), {size}"
            return
