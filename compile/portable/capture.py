"""From a lowered graph in lists of operators to what a graph file holds.

The steps run once on the example, which gives every value its dtype and shape; nothing is frozen: weights keep their
names and stay parameters.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from compile.errors import CompileError
from compile.portable import operators
from compile.portable.check import PLACEMENT
from compile.portable.file import Node, Part, PortableVariant, Reference, State, TensorEntry, function_of
from compile.portable.replay import GraphPart, Ref, Step, Wiring, largest_of, last_uses, replaced, results, type_of
from compile.portable.tensors import TensorFileError, TensorStore

# Whose Tensor argument may be a number; others have an overload of their own for it.
_TAKE_NUMBERS = ("aten::add", "aten::sub", "aten::mul", "aten::div")
_SCALARS = (torch.int64, torch.float64, torch.bool)  # of 0-dim tensors that a trace makes of Python's numbers
_BY_CODE = {  # c10::ScalarType, as a trace has it
    **{0: torch.uint8, 1: torch.int8, 2: torch.int16, 3: torch.int32, 4: torch.int64, 5: torch.float16},
    **{6: torch.float32, 7: torch.float64, 11: torch.bool, 15: torch.bfloat16},
}
_FORMATS = (torch.contiguous_format, torch.preserve_format, torch.channels_last, torch.channels_last_3d)


@dataclass(frozen=True)
class Subject:
    """What of a graph the file keeps beside its operators."""

    role: str
    bucket: Mapping[str, int | list[int]]
    batch_size: int
    inputs: Sequence[TensorEntry]
    outputs: Sequence[TensorEntry]
    structure: Mapping[str, Any]


def capture(
    subject: Subject,
    host: GraphPart | None,
    device: GraphPart,
    wiring: Wiring,
    example: Sequence[Tensor],
    tensors: TensorStore,
    target_torch: str,
) -> PortableVariant:
    """The graph with every weight and constant in `tensors`; its references come later.

    target_torch: version of the torch that will replay it. Raises CompileError naming, with module and source line,
    every operator that no file may hold or that the target's torch has not, all of them together.
    """
    found = _Captured(tensors, target_torch)
    made: dict[str, Sequence[Tensor]] = {"input": list(example)}
    host_part = None
    with torch.no_grad():  # gradients would keep the intermediates
        if host is not None:
            host_part, made["host"] = found.part(host, [example[number] for number in wiring.host])
        device_part, _ = found.part(device, [made[source][number] for source, number in wiring.device])
    if found.problems:
        raise CompileError(
            f"{subject.role}: the graph cannot be captured for torch {target_torch}:\n  " + "\n  ".join(found.problems),
            "Write it with other operators, or give compile.lowering.rewrites a rewrite; docs/lowering.md shows one.",
        )
    return PortableVariant(
        role=subject.role,
        bucket=subject.bucket,
        batch_size=subject.batch_size,
        inputs=tuple(subject.inputs),
        outputs=tuple(subject.outputs),
        structure=subject.structure,
        host=host_part,
        device=device_part,
        wiring=wiring,
    )


def with_references(
    variant: PortableVariant, answered: Sequence[tuple[Sequence[Tensor], Sequence[Tensor]]], tensors: TensorStore
) -> PortableVariant:
    """The graph with inputs and what the original answers to them."""
    kept = tuple(
        Reference(tuple(map(tensors.add, inputs)), tuple(map(tensors.add, outputs))) for inputs, outputs in answered
    )
    return replace(variant, references=kept)


class _Captured:
    def __init__(self, tensors: TensorStore, target_torch: str) -> None:
        self.tensors, self.target_torch = tensors, target_torch
        self.problems: list[str] = []

    def part(self, part: GraphPart, given: Sequence[Tensor]) -> tuple[Part, list[Tensor]]:
        """A part as the file has it, with its values numbered in order, and what it answers."""
        named = _names(part.names)
        held = {value: (named[value], _held(part.state, name)) for value, name in part.names.items()}
        known: dict[int, Tensor] = dict(zip(part.inputs, given, strict=True))
        known |= {value: tensor for value, (_, tensor) in held.items()}
        fresh = itertools.count()
        numbers = {value: next(fresh) for value in [*part.inputs, *held]}
        state = [self.state(numbers[value], name, tensor) for value, (name, tensor) in held.items()]
        literals: dict[str, int] = {}
        nodes = []

        def own(leaf: Any) -> Any:
            """A value by its number; a tensor that the trace holds by itself becomes a constant of the part, once."""
            if isinstance(leaf, Ref):
                return Ref(numbers[leaf.value])
            if not isinstance(leaf, Tensor):
                return leaf
            made = self.state(-1, f"constants.literal{len(state)}", leaf)
            if made.tensor not in literals:
                literals[made.tensor] = next(fresh)
                state.append(replace(made, value=literals[made.tensor]))
            return Ref(literals[made.tensor])

        steps = [_placeless(step) for step in _needed(part.steps, part.outputs)]
        lasting = [*given, *(tensor for _, tensor in held.values())]
        for recorded, forgotten in zip(steps, last_uses(steps, part.outputs), strict=True):
            step = _functional(recorded, known, forgotten, lasting)
            args, kwargs = self.call(step, known)
            made = results(
                step, *replaced((args, kwargs), lambda leaf: known[leaf.value] if isinstance(leaf, Ref) else leaf)
            )
            known.update(zip(step.outputs, made, strict=True))
            types = tuple(map(type_of, made))
            args, kwargs = replaced((args, kwargs), own)
            numbers.update({value: next(fresh) for value in step.outputs})
            node = Node(
                operator=operator_of(step),
                args=args,
                kwargs=kwargs,
                outputs=tuple(numbers[value] for value in step.outputs),
                types=types,
                largest=tuple(map(largest_of, made)),
                module=own_path(step.module),
                source=step.source,
            )
            self.judge(node)
            nodes.append(node)
            for value in forgotten:  # all intermediates of a large model do not fit into memory together
                known.pop(value, None)
        inputs, outputs = [tuple(numbers[value] for value in some) for some in (part.inputs, part.outputs)]
        return Part(inputs, tuple(state), tuple(nodes), outputs), [known[value] for value in part.outputs]

    def state(self, value: int, name: str, tensor: Tensor) -> State:
        try:
            return State(value, name, self.tensors.add(tensor), isinstance(tensor, nn.Parameter))
        except TensorFileError as error:
            raise CompileError(f"{name}: {error} in a graph file.", "Cast it to a dtype of the list.") from None

    def call(self, step: Step, known: Mapping[int, Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The step's arguments: numbers where Python had numbers, dtypes by name, and no placement."""
        schema = step.function._schema.arguments
        data = [known[value] for value in step.refs]
        floats = any(one.is_floating_point() for one in data)

        def plain(name: str, value: Any) -> Any:
            scalar = isinstance(value, Tensor) and value.dim() == 0 and value.dtype in _SCALARS
            if scalar and data and str(step.function._schema.name) in _TAKE_NUMBERS:
                # A double beside whole numbers may be a tensor that makes them double: it stays one.
                return value.item() if floats or value.dtype != torch.float64 else value
            if type(value) is int and "dtype" in name:
                return _BY_CODE.get(value, value)
            return _FORMATS[value] if type(value) is int and name == "memory_format" else value

        named = {known_as.name: plain(known_as.name, value) for known_as, value in zip(schema, step.args, strict=False)}
        names = list(itertools.takewhile(lambda name: name not in PLACEMENT, named))
        later = {name: value for name, value in named.items() if name not in names}
        later |= {name: plain(name, value) for name, value in step.kwargs.items() if value is not None}
        kwargs = {name: value for name, value in later.items() if name not in PLACEMENT}
        return tuple(named[name] for name in names), kwargs

    def judge(self, node: Node) -> None:
        where = node.where or "the module"
        if node.operator not in operators.allowed():
            random = torch.Tag.nondeterministic_seeded in function_of(node.operator).tags
            reason = (
                "it draws random numbers; take it out of forward" if random else "a graph file holds no such operator"
            )
            self.problems.append(f"{node.operator} in {where}: {reason}")
            return
        problem = operators.problem(self.target_torch, node.operator, node.args, node.kwargs)
        if problem is not None:
            self.problems.append(f"{node.operator} in {where}: {problem}")


def operator_of(step: Step) -> str:
    """The overload by name, as "aten::add.Tensor"."""
    schema = step.function._schema
    return f"{schema.name}.{schema.overload_name}" if schema.overload_name else str(schema.name)


def _names(names: Mapping[int, str]) -> dict[int, str]:
    """Weights by their names in the model's state_dict, without those of the modules that lowering put around it."""
    found = {value: own_path(name) for value, name in names.items()}
    return found if len(set(found.values())) == len(found) else dict(names)


def own_path(path: str) -> str:
    """A module's or weight's path in the model, without the modules that lowering and a replay put around it."""
    found = f"{path.strip('.')}.".removeprefix("inner.").removeprefix("model.")
    return re.sub(r"^replay\.(host\.|device\.)?state\.", "", found).removesuffix(".")


def _placeless(step: Step) -> Step:
    """A cast that names a device or a layout as well, as the cast alone: all is on the CPU here, and dense."""
    if operator_of(step) not in ("aten::to.device", "aten::to.dtype_layout"):
        return step
    known = step.function._schema.arguments
    given = {one.name: value for one, value in zip(known, step.args, strict=False)} | dict(step.kwargs)
    dtype = given.get("dtype")
    if dtype is None:
        return replace(step, function=torch.ops.aten.alias.default, args=step.args[:1], kwargs={})
    cast = (given["self"], dtype, False, bool(given.get("copy")))
    return replace(step, function=torch.ops.aten.to.dtype, args=cast, kwargs={})


def _functional(step: Step, known: Mapping[int, Tensor], forgotten: Sequence[int], lasting: Sequence[Tensor]) -> Step:
    """A write into memory that nothing reads any more, as the operator that makes a new tensor; others stay.

    PyTorch decomposes its recurrent cells into such writes. known: the values so far; forgotten: those of them that are
    not read after the step; lasting: inputs and weights, which are never written into.
    """
    schema = step.function._schema
    if not schema.is_mutable or not schema.name.endswith("_") or not isinstance(step.args[0], Ref):
        return step
    kept = [*lasting, *(tensor for value, tensor in known.items() if value not in forgotten)]
    if any(_overlap(known[step.args[0].value], tensor) for tensor in kept):
        return step
    space, _, name = schema.name.partition("::")
    packet = getattr(getattr(torch.ops, space), name.removesuffix("_"), None)
    function = getattr(packet, schema.overload_name or "default", None)
    return step if function is None else replace(step, function=function, kind=f"{space}::{name.removesuffix('_')}")


def _overlap(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have an element of memory in common."""
    memory = _memory(one)
    if _memory(other).data_ptr() != memory.data_ptr():
        return False
    if one.dtype != other.dtype:
        return True
    marks = torch.zeros(memory.nbytes() // one.element_size(), dtype=torch.bool)
    marks.as_strided(one.shape, one.stride(), one.storage_offset()).fill_(True)
    return bool(marks.as_strided(other.shape, other.stride(), other.storage_offset()).any())


def _memory(tensor: Tensor) -> Any:
    """The untyped storage; torch 1.13, where jobs still capture, has another name for it."""
    return tensor.untyped_storage() if hasattr(tensor, "untyped_storage") else tensor.storage()._storage  # type: ignore[no-untyped-call]


def _held(state: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    tensor: Tensor = getattr(state.get_submodule(path), leaf)
    return tensor


def _needed(steps: Sequence[Step], outputs: Sequence[int]) -> list[Step]:
    """Without those whose results nothing reads; one that writes stays, to be refused."""
    wanted, found = set(outputs), []
    for step in reversed(steps):
        if not wanted.isdisjoint(step.outputs) or step.function._schema.is_mutable:
            wanted.update(step.refs)
            found.append(step)
    return found[::-1]
