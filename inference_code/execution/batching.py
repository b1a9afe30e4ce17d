"""One batch of a compiled graph: which graphs an item fits, padding items to a full batch, splitting its outputs.

When which items share a batch is a Scheduler's to decide: direct_scheduler.py within one request, for the stock
container's worker; scheduler.py across requests, for the native server.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from inference_code.artifact.manifest import PackagedVariant, TensorDescription, restore
from inference_code.errors import BadRequest, EndpointError, as_endpoint_error
from inference_code.request import Array, Item

# What the device does: a graph and its inputs (batch axis, compiled batch size) to its outputs.
Run = Callable[[PackagedVariant, "list[Array]"], "list[Array]"]
# A model's restored outputs for one item: arrays without batch axis, in the dicts, lists and tuples of the model.
Outputs = Array | Mapping[str, "Outputs"] | Sequence["Outputs"]
ItemResult = Outputs | EndpointError


class Scheduler(Protocol):
    """Decides when items go to the device and with which others."""

    def run(self, items: Sequence[Item]) -> list[ItemResult]:
        """One result for each item, in their order; an EndpointError for one that failed."""


def fitting(item: Item, graphs: Sequence[PackagedVariant]) -> list[PackagedVariant]:
    """The graphs of the smallest bucket that the item's arrays fit, smallest batch first. Raises BadRequest."""
    of_role = [graph for graph in graphs if graph.role == item.role]
    shapes = {name: np.shape(array) for name, array in item.inputs.items()}
    fits = [graph for graph in of_role if _fits(shapes, graph, item.padding)]
    if not fits:
        found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or "no inputs"
        wanted = sorted({", ".join(f"{t.name} {list(t.shape[1:])}" for t in graph.inputs) for graph in of_role})
        most = "at most " if item.padding else ""
        raise BadRequest(f"the item has {found}; graph {item.role} takes {most}{' or '.join(wanted) or 'nothing'}")
    smallest = min(fits, key=_elements)
    bucket = [tensor.shape[1:] for tensor in smallest.inputs]
    same = [graph for graph in fits if [tensor.shape[1:] for tensor in graph.inputs] == bucket]
    return sorted(same, key=lambda graph: graph.batch_size)


def _fits(shapes: Mapping[str, tuple[int, ...]], graph: PackagedVariant, padding: Mapping[str, float]) -> bool:
    wanted = {tensor.name: tensor.shape[1:] for tensor in graph.inputs}
    if not padding or shapes.keys() != wanted.keys():
        return shapes == wanted
    return all(
        shape == wanted[name]
        or (
            name in padding
            and len(shape) == len(wanted[name])
            and all(size <= most for size, most in zip(shape, wanted[name], strict=True))
        )
        for name, shape in shapes.items()
    )


def _elements(graph: PackagedVariant) -> int:
    """Of one item's inputs."""
    return sum(math.prod(tensor.shape[1:]) for tensor in graph.inputs)


def label(graph: PackagedVariant) -> str:
    """A graph's bucket in a word, for logs and metrics: `image=28x28`, with the role in front unless it is main."""
    sizes = (f"{k}={'x'.join(map(str, v)) if isinstance(v, (list, tuple)) else v}" for k, v in graph.bucket.items())
    return ",".join(([] if graph.role == "main" else [graph.role]) + list(sizes)) or graph.role


def run_batch(graph: PackagedVariant, items: Sequence[Item], run: Run) -> list[Array]:
    """Pad the items to the bucket, put them together, pad to the compiled batch, run. Returns the graph's outputs.

    The batch is filled up with its last item: zeros can be far from anything that the model has seen. Raises what `run`
    raises, and BadRequest for an array whose kind is not the input's.
    """
    padding = graph.batch_size - len(items)
    arrays = []
    for tensor in graph.inputs:
        rows = [_padded(cast(item.inputs[tensor.name], tensor), tensor, item) for item in items]
        arrays.append(np.stack(rows + rows[-1:] * padding))
    return run(graph, arrays)


@dataclass(frozen=True)
class BatchRecord:
    """One call of the device, for metrics: `waited` has the seconds in the queue of each of its items.

    padding: the share of the elements of its inputs, 0 to 1, that no caller sent.
    """

    graph: PackagedVariant
    core: int
    waited: tuple[float, ...]
    seconds: float
    padding: float
    failed: bool = False


def padding_share(graph: PackagedVariant, items: Sequence[Item]) -> float:
    """The share, 0 to 1, of the elements of a batch's inputs that fill up the batch and the bucket."""
    held = sum(math.prod(tensor.shape) for tensor in graph.inputs)
    sent = sum(np.size(item.inputs[tensor.name]) for item in items for tensor in graph.inputs)
    return 1 - sent / held if held else 0.0


def split_outputs(graph: PackagedVariant, items: Sequence[Item], outputs: Sequence[Array]) -> list[ItemResult]:
    """Each item's result of its batch, restored. One whose `cut` does not fit the outputs fails alone."""
    results: list[ItemResult] = []
    for place, item in enumerate(items):
        try:
            leaves = [
                _cut(_entry(output, tensor.item_axis, place), item.cut.get(tensor.name))
                for output, tensor in zip(outputs, graph.outputs, strict=True)
            ]
            results.append(restore(graph.structure, [np.asarray(leaf) for leaf in leaves]))
        except Exception as error:
            results.append(as_endpoint_error(error))
    return results


def _entry(output: Array, axis: int | None, place: int) -> Array:
    """The part of an output that belongs to the item at `place`: all of one that has no axis for items."""
    return output if axis is None else output[(slice(None),) * axis + (place,)]


def _padded(array: Array, tensor: TensorDescription, item: Item) -> Array:
    """`array`, filled up at the end of its axes to the input's compiled shape."""
    if array.shape == tensor.shape[1:]:
        return array
    widths = [(0, most - size) for size, most in zip(array.shape, tensor.shape[1:], strict=True)]
    return np.pad(array, widths, constant_values=item.padding[tensor.name])


def _cut(output: Array, lengths: Mapping[int, int] | None) -> Array:
    """`output` with the axes in `lengths` cut to them."""
    if not lengths:
        return output
    return output[tuple(slice(lengths.get(axis)) for axis in range(np.ndim(output)))]


def checked(item: Item, graph: PackagedVariant) -> None:
    """Raise BadRequest for an array whose kind is not its input's: before the item shares a batch with others."""
    for tensor in graph.inputs:
        _check_kind(np.asarray(item.inputs[tensor.name]), tensor)


def cast(array: Array, tensor: TensorDescription) -> Array:
    """`array` in the input's dtype, from another precision of the same kind (float64 to float32). Raises BadRequest."""
    found = np.asarray(array)
    _check_kind(found, tensor)
    return found.astype(np.dtype(tensor.dtype), copy=False)


def _check_kind(array: Array, tensor: TensorDescription) -> None:
    if not np.can_cast(array.dtype, np.dtype(tensor.dtype), "same_kind"):
        raise BadRequest(f"input {tensor.name} is {array.dtype}; the model takes {np.dtype(tensor.dtype)}")
