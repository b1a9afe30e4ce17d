"""Depth of a picture: JPEG, PNG, WebP, npy or JSON in; npy (float32), 16-bit PNG or JSON out.

Several pictures in one request: an npy array [pictures, height, width, 3], a JSON list of {"image": base64 of a file},
or the parts of multipart/form-data, which the handler splits.

Preprocessing is that of Depth Anything V2 in transformers: RGB, resized to the bucket by the bicubic filter, scaled to
0..1, ImageNet's mean and standard deviation; resize.py chooses the bucket. The map goes back to the size of the picture
by bilinear interpolation with aligned corners, as in the model's own repository
(github.com/DepthAnything/Depth-Anything-V2, dpt.py).

Task settings: mean, std (three numbers each; default ImageNet's), output (the output that is the map; default: the
only one), resize ({least, multiple}: the model's own rule for the size of its input; default: none).
Parameter of a request: size=picture (default) or size=model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from inference_code.artifact.manifest import PackagedVariant, flatten
from inference_code.codecs.images import IMAGES, PNG, encode_png16
from inference_code.codecs.json_text import JSON
from inference_code.codecs.negotiation import negotiate, option
from inference_code.codecs.npy import NPY, npy_bytes
from inference_code.errors import EndpointError, LoadError, TooLarge
from inference_code.request import Answer, Array, Item, ModelInfo, Request
from inference_code.tasks import Task, register
from inference_code.tasks.images import each, picture, read_kind
from inference_code.tasks.resize import ResizeRule, aspect_distortion, nearest

READS = (*IMAGES, NPY, JSON)
ANSWERS = (NPY, PNG, JSON)
SIZES = ("picture", "model")
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_SETTINGS = ("mean", "std", "output", "resize")


def check(info: ModelInfo) -> None:
    """Raise LoadError unless settings and graphs are those of a depth model: one picture in, one map out."""
    unknown = sorted(set(info.settings) - set(_SETTINGS))
    if unknown:
        raise LoadError(f"task depth-estimation has no setting {', '.join(unknown)}; it has {', '.join(_SETTINGS)}")
    for name in ("mean", "std"):
        _three(info, name)
    _rule(info)
    for graph in info.graphs_of():
        shape = graph.inputs[0].shape
        if len(graph.inputs) != 1 or len(shape) != 4 or shape[1] != 3:
            raise LoadError(
                f"task depth-estimation needs graphs of one input [batch, 3, height, width]; {graph.file} differs"
            )
        wanted = info.settings.get("output")
        names = [output.name for output in graph.outputs]
        if (wanted is None and len(names) != 1) or (wanted is not None and wanted not in names):
            raise LoadError(f"task depth-estimation: setting output is {wanted!r}, {graph.file} has {', '.join(names)}")
    if not info.graphs_of():
        raise LoadError("task depth-estimation needs a graph of the role main")


def _three(info: ModelInfo, name: str) -> Array:
    values = info.settings.get(name, _MEAN if name == "mean" else _STD)
    is_list = isinstance(values, Sequence) and not isinstance(values, str) and len(values) == 3
    if not is_list or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in values):
        raise LoadError(f"task depth-estimation: setting {name} is {values!r}, it must be three numbers")
    if name == "std" and min(values) <= 0:
        raise LoadError(f"task depth-estimation: setting std is {values!r}, it must be above 0")
    return np.asarray(values, np.float32).reshape(3, 1, 1)


def _rule(info: ModelInfo) -> ResizeRule | None:
    """The setting `resize`. Raises LoadError."""
    value = info.settings.get("resize")
    if value is None:
        return None
    whole = isinstance(value, Mapping) and all(type(one) is int and one > 0 for one in value.values())
    if not whole or set(value) != {"least", "multiple"}:
        raise LoadError(f"task depth-estimation: setting resize is {value!r}, not {{least, multiple}}, both above 0")
    return ResizeRule(value["least"], value["multiple"])


def preprocess(request: Request) -> Item | list[Item | EndpointError]:
    """One item for a picture; a list of them for several."""
    kind = read_kind(request, READS)
    answer_kind = negotiate(request.accept, ANSWERS).content_type
    return each(request, kind, _item, lone=PNG if answer_kind == PNG else None)


def _item(value: Any, request: Request) -> Item:
    info = request.model
    assert info is not None  # noqa: S101  (the handler always fills it)
    found = picture(value, request, lambda *size: _bucket(_nearest(info, *size)))
    graph = _nearest(info, *found.size)
    height, width = _bucket(graph)
    context = {
        "accept": request.accept,
        "parameters": dict(request.parameters),
        "picture_size": found.size,
        "model_size": (height, width),
        "model": info,
    }
    _form(context)  # what cannot be answered is refused before the model has worked for nothing
    pixels = found.resized(height, width)
    pixels -= _three(info, "mean")
    pixels /= _three(info, "std")
    return Item(
        {graph.inputs[0].name: pixels}, context, aspect_distortion=aspect_distortion(found.size, (height, width))
    )


def _form(context: Mapping[str, Any]) -> tuple[str, tuple[int, int]]:
    """Media type and (height, width) of the answer. Raises NotAcceptable, BadRequest, TooLarge."""
    choice = negotiate(context["accept"], ANSWERS)
    size = option("size", SIZES, choice.parameters, context["parameters"])
    height, width = context[f"{size}_size"]
    # Known sizes: npy exactly; in JSON a number takes at least a digit and a comma.
    least = {NPY: npy_bytes((height, width)), JSON: 2 * height * width}.get(choice.content_type, 0)
    limit = context["model"].limits.response_bytes
    if least > limit:
        raise TooLarge(
            f"the depth map of {width} x {height} pixels takes {'' if choice.content_type == NPY else 'at least '}"
            f"{least} bytes as {choice.content_type}; at most {limit} can be sent; {_alternatives(context)}"
        )
    return choice.content_type, (height, width)


def _nearest(info: ModelInfo, height: int, width: int) -> PackagedVariant:
    """The first graph of the bucket that a picture of this size is resized to."""
    graphs = {_bucket(graph): graph for graph in reversed(info.graphs_of())}
    return graphs[nearest((height, width), list(graphs), _rule(info))]


def _bucket(graph: PackagedVariant) -> tuple[int, int]:
    """(height, width) of a graph's pictures."""
    height, width = graph.inputs[0].shape[2:]
    return height, width


def _alternatives(context: Mapping[str, Any]) -> str:
    (rows, columns), (height, width) = context["picture_size"], context["model_size"]
    return (
        f"the picture has {columns} x {rows} pixels: ask for size=model "
        f"({width} x {height}: {npy_bytes((height, width))} bytes as {NPY}), "
        f"for {PNG} (at most about 2 bytes a pixel), or send a smaller picture"
    )


def postprocess(outputs: Any, item: Item) -> Answer:
    """The map, float32 (height, width), in the form asked for; larger is what the model means by it (nearer, here)."""
    info: ModelInfo = item.context["model"]
    kind, size = _form(item.context)
    depth = _resized(_map(outputs, info.settings.get("output")), size)
    alternatives = _alternatives(item.context)
    if kind == NPY:
        return Answer(depth, NPY, alternatives)
    if kind == PNG:
        return Answer(encode_png16(depth, dict.fromkeys(info.metadata, "true")), PNG, alternatives)
    value = {"height": size[0], "width": size[1], "minimum": depth.min(), "maximum": depth.max(), "depth": depth}
    return Answer({**value, **info.metadata}, JSON, alternatives)


def _map(outputs: Any, name: str | None) -> Array:
    """The output `name` (the only one, for None) among the restored outputs, as (height, width)."""
    flat = flatten(outputs, lambda value: isinstance(value, np.ndarray))
    depth: Array = flat.leaves[flat.names.index(name) if name else 0]
    return depth.reshape(depth.shape[-2:]).astype(np.float32, copy=False)


def _resized(depth: Array, size: tuple[int, int]) -> Array:
    if depth.shape == size:
        return depth
    tensor = torch.from_numpy(np.ascontiguousarray(depth))[None, None]
    resized: Array = functional.interpolate(tensor, size, mode="bilinear", align_corners=True)[0, 0].numpy()
    return resized


TASK = register(Task("depth-estimation", preprocess, postprocess, check))
