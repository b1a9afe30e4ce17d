"""One variant, lowered once: what its size, its coverage and its compilation are all taken from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor

from compile.analysis import CoverageReport, analyze, preflight
from compile.analysis.report import Finding
from compile.definition import GraphDefinition, GraphVariant, Inputs, checked_inputs
from compile.errors import users_code
from compile.ir.flat_module import FlatModule, Signature, described, flat_module
from compile.lowering import Prologue
from compile.lowering.config import Rewriting
from compile.lowering.for_target import lowered
from compile.progress import Reporter


@dataclass(frozen=True)
class AnalyzedVariant:
    """A variant with its original (`flat`), its lowered graph (`parts`) and the prediction for the target (`report`).

    signature: of the original. example: the inputs it is traced with, by name. references: those it is compared on.
    first: what the original returned for the first reference. findings: what stands in its way, or nearly.
    """

    variant: GraphVariant
    flat: FlatModule
    signature: Signature
    example: Inputs
    references: Sequence[Inputs]
    first: Sequence[Tensor]
    parts: Prologue
    report: CoverageReport
    findings: Sequence[Finding]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The example inputs in the order of the graph's parameters."""
        return tuple(self.example.values())


def analyzed(
    variant: GraphVariant,
    graph: GraphDefinition,
    target: str,
    rewriting: Rewriting,
    accepted: Collection[str],
    reporter: Reporter,
) -> AnalyzedVariant:
    """Lower a variant for a target and account for its operators. accepted: findings that the spec allows.

    Raises CompileError when the model fails on its example inputs, when something in it is not accepted, and when it
    cannot be lowered or traced.
    """
    example, references = checked_inputs(graph, variant.role, variant.bucket, variant.batch)
    flat, tensors = flat_module(graph.module, example), tuple(example.values())
    with reporter.step(f"check: {variant}"):
        signature, first, findings = examined(flat, references[0])
        preflight.require(findings, accepted, str(variant))
    with reporter.step(f"lower: {variant}"), users_code(f"lowering {variant}"):
        parts = lowered(flat, tensors, target, rewriting)
    with reporter.step(f"operators: {variant}"), users_code(f"the trace of {variant}"):
        report = analyze(parts.device, parts.device_inputs, target=target)
        more = [*report.findings, *preflight.of_host(parts)]
        preflight.require(more, accepted, f"{variant}, lowered,")
    findings += [finding for finding in more if finding not in findings]
    return AnalyzedVariant(variant, flat, signature, example, references, first, parts, report, findings)


def examined(flat: FlatModule, reference: Inputs) -> tuple[Signature, Sequence[Tensor], list[Finding]]:
    """Runs the original once on a reference: what goes in and out, its answer, and what is found in it.

    Raises CompileError when it fails, or returns what no artifact can hold.
    """
    findings = preflight.of_module(flat.model)
    with preflight.watched(flat, reference, findings) as given:
        signature, first = described(flat, given)
    return signature, first, findings + preflight.of_code(flat, reference.values())
