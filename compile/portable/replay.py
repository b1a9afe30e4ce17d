"""Runs a list of operators as an ordinary module: what a graph file holds, and what lowering splits.

Run under a trace it records the same operators again, so that it can be analyzed and compiled like any model.
Standard library and torch alone, from Python 3.10 and torch 1.13 on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

AT = " at "  # between module and source in the scope of a step


class ReplayError(RuntimeError):
    """A graph computes something else than its file states; the text names the node."""


@dataclass(frozen=True)
class Ref:
    """A value of the graph as an argument."""

    value: int

    def __repr__(self) -> str:
        return f"%{self.value}"


@dataclass(frozen=True)
class ValueType:
    """What a node makes: dtype without torch's prefix, and shape."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


def type_of(tensor: Tensor) -> ValueType:
    """Dtype and shape."""
    return ValueType(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))


@dataclass
class Step:
    """One operation: a function, its arguments (constants, and `Ref`s in nested lists), the values that it makes.

    types: of the values, where they are known; a replay that checks compares what it computes with them.
    module, source: of the model, where it comes from.
    """

    kind: str
    function: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[int, ...]
    types: tuple[ValueType, ...] = ()
    module: str = ""
    source: str = ""
    refs: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.refs = tuple(dict.fromkeys(refs((self.args, self.kwargs))))

    @property
    def where(self) -> str:
        """Module path and source line, for messages."""
        return ", ".join(part for part in (self.module.strip("."), self.source) if part)

    @property
    def place(self) -> str:
        """The same as the scope of a trace."""
        return f"{self.module}{AT}{self.source}"

    def __str__(self) -> str:
        named = "".join(f", {name}={value}" for name, value in self.kwargs.items())
        made = ", ".join(f"%{value}" for value in self.outputs)
        return f"  {made} = {self.kind}({', '.join(map(str, self.args))}{named})"


def leaves(value: Any) -> Iterator[Any]:
    """What stands in nested lists, tuples and dictionaries."""
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from leaves(part)
    elif isinstance(value, Mapping):
        yield from leaves(list(value.values()))
    else:
        yield value


def refs(value: Any) -> list[int]:
    """The values of the graph in nested arguments."""
    return [leaf.value for leaf in leaves(value) if isinstance(leaf, Ref)]


def replaced(value: Any, function: Callable[[Any], Any]) -> Any:
    """Nested lists, tuples and dictionaries with `function` of each leaf in its place."""
    if isinstance(value, (list, tuple)):
        return type(value)(replaced(part, function) for part in value)
    if isinstance(value, Mapping):
        return {name: replaced(part, function) for name, part in value.items()}
    return function(value)


class Placed(nn.Module):
    """A module that gives each node of a trace its place in the model as a scope, while `placed` is set."""

    placed = False


class GraphPart(Placed):
    """Positional tensors for `inputs` to a tuple of the tensors `outputs`; `state` are the weights that it reads.

    inputs, outputs: values of the graph. The weights keep their names, below `state`. checked: compare dtype and shape
    of what each step makes with its types, but for a run that is traced; raises ReplayError where they differ, and
    where a step fails. `largest`, once it is a list, takes `largest_of` what each step makes. `running` is the step
    that runs now; its place is "module at source".
    """

    def __init__(
        self,
        parts: Sequence[Step],
        inputs: Sequence[int],
        outputs: Sequence[int],
        state: Mapping[int, tuple[str, Tensor]],
        *,
        checked: bool = False,
    ) -> None:
        super().__init__()
        self.steps = list(parts)
        self.inputs, self.outputs, self.checked = tuple(inputs), tuple(outputs), checked
        read = {*(value for step in parts for value in step.refs), *outputs}
        self.state = nn.Module()
        self.names = {value: name for value, (name, _) in state.items() if value in read}
        for value, name in self.names.items():
            _hold(self.state, name, state[value][1])
        self.forgotten = last_uses(self.steps, self.outputs)
        self.training = False
        self.largest: list[tuple[float, ...]] | None = None
        self.running: Step | None = None

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Runs the steps; a value is forgotten after its last use."""
        values: dict[int, Any] = dict(zip(self.inputs, tensors, strict=True))
        for value, name in self.names.items():
            path, _, leaf = name.rpartition(".")
            values[value] = getattr(self.state.get_submodule(path), leaf)
        state = torch._C._get_tracing_state()
        checked, placed = self.checked and state is None, state if self.placed else None
        for step, forgotten in zip(self.steps, self.forgotten, strict=True):
            self.running = step
            args, kwargs = replaced(
                (step.args, step.kwargs), lambda leaf: values[leaf.value] if isinstance(leaf, Ref) else leaf
            )
            if placed is not None:
                placed.push_scope(step.place)
            made = _compared(step, args, kwargs) if checked else results(step, args, kwargs)
            if placed is not None:
                placed.pop_scope()
            if checked and self.largest is not None:
                self.largest.append(tuple(map(largest_of, made)))
            values.update(zip(step.outputs, made, strict=True))
            for value in forgotten:
                values.pop(value, None)
        self.running = None
        return tuple(values[value] for value in self.outputs)


def results(step: Step, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Sequence[Any]:
    """What a step makes, one entry for each of its outputs."""
    result = step.function(*args, **kwargs)
    return result if isinstance(result, (list, tuple)) else (result,)


def distance(one: torch.Tensor, other: torch.Tensor, *, nan_equal: bool = False) -> float:
    """max|one - other| in float64; places where both hold the same infinity (or NaN, where asked) count as equal."""
    if not one.numel():
        return 0.0
    if one.is_complex():
        one, other = torch.view_as_real(one.resolve_conj()), torch.view_as_real(other.resolve_conj())
    one, other = one.double(), other.double()
    same = one == other
    if nan_equal:
        same |= one.isnan() & other.isnan()
    return float(torch.where(same, torch.zeros_like(one), (one - other).abs()).max())


def largest_of(tensor: Tensor) -> float:
    """max|tensor| over what is finite; 0 of nothing."""
    tensor = tensor.detach()
    if tensor.numel() and tensor.dtype in (torch.float32, torch.float64):
        ends = [abs(float(end)) for end in tensor.aminmax()]  # ten times as fast as choosing what is finite
        if all(map(math.isfinite, ends)):
            return max(ends)
    finite = tensor[tensor.isfinite()] if tensor.is_floating_point() else tensor
    return float(finite.abs().max() if finite.dtype != torch.bool else finite.any()) if finite.numel() else 0.0


def _compared(step: Step, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Sequence[Any]:
    at = f" ({step.where})" if step.where else ""
    try:
        made = results(step, args, kwargs)
        found = list(map(type_of, made))
    except Exception as error:
        raise ReplayError(f"{step.kind}{at} cannot run here: {first_line(error)}") from error
    if step.types and list(step.types) != found:
        raise ReplayError(
            f"{step.kind}{at} makes {', '.join(map(str, found))} here, the graph states "
            f"{', '.join(map(str, step.types))}"
        )
    return made


def first_line(error: BaseException) -> str:
    """What an exception says, short; torch appends traces and advice in more lines."""
    return f"{(str(error).strip() or type(error).__name__).splitlines()[0]:.300}"


@dataclass(frozen=True)
class Wiring:
    """Which tensor goes where. host: numbers of the model's inputs; device and outputs: (source, number) with the
    sources "input", "host" and "device". `single`: the model returns a tensor and no tuple."""

    host: tuple[int, ...]
    device: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    single: bool


class Joined(nn.Module):
    """The model again: its own inputs, through the host part and the device part, to its own outputs."""

    def __init__(self, host: nn.Module, device: nn.Module, wiring: Wiring) -> None:
        super().__init__()
        self.host, self.device, self.wiring = host, device, wiring
        self.training = False

    def forward(self, *inputs: Tensor) -> Any:
        """The model's tensors in, its outputs out: one tensor where `single`, else a tuple."""
        wiring, made = self.wiring, {"input": inputs}
        made["host"] = self.host(*(inputs[number] for number in wiring.host))
        made["device"] = self.device(*(made[source][number] for source, number in wiring.device))
        outputs = tuple(made[source][number] for source, number in wiring.outputs)
        return outputs[0] if wiring.single else outputs


def _hold(root: nn.Module, name: str, tensor: Tensor) -> None:
    *path, leaf = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.training = False
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(leaf, tensor)
    else:
        root.register_buffer(leaf, tensor)


def last_uses(parts: Sequence[Step], outputs: Collection[int]) -> list[tuple[int, ...]]:
    """For each step, the values that nothing reads after it; `outputs` never are among them."""
    last: dict[int, int] = {}
    for number, step in enumerate(parts):
        last.update(dict.fromkeys((*step.refs, *step.outputs), number))
    found: list[list[int]] = [[] for _ in parts]
    for value, number in last.items():
        if value not in outputs:
            found[number].append(value)
    return [tuple(values) for values in found]
