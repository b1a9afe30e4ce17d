"""The road of one build: plan, weights, graphs with their parity, package, sample, lock."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers

from compile import capacity as capacities
from compile import graphs, loading, locking, package, sampling, weights
from compile.acceptance import shortfalls
from compile.capacity import Capacity
from compile.definition import ModelDefinition, SampleRequest
from compile.errors import CompileError
from compile.graphs import BuiltGraph, Case
from compile.locking import Proof
from compile.progress import Reporter
from compile.rewriting import Rewriting, of_spec
from compile.staging import staging
from compile.targets import Target, resolve
from inference_code import manifest as manifests
from inference_code import tasks
from inference_code.manifest import ArtifactManifest, Digests, TaskEntry
from spec.digests import build_digest, handler_digest
from spec.lock import Lock, artifact_path

if TYPE_CHECKING:
    from spec import EndpointSpec


@dataclass(frozen=True)
class Plan:
    """What a build will do; made before anything expensive."""

    spec: EndpointSpec
    target: Target
    definition: ModelDefinition
    cases: tuple[Case, ...]
    record: Path
    rewriting: Rewriting


@dataclass(frozen=True)
class Result:
    """What a build did. `changed` is False when the lock on the disk already said all of it."""

    spec: EndpointSpec
    lock: Lock
    changed: bool
    weights: str
    graphs: tuple[BuiltGraph, ...]

    @property
    def artifact(self) -> Path:
        """Where model.tar.gz is."""
        return artifact_path(self.spec, self.lock.rehearsal)


def plan(spec: EndpointSpec, *, rehearse: bool, check: bool = True, work: Path | None = None) -> Plan:
    """Raises CompileError when the target cannot be compiled for here, or the model cannot be made.

    check: false for a plan that is only shown, which needs no compiler. work: where the compiler works and the record
    is kept, instead of build/record/.
    """
    target = resolve(spec.compile.target, rehearse)
    if check:
        target.check(spec)
    rewriting = of_spec(spec)
    definition = loading.definition(spec)
    _check_task(spec, definition)
    cases = tuple(
        Case(role, bucket, batch)
        for role in definition.graphs
        for bucket in spec.compile.buckets or definition.buckets
        for batch in spec.compile.batch_sizes
    )
    return Plan(spec, target, definition, cases, (work or spec.root / "build" / "record") / spec.name, rewriting)


def survey(planned: Plan, reporter: Reporter) -> Capacity:
    """The matrix with its predicted sizes. Raises CompileError when a graph cannot be lowered or traced."""
    spec, cells = planned.spec, []
    for case in planned.cases:
        with reporter.step(f"size: {case}"):
            cells.append(capacities.survey(case, planned.definition.graphs[case.role], spec))
    return capacities.capacity(spec, cells, spec.root)


def build(planned: Plan, reporter: Reporter) -> Result:
    """Makes the artifact and its lock; both appear at their names only when everything is proven.

    Raises CompileError: weights, a matrix that does not fit the instance (before anything is compiled), tracing,
    compiling, acceptance, parity, or an artifact whose own code does not answer.
    """
    spec, target = planned.spec, planned.target
    with reporter.step("weights"):
        report = weights.fill(spec, planned.definition)
    if not target.rehearsal:
        capacities.require_fit(spec, survey(planned, reporter))
    with staging(artifact_path(spec, target.rehearsal).parent) as scratch:
        folder = scratch / "artifact"
        folder.mkdir()
        places = graphs.Places(folder, scratch / "cpu", planned.record)
        built = tuple(
            graphs.make(case, planned.definition.graphs[case.role], target, spec, places, reporter)
            for case in planned.cases
        )
        _require_parity(built)
        _require_accepted(spec, built)
        manifest = _manifest(planned, built, package.write_code(spec, folder), folder)
        asked = sampling.request(planned.definition, planned.cases[0].bucket)
        lock, changed = pack(spec, manifest, locking.proof(built, report), asked, scratch, reporter)
    return Result(spec, lock, changed, report.statement, built)


def pack(
    spec: EndpointSpec,
    manifest: ArtifactManifest,
    proven: Proof,
    asked: SampleRequest | None,
    scratch: Path,
    reporter: Reporter,
) -> tuple[Lock, bool]:
    """From a complete artifact folder (scratch/artifact) to archive and lock at their names."""
    folder, archive = scratch / "artifact", scratch / "model.tar.gz"
    manifests.write(manifest, folder / manifests.FILE_NAME)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    with reporter.step("package", size) as advance:
        digest = package.write_archive(folder, archive, advance)
    lock = locking.draft(spec, manifest, proven, digest, archive.stat().st_size)
    if asked is not None:
        with reporter.step("sample answer from the packaged code"):
            if not manifest.rehearsal:
                archive_of_cpu = scratch / "cpu.tar.gz"
                package.write_cpu_archive(manifest, folder, scratch / "cpu", archive_of_cpu)
                sample = sampling.widened(sampling.take(spec, lock, asked, archive_of_cpu, scratch), spec)
            else:
                sample = sampling.take(spec, lock, asked, archive, scratch)
        lock = lock.model_copy(update={"sample": sample})
    return locking.publish(spec, lock, archive)


def _check_task(spec: EndpointSpec, definition: ModelDefinition) -> None:
    """A task of one's own needs a handler that serves it."""
    known = tasks.built_in()
    if spec.serve.handler is None and definition.task not in known:
        raise CompileError(
            f"{spec.path.name}: the model's task {definition.task!r} is not built in ({', '.join(sorted(known))}), "
            "and the spec names no handler.",
            "Write serve: {handler: path.py} with preprocess(request) and postprocess(outputs, item).",
        )


def _require_parity(built: tuple[BuiltGraph, ...]) -> None:
    problems = [
        f"{graph.case}: output {output.name}: error {output.error:.3e} exceeds the bound {output.bound:.3e} "
        f"(the original's own distance from float64: {_number(output.eager_distance)}, maximum {output.maximum:.3e})"
        for graph in built
        for output in graph.parity.outputs
        if not output.passed
    ]
    if problems:
        raise CompileError(
            "The artifact does not compute what the model computes:\n  " + "\n  ".join(problems),
            "No artifact was written. A trace fixes every branch of Python code: does forward branch on its input?",
        )


def _require_accepted(spec: EndpointSpec, built: tuple[BuiltGraph, ...]) -> None:
    problems = [problem for graph in built for problem in shortfalls(spec, graph)]
    if problems:
        raise CompileError(
            "The model does not reach what compile.accept asks for:\n  " + "\n  ".join(problems),
            f"No artifact was written. See python -m compile analyze {spec.name}, or accept less in the spec.",
        )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3e}"


def _manifest(planned: Plan, built: tuple[BuiltGraph, ...], handler: str | None, folder: Path) -> ArtifactManifest:
    spec, definition = planned.spec, planned.definition
    return ArtifactManifest(
        name=spec.name,
        rehearsal=planned.target.rehearsal,
        stand_in=planned.target.stand_in,
        target=spec.compile.target,
        digests=Digests(build=build_digest(spec), handler=handler_digest(spec)),
        task=TaskEntry(name=definition.task, settings=dict(definition.task_settings)),
        handler=handler,
        graphs=tuple(graph.entry for graph in built),
        versions=versions(planned.target),
        cores_per_copy=spec.compile.pipeline_cores,
        environment={},
        files=package.file_digests(folder),
    )


def versions(target: Target) -> dict[str, str]:
    """Versions of everything that had a part in the graphs."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": str(transformers.__version__),
        **target.versions(),
    }
