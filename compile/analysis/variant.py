"""One variant, lowered once: what its size, its coverage and its compilation are all taken from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from compile.analysis import CoverageReport, analyze
from compile.definition import GraphDefinition, GraphVariant, Inputs, checked_inputs
from compile.ir.flat_module import FlatModule, Signature, described, flat_module
from compile.lowering import Prologue
from compile.lowering.config import Rewriting
from compile.lowering.for_target import lowered
from compile.progress import Reporter


@dataclass(frozen=True)
class AnalyzedVariant:
    """A variant with its original (`flat`), its lowered graph (`parts`) and the prediction for the target (`report`).

    signature: of the original. example: the inputs it is traced with, by name. references: those it is compared on.
    first: what the original returned for the first reference.
    """

    variant: GraphVariant
    flat: FlatModule
    signature: Signature
    example: Inputs
    references: Sequence[Inputs]
    first: Sequence[Tensor]
    parts: Prologue
    report: CoverageReport

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The example inputs in the order of the graph's parameters."""
        return tuple(self.example.values())


def analyzed(
    variant: GraphVariant, graph: GraphDefinition, target: str, rewriting: Rewriting, reporter: Reporter
) -> AnalyzedVariant:
    """Lower a variant for a target and account for its operators.

    Raises CompileError when the model fails on its example inputs, and when it cannot be lowered or traced.
    """
    example, references = checked_inputs(graph, variant.role, variant.bucket, variant.batch)
    flat, tensors = flat_module(graph.module, example), tuple(example.values())
    with reporter.step(f"lower: {variant}"):
        signature, first = described(flat, references[0])
        parts = lowered(flat, tensors, target, rewriting)
    with reporter.step(f"operators: {variant}"):
        report = analyze(parts.device, parts.device_inputs, target=target)
    return AnalyzedVariant(variant, flat, signature, example, references, first, parts, report)
