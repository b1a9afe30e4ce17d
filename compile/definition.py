"""What a model is, for this project: named graphs, the inputs that prove them, and the task they serve.

The built-in families (`compile/models/`) and a user's entry file return the same `ModelDefinition`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from compile.errors import CompileError, users_code

if TYPE_CHECKING:
    from endpoint_spec.endpoint import Compile

# A bucket names the sizes that a graph is fixed to, e.g. {"image": [518, 518]} or {"tokens": 128}.
Bucket = Mapping[str, int | Sequence[int]]
# Inputs of one call by name; the names are the parameters of the module's forward.
Inputs = Mapping[str, torch.Tensor]

MINIMUM_REFERENCES = 5
# The one tensor of a darknet file: which layer a number belongs to, only the network's checkpoint_keys knows.
DARKNET = "darknet"


@dataclass(frozen=True)
class GraphVariant:
    """One graph to make: a role at one bucket and batch size."""

    role: str
    bucket: Bucket
    batch: int

    @property
    def file(self) -> str:
        """Path inside the artifact, e.g. graphs/main-image_518x518-batch_1.pt."""
        sizes = "-".join(f"{axis}_{'x'.join(map(str, sizes_of(size)))}" for axis, size in self.bucket.items())
        return f"graphs/{self.role}-{sizes}-batch_{self.batch}.pt"

    @property
    def slug(self) -> str:
        """The file's name without folder and ending."""
        return Path(self.file).stem

    def __str__(self) -> str:
        sizes = ", ".join(f"{axis} {'x'.join(map(str, sizes_of(size)))}" for axis, size in self.bucket.items())
        return f"{self.role}, {sizes}, batch {self.batch}"


def sizes_of(size: int | Sequence[int]) -> Sequence[int]:
    """The sizes of a bucket's axis, of which most have one."""
    return size if isinstance(size, Sequence) else [size]


class Recorded(Protocol):
    """What an original answered that is not at hand."""

    def outputs(self, bucket: Bucket, batch: int) -> Sequence[Sequence[torch.Tensor]]:
        """Its tensors, in order, for each of the reference inputs."""

    def difference(self, bucket: Bucket, batch: int, bounds: Sequence[float]) -> str:
        """Where the module answers something else: the output, both values, the first operator; "" within the bounds
        of each output."""


@dataclass(frozen=True)
class GraphDefinition:
    """One graph of a model.

    module: in eval mode, float32. Its forward may return a tensor or any nest of dict, dataclass, tuple and list.
    example_inputs(bucket, batch): the tensors that the graph is traced with, by name of forward's parameter.
    reference_inputs(bucket, batch): at least 5 deterministic inputs of the same names, shapes and dtypes; the artifact
        is compared with the original on them.
    shared_outputs: dotted names of outputs that are the same for every input (anchors, a temperature) and have no axis
        for the items of a batch: every caller gets them whole. A build proves that they are.
    padding: inputs that may be smaller than the graph's, with the value that fills them up (as Item.padding has it).
        A build proves that it moves no real position. By default the task's setting of this name, for the role main.
    recorded: the original's answers to the reference inputs, where the original itself is not at hand: the artifact is
        compared with these, not with what `module` answers.
    """

    module: nn.Module
    example_inputs: Callable[[Bucket, int], Inputs]
    reference_inputs: Callable[[Bucket, int], Sequence[Inputs]]
    shared_outputs: Sequence[str] = ()
    padding: Mapping[str, float] = field(default_factory=dict)
    recorded: Recorded | None = None

    def recorded_outputs(self, variant: GraphVariant) -> Sequence[Sequence[torch.Tensor]] | None:
        """What the artifact is compared with; None where that is what the module itself answers."""
        return None if self.recorded is None else self.recorded.outputs(variant.bucket, variant.batch)


@dataclass(frozen=True)
class SampleRequest:
    """One request to the finished endpoint whose answer is kept in the lock for `inferentia smoke`.

    neighbour: the body of another request of the same kind. Smoke sends both at once: the answer must stay the same.
    """

    body: bytes
    content_type: str
    accept: str
    neighbour: bytes | None = None


@dataclass(frozen=True)
class ModelDefinition:
    """A model ready to be built.

    graphs: by role (main, encoder, step, refine); most models have the one role "main".
    buckets, batch_sizes: used when the spec names none.
    task, task_settings: a task of inference_code (or a name of your own, when the spec has a handler).
    weights_module: holds every weight that a checkpoint fills; default: the module of the only graph.
    checkpoint_keys(state): renames (and reshapes) the tensors of a published checkpoint to weights_module's names.
    initialise(module, generator): draws random weights; default: what the module's constructor drew from the seed.
    sample(bucket): a request for `operations smoke`.
    """

    graphs: Mapping[str, GraphDefinition]
    buckets: Sequence[Bucket]
    task: str
    task_settings: Mapping[str, Any] = field(default_factory=dict)
    weights_module: nn.Module | None = None
    checkpoint_keys: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None = None
    initialise: Callable[[nn.Module, torch.Generator], None] | None = None
    sample: Callable[[Bucket], SampleRequest] | None = None
    batch_sizes: Sequence[int] = (1,)

    def sizes(self, wanted: Compile) -> tuple[Sequence[Bucket], Sequence[int]]:
        """Buckets and batch sizes of a build: what a spec's compile section names, or its own."""
        named = "batch_sizes" in wanted.model_fields_set
        return wanted.buckets or self.buckets, wanted.batch_sizes if named else self.batch_sizes

    def __post_init__(self) -> None:
        problems = [*_shape_problems(self), *_module_problems(self)]
        if problems:
            raise CompileError(
                "The ModelDefinition is not usable:\n  " + "\n  ".join(problems),
                "Correct it where the model is made; examples/own-model shows a whole one.",
            )

    def padding(self, role: str) -> Mapping[str, float]:
        """What fills up the inputs of a graph, by name; nothing where they have to be whole."""
        settings = self.task_settings.get("padding")
        return self.graphs[role].padding or (settings if role == "main" and isinstance(settings, Mapping) else {})

    @property
    def weights(self) -> nn.Module:
        """The module that a checkpoint's keys belong to."""
        if self.weights_module is not None:
            return self.weights_module
        (graph,) = self.graphs.values()
        return graph.module


def _shape_problems(definition: ModelDefinition) -> list[str]:
    problems = []
    if not definition.graphs:
        problems.append("graphs is empty: give at least the role 'main'.")
    if not definition.buckets:
        problems.append("buckets is empty: give at least one, e.g. [{'image': (224, 224)}].")
    wrong = [bucket for bucket in definition.buckets if not isinstance(bucket, Mapping) or not bucket]
    if wrong:
        problems.append(f"bucket {wrong[0]!r} is no mapping: name what is fixed, e.g. {{'tokens': 128}}.")
    if not definition.task:
        problems.append("task is empty: name a task of inference_code, or one of your own with a handler in the spec.")
    if len(definition.graphs) > 1 and definition.weights_module is None:
        problems.append("weights_module is missing: with several graphs, name the module that holds all weights.")
    return problems


def _module_problems(definition: ModelDefinition) -> list[str]:
    """Names modules that would be traced in training mode or in another precision."""
    problems = []
    for role, graph in definition.graphs.items():
        if graph.module.training:
            problems.append(f"graph {role!r}: the module is in training mode: call .eval() before returning it.")
        dtypes = {str(p.dtype) for p in graph.module.parameters() if p.is_floating_point() and p.dtype != torch.float32}
        if dtypes:
            problems.append(f"graph {role!r}: parameters are {', '.join(sorted(dtypes))}: call .float() first.")
    return problems


def checked_inputs(graph: GraphDefinition, role: str, bucket: Bucket, batch: int) -> tuple[Inputs, list[Inputs]]:
    """The example inputs and the reference inputs of a graph, which must agree in names, shapes and dtypes.

    Raises CompileError naming every reference that differs, or fewer than 5 of them.
    """
    where = f"graph {role!r}, bucket {dict(bucket)}, batch {batch}"
    with users_code(f"example_inputs of {where}"):
        example: Inputs = dict(graph.example_inputs(bucket, batch))
    with users_code(f"reference_inputs of {where}"):
        references: list[Inputs] = [dict(reference) for reference in graph.reference_inputs(bucket, batch)]
    problems = [
        f"input {name!r} is {type(value).__name__}: give a torch.Tensor."
        for name, value in example.items()
        if not isinstance(value, torch.Tensor)
    ]
    problems += [
        f"input {name!r} is float64: cast it to float32, Inferentia has no float64."
        for name, value in example.items()
        if isinstance(value, torch.Tensor) and value.dtype == torch.float64
    ]
    problems += [
        f"input {name!r} is {list(value.shape)}: its first axis must be the batch, here {batch}. Callers' items are "
        "stacked along it; let a module around yours transpose it."
        for name, value in example.items()
        if isinstance(value, torch.Tensor) and value.shape[:1] != (batch,)
    ]
    if not example:
        problems.append("example_inputs returned nothing.")
    if len(references) < MINIMUM_REFERENCES:
        problems.append(f"reference_inputs returned {len(references)} inputs: give at least {MINIMUM_REFERENCES}.")
    if not problems:
        problems = [p for i, reference in enumerate(references) for p in _differences(i, example, reference)]
    if problems:
        raise CompileError(
            f"The inputs of {where} are not usable:\n  " + "\n  ".join(problems),
            "Correct example_inputs and reference_inputs; a module around the model can cast what it takes.",
        )
    return example, references


def _differences(index: int, example: Inputs, reference: Inputs) -> list[str]:
    if list(example) != list(reference):
        return [f"reference {index} has the inputs {list(reference)}, the example {list(example)}."]
    others = {name: value for name, value in reference.items() if not isinstance(value, torch.Tensor)}
    if others:
        return [f"reference {index}, input {name!r} is {type(value).__name__}." for name, value in others.items()]
    return [
        f"reference {index}, input {name!r} is {tuple(value.shape)} {value.dtype}, "
        f"the example {tuple(example[name].shape)} {example[name].dtype}."
        for name, value in reference.items()
        if value.shape != example[name].shape or value.dtype != example[name].dtype
    ]
