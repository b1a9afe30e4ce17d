"""One graph of an artifact: lowered, accounted for, compiled, saved, and compared with the original."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from compile.analysis.capacity import VariantSize, size
from compile.analysis.report import Finding
from compile.analysis.summary import account, with_host
from compile.analysis.variant import AnalyzedVariant
from compile.definition import GraphDefinition, GraphVariant, checked_inputs, sizes_of
from compile.errors import users_code
from compile.files import write_json
from compile.frontend.weights import WeightsReport
from compile.ir.flat_module import Signature, flat_module
from compile.lowering.config import of_spec
from compile.lowering.for_target import lowered
from compile.packaging import torchscript
from compile.pipeline.cache_key import versions
from compile.pipeline.capturing import captured
from compile.pipeline.plan import ResolvedPlan
from compile.progress import Reporter
from compile.targets import CompilerOutput, Cost, LoweredVariant, trace_for_cpu
from compile.verification.device_parity import on_device, trials
from compile.verification.diagnosis import causes
from compile.verification.inputs import VerifiedVariant
from compile.verification.items import Items, remembering, require_own_answers, try_artifact, try_original, try_padding
from compile.verification.parity import Parity, Tensors, compare
from compile.verification.tolerance import Closeness
from inference_code.artifact.manifest import PackagedVariant

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec


COMPARISON = "comparison.json"  # in a graph's record
ARTIFACT, CPU, GRAPHS = "artifact", "cpu", "graphs"  # in a build's scratch folder
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompiledVariant:
    """A finished graph: compared with the original, with what it was made from and what is known of it.

    key: of the cache. versions: of everything that compiled it. footprint: None in a rehearsal, where nothing has to
    fit. coverage, subgraphs: as the lock has them, or None when nothing is known. device: by output, where a NeuronCore
    could run it. replayed: by output, how far the graph in the compiler's torch is from the recorded answers, or None
    in a rehearsal. cost, comparison, record: as CompilerOutput has them.
    """

    key: str
    variant: GraphVariant
    versions: Mapping[str, str]
    weights: WeightsReport
    rehearsal: bool
    stand_in: bool
    footprint: VariantSize | None
    signature: Signature
    parity: Parity
    items: Items
    findings: Sequence[Finding]
    unused_inputs: list[str]
    coverage: Mapping[str, Any] | None
    subgraphs: Mapping[str, Any] | None
    cost: Cost | None
    comparison: dict[str, Any] | None
    record: Path | None
    device: Mapping[str, Closeness] | None
    replayed: Mapping[str, float] | None

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
    """Where a build writes: the artifact's folder, graphs for the CPU and graph files beside it, and the record."""

    artifact: Path
    cpu: Path
    graphs: Path
    record: Path

    @classmethod
    def inside(cls, scratch: Path, record: Path) -> Places:
        """In a build's scratch folder, where assembling finds them."""
        (scratch / ARTIFACT).mkdir()
        return cls(scratch / ARTIFACT, scratch / CPU, scratch / GRAPHS, record)


def compile_variant(
    resolved: ResolvedPlan, analyzed: AnalyzedVariant, places: Places, reporter: Reporter
) -> CompiledVariant:
    """Writes the variant's graph under `places.artifact` and compares what was written with the eager model.

    Its weights are loaded. The operators are accounted for the spec's target also in a rehearsal.
    Raises CompileError when it cannot be traced or compiled. Parity that fails is in the result, not raised.
    """
    spec, target, variant = resolved.plan.spec, resolved.plan.target, analyzed.variant
    names, references = [output.name for output in analyzed.signature.outputs], analyzed.references
    definition = resolved.plan.definition
    shared = definition.graphs[variant.role].shared_outputs
    with reporter.step(f"items: {variant}"):
        own, exact = try_original(analyzed.flat, references, names, analyzed.first, shared)
        require_own_answers(str(variant), own)
    with reporter.step(f"capture: {variant}"), users_code(f"the capture of {variant}"):
        graph = captured(analyzed, target.torch)
    with reporter.step(f"trace: {variant}"):
        on_cpu = (places.artifact if target.rehearsal else places.cpu) / variant.file
        traced, unused = trace_for_cpu(graph.module, analyzed.tensors, list(analyzed.example))
        torchscript.save(traced, on_cpu)
    answers: list[Tensors] = []
    with reporter.step(f"parity: {variant}", len(references)) as advance:
        saved, together = remembering(torch.jit.load(str(on_cpu)))  # type: ignore[no-untyped-call]
        seen = analyzed.first
        parity = compare(
            analyzed.flat, saved, references, names, seen=seen, exact=exact, answers=answers, advance=lambda: advance(1)
        )
        if parity.passed:
            try_artifact(saved, references[0], together, own, parity.bounds)
            try_padding(analyzed.flat, saved, definition, variant, own)
            require_own_answers(str(variant), own)
        else:
            parity.causes = causes(_trial(resolved, analyzed, names), analyzed.findings)
    for output in parity.outputs:
        _LOG.info("parity of %s, output %s: error %.3e, bound %.3e", variant, output.name, output.error, output.bound)
    compiled, device = CompilerOutput(), None
    if not target.rehearsal and parity.passed:
        path = places.graphs / f"{variant.slug}.graph"
        graph.write(path, resolved.header, references, answers)
        ready = LoweredVariant(
            spec=spec,
            variant=variant,
            graph=path,
            bounds=parity.bounds,
            trials=trials(references),
            report=analyzed.report,
            work=places.record / variant.slug,
            host_operators=analyzed.parts.report.operators,
        )
        with reporter.step(f"compile: {variant}"):
            compiled = target.compile(ready)
        if compiled.comparison is not None and compiled.record is not None:
            write_json(compiled.record / COMPARISON, compiled.comparison)
        assert compiled.file is not None  # noqa: S101  (no rehearsal)
        torchscript.strip(compiled.file, places.artifact / variant.file)
        if compiled.answers is not None:
            device = on_device(compiled.answers, references, answers, names, own)
            require_own_answers(str(variant), own)
        parity.notes.append(_where(device is not None, target.stand_in))
    found = with_host(compiled.account or account(analyzed.report), analyzed.parts)
    return CompiledVariant(
        key=resolved.keys[variant.file],
        variant=variant,
        versions=versions(target),
        weights=resolved.weights.report,
        rehearsal=target.rehearsal,
        stand_in=target.stand_in,
        footprint=None if target.rehearsal else size(analyzed, spec),
        signature=analyzed.signature,
        parity=parity,
        items=own,
        findings=analyzed.findings,
        unused_inputs=unused,
        coverage=found.coverage,
        subgraphs=found.subgraphs,
        cost=compiled.cost,
        comparison=compiled.comparison,
        record=compiled.record,
        device=device,
        replayed=compiled.replayed,
    )


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


def write_for_cpu(variant: GraphVariant, graph: GraphDefinition, spec: EndpointSpec, folder: Path) -> None:
    """Writes only the lowered graph, traced for the CPU, under `folder`. Raises CompileError when it cannot."""
    example, _ = checked_inputs(graph, variant.role, variant.bucket, variant.batch)
    tensors = tuple(example.values())
    parts = lowered(flat_module(graph.module, example), tensors, "inf1", of_spec(spec))
    traced, _ = trace_for_cpu(parts.whole, tensors, list(example))
    torchscript.save(traced, folder / variant.file)


def _where(on_device: bool, stand_in: bool) -> str:
    if stand_in:
        return "compiled by a stand-in for the Neuron SDK: nothing about the device is proven"
    if on_device:
        return "the lowered graph was compared on the CPU, and the compiled one on a NeuronCore"
    return "compared before compilation, on the CPU: this machine has no NeuronCore to run what was compiled"
