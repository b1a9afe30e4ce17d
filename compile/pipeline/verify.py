"""`verify`: everything that a lock claims, tried again on the artifact as it is."""

from __future__ import annotations

import base64
import datetime
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from compile.analysis import preflight
from compile.analysis.variant import examined
from compile.definition import GraphVariant, ModelDefinition, checked_inputs
from compile.errors import CompileError
from compile.files import write_json
from compile.frontend import loading, weights
from compile.ir.flat_module import flat_module
from compile.packaging import artifact, golden_sample
from compile.packaging.local_server import running
from compile.progress import Reporter
from compile.targets import resolve
from compile.verification.device_parity import on_device, run_here, trials
from compile.verification.items import Items, padding_problems, remembering, try_artifact, try_original, try_padding
from compile.verification.parity import compare, run
from endpoint_spec import lock as locks
from inference_code.artifact.manifest import PackagedVariant

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec


@dataclass(frozen=True)
class Check:
    """One claim and how it fared."""

    what: str
    passed: bool
    detail: str


def verify(spec: EndpointSpec, *, rehearsal: bool, reporter: Reporter) -> list[Check]:
    """Digests, every graph's parity with the eager model, and the sample's answer from the packaged code.

    Raises CompileError when there is nothing to verify or the artifact is damaged.
    """
    built = artifact.find(spec, rehearsal=rehearsal)
    problems = locks.check(spec, built.lock, rehearsal)
    checks = [Check("lock fits the spec", not problems, "; ".join(problems) or "digests of build and handler agree")]
    with artifact.unpacked(built) as files:
        checks.append(Check("files", True, f"{len(files.manifest.files)} files have the manifest's sha256"))
        with reporter.step("make the model"):
            definition = loading.definition(spec)
            weights.fill(spec, definition)
        try:
            runs_here = resolve(built.lock.target, built.lock.rehearsal).runs_here
        except CompileError:  # the SDK is not here, so the graphs cannot even be loaded
            runs_here = False
        if not runs_here:
            return [*checks, Check("graphs", True, "not run: only a machine with a NeuronCore runs what is compiled")]
        for entry in files.manifest.graphs:
            checks += _graph(spec, entry, definition, files, reporter)
        if built.lock.sample is not None and not built.lock.stand_in:
            with reporter.step("sample answer from the packaged code"):
                checks.append(_sample(spec, built.lock, files))
    return checks


def kept_at(spec: EndpointSpec, rehearsal: bool) -> Path:
    """Where the last checks are kept, for the report."""
    kind = "rehearsal" if rehearsal else spec.compile.target
    return spec.root / "build" / "verified" / spec.name / f"{kind}.json"


def keep(spec: EndpointSpec, rehearsal: bool, checks: list[Check]) -> None:
    """Keeps the checks, with the artifact's digest, the machine and the time."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    record = {
        "artifact": artifact.find(spec, rehearsal=rehearsal).lock.digests.artifact,
        "machine": platform.node(),
        "date": now,
        "checks": [asdict(check) for check in checks],
    }
    write_json(kept_at(spec, rehearsal), record)


def _graph(
    spec: EndpointSpec,
    entry: PackagedVariant,
    definition: ModelDefinition,
    files: artifact.Unpacked,
    reporter: Reporter,
) -> list[Check]:
    """A graph for the CPU within the bounds of parity; a compiled one, on its own hardware, within device_tolerance."""
    graph, path = definition.graphs.get(entry.role), files.folder / entry.file
    if graph is None:
        raise CompileError(
            f"The artifact has a graph {entry.role!r}, the model's definition has none.", "Build it again."
        )
    variant = GraphVariant(entry.role, entry.bucket, entry.batch_size)
    example, references = checked_inputs(graph, variant.role, variant.bucket, variant.batch)
    recorded = graph.recorded_outputs(variant)
    flat, names = flat_module(graph.module, example), [output.name for output in entry.outputs]
    with reporter.step(f"items: {variant}"):
        _, first, findings = examined(flat, references[0])
        items, exact = try_original(flat, references, names, first, graph.shared_outputs)
    refused = preflight.refused(findings, spec.compile.accept.findings)
    checked = Check(f"findings: {variant}", not refused, "; ".join(map(str, findings)) or "none")
    if not files.manifest.on_cpu:
        with reporter.step(f"device: {variant}"):
            separate = files.manifest.separate_weights
            answers = run_here(path, trials(references), separate_weights=separate)
            expected = recorded or [first, *(run(flat, reference.values()) for reference in references[1:])]
            found = on_device(answers, references, expected, names, items)
        tolerance = spec.compile.accept.device_tolerance
        problems = [f"{name}: {line}" for name, output in found.items() for line in output.shortfalls(tolerance)]
        cosine = min(output.cosine for output in found.values())
        detail = "; ".join(problems) or f"cosine similarity {cosine:.6f} at least"
        return [checked, Check(f"device: {variant}", not problems, detail), _items(variant, entry, items)]
    with reporter.step(f"parity: {variant}", len(references)) as advance:
        saved, together = remembering(torch.jit.load(str(path)))  # type: ignore[no-untyped-call]
        parity = compare(
            flat, saved, references, names, seen=first, exact=exact, recorded=recorded, advance=lambda: advance(1)
        )
        try_artifact(saved, references[0], together, items, parity.bounds)
        try_padding(saved, definition, variant, items)
    worst = parity.worst
    detail = f"error {worst.error:.2e} of at most {worst.bound:.2e} on {parity.inputs} inputs (output {worst.name})"
    padded = padding_problems(items, parity.outputs, spec.compile.accept.padding)
    return [checked, Check(f"parity: {variant}", parity.passed, detail), _items(variant, entry, items, padded)]


def _items(variant: GraphVariant, entry: PackagedVariant, items: Items, padded: Sequence[str] = ()) -> Check:
    """Whether every item of a batch gets its own answer, along the axes that the artifact states."""
    axes = {output.name: output.item_axis for output in entry.outputs}
    wrong = [*items.problems, *padded] + [
        f"output {own.name} counts items along axis {own.axis}, the artifact cuts it along {axes[own.name]}"
        for own in items.outputs
        if own.axis != axes[own.name]
    ]
    moved = max(own.change for own in items.outputs)
    alone = f"an item among others differs by {moved:.2e} at most from the same alone"
    detail = "a batch of one has no neighbours" if variant.batch == 1 else alone
    return Check(f"items: {variant}", not wrong, "; ".join(wrong) or detail)


def _sample(spec: EndpointSpec, lock: locks.Lock, files: artifact.Unpacked) -> Check:
    sample = lock.sample
    assert sample is not None  # noqa: S101  (asked by the caller)
    with running(files.folder, golden_sample.environment(spec, lock), files.scratch / "worker.log") as worker:
        asked = sample.request
        answer = worker.invoke(base64.b64decode(asked.body), asked.content_type, asked.accept)
    error = golden_sample.difference(answer, sample.answer)
    tolerance = sample.answer.tolerance
    return Check("sample", error <= tolerance, f"differs by {error:.2e} of at most {tolerance:.2e}")
