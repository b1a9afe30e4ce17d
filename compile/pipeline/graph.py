"""One graph of an artifact: lowered, accounted for, compiled, saved, and compared with the original."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from compile.analysis.summary import account, with_host
from compile.analysis.variant import AnalyzedVariant
from compile.definition import GraphDefinition, GraphVariant, checked_inputs, sizes_of
from compile.ir.flat_module import Signature, flat_module
from compile.lowering.config import of_spec
from compile.lowering.for_target import lowered
from compile.packaging import torchscript
from compile.progress import Reporter
from compile.targets import CompilerOutput, LoweredVariant, Target, trace_for_cpu
from compile.targets.inf2 import separates_weights
from compile.verification.device_parity import on_device
from compile.verification.parity import Parity, compare
from compile.verification.tolerance import Closeness
from inference_code.artifact.manifest import PackagedVariant

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec


COMPARISON = "comparison.json"  # in a graph's record


@dataclass(frozen=True)
class BuiltVariant:
    """A finished graph. `coverage` is as the lock has it, or None when nothing is known.

    compiled: what the target said. device: by output, where a NeuronCore could run it.
    """

    variant: GraphVariant
    signature: Signature
    parity: Parity
    unused_inputs: list[str]
    coverage: Mapping[str, Any] | None
    subgraphs: Mapping[str, Any] | None
    compiled: CompilerOutput
    device: Mapping[str, Closeness] | None = None

    @property
    def entry(self) -> PackagedVariant:
        """As the manifest has it."""
        bucket = {axis: list(sizes_of(size)) for axis, size in self.variant.bucket.items()}
        return PackagedVariant(
            role=self.variant.role,
            bucket=bucket,
            batch_size=self.variant.batch,
            file=self.variant.file,
            inputs=self.signature.inputs,
            outputs=self.signature.outputs,
            structure=self.signature.structure,
        )


@dataclass(frozen=True)
class Places:
    """Where a build writes: the artifact's folder, graphs for the CPU beside it, and the record that stays."""

    artifact: Path
    cpu: Path
    record: Path


def make(
    analyzed: AnalyzedVariant, target: Target, spec: EndpointSpec, digest: str, places: Places, reporter: Reporter
) -> BuiltVariant:
    """Writes the variant's graph under `places.artifact` and compares what was written with the eager model.

    digest: of the build. The operators are accounted for the spec's target also in a rehearsal.
    Raises CompileError when it cannot be traced or compiled. Parity that fails is in the result, not raised.
    """
    variant, parts, flat = analyzed.variant, analyzed.parts, analyzed.flat
    ready = LoweredVariant(
        spec=spec,
        build_digest=digest,
        variant=variant,
        module=parts.whole,
        example=analyzed.tensors,
        names=list(analyzed.example),
        report=analyzed.report,
        work=places.record / variant.slug,
        host_operators=parts.report.operators,
    )
    with reporter.step(f"{'trace' if target.rehearsal else 'compile'}: {variant}"):
        compiled = target.compile(ready)
        _keep_comparison(compiled)
        path, on_cpu = _place(compiled, ready, places)
    names, references = [output.name for output in analyzed.signature.outputs], analyzed.references
    with reporter.step(f"parity: {variant}", len(references)) as advance:
        saved = torch.jit.load(str(on_cpu))  # type: ignore[no-untyped-call]
        parity = compare(flat, saved, references, names, seen=analyzed.first, advance=lambda: advance(1))
    device = None
    if not target.rehearsal:
        if target.runs_here:
            device = on_device(path, flat, references, names, separate_weights=separates_weights(spec))
        parity.notes.append(_where(device is not None, target.stand_in))
    found = with_host(compiled.account or account(analyzed.report), parts)
    unused = compiled.unused_inputs
    return BuiltVariant(variant, analyzed.signature, parity, unused, found.coverage, found.subgraphs, compiled, device)


def write_for_cpu(variant: GraphVariant, graph: GraphDefinition, spec: EndpointSpec, folder: Path) -> None:
    """Writes only the lowered graph, traced for the CPU, under `folder`. Raises CompileError as `make` does."""
    example, _ = checked_inputs(graph, variant.role, variant.bucket, variant.batch)
    tensors = tuple(example.values())
    parts = lowered(flat_module(graph.module, example), tensors, "inf1", of_spec(spec))
    traced = trace_for_cpu(parts.whole, tensors, list(example))
    assert traced.module is not None  # noqa: S101  (a trace for the CPU is a module)
    path = folder / variant.file
    path.parent.mkdir(parents=True, exist_ok=True)
    torchscript.save(traced.module, path)


def _place(compiled: CompilerOutput, lowered: LoweredVariant, places: Places) -> tuple[Path, Path]:
    """Puts the graph into the artifact; returns it, and the file that computes the same on a CPU.

    Beside a graph that only a NeuronCore runs, the same lowered graph is traced for the CPU: its parity, and the
    sample's answer, are found with it.
    """
    path, on_cpu = places.artifact / lowered.variant.file, places.cpu / lowered.variant.file
    path.parent.mkdir(parents=True, exist_ok=True)
    if compiled.module is not None:
        torchscript.save(compiled.module, path)
        return path, path
    assert compiled.file is not None  # noqa: S101  (one of the two is there)
    torchscript.strip(compiled.file, path)
    traced = trace_for_cpu(lowered.module, lowered.example, lowered.names)
    assert traced.module is not None  # noqa: S101  (a trace for the CPU is a module)
    compiled.unused_inputs[:] = traced.unused_inputs
    on_cpu.parent.mkdir(parents=True, exist_ok=True)
    torchscript.save(traced.module, on_cpu)
    return path, on_cpu


def _keep_comparison(compiled: CompilerOutput) -> None:
    """The prediction beside the compiler's log becomes part of the record, where the report finds it."""
    if compiled.comparison is not None and compiled.record is not None:
        text = json.dumps(compiled.comparison, indent=2, sort_keys=True) + "\n"
        (compiled.record / COMPARISON).write_text(text, encoding="utf-8")


def _where(on_device: bool, stand_in: bool) -> str:
    if stand_in:
        return "compiled by a stand-in for the Neuron SDK: nothing about the device is proven"
    if on_device:
        return "the lowered graph was compared on the CPU, and the compiled one on a NeuronCore"
    return "compared before compilation, on the CPU: this machine has no NeuronCore to run what was compiled"
