"""A graph file of somebody else's as a model: its replays are the modules, its references the inputs and the answers.

The original is not at hand: what is built is compared with the answers that the file has recorded.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compile.definition import Bucket, GraphDefinition, GraphVariant, Inputs, ModelDefinition
from compile.errors import CompileError
from compile.ir.flat_module import OfSizes
from compile.packaging import graph_file
from compile.portable import driver
from compile.portable.file import GraphFile, PortableVariant
from compile.portable.replay import ReplayError, type_of
from inference_code.artifact.manifest import Record, StructureError, restore
from inference_code.artifact.pytree import check

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec

TASK = "tensor"  # where the header names none
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")  # of a role or an axis: an artifact's file names are made of them
_LARGEST_BATCH = 1024  # as compile.batch_sizes has it


def definition(spec: EndpointSpec, name: str) -> ModelDefinition:
    """The model of the graph file `name` of the spec's project.

    Task and settings are those of the file's header, as are padding and shared outputs of each role; buckets and batch
    sizes those of its graphs. Raises CompileError for a file that cannot be read, whose names or header no model can
    have, and for buckets and batch sizes of the spec that it lacks.
    """
    path = spec.root / name
    try:
        found = graph_file.read(path)
    except OSError as error:
        raise CompileError(f"{path} cannot be read: {error.strerror or error}", "Correct model.graph.") from None
    problems = list(_problems(found))
    if problems:
        raise CompileError(
            f"{path} is no model that can be built:\n  " + "\n  ".join(problems),
            "Take it from where it was built again, or have it built anew there.",
        )
    # In memory of their own: all graphs share them, and none keeps the whole file mapped.
    file = GraphFile(found.header, found.variants, {digest: one.clone() for digest, one in found.tensors.items()})
    roles = {name: _Role(name, file) for name in dict.fromkeys(one.role for one in file.variants)}
    stated = file.header.get("roles", {})
    graphs = {name: role.definition(stated.get(name, {})) for name, role in roles.items()}
    buckets = [dict(one.bucket) for one in file.variants]
    made = ModelDefinition(
        graphs=graphs,
        buckets=[bucket for number, bucket in enumerate(buckets) if bucket not in buckets[:number]],
        task=file.header.get("task", TASK),
        task_settings=file.header.get("settings", {}),
        weights_module=nn.ModuleList(role.replays[0] for role in roles.values()),
        batch_sizes=list(dict.fromkeys(one.batch_size for one in file.variants)),
    )
    _require_sizes(spec, path.name, made, roles)
    return made


def _require_sizes(spec: EndpointSpec, name: str, made: ModelDefinition, roles: Mapping[str, _Role]) -> None:
    buckets, batches = made.sizes(spec.compile)
    wanted = [GraphVariant(role, bucket, batch) for role in roles for bucket in buckets for batch in batches]
    lacking = [variant for variant in wanted if variant.file not in roles[variant.role].variants]
    if lacking:
        known = "; ".join(str(variant) for role in roles.values() for variant in role.variants.values())
        raise CompileError(
            f"{spec.path.name}: {name} has no graph of {'; '.join(map(str, lacking))}. It has {known}.",
            "Name under compile such buckets and batch_sizes as every role of it has.",
        )


def _problems(file: GraphFile) -> Iterator[str]:
    """What the format allows and no model can have."""
    known: dict[Any, PortableVariant] = {}
    for variant in file.variants:
        other = known.setdefault((variant.role, *(entry.type.shape for entry in variant.inputs)), variant)
        if other is not variant:
            yield f"{variant}: its inputs have the shapes of those of {other}"
        for what in (variant.role, *variant.bucket):
            if not _NAME.fullmatch(what):
                yield f"{variant}: {what!r:.80} is no name of letters, digits and _.-"
        sizes = [side for size in variant.bucket.values() for side in (size if isinstance(size, list) else [size])]
        if not sizes or min(sizes) < 1 or not 1 <= variant.batch_size <= _LARGEST_BATCH:
            yield f"{variant}: its bucket is {variant.bucket!r:.80}, its batch size {variant.batch_size}"
        try:
            check(variant.structure, len(variant.outputs))
            _require_names(variant.structure)
        except (StructureError, RecursionError) as error:
            yield f"{variant}: its structure: {error!s:.200}"
    task, settings, roles = (file.header.get(name, default) for name, default in _STATED)
    if not isinstance(task, str) or not isinstance(settings, dict):
        yield f"its header has the task {task!r:.80} with the settings {settings!r:.80}"
    if not isinstance(roles, dict) or not all(map(_is_role, roles.values())):
        yield f"its header has the roles {roles!r:.200}"


def _require_names(structure: Mapping[str, Any]) -> None:
    """What `check` does not look at: the type of a record."""
    if structure["kind"] == "record":
        if not str(structure.get("type")).isidentifier():
            raise StructureError(f"{structure.get('type')!r} is not the name of a record")
        for _, child in structure["entries"]:
            _require_names(child)


_STATED: tuple[tuple[str, Any], ...] = (("task", TASK), ("settings", {}), ("roles", {}))


def _is_role(stated: Any) -> bool:
    """Whether the header's account of a role has padding and shared outputs as a GraphDefinition takes them."""
    if not isinstance(stated, dict):
        return False
    padding, shared = stated.get("padding", {}), stated.get("shared_outputs", [])
    fills = isinstance(padding, dict) and all(type(fill) in (int, float) for fill in padding.values())
    return fills and isinstance(shared, list) and all(isinstance(name, str) for name in shared)


class _Role:
    """The graphs of one role, by the artifact's name for each, and their modules."""

    def __init__(self, name: str, file: GraphFile) -> None:
        of_role = [variant for variant in file.variants if variant.role == name]
        self.name, self.file = name, file
        self.variants = {GraphVariant(name, one.bucket, one.batch_size).file: one for one in of_role}
        self.replays = [Replay(file, one) for one in of_role]

    def definition(self, stated: Mapping[str, Any]) -> GraphDefinition:
        """stated: what the header has of the role."""
        return GraphDefinition(
            module=OfSizes(self.replays),
            example_inputs=lambda bucket, batch: self.inputs(bucket, batch)[0],
            reference_inputs=self.inputs,
            shared_outputs=stated.get("shared_outputs", ()),
            padding=stated.get("padding", {}),
            recorded=self,
        )

    def inputs(self, bucket: Bucket, batch: int) -> list[Inputs]:
        variant = self._at(bucket, batch)
        names = [entry.name for entry in variant.inputs]
        return [dict(zip(names, inputs, strict=True)) for inputs, _ in self._references(variant)]

    def outputs(self, bucket: Bucket, batch: int) -> list[list[Tensor]]:
        return [outputs for _, outputs in self._references(self._at(bucket, batch))]

    def difference(self, bucket: Bucket, batch: int, bounds: Sequence[float]) -> str:
        try:
            driver.compared(self.file, self._at(bucket, batch), bounds)
        except ReplayError as error:
            return str(error)
        return ""

    def _references(self, variant: PortableVariant) -> list[tuple[list[Tensor], list[Tensor]]]:
        return [self.file.reference(variant, number) for number in range(len(variant.references))]

    def _at(self, bucket: Bucket, batch: int) -> PortableVariant:
        wanted = GraphVariant(self.name, bucket, batch)
        if wanted.file not in self.variants:
            raise CompileError(f"the graph file has no graph of {wanted}")
        return self.variants[wanted.file]


class Replay(nn.Module):
    """A graph of a file as the model that it was captured from: inputs by name to its outputs, nested as they were."""

    def __init__(self, file: GraphFile, variant: PortableVariant) -> None:
        super().__init__()
        self.replay = file.whole(variant)
        self.inputs = {entry.name: entry.type for entry in variant.inputs}
        self.structure = variant.structure
        self.train(False)

    def takes(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether the graph is fixed to inputs of these shapes."""
        return shapes == {name: stated.shape for name, stated in self.inputs.items()}

    def forward(self, **given: Tensor) -> Any:
        """Raises ReplayError for inputs of other shapes than the graph is fixed to."""
        for name, stated in self.inputs.items():
            if torch._C._get_tracing_state() is None and given[name].shape != stated.shape:
                raise ReplayError(f"its graph takes {name} {stated}, not {type_of(given[name])}")
        return _nested(self.structure, self.replay(*(given[name] for name in self.inputs)))


@dataclasses.dataclass(init=False, repr=False, eq=False)
class ModelOutput(Record):
    """transformers' ModelOutput, as far as `flatten` tells it from a dict."""


def _nested(structure: Mapping[str, Any], leaves: tuple[Tensor, ...]) -> Any:
    if structure["kind"] != "record":
        return restore(structure, leaves)
    kind = type(structure["type"], (ModelOutput,), {})
    return kind({key: _nested(child, leaves) for key, child in structure["entries"]})
