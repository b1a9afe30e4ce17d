"""One graph of an artifact: lowered, accounted for, compiled, saved, and compared with the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compile import torchscript
from compile.acceptance import account
from compile.coverage import analyze
from compile.definition import Bucket, GraphDefinition, checked_inputs
from compile.errors import CompileError
from compile.lowering import Lowered, LoweringError, lower
from compile.parity import Parity, compare
from compile.progress import Reporter
from compile.structure import Signature, flat_module, signature
from compile.targets import Target
from inference_code.manifest import GraphEntry


@dataclass(frozen=True)
class Case:
    """One graph to make: a role at one bucket and batch size."""

    role: str
    bucket: Bucket
    batch: int

    @property
    def file(self) -> str:
        """Path inside the artifact, e.g. graphs/main-image_518x518-batch_1.pt."""
        sizes = "-".join(f"{axis}_{'x'.join(map(str, _sizes(size)))}" for axis, size in self.bucket.items())
        return f"graphs/{self.role}-{sizes}-batch_{self.batch}.pt"

    def __str__(self) -> str:
        sizes = ", ".join(f"{axis} {'x'.join(map(str, _sizes(size)))}" for axis, size in self.bucket.items())
        return f"{self.role}, {sizes}, batch {self.batch}"


def _sizes(size: Any) -> Sequence[int]:
    return size if isinstance(size, Sequence) else [size]


@dataclass(frozen=True)
class BuiltGraph:
    """A finished graph. `coverage` is as the lock has it, or None when nothing is known."""

    case: Case
    signature: Signature
    parity: Parity
    unused_inputs: list[str]
    coverage: Mapping[str, Any] | None
    subgraphs: Mapping[str, Any] | None

    @property
    def entry(self) -> GraphEntry:
        """As the manifest has it."""
        bucket = {axis: list(_sizes(size)) for axis, size in self.case.bucket.items()}
        return GraphEntry(
            role=self.case.role,
            bucket=bucket,
            batch_size=self.case.batch,
            file=self.case.file,
            inputs=self.signature.inputs,
            outputs=self.signature.outputs,
            structure=self.signature.structure,
        )


def _lowered(flat: nn.Module, example: tuple[torch.Tensor, ...]) -> Lowered:
    try:
        return lower(flat, example)
    except LoweringError as error:
        raise CompileError(f"The model cannot be lowered: {error}") from error


def make(
    case: Case, graph: GraphDefinition, target: Target, sdk_target: str, folder: Path, reporter: Reporter
) -> BuiltGraph:
    """Writes the graph's file under `folder` and compares what was written with the eager model.

    sdk_target: inf1 or inf2, for which the operators are accounted also in a rehearsal.
    Raises CompileError when it cannot be lowered or traced. Parity that fails is in the result, not raised.
    """
    example, references = checked_inputs(graph, case.role, case.bucket, case.batch)
    flat = flat_module(graph.module, example)
    with reporter.step(f"lower: {case}"):
        described = signature(flat, example)
        lowered = _lowered(flat, tuple(example.values()))
    with reporter.step(f"operators: {case}"):
        predicted = account(analyze(lowered.module, tuple(example.values()), target=sdk_target))
    with reporter.step(f"trace: {case}"):
        compiled = target.compile(lowered.module, tuple(example.values()), list(example))
        path = folder / case.file
        path.parent.mkdir(parents=True, exist_ok=True)
        torchscript.save(compiled.module, path)
    with reporter.step(f"parity: {case}", len(references)) as advance:
        saved = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
        names = [output.name for output in described.outputs]
        parity = compare(flat, saved, references, names, advance=lambda: advance(1))
    found = compiled.account or predicted
    return BuiltGraph(case, described, parity, compiled.unused_inputs, found.coverage, found.subgraphs)
