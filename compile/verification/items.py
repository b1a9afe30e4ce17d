"""Does every item of a batch get its own answer, whatever shares the batch with it?

Callers' items share a batch, and one that is not full is filled up. So a graph may serve a batch only when item i among
others equals item i alone. Two things are found for each output: the axis that counts the items (an LSTM's state has
it second), and that no neighbours move an item: other items, zeros, items 1,000 times larger, the item itself.

For each graph the original runs at most two batches more (the items one by one; half of them beside zeros), and so does
the artifact (one item filled up; half of them beside items 1,000 times larger). The original runs in float64 where it
can: there, what another batch size rounds differently is no finding. Where a smaller item may be filled up to its
bucket, one such item is tried besides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from compile.definition import GraphVariant, Inputs, ModelDefinition
from compile.errors import CompileError, one_line, users_code
from compile.ir.flat_module import flat_module
from compile.portable.replay import distance
from compile.verification.parity import (
    RELATIVE_FLOOR,
    OutputParity,
    Tensors,
    answer,
    answer_in_float64,
    as_float64,
    in_float64,
    require_as_many,
    run,
)
from compile.verification.tolerance import larger

# In float32, batch sizes differ by what another order of additions costs; compile.accept.lowering_tolerance's default.
FLOAT32_SHARE = 1e-5
LARGE = 1000
REMEDY = (
    "No artifact was written. compile.batch_sizes: [1] serves such a model, one item at a time; or let forward treat "
    "every item of the batch by itself."
)

Run = Callable[..., Tensors]


@dataclass
class OutputItems:
    """One output. axis: the one that counts the items; None where the whole output goes to every caller.

    change: how far the worst neighbours moved an item, of at most `bound`. padding: how far what fills a smaller item
    up to its bucket moved it; None where none was tried. problem: why it cannot be served so.
    """

    name: str
    axis: int | None = None
    change: float = 0.0
    bound: float = 0.0
    padding: float | None = None
    problem: str | None = None

    def entry(self, value: torch.Tensor, item: int, rank: int) -> torch.Tensor:
        """What `item` gets of this output in a batch; the whole value of an item alone whose batch axis was squeezed.

        rank: of the output in a full batch.
        """
        return value if self.axis is None or value.dim() < rank else value.select(self.axis, item)

    def require_shape(self, whole: torch.Tensor, found: torch.Tensor, neighbours: str) -> None:
        """A problem where the output's shape is another with items `neighbours`."""
        if self.problem is None and found.shape != whole.shape:
            shapes = f"{list(whole.shape)}, and {list(found.shape)} with an item {neighbours}"
            self.problem = f"is {shapes}: its shape follows the data"

    def add(self, alone: torch.Tensor, beside: torch.Tensor, neighbours: str) -> None:
        """Accounts for one item that ran beside `neighbours`, unless there is a problem already."""
        if self.problem is not None:
            return
        change = distance(beside, alone, nan_equal=True)
        if not change <= self.bound:
            self.problem = (
                f"an item {neighbours} differs by {change:.3e} from the same item alone (bound {self.bound:.3e}): "
                "the model mixes the items of a batch"
            )
        self.change = larger(self.change, change)


@dataclass
class Items:
    """How the items of a graph's batch get their answers."""

    outputs: list[OutputItems]
    notes: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Why no batch can be served, each with the output's name."""
        return [f"output {output.name} {output.problem}" for output in self.outputs if output.problem]

    def to_json(self) -> dict[str, Any]:
        """By output: axis, change, bound and padding."""
        return {
            one.name: {"axis": one.axis, "change": one.change, "bound": one.bound, "padding": one.padding}
            for one in self.outputs
        }


def try_original(
    flat: nn.Module, references: Sequence[Inputs], names: Sequence[str], first: Tensors, shared: Sequence[str] = ()
) -> tuple[Items, Tensors | None]:
    """Finds each output's item axis, and tries the items of the first reference alone and beside zeros.

    flat: the model, from positional tensors to the flat tuple of `names`. first: what it answered to the first
    reference. shared: outputs that belong to no item and are the same for all. Outputs that fail have a `problem`.
    Returns the answer in float64 to the first reference too, where it was needed. Raises CompileError where the number
    of outputs is another for another batch, and for a name in `shared` that is none.
    """
    items, reference = Items([OutputItems(name) for name in names]), references[0]
    unknown = sorted(set(shared) - set(names))
    if unknown:
        known = f"The model's outputs are {', '.join(names)}."
        raise CompileError(f"shared_outputs names {', '.join(unknown)}, which the model does not return.", known)
    batch = batch_of(reference)
    if batch == 1:
        _axes_of_one(flat, references, first, items, shared)
        return items, None
    original, together, share = _in_best_precision(flat, reference, first, items)
    alone = _alone(original, reference, items)
    for output, whole, *others in zip(items.outputs, together, *alone, strict=True):
        output.bound = share * _maximum(whole)
        _find_axis(output, whole, others, batch, shared)
        for item, other in enumerate(() if output.problem else others):
            output.add(output.entry(other, 0, whole.dim()), output.entry(whole, item, whole.dim()), "among other items")
    kept = range(0, batch, 2)
    try:
        found = run(original, beside_zeros(reference, kept))
    except Exception as error:  # whatever a model raises that does not take these values
        items.notes.append(f"the model fails for items of zeros, so none was tried beside them ({one_line(error)})")
    else:
        require_as_many(found, names, "items of zeros")
        _compare_kept(found, together, kept, items, "beside items of zeros")
    return items, None if original is flat else together


def try_artifact(artifact: Run, reference: Inputs, together: Tensors, items: Items, bounds: Sequence[float]) -> None:
    """Tries the graph that serves: one item that fills its batch up, and items beside some 1,000 times larger.

    together: what the graph answered to `reference`. bounds: of each output, as parity or the device has them. Adds to
    `items`. Raises CompileError where the graph fails.
    """
    batch = batch_of(reference)
    if batch == 1:
        return
    for output, bound in zip(items.outputs, bounds, strict=True):
        output.bound = bound
    given = item_trials(reference)
    filled = answer(artifact, given[0], "one item that fills a batch up")
    for output, whole, full in zip(items.outputs, together, filled, strict=True):
        output.require_shape(whole, full, "that fills a batch up")
        for item in range(0 if output.problem else batch):
            alone = output.entry(whole, 0, whole.dim())
            output.add(alone, output.entry(full, item, whole.dim()), "that fills a batch up")
    beside = f"beside items {LARGE:,} times larger"
    _compare_kept(answer(artifact, given[1], f"items {beside}"), together, _kept(batch), items, beside)


def item_trials(reference: Inputs) -> list[list[torch.Tensor]]:
    """What `try_artifact` asks of a graph: one item that fills a batch up, and items beside larger ones; nothing for a
    batch of one."""
    batch = batch_of(reference)
    return [_filled_up(reference), beside_large(reference, _kept(batch))] if batch > 1 else []


def _kept(batch: int) -> range:
    """The items that stay as they are beside larger ones."""
    return range(1, batch, 2)


def remembering(artifact: Run) -> tuple[Run, list[torch.Tensor]]:
    """The artifact, and a list that takes what it answers to its first call: `try_artifact` compares with that."""
    first: list[torch.Tensor] = []

    def called(*tensors: torch.Tensor) -> Tensors:
        found = artifact(*tensors)
        first.extend(() if first else (leaf.clone() for leaf in found))
        return found

    return called, first


def require_own_answers(name: str, items: Items) -> None:
    """name: of the graph. Raises CompileError naming every output whose items are not their callers' own."""
    problems = [f"{name}: {problem}" for problem in items.problems]
    if problems:
        raise CompileError("A batch would not give every caller its own answer:\n  " + "\n  ".join(problems), REMEDY)


def batch_of(reference: Inputs) -> int:
    """The number of items of a reference, whose inputs all have the batch axis first."""
    return len(next(iter(reference.values())))


def beside_zeros(reference: Inputs, kept: Sequence[int]) -> list[torch.Tensor]:
    """The reference with zeros in place of all but the kept items."""
    return [_replaced(value, torch.zeros_like(value), kept) for value in reference.values()]


def beside_large(reference: Inputs, kept: Sequence[int]) -> list[torch.Tensor]:
    """The reference with all but the kept items 1,000 times larger.

    Whole numbers and booleans stay: they count or point, and 1,000 times as much would point to nothing.
    """
    values = reference.values()
    return [_replaced(value, value * LARGE if value.is_floating_point() else value, kept) for value in values]


def _replaced(value: torch.Tensor, other: torch.Tensor, kept: Sequence[int]) -> torch.Tensor:
    result = other.clone()
    result[list(kept)] = value[list(kept)]
    return result


def _filled_up(reference: Inputs) -> list[torch.Tensor]:
    """A batch of the reference's first item alone, as the handler fills it up."""
    return [value[:1].repeat_interleave(len(value), 0) for value in reference.values()]


def _in_best_precision(flat: nn.Module, reference: Inputs, first: Tensors, items: Items) -> tuple[Run, Tensors, float]:
    """The model in float64, or in float32 where it does not run so; its answer; the bound as a share of the maximum."""
    double = in_float64(flat)
    together = answer_in_float64(double, reference.values(), first)
    if not isinstance(together, str):
        return lambda *tensors: double(*as_float64(tensors)), together, RELATIVE_FLOOR
    items.notes.append(f"items were compared in float32, since the model does not run in float64 ({together})")
    return flat, first, FLOAT32_SHARE


def _alone(original: Run, reference: Inputs, items: Items) -> list[Tensors]:
    """Each item's own answer, from a batch of one; of a model that only runs at its batch size, the first item's, from
    a batch filled up with it."""
    batch, names = batch_of(reference), [output.name for output in items.outputs]
    try:
        alone = [run(original, [value[item : item + 1] for value in reference.values()]) for item in range(batch)]
    except Exception as error:  # whatever a model raises that does not run for other batch sizes
        items.notes.append(f"the model runs at batch size {batch} only ({one_line(error)}): one item was tried alone")
        with users_code("forward on a batch of one item repeated"):
            alone = [run(original, _filled_up(reference))]
    for found in alone:
        require_as_many(found, names, "one item alone" if len(alone) > 1 else "a batch of one item repeated")
    return alone


def _find_axis(
    output: OutputItems, together: torch.Tensor, alone: Sequence[torch.Tensor], batch: int, shared: Sequence[str]
) -> None:
    """The axis along which a batch has one entry an item: as many as items together, one (or none) alone."""
    whole, single = list(together.shape), list(alone[0].shape)
    other = next((list(found.shape) for found in alone if list(found.shape) != single), None)
    if other is not None:
        output.problem = f"is {single} for one item and {other} for another: its shape follows the data"
        return
    if output.name in shared:
        if whole != single:
            output.problem = f"is in shared_outputs, but its shape follows the batch: {single} alone, {whole} together"
        return
    axes = []
    for axis, size in enumerate(whole):
        before, after = whole[:axis], whole[axis + 1 :]
        own = [whole] if len(alone) == 1 else [[*before, 1, *after], [*before, *after]]  # one alone ran filled up
        if size == batch and single in own:
            axes.append(axis)
    if axes:  # of several, the one along which the first item is found again

        def misses(axis: int) -> bool:
            found = OutputItems(output.name, axis)
            pair = (found.entry(value, 0, together.dim()) for value in (together, alone[0]))
            return not distance(*pair, nan_equal=True) <= output.bound

        output.axis = min(axes, key=misses)
    elif whole == single:
        output.problem = (
            f"{whole} has no axis that counts the items. If it is the same for every input, name it in "
            f'GraphDefinition(shared_outputs=("{output.name}",)): every caller gets it whole'
        )
    else:
        output.problem = (
            f"is {single} for one item and {whole} for {batch}: no axis has one entry an item. "
            "Give it an axis of the batch size (by a reshape, or as several outputs)"
        )


def _axes_of_one(
    flat: nn.Module, references: Sequence[Inputs], first: Tensors, items: Items, shared: Sequence[str]
) -> None:
    """A batch of one has no neighbours; which axis is the batch's shows in a batch of two, or it is the first of 1."""
    pairs = zip(references[0].values(), references[1].values(), strict=True)
    try:
        together = run(flat, [torch.cat(pair) for pair in pairs])
        shapes = [list(found.shape) for found in together]
    except Exception as error:  # whatever a model raises that does not run for other batch sizes
        items.notes.append(
            f"the model runs at batch size 1 only ({one_line(error)}): an output's first axis of size 1 is the batch's"
        )
        shapes = [
            list(one.shape) if output.name in shared else _of_two(list(one.shape))
            for output, one in zip(items.outputs, first, strict=True)
        ]
    if len(shapes) != len(first):
        items.notes.append("the model returns as many tensors as a batch has items: their first axis is the batch's")
        shapes = [[2, *one.shape[1:]] for one in first]
    for output, one, two in zip(items.outputs, first, shapes, strict=True):
        axes = [axis for axis, size in enumerate(one.shape) if size == 1]
        output.axis = next((axis for axis in axes if [*one.shape[:axis], 2, *one.shape[axis + 1 :]] == two), None)


def _of_two(shape: list[int]) -> list[int]:
    axis = shape.index(1) if 1 in shape else 0
    return [*shape[:axis], 2, *shape[axis + 1 :]]


def _compare_kept(answers: Tensors, together: Tensors, kept: Sequence[int], items: Items, neighbours: str) -> None:
    """Compares the kept items with what they were among the reference's own."""
    for output, whole, found in zip(items.outputs, together, answers, strict=True):
        output.require_shape(whole, found, neighbours)
        for item in () if output.problem else kept:
            rank = whole.dim()
            output.add(output.entry(whole, item, rank), output.entry(found, item, rank), neighbours)


def _maximum(value: torch.Tensor) -> float:
    """max|value| over what is finite."""
    finite = value[torch.isfinite(value)] if value.is_floating_point() else value
    return float(finite.double().abs().max()) if finite.numel() else 0.0


def try_padding(artifact: Run, definition: ModelDefinition, variant: GraphVariant, items: Items) -> None:
    """Measures how far an item of half the bucket's sizes, filled up as a server does, is from the same item alone.

    definition: says what fills up which inputs of the variant; without any, nothing is tried. Adds to `items`;
    `padding_problems` judges. Raises CompileError where the graph fails.
    """
    graph, padding = definition.graphs[variant.role], definition.padding(variant.role)
    if not padding:
        return
    bucket = {axis: _halved(size) for axis, size in variant.bucket.items()}
    try:
        small = graph.reference_inputs(bucket, 1)[0]
        alone = run(flat_module(graph.module, small), small.values())
    except Exception as error:  # whatever a model, or its definition, raises that does not take such a size
        items.notes.append(
            f"no item smaller than its bucket was tried: {dict(bucket)} does not run ({one_line(error)})"
        )
        return
    given = graph.example_inputs(variant.bucket, variant.batch)
    if any(value.shape[1:] != given[name].shape[1:] for name, value in small.items() if name not in padding):
        items.notes.append("no item smaller than its bucket was tried: an input without padding is smaller, too")
        return
    filled = [_enlarged(value, given[name].shape, padding.get(name, 0)) for name, value in small.items()]
    padded = answer(artifact, filled, f"an item of {dict(bucket)} that is filled up")
    items.notes.append(f"an item of {dict(bucket)} was tried, filled up to {dict(variant.bucket)}")
    for output, own, found in zip(items.outputs, alone, padded, strict=True):
        expected, part = (output.entry(value, 0, found.dim()) for value in (own, found))
        output.padding = distance(part[tuple(slice(size) for size in expected.shape)], expected, nan_equal=True)


def padding_problems(items: Items, parity: Sequence[OutputParity], allowed: float | None) -> list[str]:
    """The outputs that what fills an item up moves too far: beyond parity's bound, and `allowed` of their maximum."""
    problems = []
    for output, own in zip(items.outputs, parity, strict=True):
        most = max(own.bound, (allowed or 0.0) * own.maximum)
        if output.padding is not None and not output.padding <= most:
            problems.append(
                f"output {output.name} of an item that is filled up to its bucket differs by {output.padding:.3e} "
                f"from the same item alone (bound {most:.3e}): what fills it up is not masked. "
                "compile.accept.padding allows a share of the maximum"
            )
    return problems


def _halved(size: int | Sequence[int]) -> int | list[int]:
    return max(1, size // 2) if isinstance(size, int) else [max(1, side // 2) for side in size]


def _enlarged(value: torch.Tensor, shape: Sequence[int], fill: float) -> torch.Tensor:
    """One item, filled up at the end of its axes, as often as the batch of `shape` has items."""
    whole = torch.full((1, *shape[1:]), fill, dtype=value.dtype)
    whole[tuple(slice(size) for size in value.shape)] = value
    return whole.repeat_interleave(shape[0], 0)
