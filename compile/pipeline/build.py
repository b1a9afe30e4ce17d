"""The way of one build: resolve, compile the variants, assemble, lock."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compile.analysis import capacity as capacities
from compile.analysis.variant import AnalyzedVariant
from compile.definition import GraphVariant
from compile.files import place, staging
from compile.frontend import weights
from compile.packaging import graph_file
from compile.pipeline import graph
from compile.pipeline import lock as locking
from compile.pipeline.assemble import ARCHIVE, assemble
from compile.pipeline.cache import Cache
from compile.pipeline.graph import CompiledVariant, Places
from compile.pipeline.graph_archive import storable
from compile.pipeline.plan import ResolvedPlan
from compile.progress import Reporter
from endpoint_spec.lock import Lock, artifact_path, lock_path
from inference_code.artifact.manifest import file_sha256

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a build did. `changed` is False when the lock on the disk was the same already.

    cached: what was taken from the cache instead of compiled.
    """

    spec: EndpointSpec
    lock: Lock
    changed: bool
    weights: str
    graphs: tuple[CompiledVariant, ...]
    cached: tuple[GraphVariant, ...] = ()

    @property
    def artifact(self) -> Path:
        """Where model.tar.gz is."""
        return artifact_path(self.spec, self.lock.rehearsal)

    @property
    def lock_path(self) -> Path:
        """Where the lock is."""
        return lock_path(self.spec, self.lock.rehearsal)


def build(resolved: ResolvedPlan, reporter: Reporter, cache: Cache | None = None) -> Result:
    """Makes the artifact and its lock; both appear at their names only when everything is proven.

    What the cache has is not compiled again, and what is compiled is put there.
    Raises CompileError: weights, a matrix that does not fit the instance (before anything is compiled), tracing,
    compiling, acceptance, parity, or an artifact whose own code does not answer.
    """
    planned, spec = resolved.plan, resolved.plan.spec
    with staging(artifact_path(spec, planned.target.rehearsal).parent) as scratch:
        places = Places.inside(scratch, planned.record)
        done = _from_cache(resolved, places, reporter, cache) if cache is not None else {}
        cached = [variant for variant in planned.variants if variant.file in done]
        for compiled in _compiled(resolved, done, places, reporter):
            done[compiled.variant.file] = compiled
            if cache is not None and storable(compiled):
                cache.write(compiled, places)
        variants = [done[variant.file] for variant in planned.variants]
        lock = assemble(resolved, variants, scratch, reporter)
        whole = scratch / graph_file.NAME
        if not cached:
            with reporter.step("graph file"):
                places.captures.write(whole, resolved.header, places.captures.variants)
        lock, changed = locking.publish(spec, lock, scratch / ARCHIVE)
        beside = artifact_path(spec, lock.rehearsal).with_name(graph_file.NAME)
        if not cached and not (beside.is_file() and file_sha256(beside) == file_sha256(whole)):
            place([(whole, beside)])
        elif cached and changed:  # what came from the cache is captured nowhere
            beside.unlink(missing_ok=True)
    return Result(spec, lock, changed, resolved.weights.report.statement, tuple(variants), tuple(cached))


def _from_cache(resolved: ResolvedPlan, places: Places, reporter: Reporter, cache: Cache) -> dict[str, CompiledVariant]:
    """What the cache has, by the variant's file; what is damaged there is left out."""
    done = {}
    for variant in resolved.plan.variants:
        if cache.has(resolved.keys[variant.file]):
            with reporter.step(f"from the cache: {variant}"):
                found = cache.read(resolved.keys[variant.file], variant, places)
            if found is not None:
                done[variant.file] = found
                _LOG.info("%s is in the cache: %s", variant, found.key)
    return done


def _compiled(
    resolved: ResolvedPlan, done: Mapping[str, CompiledVariant], places: Places, reporter: Reporter
) -> Iterator[CompiledVariant]:
    """Compiles what is not done, one after the other.

    For a target with a chip every missing variant is lowered before the first is compiled, since all must fit.
    """
    planned = resolved.plan
    missing = [variant for variant in planned.variants if variant.file not in done]
    if not missing:
        return
    with reporter.step("load the weights"):
        weights.fill(planned.spec, planned.definition, resolved.weights)
    ready: Iterable[AnalyzedVariant] = (planned.analyzed(variant, reporter) for variant in missing)
    if not planned.target.rehearsal:
        ready = list(ready)
        sizes = [capacities.size(one, planned.spec) for one in ready]
        known = [compiled.footprint for compiled in done.values() if compiled.footprint is not None]
        capacities.require_fit(planned.spec, [*known, *sizes])
    for one in ready:
        yield graph.compile_variant(resolved, one, places, reporter)
