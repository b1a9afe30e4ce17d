"""What a picture shows, of the kinds that the model knows.

In: the forms of tasks/images.py, and Hugging Face's {"inputs": base64, "parameters": {"top_k": 3, "function_to_apply":
"sigmoid"}}. Out: application/json, a list of {"label", "score"}, best first, as huggingface_hub's InferenceClient reads
it; a list of such lists for several pictures.

The graph has one output, [classes]. Settings: crop (the share of the shorter side that is kept when the middle of the
picture is cut out, by default 1: the picture is squeezed whole into the graph's size), mean and std (three numbers
each, by default ImageNet's), labels (a name for each class, by default LABEL_0 and so on), top (how many are answered,
5) and function (softmax, sigmoid or none: what makes a score of an output).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from inference_code.artifact.manifest import flatten
from inference_code.codecs.images import IMAGES
from inference_code.codecs.json_text import JSON
from inference_code.codecs.negotiation import negotiate
from inference_code.codecs.npy import NPY
from inference_code.errors import BadRequest, EndpointError, LoadError, Unprocessable
from inference_code.request import Answer, Array, Item, ModelInfo, Request
from inference_code.tasks import Task, register
from inference_code.tasks.images import each, picture, read_kind, split_parameters

READS = (*IMAGES, NPY, JSON)
FUNCTIONS = ("softmax", "sigmoid", "none")
PARAMETERS = ("top_k", "function_to_apply")
_DEFAULTS: Mapping[str, Any] = {
    "crop": 1.0,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "labels": None,
    "top": 5,
    "function": "softmax",
}


def check(info: ModelInfo) -> None:
    """Raise LoadError for settings or graphs that are none of a classifier's."""
    unknown = sorted(set(info.settings) - set(_DEFAULTS))
    if unknown:
        raise LoadError(f"task image-classification has no setting {', '.join(unknown)}; it has {', '.join(_DEFAULTS)}")
    crop, function, labels = (_setting(info, name) for name in ("crop", "function", "labels"))
    if not isinstance(crop, (int, float)) or not 0 < crop <= 1:
        raise LoadError(f"task image-classification: setting crop is {crop!r}, not a number above 0 and up to 1")
    if function not in FUNCTIONS:
        raise LoadError(f"task image-classification: setting function is {function!r}, not {' or '.join(FUNCTIONS)}")
    if not info.graphs_of():
        raise LoadError("task image-classification needs a graph of the role main")
    for graph in info.graphs_of():
        taken, made = graph.inputs[0].shape, [output.shape for output in graph.outputs]
        if len(graph.inputs) != 1 or len(taken) != 4 or taken[1] != 3 or len(made) != 1 or len(made[0]) != 2:
            raise LoadError(
                "task image-classification needs one input [batch, 3, height, width] and one output [batch, classes]; "
                f"{graph.file} differs"
            )
        if labels is not None and len(labels) != made[0][1]:
            raise LoadError(f"task image-classification: {len(labels)} labels for {made[0][1]} classes of {graph.file}")


def _setting(info: ModelInfo, name: str) -> Any:
    return info.settings.get(name, _DEFAULTS[name])


def preprocess(request: Request) -> Item | list[Item | EndpointError]:
    """One item for a picture; a list of them for several."""
    kind = read_kind(request, READS)
    negotiate(request.accept, (JSON,))  # refused before the model has worked for nothing
    return each(request, kind, _item)


def _item(value: Any, request: Request) -> Item:
    info = request.model
    assert info is not None  # noqa: S101  (the handler always fills it)
    value, asked = split_parameters(value, PARAMETERS)
    tensor = info.graphs_of()[0].inputs[0]
    size = (tensor.shape[2], tensor.shape[3])
    crop = _setting(info, "crop")
    found = picture(value, request, lambda *sent: _resized(sent, size, crop))
    height, width = _resized(found.size, size, crop)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    pixels = found.resized(height, width)[:, top : top + size[0], left : left + size[1]]
    mean, std = (np.asarray(_setting(info, name), np.float32).reshape(3, 1, 1) for name in ("mean", "std"))
    context = {
        "model": info,
        "top": _whole(asked.get("top_k", request.parameters.get("top_k", _setting(info, "top")))),
        "function": _function(asked.get("function_to_apply", _setting(info, "function"))),
    }
    return Item({tensor.name: (pixels - mean) / std}, context)


def _resized(sent: tuple[int, ...], size: tuple[int, int], crop: float) -> tuple[int, int]:
    """(height, width) of the whole picture where the graph's size is cut out of its middle."""
    if crop == 1:
        return size
    ratio = max(part / crop / side for part, side in zip(size, sent, strict=True))
    height, width = (max(part, math.floor(side * ratio + 0.5)) for part, side in zip(size, sent, strict=True))
    return height, width


def _whole(value: Any) -> int:
    try:
        found = int(str(value))
    except ValueError:
        found = 0
    if found < 1:
        raise BadRequest(f"top_k is {str(value)[:40]!r}; it is a whole number from 1 on")
    return found


def _function(value: Any) -> str:
    if value not in FUNCTIONS:
        raise BadRequest(f"function_to_apply is {str(value)[:40]!r}; it can be {' or '.join(FUNCTIONS)}")
    return str(value)


def postprocess(outputs: Any, item: Item) -> Answer:
    """Labels and scores, best first."""
    info: ModelInfo = item.context["model"]
    values = flatten(outputs, lambda value: isinstance(value, np.ndarray)).leaves[0].astype(np.float64)
    scores = _scores(values, item.context["function"])
    if not np.isfinite(scores).all():
        raise Unprocessable("the model's scores hold NaN or infinity")
    labels = _setting(info, "labels")
    best = np.argsort(-scores, kind="stable")[: item.context["top"]].tolist()
    rows = [{"label": labels[n] if labels else f"LABEL_{n}", "score": float(scores[n])} for n in best]
    return Answer(rows, JSON)


def _scores(values: Array, function: str) -> Array:
    if function == "none":
        return values
    if function == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-values)))
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())


TASK = register(Task("image-classification", preprocess, postprocess, check))
