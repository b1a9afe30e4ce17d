"""One graph of an artifact: captured, accounted for, traced for this CPU, and compared with the original."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compile.analysis.capacity import VariantSize, size
from compile.analysis.report import CoverageReport, Finding
from compile.analysis.variant import AnalyzedVariant
from compile.definition import GraphDefinition, GraphVariant, Inputs, sizes_of
from compile.errors import CompileError, users_code
from compile.frontend.weights import WeightsReport
from compile.ir.flat_module import Signature
from compile.packaging import torchscript
from compile.pipeline.captures import Captures, captured
from compile.pipeline.plan import ResolvedPlan
from compile.progress import Reporter
from compile.targets import Target, trace_for_cpu
from compile.verification.diagnosis import causes
from compile.verification.inputs import VerifiedVariant
from compile.verification.items import Items, remembering, require_own_answers, try_artifact, try_original, try_padding
from compile.verification.parity import Parity, Tensors, compare
from inference_code.artifact.manifest import PackagedVariant

ARTIFACT, CPU, GRAPHS = "artifact", "cpu", "graphs"  # in a build's scratch folder
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CapturedVariant:
    """A variant in the form of a graph file, compared with the original; nothing is compiled yet.

    key: of the cache. footprint: predicted; report: of the device's part; host: of the host part, or None.
    graph: the digest of its nodes, constants and references; empty where parity failed.
    """

    key: str
    variant: GraphVariant
    weights: WeightsReport
    footprint: VariantSize
    signature: Signature
    parity: Parity
    items: Items
    findings: Sequence[Finding]
    unused_inputs: list[str]
    report: CoverageReport
    host: Mapping[str, Any] | None
    graph: str

    @property
    def entry(self) -> PackagedVariant:
        """As the manifest has it."""
        bucket = {axis: list(sizes_of(size)) for axis, size in self.variant.bucket.items()}
        outputs = zip(self.signature.outputs, self.items.outputs, strict=True)
        return PackagedVariant(
            role=self.variant.role,
            bucket=bucket,
            batch_size=self.variant.batch,
            file=self.variant.file,
            inputs=self.signature.inputs,
            outputs=tuple(replace(tensor, item_axis=own.axis) for tensor, own in outputs),
            structure=self.signature.structure,
        )


@dataclass(frozen=True)
class Places:
    """Where a build writes: the artifact's folder, graphs for the CPU and graph files beside it, and the record; with
    what was captured so far."""

    artifact: Path
    cpu: Path
    graphs: Path
    record: Path
    captures: Captures = field(default_factory=Captures)

    @classmethod
    def inside(cls, scratch: Path, record: Path) -> Places:
        """In a build's scratch folder, where assembling finds them."""
        (scratch / ARTIFACT).mkdir()
        return cls(scratch / ARTIFACT, scratch / CPU, scratch / GRAPHS, record)


def capture_variant(
    resolved: ResolvedPlan, analyzed: AnalyzedVariant, places: Places, reporter: Reporter
) -> CapturedVariant:
    """Captures a lowered variant and compares its replay, traced for the CPU, with the eager model.

    Its weights are loaded. The operators are accounted for the spec's target also in a rehearsal.
    Raises CompileError when it cannot be captured or traced, and for a graph file that does not compute the answers
    that it has recorded. Parity that fails otherwise is in the result, not raised.
    """
    spec, target, variant = resolved.plan.spec, resolved.plan.target, analyzed.variant
    names, references = [output.name for output in analyzed.signature.outputs], analyzed.references
    definition = resolved.plan.definition
    model = definition.graphs[variant.role]
    with reporter.step(f"items: {variant}"):
        own, exact = try_original(analyzed.flat, references, names, analyzed.first, model.shared_outputs)
        require_own_answers(str(variant), own)
    with reporter.step(f"capture: {variant}"), users_code(f"the capture of {variant}"):
        graph, replay = captured(analyzed, target.torch, places.captures.tensors, spec.root)
    saved_at, unused = trace(variant, replay, analyzed.example, target, places, reporter)
    answers: list[Tensors] = []
    with reporter.step(f"parity: {variant}", len(references)) as advance:
        saved, together = remembering(torch.jit.load(str(saved_at)))  # type: ignore[no-untyped-call]
        parity = compare(
            analyzed.flat,
            saved,
            references,
            names,
            seen=analyzed.first,
            exact=exact,
            recorded=model.recorded_outputs(variant),
            answers=answers,
            advance=lambda: advance(1),
        )
        if parity.passed:
            try_artifact(saved, references[0], together, own, parity.bounds)
            try_padding(saved, definition, variant, own)
            require_own_answers(str(variant), own)
        else:
            _require_recorded(model, variant, parity)
            parity.causes = causes(_trial(resolved, analyzed, names), analyzed.findings)
    for output in parity.outputs:
        _LOG.info("parity of %s, output %s: error %.3e, bound %.3e", variant, output.name, output.error, output.bound)
    return CapturedVariant(
        key=resolved.keys[variant.file],
        variant=variant,
        weights=resolved.weights.report,
        footprint=size(analyzed, spec),
        signature=analyzed.signature,
        parity=parity,
        items=own,
        findings=analyzed.findings,
        unused_inputs=unused,
        report=analyzed.report,
        host=None if analyzed.parts.host is None else analyzed.parts.report.to_json(),
        graph=places.captures.add(variant.file, graph, references, answers) if parity.passed else "",
    )


def _require_recorded(model: GraphDefinition, variant: GraphVariant, parity: Parity) -> None:
    found = model.recorded and model.recorded.difference(variant.bucket, variant.batch, parity.bounds)
    if found:
        raise CompileError(
            f"The graph file does not compute what it has recorded: {found}.",
            "Its weights, constants or answers were changed: take it from where it was built again.",
        )


def trace(
    variant: GraphVariant, replay: nn.Module, example: Inputs, target: Target, places: Places, reporter: Reporter
) -> tuple[Path, list[str]]:
    """Traces a replay for the CPU: what serves there, and what answers the sample of a chip's build. Returns the file,
    and the inputs that nothing reads."""
    path = (places.artifact if target.on_cpu else places.cpu) / variant.file
    with reporter.step(f"trace: {variant}"):
        served = target.on_cpu and not target.rehearsal
        traced, unused = trace_for_cpu(replay, tuple(example.values()), list(example), optimize=served)
        torchscript.save(traced, path)
    return path, unused


def _trial(resolved: ResolvedPlan, analyzed: AnalyzedVariant, names: Sequence[str]) -> VerifiedVariant:
    """What finds out why a variant failed."""
    spec, definition = resolved.plan.spec, resolved.plan.definition
    return VerifiedVariant(
        name=str(analyzed.variant),
        module=analyzed.flat,
        example=analyzed.example,
        references=analyzed.references,
        outputs=tuple(names),
        task=definition.task,
        settings=definition.task_settings,
        accept=spec.compile.accept,
        target=spec.compile.target,
        rewriting=resolved.plan.rewriting,
    )
