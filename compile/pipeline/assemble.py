"""From compiled variants to model.tar.gz and its lock: parity and acceptance, manifest, archive, sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compile.analysis import preflight
from compile.definition import SampleRequest
from compile.errors import CompileError
from compile.packaging import archive as package
from compile.packaging import golden_sample
from compile.pipeline import lock as locking
from compile.pipeline.compiling import CompiledVariant
from compile.pipeline.graph import ARTIFACT, CPU
from compile.pipeline.lock import Proof
from compile.pipeline.plan import ResolvedPlan
from compile.progress import Reporter
from compile.verification.items import padding_problems
from endpoint_spec.digests import handler_digest
from endpoint_spec.lock import Lock
from inference_code.artifact import manifest as manifests
from inference_code.artifact.manifest import ArtifactManifest, Digests, TaskEntry

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec


ARCHIVE = "model.tar.gz"  # in a build's scratch folder


def assemble(resolved: ResolvedPlan, variants: Sequence[CompiledVariant], scratch: Path, reporter: Reporter) -> Lock:
    """From compiled variants, with their graphs in scratch/artifact and scratch/cpu, to model.tar.gz and its lock.

    Raises CompileError: variants that were not made alike, acceptance, or an artifact whose own code does not answer.
    """
    planned, folder = resolved.plan, scratch / ARTIFACT
    spec = planned.spec
    _require_one_origin(variants)
    problems = [problem for compiled in variants for problem in _shortfalls(spec, compiled)]
    if problems:
        raise CompileError(
            "The model does not reach what compile.accept asks for:\n  " + "\n  ".join(problems),
            f"No artifact was written. See inferentia analyze {spec.name}, or accept less in the spec.",
        )
    manifest = _manifest(resolved, variants, package.write_code(spec, folder), folder)
    sample = planned.definition.sample
    asked = sample(planned.variants[0].bucket) if sample is not None else None
    return pack(spec, manifest, locking.proof(variants), asked, scratch, reporter)


def pack(
    spec: EndpointSpec,
    manifest: ArtifactManifest,
    proven: Proof,
    asked: SampleRequest | None,
    scratch: Path,
    reporter: Reporter,
) -> Lock:
    """From a complete artifact folder (scratch/artifact) to scratch/model.tar.gz; returns its lock."""
    folder, archive = scratch / ARTIFACT, scratch / ARCHIVE
    manifests.write(manifest, folder / manifests.FILE_NAME)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    with reporter.step("package", size) as advance:
        digest = package.write_archive(folder, archive, advance)
    written = manifests.file_sha256(folder / manifests.FILE_NAME)
    lock = locking.draft(spec, manifest, written, proven, digest, archive.stat().st_size)
    if asked is None:
        return lock
    with reporter.step("sample answer from the packaged code"):
        if not manifest.on_cpu:
            archive = scratch / "cpu.tar.gz"
            package.write_cpu_archive(manifest, folder, scratch / CPU, archive)
        sample = golden_sample.take(spec, lock, asked, archive, scratch)
    return lock.model_copy(update={"sample": sample})


def _shortfalls(spec: EndpointSpec, graph: CompiledVariant) -> list[str]:
    """What compile.accept asks for and this graph does not reach, each with the key to change.

    Without the Neuron SDK coverage and subgraphs are predictions of compile.analysis, and every message states it. With
    it they are the compiler's own figures, and `supported` counts the operators that were compiled.
    """
    accept = spec.compile.accept
    problems = []
    coverage, subgraphs = graph.coverage, graph.subgraphs
    if coverage is not None and coverage["supported"] < accept.min_supported * coverage["total"]:
        kinds = ", ".join(f"{kind} ({entry['count']})" for kind, entry in coverage["unsupported"].items())
        problems.append(
            f"{graph.variant}: {coverage['supported']} of {coverage['total']} operators are supported "
            f"({_origin(coverage)}), compile.accept.min_supported asks for {accept.min_supported:.2%}. "
            f"Not supported: {kinds}"
        )
    if subgraphs is not None and subgraphs["count"] == 0:
        problems.append(
            f"{graph.variant}: no subgraph ({_origin(subgraphs)}): nothing of the model would run on the chip. "
            "Too few operators in a row are supported (compile.inf1.minimum_segment_size)"
        )
    if subgraphs is not None and subgraphs["count"] > accept.max_subgraphs:
        problems.append(
            f"{graph.variant}: {subgraphs['count']} subgraphs ({_origin(subgraphs)}), "
            f"compile.accept.max_subgraphs allows {accept.max_subgraphs}"
        )
    problems += [
        f"{graph.variant}: output {output.name} is {output.error / output.maximum:.1e} of its maximum away from the "
        f"original, compile.accept.lowering_tolerance allows {accept.lowering_tolerance:.1e}"
        for output in graph.parity.outputs
        if output.error > accept.lowering_tolerance * output.maximum
    ]
    # What was compiled under another spec and comes from the cache is judged by this one.
    refused = preflight.refused(graph.findings, accept.findings)
    problems += [f"{graph.variant}: {finding} (compile.accept.findings)" for finding in refused]
    padded = padding_problems(graph.items, graph.parity.outputs, accept.padding)
    problems += [f"{graph.variant}: {problem}" for problem in padded]
    return problems + [
        f"{graph.variant}: output {name} on the device: {problem} (compile.accept.device_tolerance)"
        for name, found in (graph.device or {}).items()
        for problem in found.shortfalls(accept.device_tolerance)
    ]


def _origin(figure: Mapping[str, Any]) -> str:
    return "predicted" if figure["predicted"] else "measured"


def _require_one_origin(variants: Sequence[CompiledVariant]) -> None:
    """One artifact has one set of versions, and is a stand-in's altogether or not at all."""
    first = variants[0]
    expected = {**first.versions, "stand-in": first.stand_in}
    for other in variants[1:]:
        found = {**other.versions, "stand-in": other.stand_in}
        for name in sorted({*found, *expected}):
            if found.get(name) != expected.get(name):
                raise CompileError(
                    f"The variants were not made alike: {name} is {expected.get(name)} for {first.variant}, "
                    f"{found.get(name)} for {other.variant}.",
                    "Compile them in one environment: empty the cache (build/cache, or jobs/NAME/cache/ in the artifact"
                    " bucket) and compile again.",
                )


def _manifest(
    resolved: ResolvedPlan, variants: Sequence[CompiledVariant], handler: str | None, folder: Path
) -> ArtifactManifest:
    planned = resolved.plan
    spec, definition = planned.spec, planned.definition
    return ArtifactManifest(
        name=spec.name,
        rehearsal=planned.target.rehearsal,
        stand_in=variants[0].stand_in,
        target=spec.compile.target,
        digests=Digests(build=resolved.digest, handler=handler_digest(spec)),
        task=TaskEntry(name=definition.task, settings=dict(definition.task_settings)),
        handler=handler,
        graphs=tuple(compiled.entry for compiled in variants),
        versions=variants[0].versions,
        cores_per_copy=spec.compile.pipeline_cores,
        environment={},
        separate_weights=planned.target.separates_weights(spec),
        files=package.file_digests(folder),
    )
