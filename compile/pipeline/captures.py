"""A lowered variant as a graph file: what is traced for the CPU, compiled by the target's torch, and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

import compile  # noqa: A004  (the room)
from compile.analysis.variant import AnalyzedVariant
from compile.definition import Inputs
from compile.errors import CompileError
from compile.lowering.for_target import flattened
from compile.portable import check
from compile.portable import file as graph_file
from compile.portable.capture import Subject, capture, with_references
from compile.portable.file import GraphFile, GraphFileError, Part, PortableVariant, TensorEntry
from compile.portable.replay import GraphPart, ValueType
from compile.portable.tensors import TensorStore
from compile.verification.parity import Tensors
from endpoint_spec.places import INSTALLED
from inference_code.artifact.manifest import TensorDescription

_LIBRARIES = ("torch", "transformers", "timm")


@dataclass
class Captures:
    """Graphs of a build in the form of a graph file, with references, by the variant's file; and their tensors, each
    once."""

    tensors: TensorStore = field(default_factory=TensorStore)
    variants: dict[str, PortableVariant] = field(default_factory=dict)

    def add(self, file: str, variant: PortableVariant, references: Sequence[Inputs], answers: Sequence[Tensors]) -> str:
        """Keeps a captured variant with references and what the original answers to them; returns its digest."""
        given = [(list(inputs.values()), found) for inputs, found in zip(references, answers, strict=True)]
        self.variants[file] = with_references(variant, given, self.tensors)
        return graph_file.digest(self.variants[file])

    def take(self, file: str, found: GraphFile) -> str:
        """Keeps the one variant of a graph file; returns its digest."""
        (self.variants[file],) = found.variants
        self.tensors.tensors.update(found.tensors)
        return graph_file.digest(self.variants[file])

    def replay(self, file: str) -> nn.Module:
        """Positional tensors of a graph's inputs to a tuple of its outputs."""
        return GraphFile({}, (), self.tensors.tensors).whole(self.variants[file])

    def references(self, file: str) -> tuple[list[Inputs], list[Tensors]]:
        """The inputs of each reference, by name, and what the original answers."""
        variant = self.variants[file]
        names = [entry.name for entry in variant.inputs]
        pairs = [GraphFile({}, (), self.tensors.tensors).reference(variant, n) for n in range(len(variant.references))]
        return [dict(zip(names, inputs, strict=True)) for inputs, _ in pairs], [answers for _, answers in pairs]

    def write(self, path: Path, header: Mapping[str, Any], files: Sequence[str]) -> None:
        """Writes a graph file with some of the variants, in this order."""
        path.parent.mkdir(parents=True, exist_ok=True)
        graph_file.write(path, header, [self.variants[file] for file in files], self.tensors)


def captured(
    analyzed: AnalyzedVariant, target_torch: str, store: TensorStore, root: Path
) -> tuple[PortableVariant, nn.Module]:
    """A lowered variant in lists of operators, with its tensors in `store`, and its replay: positional tensors to a
    tuple. target_torch: of the torch that will compile it. root: of the project, from which sources are named.

    Raises CompileError for what no graph file can hold: control flow, and operators that it or target_torch has not.
    """
    variant = analyzed.variant
    parts = flattened(analyzed.parts)
    assert parts.wiring is not None  # noqa: S101  (flattened has it)
    assert isinstance(parts.device, GraphPart)  # noqa: S101
    assert parts.host is None or isinstance(parts.host, GraphPart)  # noqa: S101
    subject = Subject(
        role=variant.role,
        bucket={axis: size if isinstance(size, int) else list(size) for axis, size in variant.bucket.items()},
        batch_size=variant.batch,
        inputs=_entries(analyzed.signature.inputs),
        outputs=_entries(analyzed.signature.outputs),
        structure=analyzed.signature.structure,
    )
    given = list(analyzed.references[0].values())
    found = capture(subject, parts.host, parts.device, parts.wiring, given, store, target_torch)
    host = None if found.host is None else _sourced(found.host, root)
    found = replace(found, host=host, device=_sourced(found.device, root))
    graph = GraphFile({}, (found,), store.tensors)
    try:
        check.require(graph)
    except GraphFileError as error:
        raise CompileError(
            f"{variant}: the captured graph is not sound: {error}", "Please report this model."
        ) from None
    return found, graph.whole(found)


def _sourced(part: Part, root: Path) -> Part:
    """The part with no path of this machine in it: sources are named from the project or their package."""
    homes = [f"{home}/" for home in (root.absolute(), root.resolve(), INSTALLED)]
    nodes = []
    for node in part.nodes:
        source = node.source
        for home in homes:
            source = source.removeprefix(home)
        nodes.append(replace(node, source=Path(source).name if source.startswith("/") else source))
    return replace(part, nodes=tuple(nodes))


def made_by() -> dict[str, str]:
    """Versions of the project and of the libraries that a graph is captured with."""
    found = {"inferentia-endpoints": compile.__version__}
    for name in _LIBRARIES:
        try:
            found[name] = str(torch.__version__) if name == "torch" else metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _entries(tensors: Sequence[TensorDescription]) -> list[TensorEntry]:
    return [TensorEntry(one.name, ValueType(one.dtype, tuple(one.shape))) for one in tensors]
