"""The road of one build: plan, weights, graphs with their parity, package, sample, lock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from compile.analysis import capacity as capacities
from compile.analysis.capacity import Capacity, Footprint
from compile.definition import Case, ModelDefinition, SampleRequest
from compile.errors import CompileError
from compile.files import staging
from compile.frontend import loading, weights
from compile.lowering.config import Rewriting, of_spec
from compile.packaging import archive as package
from compile.packaging import golden_sample
from compile.pipeline import graph as graphs
from compile.pipeline import lock as locking
from compile.pipeline import model_digest
from compile.pipeline.acceptance import shortfalls
from compile.pipeline.cache import Cache
from compile.pipeline.cache_key import Identity, here, versions
from compile.pipeline.graph import BuiltGraph
from compile.pipeline.graph_archive import CompiledCell, storable
from compile.pipeline.lock import Proof
from compile.progress import Reporter
from compile.targets import Target, resolve
from compile.targets.inf2 import separates_weights
from endpoint_spec.digests import build_digest, handler_digest
from endpoint_spec.lock import Lock, artifact_path
from inference_code import tasks
from inference_code.artifact import manifest as manifests
from inference_code.artifact.manifest import ArtifactManifest, Digests, TaskEntry

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec


ARTIFACT, CPU, ARCHIVE = "artifact", "cpu", "model.tar.gz"  # in a build's scratch folder


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
    """What a build did. `changed` is False when the lock on the disk already said all of it.

    cached: what was taken from the cache instead of compiled.
    """

    spec: EndpointSpec
    lock: Lock
    changed: bool
    weights: str
    graphs: tuple[BuiltGraph, ...]
    cached: tuple[Case, ...] = ()

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


def build(planned: Plan, reporter: Reporter, cache: Cache | None = None) -> Result:
    """Makes the artifact and its lock; both appear at their names only when everything is proven.

    What the cache has is not compiled again, and what is compiled is put there.
    Raises CompileError: weights, a matrix that does not fit the instance (before anything is compiled), tracing,
    compiling, acceptance, parity, or an artifact whose own code does not answer.
    """
    spec = planned.spec
    with staging(artifact_path(spec, planned.target.rehearsal).parent) as scratch:
        places = graphs.Places(scratch / ARTIFACT, scratch / CPU, planned.record)
        places.artifact.mkdir()
        matrix = Matrix(planned, places, reporter)
        taken = matrix.from_cache(cache) if cache is not None else ()
        matrix.compile_rest(cache)
        lock = assemble(planned, matrix.cells, scratch, reporter)
        lock, changed = locking.publish(spec, lock, scratch / ARCHIVE)
    built = tuple(cell.graph for cell in matrix.cells)
    return Result(spec, lock, changed, matrix.weights.statement, built, taken)


def cached(planned: Plan, cache: Cache) -> list[Case]:
    """The cells that the cache has. Raises CompileError for weights that are not there."""
    return [case for case, key in keys(planned, weights.identify(planned.spec)) if cache.has(key)]


def keys(planned: Plan, known: weights.WeightsReport) -> list[tuple[Case, str]]:
    """The plan's cells with their keys, when they are compiled on this machine; asked before weights are loaded."""
    environment = {**here(planned.target), "definition": model_digest.digest(planned.definition)}
    identity = Identity(planned.spec, known, planned.target.rehearsal, environment)
    return [(case, identity.key(case)) for case in planned.cases]


class Matrix:
    """The cells of a build, from the cache or compiled here."""

    def __init__(self, planned: Plan, places: graphs.Places, reporter: Reporter) -> None:
        """Raises CompileError for weights that are not there."""
        self._planned, self._places, self._reporter = planned, places, reporter
        self._done: dict[str, CompiledCell] = {}  # by the graph's file
        with reporter.step("weights"):
            self.weights = weights.identify(planned.spec)

    @property
    def cells(self) -> tuple[CompiledCell, ...]:
        """All that are done, in the plan's order."""
        return tuple(self._done[case.file] for case in self._planned.cases if case.file in self._done)

    @cached_property
    def _keys(self) -> list[tuple[Case, str]]:
        return keys(self._planned, self.weights)

    def from_cache(self, cache: Cache) -> tuple[Case, ...]:
        """Takes what the cache has; returns which cells those are."""
        for case, key in self._keys:
            if cache.has(key):
                with self._reporter.step(f"from the cache: {case}"):
                    found = cache.read(key, case, self._places)
                if found is not None:
                    self._done[case.file] = found
        return tuple(cell.graph.case for cell in self.cells)

    def compile_rest(self, cache: Cache | None) -> None:
        """Compiles what is not done, after the whole matrix was found to fit. Raises CompileError."""
        missing = [(case, key) for case, key in self._keys if case.file not in self._done]
        if missing:
            self.load_weights()
        sizes = {} if self._planned.target.rehearsal else self._require_fit([case for case, _ in missing])
        for case, key in missing:
            cell = self.compile(case, key, sizes.get(case.file))
            if cache is not None and storable(cell.graph):
                cache.write(cell, self._places)

    def load_weights(self) -> None:
        """Raises CompileError for weights that do not fit the model."""
        with self._reporter.step("load the weights"):
            weights.fill(self._planned.spec, self._planned.definition)

    def compile(self, case: Case, key: str, footprint: Footprint | None) -> CompiledCell:
        """Compiles one cell, whose weights are loaded. Raises CompileError."""
        planned, target = self._planned, self._planned.target
        graph = graphs.make(
            case, planned.definition.graphs[case.role], target, planned.spec, self._places, self._reporter
        )
        cell = CompiledCell(key, graph, versions(target), self.weights, target.rehearsal, target.stand_in, footprint)
        self._done[case.file] = cell
        return cell

    def size(self, case: Case) -> Footprint:
        """How large one cell will be (predicted)."""
        with self._reporter.step(f"size: {case}"):
            return capacities.survey(case, self._planned.definition.graphs[case.role], self._planned.spec)

    def _require_fit(self, missing: list[Case]) -> dict[str, Footprint]:
        """Sizes of what is not compiled yet; with those of what is, all must fit the instance."""
        sizes = {case.file: self.size(case) for case in missing}
        require_fit(self._planned, [*(cell.footprint for cell in self.cells), *sizes.values()])
        return sizes


def require_fit(planned: Plan, sizes: Iterable[Footprint | None]) -> None:
    """Raises CompileError for a matrix that does not fit the spec's instance."""
    spec, known = planned.spec, [size for size in sizes if size is not None]
    capacities.require_fit(spec, capacities.capacity(spec, known, spec.root))


def assemble(planned: Plan, cells: Sequence[CompiledCell], scratch: Path, reporter: Reporter) -> Lock:
    """From finished cells, whose graphs lie in scratch/artifact and scratch/cpu, to scratch/model.tar.gz and its lock.

    Raises CompileError: parity, acceptance, or an artifact whose own code does not answer.
    """
    spec, folder = planned.spec, scratch / ARTIFACT
    built = [cell.graph for cell in cells]
    require_parity(built)
    _require_accepted(spec, built)
    manifest = _manifest(planned, cells, package.write_code(spec, folder), folder)
    asked = golden_sample.request(planned.definition, planned.cases[0].bucket)
    return pack(spec, manifest, locking.proof(built, cells[0].weights), asked, scratch, reporter)


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
    lock = locking.draft(spec, manifest, proven, digest, archive.stat().st_size)
    if asked is None:
        return lock
    with reporter.step("sample answer from the packaged code"):
        if not manifest.rehearsal:
            archive_of_cpu = scratch / "cpu.tar.gz"
            package.write_cpu_archive(manifest, folder, scratch / CPU, archive_of_cpu)
            sample = golden_sample.widened(golden_sample.take(spec, lock, asked, archive_of_cpu, scratch), spec)
        else:
            sample = golden_sample.take(spec, lock, asked, archive, scratch)
    return lock.model_copy(update={"sample": sample})


def _check_task(spec: EndpointSpec, definition: ModelDefinition) -> None:
    """A task of one's own needs a handler that serves it."""
    known = tasks.built_in()
    if spec.serve.handler is None and definition.task not in known:
        raise CompileError(
            f"{spec.path.name}: the model's task {definition.task!r} is not built in ({', '.join(sorted(known))}), "
            "and the spec names no handler.",
            "Write serve: {handler: path.py} with preprocess(request) and postprocess(outputs, item).",
        )


def require_parity(built: Sequence[BuiltGraph]) -> None:
    """Raises CompileError for graphs that compute something else than the model, with both errors."""
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


def _require_accepted(spec: EndpointSpec, built: Sequence[BuiltGraph]) -> None:
    problems = [problem for graph in built for problem in shortfalls(spec, graph)]
    if problems:
        raise CompileError(
            "The model does not reach what compile.accept asks for:\n  " + "\n  ".join(problems),
            f"No artifact was written. See python -m compile analyze {spec.name}, or accept less in the spec.",
        )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3e}"


def _manifest(planned: Plan, cells: Sequence[CompiledCell], handler: str | None, folder: Path) -> ArtifactManifest:
    """All cells say the same of their versions: they were compiled here, or `gather` compared them."""
    spec, definition = planned.spec, planned.definition
    return ArtifactManifest(
        name=spec.name,
        rehearsal=planned.target.rehearsal,
        stand_in=any(cell.stand_in for cell in cells),
        target=spec.compile.target,
        digests=Digests(build=build_digest(spec), handler=handler_digest(spec)),
        task=TaskEntry(name=definition.task, settings=dict(definition.task_settings)),
        handler=handler,
        graphs=tuple(cell.graph.entry for cell in cells),
        versions=cells[0].versions,
        cores_per_copy=spec.compile.pipeline_cores,
        environment={},
        separate_weights=separates_weights(spec) and not planned.target.rehearsal,
        files=package.file_digests(folder),
    )
