"""Captured graphs of small models, and their files unpacked."""

from __future__ import annotations

import sys
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn

from compile.definition import Bucket, Inputs
from compile.ir.flat_module import flat_module, signature
from compile.lowering.for_target import flattened, lowered
from compile.models import find
from compile.portable import capture as capturing
from compile.portable import file
from compile.portable.tensors import TensorStore
from tests.compile.models.tiny import TINY

REPLAYED_BY = "1.13.1"


def captured(
    module: nn.Module,
    references: list[Inputs],
    target: str,
    store: TensorStore,
    role: str = "model",
    bucket: Bucket = MappingProxyType({}),
) -> file.PortableVariant:
    """One graph as a build captures it, at the sizes of its first reference, with what the original answers."""
    flat = flat_module(module, references[0])
    example = tuple(references[0].values())
    parts = flattened(lowered(flat, example, target))
    described = signature(flat, references[0])
    inputs, outputs = (
        [file.TensorEntry(one.name, file.ValueType(one.dtype, tuple(one.shape))) for one in some]
        for some in (described.inputs, described.outputs)
    )
    sizes = {axis: list(size) if isinstance(size, tuple) else size for axis, size in bucket.items()}
    batch = len(example[0])
    subject = capturing.Subject(role, sizes, batch, inputs, outputs, described.structure)
    variant = capturing.capture(subject, parts.host, parts.device, parts.wiring, example, store, REPLAYED_BY)
    with torch.no_grad():
        answered = [(tuple(one.values()), [part.clone() for part in flat(*one.values())]) for one in references]
    return capturing.with_references(variant, answered, store)


def of_family(key: tuple[str, str], target: str, batch_size: int = 1) -> tuple[list[file.PortableVariant], TensorStore]:
    """Every graph of a family at its smallest size, with one reference each."""
    options, bucket = TINY[key]
    family, variant = find(*key)
    definition = family.build(variant, options)
    definition.initialise(definition.weights, torch.Generator().manual_seed(0))
    store = TensorStore()
    graphs = [
        captured(graph.module, [graph.reference_inputs(bucket, batch_size)[0]], target, store, role, bucket)
        for role, graph in definition.graphs.items()
    ]
    return graphs, store


class Convolutions(nn.Module):
    """Without a look-up: all of it is compiled, also for inf1."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.second = nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Linear(8, 5)

    def forward(self, image: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        made = self.pool(self.second(torch.relu(self.first(image))))
        flat = made.flatten(1)
        return self.last(flat) * scale, torch.cat([flat.softmax(1), flat.mean(1, keepdim=True)], 1)


def plain() -> tuple[list[file.PortableVariant], TensorStore]:
    """The graph of `Convolutions`."""
    torch.manual_seed(0)
    module, store = Convolutions().eval(), TensorStore()
    inputs = {"image": torch.rand(1, 3, 4, 4), "scale": torch.rand(1, 1)}
    return [captured(module, [inputs, {name: tensor + 1 for name, tensor in inputs.items()}], "inf1", store)], store


def two(place: Path) -> None:
    """bert.graph, which has a host part, and plain.graph, which has none."""
    for name, (graphs, store) in (("bert", of_family(("bert", "base-uncased"), "inf1")), ("plain", plain())):
        file.write(place / f"{name}.graph", {"torch": str(torch.__version__)}, graphs, store)


if __name__ == "__main__":
    two(Path(sys.argv[1]))
