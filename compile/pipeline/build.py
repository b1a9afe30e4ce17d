"""The road of one build: plan, weights, graphs with their parity, package, sample, lock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from compile.analysis import capacity as capacities
from compile.analysis.capacity import Capacity, VariantSize
from compile.definition import GraphVariant, ModelDefinition, SampleRequest
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
from compile.pipeline.graph import BuiltVariant
from compile.pipeline.graph_archive import CompiledVariant, storable
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
    variants: tuple[GraphVariant, ...]
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
    graphs: tuple[BuiltVariant, ...]
    cached: tuple[GraphVariant, ...] = ()

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
    variants = tuple(
        GraphVariant(role, bucket, batch)
        for role in definition.graphs
        for bucket in spec.compile.buckets or definition.buckets
        for batch in spec.compile.batch_sizes
    )
    return Plan(spec, target, definition, variants, (work or spec.root / "build" / "record") / spec.name, rewriting)


def survey(planned: Plan, reporter: Reporter) -> Capacity:
    """The matrix with its predicted sizes. Raises CompileError when a graph cannot be lowered or traced."""
    spec, compiled_variants = planned.spec, []
    for variant in planned.variants:
        with reporter.step(f"size: {variant}"):
            compiled_variants.append(capacities.survey(variant, planned.definition.graphs[variant.role], spec))
    return capacities.capacity(spec, compiled_variants, spec.root)


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
        lock = assemble(planned, matrix.compiled_variants, scratch, reporter)
        lock, changed = locking.publish(spec, lock, scratch / ARCHIVE)
    built = tuple(compiled.graph for compiled in matrix.compiled_variants)
    return Result(spec, lock, changed, matrix.weights.statement, built, taken)


def cached(planned: Plan, cache: Cache) -> list[GraphVariant]:
    """The variants that the cache has. Raises CompileError for weights that are not there."""
    return [variant for variant, key in keys(planned, weights.identify(planned.spec)) if cache.has(key)]


def keys(planned: Plan, known: weights.WeightsReport) -> list[tuple[GraphVariant, str]]:
    """The plan's variants with their keys, when they are compiled on this machine; asked before weights are loaded."""
    environment = {**here(planned.target), "definition": model_digest.digest(planned.definition)}
    identity = Identity(planned.spec, known, planned.target.rehearsal, environment)
    return [(variant, identity.key(variant)) for variant in planned.variants]


class Matrix:
    """The variants of a build, from the cache or compiled here."""

    def __init__(self, planned: Plan, places: graphs.Places, reporter: Reporter) -> None:
        """Raises CompileError for weights that are not there."""
        self._planned, self._places, self._reporter = planned, places, reporter
        self._done: dict[str, CompiledVariant] = {}  # by the graph's file
        with reporter.step("weights"):
            self.weights = weights.identify(planned.spec)

    @property
    def compiled_variants(self) -> tuple[CompiledVariant, ...]:
        """All that are done, in the plan's order."""
        return tuple(self._done[variant.file] for variant in self._planned.variants if variant.file in self._done)

    @cached_property
    def _keys(self) -> list[tuple[GraphVariant, str]]:
        return keys(self._planned, self.weights)

    def from_cache(self, cache: Cache) -> tuple[GraphVariant, ...]:
        """Takes what the cache has; returns which variants those are."""
        for variant, key in self._keys:
            if cache.has(key):
                with self._reporter.step(f"from the cache: {variant}"):
                    found = cache.read(key, variant, self._places)
                if found is not None:
                    self._done[variant.file] = found
        return tuple(compiled.graph.variant for compiled in self.compiled_variants)

    def compile_rest(self, cache: Cache | None) -> None:
        """Compiles what is not done, after the whole matrix was found to fit. Raises CompileError."""
        missing = [(variant, key) for variant, key in self._keys if variant.file not in self._done]
        if missing:
            self.load_weights()
        sizes = {} if self._planned.target.rehearsal else self._require_fit([variant for variant, _ in missing])
        for variant, key in missing:
            compiled = self.compile(variant, key, sizes.get(variant.file))
            if cache is not None and storable(compiled.graph):
                cache.write(compiled, self._places)

    def load_weights(self) -> None:
        """Raises CompileError for weights that do not fit the model."""
        with self._reporter.step("load the weights"):
            weights.fill(self._planned.spec, self._planned.definition)

    def compile(self, variant: GraphVariant, key: str, footprint: VariantSize | None) -> CompiledVariant:
        """Compiles one variant, whose weights are loaded. Raises CompileError."""
        planned, target = self._planned, self._planned.target
        graph = graphs.make(
            variant, planned.definition.graphs[variant.role], target, planned.spec, self._places, self._reporter
        )
        compiled = CompiledVariant(
            key, graph, versions(target), self.weights, target.rehearsal, target.stand_in, footprint
        )
        self._done[variant.file] = compiled
        return compiled

    def size(self, variant: GraphVariant) -> VariantSize:
        """How large one variant will be (predicted)."""
        with self._reporter.step(f"size: {variant}"):
            return capacities.survey(variant, self._planned.definition.graphs[variant.role], self._planned.spec)

    def _require_fit(self, missing: list[GraphVariant]) -> dict[str, VariantSize]:
        """Sizes of what is not compiled yet; with those of what is, all must fit the instance."""
        sizes = {variant.file: self.size(variant) for variant in missing}
        require_fit(self._planned, [*(compiled.footprint for compiled in self.compiled_variants), *sizes.values()])
        return sizes


def require_fit(planned: Plan, sizes: Iterable[VariantSize | None]) -> None:
    """Raises CompileError for a matrix that does not fit the spec's instance."""
    spec, known = planned.spec, [size for size in sizes if size is not None]
    capacities.require_fit(spec, capacities.capacity(spec, known, spec.root))


def assemble(planned: Plan, compiled_variants: Sequence[CompiledVariant], scratch: Path, reporter: Reporter) -> Lock:
    """From compiled variants, with their graphs in scratch/artifact and scratch/cpu, to model.tar.gz and its lock.

    Raises CompileError: parity, acceptance, or an artifact whose own code does not answer.
    """
    spec, folder = planned.spec, scratch / ARTIFACT
    built = [compiled.graph for compiled in compiled_variants]
    require_parity(built)
    _require_accepted(spec, built)
    manifest = _manifest(planned, compiled_variants, package.write_code(spec, folder), folder)
    asked = golden_sample.request(planned.definition, planned.variants[0].bucket)
    return pack(spec, manifest, locking.proof(built, compiled_variants[0].weights), asked, scratch, reporter)


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


def require_parity(built: Sequence[BuiltVariant]) -> None:
    """Raises CompileError for graphs that compute something else than the model, with both errors."""
    problems = [
        f"{graph.variant}: output {output.name}: error {output.error:.3e} exceeds the bound {output.bound:.3e} "
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


def _require_accepted(spec: EndpointSpec, built: Sequence[BuiltVariant]) -> None:
    problems = [problem for graph in built for problem in shortfalls(spec, graph)]
    if problems:
        raise CompileError(
            "The model does not reach what compile.accept asks for:\n  " + "\n  ".join(problems),
            f"No artifact was written. See python -m compile analyze {spec.name}, or accept less in the spec.",
        )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3e}"


def _manifest(
    planned: Plan, compiled_variants: Sequence[CompiledVariant], handler: str | None, folder: Path
) -> ArtifactManifest:
    """All variants say the same of their versions: they were compiled here, or `gather` compared them."""
    spec, definition = planned.spec, planned.definition
    return ArtifactManifest(
        name=spec.name,
        rehearsal=planned.target.rehearsal,
        stand_in=any(compiled.stand_in for compiled in compiled_variants),
        target=spec.compile.target,
        digests=Digests(build=build_digest(spec), handler=handler_digest(spec)),
        task=TaskEntry(name=definition.task, settings=dict(definition.task_settings)),
        handler=handler,
        graphs=tuple(compiled.graph.entry for compiled in compiled_variants),
        versions=compiled_variants[0].versions,
        cores_per_copy=spec.compile.pipeline_cores,
        environment={},
        separate_weights=separates_weights(spec) and not planned.target.rehearsal,
        files=package.file_digests(folder),
    )
