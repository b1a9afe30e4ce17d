"""The way of one build: resolve, compile the variants, assemble, lock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compile.definition import GraphVariant
from compile.files import staging
from compile.pipeline import graph as graphs
from compile.pipeline import lock as locking
from compile.pipeline.assemble import ARCHIVE, ARTIFACT, CPU, assemble
from compile.pipeline.cache import Cache
from compile.pipeline.graph import BuiltVariant
from compile.pipeline.matrix import compile_variants
from compile.pipeline.plan import ResolvedPlan
from compile.progress import Reporter
from endpoint_spec.lock import Lock, artifact_path

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec


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


def build(resolved: ResolvedPlan, reporter: Reporter, cache: Cache | None = None) -> Result:
    """Makes the artifact and its lock; both appear at their names only when everything is proven.

    What the cache has is not compiled again, and what is compiled is put there.
    Raises CompileError: weights, a matrix that does not fit the instance (before anything is compiled), tracing,
    compiling, acceptance, parity, or an artifact whose own code does not answer.
    """
    planned, spec = resolved.plan, resolved.plan.spec
    with staging(artifact_path(spec, planned.target.rehearsal).parent) as scratch:
        places = graphs.Places(scratch / ARTIFACT, scratch / CPU, planned.record)
        places.artifact.mkdir()
        variants, taken = compile_variants(resolved, places, reporter, cache)
        lock = assemble(resolved, variants, scratch, reporter)
        lock, changed = locking.publish(spec, lock, scratch / ARCHIVE)
    built = tuple(compiled.graph for compiled in variants)
    return Result(spec, lock, changed, resolved.weights.report.statement, built, tuple(taken))
