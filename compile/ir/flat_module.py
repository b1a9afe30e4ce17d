"""A model with named inputs and nested outputs, seen as a function from positional tensors to a flat tuple.

This is the form that lowering, coverage and the targets work on. The description that restores the nesting is
inference_code's, which reads it back in the artifact.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from compile.definition import Inputs
from compile.errors import CompileError, users_code
from inference_code.artifact.manifest import Flattened, StructureError, TensorDescription, flatten


class FlatModule(nn.Module):
    """Takes the inputs of `names` by position, calls `model` with them by keyword, returns its tensors as a tuple."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)
        self.train(model.training)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return flatten_outputs(self.call(tensors)).leaves

    def call(self, tensors: Sequence[Tensor]) -> Any:
        """What the model itself returns, not flattened."""
        return self.model(**dict(zip(self.names, tensors, strict=True)))


@dataclass(frozen=True)
class Signature:
    """Names, shapes and dtypes of a graph's inputs and outputs, and how its outputs are nested."""

    inputs: tuple[TensorDescription, ...]
    outputs: tuple[TensorDescription, ...]
    structure: dict[str, Any]


class FixedModule(Protocol):
    """A module that runs at one size alone."""

    def takes(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether it runs with inputs of these shapes, by name."""


class OfSizes(nn.Module):
    """One model as several modules that each run at one size alone, as a graph file's graphs do."""

    def __init__(self, fixed: Sequence[nn.Module]) -> None:
        super().__init__()
        self.fixed = nn.ModuleList(fixed)
        self.train(False)

    def forward(self, **inputs: Tensor) -> Any:
        return self.fitting(inputs)(**inputs)

    def fitting(self, inputs: Inputs) -> nn.Module:
        """The module for inputs of these shapes. Raises CompileError where there is none."""
        shapes = {name: tuple(tensor.shape) for name, tensor in inputs.items()}
        for module in self.fixed:
            if cast(FixedModule, module).takes(shapes):
                return module
        shown = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise CompileError(f"There is no graph for inputs of the shapes {shown}.")


def flat_module(model: nn.Module, example: Inputs) -> FlatModule:
    """Wraps `model`; of an OfSizes the module for the example's shapes.

    Raises CompileError when the names of `example` are not parameters of its forward.
    """
    if isinstance(model, OfSizes):
        model = model.fitting(example)
    parameters = inspect.signature(model.forward).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [name for name in example if name not in parameters]
    if unknown and not takes_any:
        raise CompileError(
            f"{type(model).__name__}.forward has no parameter {', '.join(unknown)}; it has {', '.join(parameters)}.",
            "Name the example inputs after forward's parameters.",
        )
    return FlatModule(model, list(example))


def flatten_outputs(value: Any) -> Flattened:
    """Named tensors of a model's return value. Raises CompileError for what cannot be described."""
    try:
        return flatten(value, lambda node: isinstance(node, Tensor))
    except StructureError as error:
        raise CompileError(
            f"What the model returns cannot be an artifact's output: {error}.",
            "Wrap the model in a module whose forward returns tensors, dicts, dataclasses, tuples or lists of them.",
        ) from None


def signature(flat: FlatModule, example: Inputs) -> Signature:
    """What goes into the model and comes out of it. Raises CompileError as `described` does."""
    return described(flat, example)[0]


def described(flat: FlatModule, example: Inputs) -> tuple[Signature, Sequence[torch.Tensor]]:
    """Runs the model once on `example` (no gradients); returns what goes in and out, and the output's tensors.

    Raises CompileError: forward raises, or returns what no artifact can hold.
    """
    with torch.no_grad(), users_code(f"forward of {type(flat.model).__name__}"):
        returned = flat.call(list(example.values()))
    outputs = flatten_outputs(returned)
    for name, leaf in zip(outputs.names, outputs.leaves, strict=True):
        if leaf.is_nested:
            raise CompileError(f"Output {name} is a nested tensor.", "Return it as to_padded_tensor(0.0).")
        if leaf.is_quantized:
            raise CompileError(f"Output {name} is quantized ({leaf.dtype}).", "Return it as dequantize().")
        if leaf.is_meta:
            raise CompileError(f"Output {name} is on the meta device: it has no values.", "Compute it on the CPU.")
        if leaf.layout != torch.strided:
            raise CompileError(f"Output {name} is a tensor of layout {leaf.layout}.", "Return it as to_dense().")
    found = Signature(
        inputs=tuple(describe(name, tensor) for name, tensor in example.items()),
        outputs=tuple(describe(name, tensor) for name, tensor in zip(outputs.names, outputs.leaves, strict=True)),
        structure=outputs.structure,
    )
    return found, [leaf.clone() for leaf in outputs.leaves]  # a later run may write into what a model returns


def describe(name: str, tensor: Tensor) -> TensorDescription:
    """Name, shape and dtype (without torch's prefix) of a tensor."""
    return TensorDescription(name=name, shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))


def unused_inputs(graph: torch.Graph, names: Sequence[str]) -> list[str]:
    """Names of inputs that no node of a traced graph reads. The graph's first input is the module itself."""
    values = list(graph.inputs())[-len(names) :]
    return [name for name, value in zip(names, values, strict=True) if not value.uses()]
