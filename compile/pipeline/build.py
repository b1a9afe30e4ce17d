"""The way of one build: capture and prove the variants, compile them, assemble, lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compile.definition import GraphVariant
from compile.files import place, staging
from compile.packaging import graph_file
from compile.pipeline import lock as locking
from compile.pipeline.assemble import ARCHIVE, assemble
from compile.pipeline.cache import Cache
from compile.pipeline.capture import capture
from compile.pipeline.compiling import CompiledVariant, compile_variant
from compile.pipeline.graph import Places
from compile.pipeline.plan import ResolvedPlan
from compile.progress import Reporter
from endpoint_spec.lock import Lock, artifact_path, lock_path
from inference_code.artifact.manifest import file_sha256

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec


@dataclass(frozen=True)
class Result:
    """What a build did. `changed` is False when the lock on the disk was the same already.

    cached: what was taken from the cache instead of captured and compiled.
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

    What the cache has is neither captured nor compiled again, and what is new is put there.
    Raises CompileError: weights, a matrix that does not fit the instance (before anything is compiled), tracing,
    capture, parity (before anything is compiled), compiling, acceptance, or an artifact whose own code does not answer.
    """
    planned = resolved.plan
    with staging(artifact_path(planned.spec, planned.target.rehearsal).parent) as scratch:
        places = Places.inside(scratch, planned.record)
        captured, kept = capture(resolved, places, reporter, cache)
        made, cached = [], []
        for one in captured:
            compiled, found = compile_variant(resolved, one, places, reporter, cache)
            made.append(compiled)
            if found and one.variant in kept:
                cached.append(one.variant)
        return finish(resolved, made, places, scratch, reporter, cached)


def finish(
    resolved: ResolvedPlan,
    variants: Sequence[CompiledVariant],
    places: Places,
    scratch: Path,
    reporter: Reporter,
    cached: Sequence[GraphVariant] = (),
) -> Result:
    """From compiled variants to artifact, lock and graph file at their names."""
    spec = resolved.plan.spec
    lock = assemble(resolved, variants, scratch, reporter)
    whole = scratch / graph_file.NAME
    with reporter.step("graph file"):
        places.captures.write(whole, resolved.header, [one.variant.file for one in variants])
    lock, changed = locking.publish(spec, lock, scratch / ARCHIVE)
    beside = artifact_path(spec, lock.rehearsal).with_name(graph_file.NAME)
    if not (beside.is_file() and file_sha256(beside) == file_sha256(whole)):
        place([(whole, beside)])
    return Result(spec, lock, changed, resolved.weights.report.statement, tuple(variants), tuple(cached))
