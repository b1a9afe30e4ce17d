"""`verify`: everything that a lock claims, tried again on the artifact as it is."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from compile import artifact, loading, sampling, weights
from compile.definition import ModelDefinition, checked_inputs
from compile.errors import CompileError
from compile.graphs import Case
from compile.parity import Parity, compare
from compile.progress import Reporter
from compile.structure import flat_module
from compile.worker import running
from inference_code.manifest import GraphEntry
from spec import lock as locks

if TYPE_CHECKING:
    from spec import EndpointSpec


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
        for entry in files.manifest.graphs:
            checks.append(_parity(entry, definition, files.folder, reporter))
        if built.lock.sample is not None:
            with reporter.step("sample answer from the packaged code"):
                checks.append(_sample(spec, built.lock, files))
    return checks


def _parity(entry: GraphEntry, definition: ModelDefinition, folder: Path, reporter: Reporter) -> Check:
    graph = definition.graphs.get(entry.role)
    if graph is None:
        raise CompileError(
            f"The artifact has a graph {entry.role!r}, the model's definition has none.", "Build it again."
        )
    case = Case(entry.role, entry.bucket, entry.batch_size)
    example, references = checked_inputs(graph, case.role, case.bucket, case.batch)
    names = [output.name for output in entry.outputs]
    with reporter.step(f"parity: {case}", len(references)) as advance:
        saved = torch.jit.load(str(folder / entry.file))  # type: ignore[no-untyped-call]
        parity: Parity = compare(
            flat_module(graph.module, example), saved, references, names, advance=lambda: advance(1)
        )
    worst = parity.worst
    detail = f"error {worst.error:.2e} of at most {worst.bound:.2e} on {parity.inputs} inputs (output {worst.name})"
    return Check(f"parity: {case}", parity.passed, detail)


def _sample(spec: EndpointSpec, lock: locks.Lock, files: artifact.Unpacked) -> Check:
    sample = lock.sample
    assert sample is not None  # noqa: S101  (asked by the caller)
    with running(files.folder, sampling.environment(spec, lock), files.scratch / "worker.log") as worker:
        asked = sample.request
        answer = worker.invoke(base64.b64decode(asked.body), asked.content_type, asked.accept)
    error = sampling.difference(answer, sample.answer)
    tolerance = sample.answer.tolerance
    return Check("sample", error <= tolerance, f"differs by {error:.2e} of at most {tolerance:.2e}")
