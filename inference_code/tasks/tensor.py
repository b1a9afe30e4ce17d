"""Arrays in, arrays out: the task of a model that needs no other.

In: application/json, an object of input name to nested list, or a list of such objects for several items;
application/x-npy, the array of a model of one input, with one more axis for several items; application/x-npz, one
member for each input. Out: application/json {"outputs": ...} nested as the model returns it (a list of these for
several items); application/x-npy for one output; application/x-npz, one member for each output by its dotted name.
Arrays have no batch axis. Values that are not finite are refused, unless the setting allow_nonfinite is true.

Setting padding, an object of input name to number: these inputs may be smaller than the graph's; they are filled up
with the number, for the smallest bucket that holds them. Setting cut, an object of output name to input name: the
output's first axis is as long as that input's first axis, and comes back at the length that was sent. Setting defaults,
an object of input name to number: such an input may be left out, and is then filled with the number, as long as the
first input that was sent. Setting ranges, an object of input name to [smallest, largest] (largest may be a list, one
for each place of the last axis): values beyond are refused; a look-up table would fail at them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from inference_code.artifact.manifest import PackagedVariant, TensorDescription, flatten
from inference_code.codecs.json_text import JSON, read_array, read_json
from inference_code.codecs.negotiation import negotiate, require
from inference_code.codecs.npy import NPY, NPZ, read_npy, read_npz, write_npz
from inference_code.errors import BadRequest, EndpointError, LoadError, NotAcceptable
from inference_code.request import Answer, Array, Item, ModelInfo, Request
from inference_code.tasks import Task, register
from inference_code.tasks.items import items

READS = (JSON, NPY, NPZ)
_SETTINGS = ("allow_nonfinite", "cut", "defaults", "padding", "ranges")


def check(info: ModelInfo) -> None:
    """Raise LoadError for an unknown setting, or an artifact without a graph of the role main."""
    unknown = sorted(set(info.settings) - set(_SETTINGS))
    if unknown:
        raise LoadError(f"task tensor has no setting {', '.join(unknown)}; it has {', '.join(_SETTINGS)}")
    if not info.graphs_of():
        raise LoadError("task tensor needs a graph of the role main")
    inputs = {tensor.name for graph in info.graphs_of() for tensor in graph.inputs}
    outputs = {tensor.name for graph in info.graphs_of() for tensor in graph.outputs}
    padding, cut = info.settings.get("padding", {}), info.settings.get("cut", {})
    numbers = isinstance(padding, Mapping) and all(isinstance(value, (int, float)) for value in padding.values())
    if not numbers or not set(padding) <= inputs:
        raise LoadError(f"task tensor: setting padding is {padding!r}, it must be numbers by input ({_listed(inputs)})")
    if not isinstance(cut, Mapping) or not set(cut) <= outputs or any(one not in list(padding) for one in cut.values()):
        raise LoadError(
            f"task tensor: setting cut is {cut!r}, it must be padded inputs ({_listed(padding)}) "
            f"by output ({_listed(outputs)})"
        )
    defaults, ranges = info.settings.get("defaults", {}), info.settings.get("ranges", {})
    numbers = isinstance(defaults, Mapping) and all(isinstance(value, (int, float)) for value in defaults.values())
    if not numbers or not set(defaults) < inputs:
        raise LoadError(
            f"task tensor: setting defaults is {defaults!r}, it must be numbers by some of {_listed(inputs)}"
        )
    pairs = isinstance(ranges, Mapping) and all(isinstance(v, Sequence) and len(v) == 2 for v in ranges.values())
    if not pairs or not set(ranges) <= inputs:
        raise LoadError(
            f"task tensor: setting ranges is {ranges!r}, it must be [smallest, largest] by input ({_listed(inputs)})"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def preprocess(request: Request) -> Item | list[Item | EndpointError]:
    """One item, or a list of them; see the top of this file."""
    info = request.model
    assert info is not None  # noqa: S101  (the handler always fills it)
    kind = require(request.content_type, READS)
    graphs = info.graphs_of()
    offers = _offers(info)
    answer_kind = negotiate(request.accept, offers).content_type  # refused before the model has worked for nothing
    values, several = _READERS[kind](request, graphs)
    if several and answer_kind == NPZ:
        raise NotAcceptable(f"several items in one request cannot be answered as {NPZ}; ask for {JSON}")
    return items(values, request, _item) if several else _item(values[0], request)


def _from_json(request: Request, _: Sequence[PackagedVariant]) -> tuple[list[Any], bool]:
    value = read_json(request.body)
    return (value, True) if isinstance(value, list) else ([value], False)


def _from_npy(request: Request, graphs: Sequence[PackagedVariant]) -> tuple[list[Any], bool]:
    array = read_npy(request.view)
    inputs = graphs[0].inputs
    if len(inputs) > 1:
        names = ", ".join(tensor.name for tensor in inputs)
        raise BadRequest(f"the model has the inputs {names}; one npy array cannot carry them, send {JSON} or {NPZ}")
    rank = len(inputs[0].shape)  # with the batch axis
    values = list(array) if array.ndim == rank else [array]
    return [{inputs[0].name: value} for value in values], array.ndim == rank


def _from_npz(request: Request, _: Sequence[PackagedVariant]) -> tuple[list[Any], bool]:
    assert request.model is not None  # noqa: S101
    return [read_npz(request.view, request.model.limits.request_bytes)], False


_READERS: dict[str, Callable[[Request, Sequence[PackagedVariant]], tuple[list[Any], bool]]] = {
    JSON: _from_json,
    NPY: _from_npy,
    NPZ: _from_npz,
}


def _offers(info: ModelInfo) -> list[str]:
    return [JSON, NPY, NPZ] if len(info.graphs_of()[0].outputs) == 1 else [JSON, NPZ]


def _item(value: Any, request: Request) -> Item:
    assert request.model is not None  # noqa: S101
    graphs = request.model.graphs_of()
    names = [tensor.name for tensor in graphs[0].inputs]
    if not isinstance(value, Mapping):
        raise BadRequest(f"an item is an object with the inputs {', '.join(names)}, not {type(value).__name__}")
    defaults = request.model.settings.get("defaults", {})
    needed = set(names) - set(defaults)
    for problem, different in (("lacks", needed - value.keys()), ("has unknown", value.keys() - set(names))):
        if different:
            listed = ", ".join(sorted(name[:60] for name in different))
            raise BadRequest(f"the item {problem} {listed}; the model's inputs are {', '.join(names)}")
    padding, ranges = request.model.settings.get("padding", {}), request.model.settings.get("ranges", {})
    arrays = {}
    sent = next(value[name] for name in names if name in value)
    for position, name in enumerate(names):
        array = value[name] if name in value else _filled(defaults[name], sent)
        array = array if isinstance(array, np.ndarray) else read_array(array, f"input {name}")
        shapes = {graph.inputs[position].shape[1:] for graph in graphs}
        if name not in padding and array.shape not in shapes:
            wanted = " or ".join(str(list(shape)) for shape in sorted(shapes))
            raise BadRequest(f"input {name} has shape {list(array.shape)[:8]}; the model takes {wanted}")
        arrays[name] = _converted(
            array, graphs[0].inputs[position], from_json=not isinstance(value.get(name), np.ndarray)
        )
        if not request.model.settings.get("allow_nonfinite") and not np.isfinite(arrays[name]).all():
            raise BadRequest(f"input {name} holds values that are not finite as {arrays[name].dtype}")
        if name in ranges:
            _check_range(arrays[name], name, *ranges[name])
    cut = {
        output: {0: len(arrays[source])}
        for output, source in request.model.settings.get("cut", {}).items()
        if arrays[source].ndim
    }
    return Item(arrays, {"accept": request.accept, "model": request.model}, padding=padding, cut=cut)


def _filled(value: float, like: Any) -> Array:
    """An input that was left out: as long as the one that was sent."""
    return np.full(np.shape(like if isinstance(like, np.ndarray) else read_array(like, "the input")), value)


def _check_range(array: Array, name: str, smallest: float, largest: Any) -> None:
    """Raises BadRequest for values beyond the range."""
    limits = np.asarray(largest)
    if limits.ndim and array.shape[-1:] != limits.shape:
        return  # of another shape than any graph's: refused where it looks for its graph
    if array.size and ((array < smallest) | (array > limits)).any():
        most = limits if limits.ndim == 0 else f"at most {list(map(int, limits))[:8]}"
        raise BadRequest(
            f"input {name} has values from {array.min()} to {array.max()}; the model knows {smallest} to {most}"
        )


def _converted(array: Array, wanted: TensorDescription, *, from_json: bool) -> Array:
    """`array` in the dtype of the input, when nothing is lost but, for JSON's decimal numbers, precision."""
    dtype = np.dtype(wanted.dtype)
    if np.can_cast(array.dtype, dtype, "safe"):
        return array.astype(dtype, copy=False)
    if from_json and array.dtype.kind in "iuf" and dtype.kind == "f":
        with np.errstate(over="ignore"):  # becomes infinite, which is refused with its own message
            return array.astype(dtype)
    if from_json and array.dtype.kind in "iu" and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if array.size == 0 or (int(array.min()) >= limits.min and int(array.max()) <= limits.max):
            return array.astype(dtype)
        raise BadRequest(f"input {wanted.name} has values beyond {limits.min} to {limits.max}, the range of {dtype}")
    sorts = {"b": "booleans", "i": "whole numbers", "u": "whole numbers", "f": "decimal numbers (or beyond 64 bits)"}
    found = sorts[array.dtype.kind] if from_json else str(array.dtype)
    raise BadRequest(f"input {wanted.name} is {found}; the model takes {dtype}")


def postprocess(outputs: Any, item: Item) -> Answer:
    """The outputs in the form asked for."""
    info: ModelInfo = item.context["model"]
    kind = negotiate(item.context["accept"], _offers(info)).content_type
    if kind == JSON:
        return Answer({"outputs": outputs, **info.metadata}, JSON, f"ask for {NPY} or {NPZ}, 4 bytes for each float32")
    flat = flatten(outputs, lambda value: isinstance(value, np.ndarray))
    if kind == NPY:
        return Answer(flat.leaves[0], NPY, "no other form is smaller")
    return Answer(write_npz(dict(zip(flat.names, flat.leaves, strict=True))), NPZ, "no other form is smaller")


TASK = register(Task("tensor", preprocess, postprocess, check))
