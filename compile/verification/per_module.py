"""`verify --per-module`: block by block, is the lowered copy the same function, and what does it cost here?

Two looks at each block. Alone: the block is lowered by itself and gets what the original's block got, so its error is
its own. In place: its output inside the whole lowered model against its output inside the original, so errors add up
on the way. A block diverges when its own error is beyond max(2 x the block's own distance from float64, tolerance x its
output's maximum), the rule of the build with the spec's lowering_tolerance.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compile.errors import CompileError, described
from compile.lowering import LoweringError
from compile.lowering.config import Rewriting
from compile.lowering.for_target import parted
from compile.lowering.operator_names import map_tensors, tensors
from compile.progress import Advance
from compile.verification.inputs import VerifiedVariant
from compile.verification.parity import OutputParity, compare, in_float64
from compile.verification.precision_emulation import Mode, emulated
from compile.verification.tolerance import larger

RUNS = 5
# A block that takes longer than this is timed once after it has warmed up.
LONG_SECONDS = 0.3


@dataclass
class Row:
    """One block. Errors are maxima over its outputs; None where the block could not be tried that way (`note`).

    error, relative: of the block alone. in_place, in_place_relative: inside the whole model. milliseconds: the
    original as it is, and the lowered block traced, on this machine. emulated: the relative error of the block alone
    under the precision that was asked for.
    """

    module: str
    kind: str
    error: float | None = None
    relative: float | None = None
    in_place: float | None = None
    in_place_relative: float | None = None
    original_ms: float | None = None
    lowered_ms: float | None = None
    emulated: float | None = None
    diverges: bool = False
    diverges_in_place: bool = False
    note: str = ""


@dataclass(frozen=True)
class PerModule:
    """The table of one graph, in the order in which blocks begin. `first` is the first that diverges, the innermost."""

    graph: str
    rows: tuple[Row, ...]
    first: str | None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "graph": self.graph,
            "first_divergence": self.first,
            "modules": [asdict(row) for row in self.rows],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Visit:
    """One call of a submodule in the original: what it was given, and when it began and ended among all calls."""

    path: str
    module: nn.Module
    arguments: Any
    given: tuple[Tensor, ...]
    began: int
    ended: int


def per_module(
    trial: VerifiedVariant,
    *,
    leaves: bool = False,
    mode: Mode | None = None,
    advance: Advance = lambda _percent: None,
) -> PerModule:
    """Tries every block of a graph on its first reference input.

    Blocks are the submodules that have submodules; with `leaves` all of them. Inside the first block that diverges
    the leaves are tried in any case. What a block leaves to the host keeps its precision under `mode`.
    `advance(n)` after each block: n percent more are done. Raises CompileError when the model cannot be lowered at all.
    """
    bench, flat = _Bench(trial.accept.lowering_tolerance, trial.target, trial.rewriting, mode), trial.module
    given = tuple(trial.references[0].values())
    with torch.no_grad():
        visits = _visits(flat, given)
        chosen = [visit for visit in visits if leaves or _is_block(visit)]
        rows = {}
        for number, visit in enumerate(chosen):
            rows[visit.began] = bench.alone(visit)
            advance(100 * (number + 1) // len(chosen) - 100 * number // len(chosen))
        notes = bench.in_place(flat, given, {visit.path: rows[visit.began] for visit in reversed(chosen)})
        first = _first(chosen, rows)
        if first is not None and not leaves and rows[first.began].diverges:
            inside = [v for v in visits if first.began <= v.began and v.ended <= first.ended]
            inner = [v for v in inside if not _is_block(v)]
            rows.update({visit.began: bench.alone(visit) for visit in inner})
            first = _first([*inner, *chosen], rows)
    ordered = tuple(rows[began] for began in sorted(rows))
    return PerModule(trial.name, ordered, rows[first.began].module if first else None, tuple(notes))


def _is_block(visit: Visit) -> bool:
    return next(visit.module.children(), None) is not None


def _first(visits: Sequence[Visit], rows: Mapping[int, Row]) -> Visit | None:
    """The first that ends with an error of its own; without one, the first whose output is wrong in place."""
    by_end = sorted(visits, key=lambda visit: visit.ended)
    own = (visit for visit in by_end if rows[visit.began].diverges)
    return next(own, next((visit for visit in by_end if rows[visit.began].diverges_in_place), None))


# --- what the original's blocks are given ---------------------------------------------------------------------------


def _visits(flat: nn.Module, inputs: tuple[Tensor, ...]) -> list[Visit]:
    """Every call of a submodule, in the order in which they begin."""
    found: list[Visit] = []
    clock = itertools.count()

    def record(name: str, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        began, given = next(clock), []

        def hold(tensor: Tensor) -> Tensor:
            given.append(tensor.detach().clone())
            return _PLACE

        arguments = map_tensors((args, kwargs), hold)
        result = forward(*args, **kwargs)
        found.append(Visit(name, module, arguments, tuple(given), began, next(clock)))
        return result

    with _calls(flat, record):
        flat(*inputs)
    return sorted(found, key=lambda visit: visit.began)


_PLACE = torch.empty(0)  # stands for a tensor among a block's arguments


@contextmanager
def _calls(flat: nn.Module, record: Callable[..., Any]) -> Iterator[None]:
    """Every submodule's forward goes through `record(name, module, forward, ...)`: hooks see no keywords in 1.13.

    A call's name is the module's path; a second call of one module has `#2` behind it.
    """
    changed, times = [], Counter[str]()

    def called(path: str, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        times[path] += 1
        name = path if times[path] == 1 else f"{path}#{times[path]}"
        return record(name, module, forward, *args, **kwargs)

    try:
        for path, module in flat.named_modules():
            if path and not isinstance(module, torch.jit.ScriptModule) and "forward" not in vars(module):
                wrapped = functools.wraps(module.forward)(functools.partial(called, path, module, module.forward))
                vars(module)["forward"] = wrapped
                changed.append(module)
        yield
    finally:
        for module in changed:
            del vars(module)["forward"]


class Block(nn.Module):
    """A submodule with the arguments of one call, as a function of that call's tensors; returns a flat tuple."""

    def __init__(self, part: nn.Module, arguments: Any) -> None:
        super().__init__()
        self.part = part
        self.arguments = arguments
        self.training = False

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The call's tensors in their order."""
        left = iter(given)
        args, kwargs = map_tensors(self.arguments, lambda _: next(left))
        return tuple(tensors(self.part(*args, **kwargs)))


# --- the two looks --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Bench:
    tolerance: float
    target: str
    rewriting: Rewriting
    mode: Mode | None

    def alone(self, visit: Visit) -> Row:
        """The block lowered by itself, on what the original's block got."""
        # The user's model is the flat module's `model`.
        path = visit.path.partition(".")[2] if "." in visit.path else f"(whole model){visit.path[len('model') :]}"
        row = Row(path, type(visit.module).__name__)
        block = Block(visit.module, visit.arguments)
        given = {f"given{place}": tensor for place, tensor in enumerate(visit.given)}
        try:
            outputs = block(*_copies(visit.given))
            if not outputs or not given:
                row.note = "no tensor goes in" if outputs else "no tensor comes out"
                return row
            lowered = self.rewriting.lower(block, visit.given).module
            names = [f"output {place}" for place in range(len(outputs))]
            found = compare(_Apart(block), _Apart(lowered), [given], names)
            traced = torch.jit.trace(lowered, visit.given, check_trace=False)  # type: ignore[no-untyped-call]
            row.original_ms, row.lowered_ms = _milliseconds(block, visit.given), _milliseconds(traced, visit.given)
            if self.mode is not None:
                parts = parted(lowered, visit.given, self.target, self.rewriting)
                rounded = emulated(parts, _copies(visit.given), self.mode)
                row.emulated = larger(*(_parity(*pair).relative for pair in zip(outputs, rounded, strict=True)))
        except CompileError as error:  # another shape or dtype, or random
            row.note, row.diverges = error.problem, True
            return row
        except (LoweringError, RuntimeError, TypeError) as error:
            row.note = f"cannot be tried alone: {described(error)}"
            return row
        row.error, row.relative, row.diverges = self._judged(found.outputs)
        return row

    def in_place(self, flat: nn.Module, inputs: tuple[Tensor, ...], rows: Mapping[str, Row]) -> list[str]:
        """Fills in the errors inside the whole model; returns notes."""
        tapped = Tapped(flat, rows)
        expected = tapped.outputs_of(tapped, inputs)
        lowered: Any = self.rewriting.lower(tapped, inputs).module
        found = tapped.outputs_of(lowered, inputs)
        notes, exact = [], {}
        try:
            double = in_float64(tapped)
            exact = tapped.outputs_of(double, tuple(t.double() if t.is_floating_point() else t for t in inputs))
        except Exception as error:  # whatever a model raises that casts to float32 itself
            notes.append(f"the model does not run in float64 ({described(error)}): in place the tolerance alone counts")
        for path, row in rows.items():
            parities = []
            for key, value in expected.items():
                other = found.get(key)
                if key[0] == path and other is not None and (other.shape, other.dtype) == (value.shape, value.dtype):
                    parities.append(_parity(value, other, exact.get(key)))
                elif key[0] == path:
                    row.note = row.note or "no tensor of this shape in the lowered model"
                    row.diverges_in_place = True
            if parities:
                row.in_place, row.in_place_relative, beyond = self._judged(parities)
                row.diverges_in_place = row.diverges_in_place or beyond
        return notes

    def _judged(self, outputs: Sequence[OutputParity]) -> tuple[float, float, bool]:
        """Largest error, largest relative error, and whether an output is beyond its bound."""
        error, relative = larger(*(out.error for out in outputs)), larger(*(out.relative for out in outputs))
        bounds = [0.0 if out.exact else max(out.bound, self.tolerance * out.maximum) for out in outputs]
        return error, relative, not all(out.error <= bound for out, bound in zip(outputs, bounds, strict=True))


class Tapped(nn.Module):
    """A module that returns, after its own outputs, what the named calls of submodules returned on the way.

    `keys` of the last run: (name, number) of each tap.
    """

    def __init__(self, flat: nn.Module, names: Collection[str]) -> None:
        super().__init__()
        self.flat = flat
        self.names = frozenset(names)
        self.keys: list[tuple[str, int]] = []
        self.training = False

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """As the module itself, and the taps."""
        taps: list[Tensor] = []
        self.keys = []

        def tap(name: str, _module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            for number, tensor in enumerate(tensors(output) if name in self.names else ()):
                taps.append(tensor.clone())  # a later block may write into it
                self.keys.append((name, number))
            return output

        with _calls(self.flat, tap):
            outputs = self.flat(*inputs)
        return (*outputs, *taps)

    @staticmethod
    def outputs_of(module: Any, inputs: tuple[Tensor, ...]) -> dict[tuple[str, int], Tensor]:
        """Runs a tapped module, or its lowered copy; the taps by key."""
        results = module(*_copies(inputs))
        keys: list[tuple[str, int]] = module.keys if isinstance(module, Tapped) else module.inner.keys
        return dict(zip(keys, results[len(results) - len(keys) :], strict=True))


class _Apart(nn.Module):
    """Runs a module on copies, since a block may write into what it is given."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        result: tuple[Tensor, ...] = self.module(*_copies(given))
        return result


def _parity(expected: Tensor, found: Tensor, exact: Tensor | None = None) -> OutputParity:
    """Of one pair of tensors of one shape."""
    parity = OutputParity("")
    parity.add(expected, found, expected)
    parity.add_exact(expected, exact if exact is not None and exact.shape == expected.shape else None)
    return parity


def _copies(given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.clone() for tensor in given)


def _milliseconds(module: Any, given: tuple[Tensor, ...]) -> float:
    """Median of a few runs, after two in which TorchScript specialises its code."""
    warming = [_seconds(module, given) for _ in range(2)]
    runs = 1 if warming[-1] > LONG_SECONDS else RUNS
    return 1e3 * statistics.median(_seconds(module, given) for _ in range(runs))


def _seconds(module: Any, given: tuple[Tensor, ...]) -> float:
    copies = _copies(given)
    started = time.perf_counter()
    module(*copies)
    return time.perf_counter() - started
