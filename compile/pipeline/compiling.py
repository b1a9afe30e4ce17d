"""From captured variants to compiled ones: by the target's compiler here, from the cache, or as a job left them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from compile.analysis.summary import account, with_host
from compile.files import write_json
from compile.packaging import torchscript
from compile.pipeline.cache import Cache
from compile.pipeline.cache_key import compiled_key
from compile.pipeline.graph import CapturedVariant, Places
from compile.pipeline.plan import ResolvedPlan
from compile.portable.kept import OF_COMPILED
from compile.portable.tensors import TensorStore
from compile.progress import Reporter
from compile.targets import CompilerInput, CompilerOutput, LoweredVariant
from compile.verification.device_parity import on_device, trials
from compile.verification.items import require_own_answers
from compile.verification.tolerance import Closeness
from endpoint_spec.jobs import VARIANT

if TYPE_CHECKING:
    from pathlib import Path

    from compile.portable.process import Cost

COMPARISON = "comparison.json"  # in a graph's record


@dataclass(frozen=True)
class CompiledVariant(CapturedVariant):
    """A finished graph, with what is known of it.

    compiled_key: of the cache, empty in a build for this CPU. versions: of everything that made it. coverage,
    subgraphs: as the lock has them, or None when nothing is known. device: by output, where a NeuronCore could run it.
    replayed: by output, how far the graph in the compiler's torch is from the recorded answers, or None where no other
    torch had it. cost, comparison, record: as CompilerOutput has them.
    """

    compiled_key: str
    versions: Mapping[str, str]
    stand_in: bool
    coverage: Mapping[str, Any] | None
    subgraphs: Mapping[str, Any] | None
    cost: Cost | None
    comparison: dict[str, Any] | None
    record: Path | None
    device: Mapping[str, Closeness] | None
    replayed: Mapping[str, float] | None


def lowered(resolved: ResolvedPlan, captured: CapturedVariant, places: Places) -> LoweredVariant:
    """A captured variant as its target sees it."""
    return LoweredVariant(
        spec=resolved.plan.spec,
        variant=captured.variant,
        report=captured.report,
        work=places.record / captured.variant.slug,
        host_operators={} if captured.host is None else captured.host["operators"],
    )


def request(resolved: ResolvedPlan, captured: CapturedVariant, places: Places, store: TensorStore) -> dict[str, Any]:
    """What the driver is asked for, but for paths; the tensors of its trials are added to a store.

    Two releases of torch round differently, and each may be off from the exact answer by the bound: what one computes
    may differ from what the other recorded by twice as much. Raises CompileError for options that do not fit.
    """
    references, _ = places.captures.references(captured.variant.file)
    target = resolved.plan.target
    same = _release(target.torch) == _release(str(torch.__version__))
    return {
        **target.request(lowered(resolved, captured, places)),
        "bounds": [bound if same else 2 * bound for bound in captured.parity.bounds],
        "trials": [[store.add(tensor) for tensor in trial] for trial in trials(references)],
    }


def _release(version: str) -> str:
    return version.partition("+")[0]


def compile_variant(
    resolved: ResolvedPlan, captured: CapturedVariant, places: Places, reporter: Reporter, cache: Cache | None = None
) -> tuple[CompiledVariant, bool]:
    """Compiles a variant here, unless the cache has it; returns it, and whether the cache had it.

    Raises CompileError when it cannot be compiled, or is not compiled as far as the spec asks.
    """
    target, variant = resolved.plan.target, captured.variant
    if target.on_cpu:
        return completed(resolved, captured, CompilerOutput(versions=target.environment()), "", places), True
    store, ready = TensorStore(), lowered(resolved, captured, places)
    asked = request(resolved, captured, places, store)
    key = compiled_key(captured.graph, asked, target.environment())
    found = cache is not None and cache.read(key, VARIANT, ready.work, str(variant))
    if not found:
        path = places.graphs / f"{variant.slug}.graph"
        places.captures.write(path, resolved.header, [variant.file])
        with reporter.step(f"compile: {variant}"):
            target.compile(ready, CompilerInput(path, store, asked))
        if cache is not None:
            cache.write(key, VARIANT, ready.work, OF_COMPILED)
    return completed(resolved, captured, target.judged(ready), key, places), found


def completed(
    resolved: ResolvedPlan, captured: CapturedVariant, output: CompilerOutput, key: str, places: Places
) -> CompiledVariant:
    """A variant with what its target made of it, its graph at its place in the artifact. Raises CompileError for a chip
    that mixes the items of a batch."""
    variant, device = captured.variant, None
    if output.comparison is not None and output.record is not None:
        write_json(output.record / COMPARISON, output.comparison)
    if output.file is not None:
        torchscript.strip(output.file, places.artifact / variant.file)
    if output.answers is not None:
        references, expected = places.captures.references(variant.file)
        names = [tensor.name for tensor in captured.signature.outputs]
        device = on_device(output.answers, references, expected, names, captured.items)
        require_own_answers(str(variant), captured.items)
    note = [] if resolved.plan.target.on_cpu else [_where(device is not None, output.stand_in)]
    found = with_host(output.account or account(captured.report), captured.host)
    own = {**vars(captured), "parity": replace(captured.parity, notes=[*captured.parity.notes, *note])}
    return CompiledVariant(
        **own,
        compiled_key=key,
        versions={**resolved.versions, **output.versions},
        stand_in=output.stand_in,
        coverage=found.coverage,
        subgraphs=found.subgraphs,
        cost=output.cost,
        comparison=output.comparison,
        record=output.record,
        device=device,
        replayed=output.replayed,
    )


def _where(on_device: bool, stand_in: bool) -> str:
    if stand_in:
        return "compiled by a stand-in for the Neuron SDK: nothing about the device is proven"
    if on_device:
        return "the lowered graph was compared on the CPU, and the compiled one on a NeuronCore"
    return "compared before compilation, on the CPU: no NeuronCore was there to run what was compiled"
