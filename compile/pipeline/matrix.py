"""The variants of a build: taken from the cache, or lowered once, found to fit together, and compiled."""

from __future__ import annotations

from collections.abc import Iterable

from compile.analysis import capacity as capacities
from compile.analysis.capacity import VariantSize
from compile.analysis.variant import AnalyzedVariant, analyzed
from compile.definition import GraphVariant
from compile.frontend import weights
from compile.pipeline import graph as graphs
from compile.pipeline.cache import Cache
from compile.pipeline.cache_key import versions
from compile.pipeline.graph_archive import CompiledVariant, storable
from compile.pipeline.plan import Plan, ResolvedPlan
from compile.progress import Reporter


def compile_variants(
    resolved: ResolvedPlan, places: graphs.Places, reporter: Reporter, cache: Cache | None
) -> tuple[list[CompiledVariant], list[GraphVariant]]:
    """All variants in the plan's order, and which of them came from the cache.

    For a target with a chip every missing variant is lowered before the first is compiled, since all must fit.
    Raises CompileError: weights, a matrix that does not fit, lowering, tracing, compiling.
    """
    planned = resolved.plan
    done = from_cache(resolved, places, reporter, cache) if cache is not None else {}
    taken = [variant for variant in planned.variants if variant.file in done]
    missing = [variant for variant in planned.variants if variant.file not in done]
    if missing:
        with reporter.step("load the weights"):
            weights.fill(planned.spec, planned.definition, resolved.weights)
    spec, definitions = planned.spec, planned.definition.graphs
    ready: Iterable[AnalyzedVariant] = (
        analyzed(variant, definitions[variant.role], spec, reporter) for variant in missing
    )
    if not planned.target.rehearsal:
        ready = list(ready)
        sizes = [capacities.size(one, spec) for one in ready]
        require_fit(planned, [*(compiled.footprint for compiled in done.values()), *sizes])
    for one in ready:
        compiled = compile_variant(resolved, one, places, reporter)
        done[one.variant.file] = compiled
        if cache is not None and storable(compiled.graph):
            cache.write(compiled, places)
    return [done[variant.file] for variant in planned.variants], taken


def from_cache(
    resolved: ResolvedPlan, places: graphs.Places, reporter: Reporter, cache: Cache
) -> dict[str, CompiledVariant]:
    """What the cache has, by the variant's file; what is damaged there is left out."""
    done = {}
    for variant in resolved.cached(cache):
        with reporter.step(f"from the cache: {variant}"):
            found = cache.read(resolved.keys[variant.file], variant, places)
        if found is not None:
            done[variant.file] = found
    return done


def compile_variant(
    resolved: ResolvedPlan, analyzed: AnalyzedVariant, places: graphs.Places, reporter: Reporter
) -> CompiledVariant:
    """Compile one variant, whose weights are loaded. Raises CompileError."""
    planned, target = resolved.plan, resolved.plan.target
    return CompiledVariant(
        key=resolved.keys[analyzed.variant.file],
        graph=graphs.make(analyzed, target, planned.spec, resolved.digest, places, reporter),
        versions=versions(target),
        weights=resolved.weights.report,
        rehearsal=target.rehearsal,
        stand_in=target.stand_in,
        footprint=None if target.rehearsal else capacities.size(analyzed, planned.spec),
    )


def require_fit(planned: Plan, sizes: Iterable[VariantSize | None]) -> None:
    """Raises CompileError for a matrix that does not fit the spec's instance."""
    spec, known = planned.spec, [size for size in sizes if size is not None]
    capacities.require_fit(spec, capacities.capacity(spec, known, spec.root))
