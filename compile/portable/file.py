"""The graph file: every graph of a model as a list of operators, with its tensors, in one archive without code.

NAME.graph is a tar of graph.json and tensors.safetensors; docs/portable-graph.md describes both. Standard library and
torch alone, from Python 3.10 and torch 1.13 on.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compile.portable.kept import member
from compile.portable.replay import GraphPart, Joined, Ref, Step, ValueType, Wiring
from compile.portable.tensors import TensorStore

FORMAT = 1
GRAPH, TENSORS = "graph.json", "tensors.safetensors"
LARGEST_GRAPH = 64 << 20  # bytes of graph.json: hundreds of graphs; Python needs up to thirty times as much
# More than any chip computes in one go; a graph that states more is made to exhaust a machine.
MOST_BYTES = 1 << 40


class GraphFileError(ValueError):
    """A graph file that is not read or not written; the text is one line: where, what, its value."""


@dataclass(frozen=True)
class TensorEntry:
    """A named input or output of a graph: dtype without torch's prefix, and shape."""

    name: str
    type: ValueType

    def __str__(self) -> str:
        return f"{self.name} {self.type}"


@dataclass(frozen=True)
class State:
    """A weight or a folded constant that a part reads: its name, its tensor's digest, whether it is a parameter."""

    value: int
    name: str
    tensor: str
    parameter: bool


@dataclass(frozen=True)
class Node:
    """One operator: its overload ("aten::add.Tensor"), arguments with `Ref`s, the values that it makes, their types.

    largest: max|value| of each for the first reference, by which a replay elsewhere finds the node that differs.
    """

    operator: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[int, ...]
    types: tuple[ValueType, ...]
    largest: tuple[float, ...] = ()
    module: str = ""
    source: str = ""

    @property
    def where(self) -> str:
        """Module path and source line, for messages."""
        return ", ".join(part for part in (self.module, self.source) if part)


@dataclass(frozen=True)
class Part:
    """What runs on the host or on the device: values that go in, nodes in order, values that come out."""

    inputs: tuple[int, ...]
    state: tuple[State, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Reference:
    """Inputs, and what the original answers to them: digests of tensors, in the graph's order."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class PortableVariant:
    """One graph at one bucket and batch size. host: None where all of it is compiled; wiring: as replay has it.

    structure: how the outputs are nested, as the manifest has it.
    """

    role: str
    bucket: Mapping[str, int | list[int]]
    batch_size: int
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    structure: Mapping[str, Any]
    host: Part | None
    device: Part
    wiring: Wiring
    references: tuple[Reference, ...] = ()

    def __str__(self) -> str:
        shown = {
            axis: "x".join(map(str, size if isinstance(size, list) else [size])) for axis, size in self.bucket.items()
        }
        return ", ".join([self.role, *(f"{axis} {size}" for axis, size in shown.items()), f"batch {self.batch_size}"])


@dataclass(frozen=True)
class GraphFile:
    """header: what made it, of which build and weights (JSON). tensors: by digest."""

    header: Mapping[str, Any]
    variants: tuple[PortableVariant, ...]
    tensors: Mapping[str, Tensor] = field(repr=False)

    def parts(self, variant: PortableVariant) -> tuple[GraphPart | None, GraphPart]:
        """Host part and device part as modules that check each node against its stated dtype and shape."""
        host = None if variant.host is None else self._module(variant.host)
        return host, self._module(variant.device)

    def whole(self, variant: PortableVariant) -> nn.Module:
        """Positional tensors of the graph's inputs to a tuple of its outputs."""
        host, device = self.parts(variant)
        return self.joined(variant, host, device)

    def joined(self, variant: PortableVariant, host: nn.Module | None, device: nn.Module) -> nn.Module:
        """Both parts as one module: what `whole` is of its own."""
        return device if host is None and _plain(variant) else Joined(host or _Nothing(), device, variant.wiring)

    def reference(self, variant: PortableVariant, number: int) -> tuple[list[Tensor], list[Tensor]]:
        """Inputs and the original's outputs of a reference."""
        one = variant.references[number]
        return [self.tensors[name] for name in one.inputs], [self.tensors[name] for name in one.outputs]

    def _module(self, part: Part) -> GraphPart:
        state, held = {}, dict[str, Tensor]()
        for one in part.state:
            tensor = held.setdefault(one.tensor, _by_itself(self.tensors[one.tensor]))
            state[one.value] = (one.name, nn.Parameter(tensor, requires_grad=False) if one.parameter else tensor)
        steps = [
            Step(
                kind=node.operator,
                function=function_of(node.operator),
                args=node.args,
                kwargs=node.kwargs,
                outputs=node.outputs,
                types=node.types,
                module=node.module,
                source=node.source,
            )
            for node in part.nodes
        ]
        try:
            return GraphPart(steps, part.inputs, part.outputs, state, checked=True)
        except (KeyError, AttributeError) as error:  # torch.nn.Module takes no such name
            raise GraphFileError(f"a weight has a name that no module can have: {error}") from None


def _by_itself(tensor: Tensor) -> Tensor:
    """A tensor that is no piece of a mapped file: TorchScript saves the whole storage of every constant."""
    storage = tensor.untyped_storage() if hasattr(tensor, "untyped_storage") else tensor.storage()  # type: ignore[no-untyped-call]
    return tensor if storage.nbytes() == tensor.numel() * tensor.element_size() else tensor.clone()


class _Nothing(nn.Module):
    def forward(self, *_: Tensor) -> tuple[Tensor, ...]:
        return ()


def _plain(variant: PortableVariant) -> bool:
    """Whether the device part takes and returns exactly what the graph does."""
    ins = [("input", number) for number in range(len(variant.inputs))]
    outs = [("device", number) for number in range(len(variant.outputs))]
    return list(variant.wiring.device) == ins and list(variant.wiring.outputs) == outs


def function_of(operator: str) -> Any:
    """The function of an overload. Raises GraphFileError where this torch has none of that name."""
    space, _, name = operator.partition("::")
    name, _, overload = name.partition(".")
    found = getattr(getattr(getattr(torch.ops, space), name, None), overload or "default", None)
    if found is None:
        raise GraphFileError(f"torch {torch.__version__} has no operator {operator}")
    return found


# -- writing


def write(path: Path, header: Mapping[str, Any], variants: Sequence[PortableVariant], tensors: TensorStore) -> None:
    """Writes the archive; its bytes depend on nothing but what it is given."""
    content = {"format": FORMAT, "header": header, "graphs": [_variant_json(variant) for variant in variants]}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    beside = path.with_name(path.name + ".tensors")
    try:
        tensors.write(beside, digests(variants))
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
            tar.addfile(member(GRAPH, len(text)), io.BytesIO(text))
            with beside.open("rb") as file:
                tar.addfile(member(TENSORS, beside.stat().st_size), file)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        beside.unlink(missing_ok=True)


def digests(variants: Sequence[PortableVariant]) -> set[str]:
    """Of all tensors that these graphs have."""
    parts = [part for variant in variants for part in (variant.host, variant.device) if part is not None]
    references = [reference for variant in variants for reference in variant.references]
    return {state.tensor for part in parts for state in part.state}.union(
        *((*reference.inputs, *reference.outputs) for reference in references)
    )


def digest(variant: PortableVariant) -> str:
    """sha256, in hex, of a graph with its constants and references. Where its nodes come from does not count."""
    content = _variant_json(variant)
    for part in (content["host"], content["device"]):
        for node in part["nodes"] if part else ():
            node.pop("module", None)
            node.pop("source", None)
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _variant_json(variant: PortableVariant) -> dict[str, Any]:
    return {
        "role": variant.role,
        "bucket": dict(variant.bucket),
        "batch_size": variant.batch_size,
        "inputs": [[entry.name, *_type_json(entry.type)] for entry in variant.inputs],
        "outputs": [[entry.name, *_type_json(entry.type)] for entry in variant.outputs],
        "structure": variant.structure,
        "host": variant.host and _part_json(variant.host),
        "device": _part_json(variant.device),
        "wiring": {
            "host": variant.wiring.host,
            "device": variant.wiring.device,
            "outputs": variant.wiring.outputs,
        },
        "references": [{"inputs": one.inputs, "outputs": one.outputs} for one in variant.references],
    }


def _part_json(part: Part) -> dict[str, Any]:
    return {
        "inputs": part.inputs,
        "state": [[one.value, one.name, one.tensor, one.parameter] for one in part.state],
        "nodes": [_node_json(node) for node in part.nodes],
        "outputs": part.outputs,
    }


def _node_json(node: Node) -> dict[str, Any]:
    content = {
        "operator": node.operator,
        "args": [_argument_json(argument) for argument in node.args],
        "kwargs": {name: _argument_json(value) for name, value in node.kwargs.items()},
        "outputs": [[value, *_type_json(kind)] for value, kind in zip(node.outputs, node.types, strict=True)],
        "largest": list(node.largest),
        "module": node.module,
        "source": node.source,
    }
    return {name: value for name, value in content.items() if value or name in ("args", "outputs")}


def _type_json(kind: ValueType) -> list[Any]:
    return [kind.dtype, list(kind.shape)]


MEMORY_FORMATS = ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")


def _argument_json(value: Any) -> Any:
    """Raises GraphFileError for what no file can hold."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"number": repr(value)}
    if isinstance(value, Ref):
        return {"value": value.value}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.memory_format):
        return {"memory_format": str(value).removeprefix("torch.")}
    if isinstance(value, (list, tuple)):
        return [_argument_json(part) for part in value]
    raise GraphFileError(f"an argument of type {type(value).__name__} cannot be kept: {value!r:.80}")
