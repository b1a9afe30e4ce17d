"""Is the artifact the same function as the original model?

Rule: on at least 5 inputs, max|artifact - eager| <= max(2 x max|eager - eager in float64|, 1e-6 x max|eager|), for
each output on its own. An original in float32 is itself wrong by its distance from float64; twice that is what another
order of the same additions may cost. Where the original is not at hand, a replay takes its place and the artifact is
compared with recorded answers; they may be as far off as what is compared with them, so the bound is twice that.
Integer and boolean outputs must be equal. Infinities must be in the same places
with the same sign; they count neither for the maximum nor for the distance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from compile.definition import Inputs
from compile.errors import CompileError, one_line, users_code
from compile.lowering.module_copy import duplicate
from compile.portable.replay import GraphPart, distance, replaced
from compile.verification.tolerance import larger

RELATIVE_FLOOR = 1e-6
EAGER_FACTOR = 2.0
# Below this share of its maximum an output hardly depends on the input, and equality proves little.
FAINT = 1e-3
RECORDED = "proven against recorded outputs, not against an original"

Tensors = Sequence[torch.Tensor]
_FIXED_SHAPES = (
    "Return tensors whose sizes and dtypes follow neither the data nor an earlier call: torch.where with a mask in "
    "place of a selection, a fixed number of places or steps."
)


@dataclass
class OutputParity:
    """One output over all inputs. `eager_distance` is None when the model could not run in float64.

    recorded: compared with recorded answers, of which the original is not at hand.
    """

    name: str
    error: float = 0.0
    eager_distance: float | None = 0.0
    maximum: float = 0.0
    variation: float = 0.0
    exact: bool = False
    recorded: bool = False

    @property
    def bound(self) -> float:
        if self.exact:
            return 0.0
        own = max(EAGER_FACTOR * (self.eager_distance or 0.0), RELATIVE_FLOOR * self.maximum)
        return 2 * own if self.recorded else own

    @property
    def passed(self) -> bool:
        return self.error <= self.bound < math.inf  # a NaN error is not; an infinite bound would allow anything

    @property
    def share(self) -> float:
        """The error as a share of its bound."""
        if math.isnan(self.error):
            return math.inf
        if self.bound:
            return self.error / self.bound
        return math.inf if self.error else 0.0

    @property
    def relative(self) -> float:
        """The error as a share of the maximum."""
        return self.error / self.maximum if self.maximum else self.error

    def add(self, expected: torch.Tensor, found: torch.Tensor, first: torch.Tensor) -> None:
        """Accounts for one more input. first: what the original returned for the first one.

        Raises CompileError when the artifact's output has another shape or dtype, or the shape follows the data.
        """
        if expected.shape != first.shape:
            raise CompileError(
                f"Output {self.name} is {tuple(first.shape)} for one input and {tuple(expected.shape)} for another.",
                _FIXED_SHAPES,
            )
        if found.shape != expected.shape or found.dtype != expected.dtype:
            raise CompileError(
                f"Output {self.name} of the artifact is {tuple(found.shape)} {found.dtype}, "
                f"of the original {tuple(expected.shape)} {expected.dtype}.",
                _FIXED_SHAPES,
            )
        self.exact = not expected.is_floating_point()
        self.error = larger(self.error, distance(found, expected))
        # An infinity is right or wrong, but it is no measure: the bound follows from the finite values.
        finite = ~torch.isinf(expected)
        values = expected[finite]
        self.maximum = larger(self.maximum, float(values.double().abs().max()) if values.numel() else 0.0)
        both = finite & ~torch.isinf(first)
        self.variation = larger(self.variation, distance(expected[both], first[both]))

    def add_exact(self, expected: torch.Tensor, exact: torch.Tensor | None) -> None:
        """The original's own distance from float64, over the finite values; None where it does not run in float64."""
        if exact is None:
            self.eager_distance = None
        elif self.eager_distance is not None:
            finite = ~torch.isinf(expected)
            self.eager_distance = larger(self.eager_distance, distance(expected[finite], exact[finite]))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "bound": self.bound}


@dataclass
class Parity:
    """Parity of one graph at one bucket and batch size. causes: what is known of why it failed."""

    inputs: int
    outputs: list[OutputParity]
    notes: list[str] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return all(output.passed for output in self.outputs)

    @property
    def bounds(self) -> list[float]:
        """Of each output."""
        return [output.bound for output in self.outputs]

    @property
    def worst(self) -> OutputParity:
        """The output nearest to its bound, or furthest beyond it."""
        return max(self.outputs, key=lambda output: output.share)


def in_float64(module: nn.Module) -> nn.Module:
    """A copy of a module in float64. A replay's own casts to float32 are to float64 in it, and it checks no dtype."""
    double = duplicate(module).double()
    for part in double.modules():
        if isinstance(part, GraphPart):
            part.checked = False
            part.steps = [
                replace(step, args=replaced(step.args, _wider), kwargs=replaced(step.kwargs, _wider))
                for step in part.steps
            ]
    return double


def _wider(argument: Any) -> Any:
    return torch.float64 if argument is torch.float32 else argument


def compare(  # noqa: PLR0913  (what is known already need not be computed again)
    eager: nn.Module,
    artifact: Callable[..., Tensors],
    references: Sequence[Inputs],
    names: Sequence[str],
    *,
    seen: Tensors | None = None,
    exact: Tensors | None = None,
    doubles: int | None = None,
    recorded: Sequence[Tensors] | None = None,
    answers: list[Tensors] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Parity:
    """Runs the flat eager module (float32 and float64) and the artifact on every reference input.

    eager and artifact take positional tensors and return a flat tuple, named by `names`. `seen`: what eager returned
    for the first input before; without it, eager runs twice on that input. `exact`: the same in float64, where it is
    known. `recorded`: answers to compare the artifact with in place of eager's, which then is a replay. `answers` takes
    what the artifact is compared with for each input. `doubles`: float64 on so many of the inputs (by default on
    all); fewer can only make the bound smaller. `advance` is called once an input.
    Raises CompileError when the artifact answers with other shapes or dtypes, the model is random, or it fails.
    """
    outputs = [OutputParity(name, recorded=recorded is not None) for name in names]
    parity = Parity(inputs=len(references), outputs=outputs, notes=[] if recorded is None else [RECORDED])
    double = in_float64(eager)
    first: list[torch.Tensor] = []
    for number, reference in enumerate(references):
        tensors = tuple(reference.values())
        with users_code(f"forward on reference input {number}"):
            own = run(eager, tensors)
        require_as_many(own, names, f"reference input {number}")
        expected = own if recorded is None else recorded[number]
        if answers is not None:
            answers.append([leaf.clone() for leaf in expected])
        if not first:
            first = list(expected)
            _require_repeatable(own, run(eager, tensors) if seen is None else seen, names)
        if doubles is None or number < doubles:
            known = exact if number == 0 else None
            exacts = _exact(double, tensors, own, parity) if known is None else known
            for output, one, other in zip(parity.outputs, own, exacts, strict=True):
                output.add_exact(one, other)
        found = answer(artifact, tensors, f"reference input {number}")
        for output, *values in zip(parity.outputs, expected, found, first, strict=True):
            output.add(*values)
        advance()
    parity.notes += [
        f"output {output.name} hardly depends on the input (it varies by {output.variation:.1e} of its maximum "
        f"{output.maximum:.3g}), so its parity proves little"
        for output in parity.outputs
        if output.variation <= FAINT * output.maximum
    ]
    return parity


def _require_repeatable(once: Tensors, again: Tensors, names: Sequence[str]) -> None:
    """A model that is random at inference is as far from its own float64 as from anything: nothing could be proven."""
    for name, one, other in zip(names, once, again, strict=True):
        values = one[~torch.isinf(one)]
        maximum = float(values.double().abs().max()) if values.numel() else 0.0
        apart = distance(one, other) if one.shape == other.shape else math.inf
        if apart > RELATIVE_FLOOR * maximum:
            raise CompileError(
                f"The model answers the same input twice with another {name} (they differ by {apart:.3e}).",
                "Take what is random at inference (dropout, sampling, noise), and what an earlier call left, out of "
                "forward.",
            )


def require_as_many(found: Tensors, names: Sequence[str], what: str) -> None:
    """Raises CompileError where the number of tensors that a model returns is not always the same."""
    if len(found) != len(names):
        raise CompileError(
            f"The model returns {len(names)} tensors ({', '.join(names)}), and {len(found)} for {what}.",
            "Return the same tensors for every batch: stack what belongs to single items along the batch's axis.",
        )


def answer_in_float64(double: nn.Module, tensors: Iterable[torch.Tensor], expected: Tensors) -> Tensors | str:
    """What the model answers in float64, or why that is no measure.

    expected: what it answers in float32. It may also run and answer NaN where it does not in float32: a mask of float32
    times float64's smallest number.
    """
    try:
        exact = run(double, as_float64(tensors))
    except Exception as error:  # whatever a model raises that casts to float32 itself
        return one_line(error)
    if [one.shape for one in exact] != [own.shape for own in expected]:
        return "it answers with another shape"
    if any(bool((one.isnan() & ~own.isnan()).any()) for one, own in zip(exact, expected, strict=True)):
        return "it answers NaN"
    return exact


def _exact(double: nn.Module, tensors: Tensors, expected: Tensors, parity: Parity) -> Iterable[torch.Tensor | None]:
    """The outputs in float64, or None for each when the model cannot run in float64 (with a note)."""
    exact = answer_in_float64(double, tensors, expected)
    if not isinstance(exact, str):
        return exact
    note = f"the model does not run in float64 ({exact}): the bound is 1e-6 of the maximum"
    if note not in parity.notes:
        parity.notes.append(note)
    return [None] * len(parity.outputs)


def answer(artifact: Callable[..., Tensors], tensors: Iterable[torch.Tensor], what: str) -> Tensors:
    """What an artifact returns. Raises CompileError where it fails; what: the input, for the message."""
    try:
        return run(artifact, tensors)
    except (RuntimeError, IndexError) as error:
        raise CompileError(
            f"The traced graph fails on {what}: {one_line(error)}.",
            "Sizes or indices in it follow the data of the example (a boolean mask as an index, nonzero, a loop until "
            "nothing is left): use torch.where with the mask, or a fixed number of places or steps.",
        ) from error


def run(module: Callable[..., Tensors], tensors: Iterable[torch.Tensor]) -> Tensors:
    """The outputs of a flat module. It gets copies: a model may write into its inputs, or return them."""
    with torch.no_grad():
        return module(*(tensor.clone() for tensor in tensors))


def as_float64(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The inputs of a model in float64."""
    return [tensor.double() if tensor.is_floating_point() else tensor for tensor in tensors]
