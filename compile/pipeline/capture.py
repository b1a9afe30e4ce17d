"""The captured variants of a build: from the cache, or captured and proven now."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from compile.analysis import capacity as capacities
from compile.analysis.variant import AnalyzedVariant
from compile.definition import GraphVariant
from compile.errors import CompileError
from compile.frontend import weights
from compile.packaging import graph_file
from compile.pipeline import graph as graphs
from compile.pipeline.cache import CAPTURED, Cache
from compile.pipeline.graph import CapturedVariant, Places
from compile.pipeline.plan import ResolvedPlan
from compile.progress import Reporter

_LOG = logging.getLogger(__name__)
_DESCRIPTION = "captured.json"
_ADAPTER = TypeAdapter(CapturedVariant)


def capture(
    resolved: ResolvedPlan, places: Places, reporter: Reporter, cache: Cache | None = None
) -> tuple[list[CapturedVariant], list[GraphVariant]]:
    """Every variant in the plan's order, each proven to compute what the model computes; and those that the cache had.

    For a target with a chip every missing variant is lowered before the first is captured, since all must fit.
    Raises CompileError: weights, a matrix that does not fit the instance, tracing, capture, parity.
    """
    planned, done = resolved.plan, dict[str, CapturedVariant]()
    for variant in planned.variants if cache is not None else ():
        found = _kept(resolved, variant, places, reporter, cache) if cache is not None else None
        if found is not None:
            done[variant.file] = found
            _LOG.info("%s is in the cache: %s", variant, found.key)
    kept = [variant for variant in planned.variants if variant.file in done]
    for one in _lowered(resolved, list(done.values()), reporter):
        captured = graphs.capture_variant(resolved, one, places, reporter)
        require_parity([captured])
        done[captured.variant.file] = captured
        if cache is not None:
            _keep(resolved, captured, places, cache)
    return [done[variant.file] for variant in planned.variants], kept


def _lowered(resolved: ResolvedPlan, done: Sequence[CapturedVariant], reporter: Reporter) -> Iterable[AnalyzedVariant]:
    """Those that are not done."""
    planned, known = resolved.plan, [one.footprint for one in done]
    missing = [variant for variant in planned.variants if variant not in [one.variant for one in done]]
    if missing:
        with reporter.step("load the weights"):
            weights.fill(planned.spec, planned.definition, resolved.weights)
    ready = (planned.analyzed(variant, reporter) for variant in missing)
    if planned.target.rehearsal:
        return ready
    all_ready = list(ready)
    capacities.require_fit(planned.spec, [*known, *(capacities.size(one, planned.spec) for one in all_ready)])
    return all_ready


def require_parity(built: Sequence[CapturedVariant]) -> None:
    """Raises CompileError for graphs that compute something else than the model, with both errors."""
    problems = []
    for graph in built:
        for output in graph.parity.outputs:
            if not output.passed:
                distance = "unknown" if output.eager_distance is None else f"{output.eager_distance:.3e}"
                problems.append(
                    f"{graph.variant}: output {output.name} is NaN"
                    if math.isnan(output.maximum)
                    else f"{graph.variant}: output {output.name}: error {output.error:.3e} exceeds the bound "
                    f"{output.bound:.3e} (the original's own distance from float64: {distance}, "
                    f"maximum {output.maximum:.3e})"
                )
        problems += [f"{graph.variant}: {cause}" for cause in graph.parity.causes]
    if problems:
        raise CompileError(
            "The artifact does not compute what the model computes:\n  " + "\n  ".join(problems),
            "No artifact was written. inferentia verify NAME --per-module tries the model module by module.",
        )


def _keep(resolved: ResolvedPlan, captured: CapturedVariant, places: Places, cache: Cache) -> None:
    folder = places.graphs / captured.variant.slug
    places.captures.write(folder / graph_file.NAME, resolved.header, [captured.variant.file])
    (folder / _DESCRIPTION).write_bytes(_ADAPTER.dump_json(captured))
    cache.write(captured.key, CAPTURED, folder, (_DESCRIPTION, graph_file.NAME))
    (folder / graph_file.NAME).unlink()


def _kept(
    resolved: ResolvedPlan, variant: GraphVariant, places: Places, reporter: Reporter, cache: Cache
) -> CapturedVariant | None:
    """What the cache has of a variant, traced for the CPU again; what is damaged there is None."""
    key, folder = resolved.keys[variant.file], places.graphs / variant.slug
    if not cache.has(key):
        return None
    with reporter.step(f"from the cache: {variant}"):
        if not cache.read(key, CAPTURED, folder, str(variant)):
            return None
        found = _described(folder / _DESCRIPTION)
        if places.captures.take(variant.file, graph_file.read(folder / graph_file.NAME)) != found.graph:
            raise CompileError(
                f"build/cache/{key} holds another graph than it states.", "Empty it: inferentia cache --empty"
            )
    references, _ = places.captures.references(variant.file)
    graphs.trace(variant, places.captures.replay(variant.file), references[0], resolved.plan.target, places, reporter)
    return replace(found, variant=variant)


def _described(file: Path) -> CapturedVariant:
    try:
        return _ADAPTER.validate_json(file.read_bytes())
    except ValidationError as error:
        raise CompileError(f"{file} cannot be read: {error}", "Empty the cache: inferentia cache --empty") from None
