"""Boxes around what is in a picture, each with its label and score.

In: the forms of tasks/images.py, and Hugging Face's {"inputs": base64, "parameters": {"threshold": 0.5}}. Out:
application/json, a list of {"label", "score", "box": {"xmin", "ymin", "xmax", "ymax"}} as huggingface_hub's
InferenceClient reads it, best first, in whole pixels of the picture that was sent, upright; an empty list where nothing
is found; a list of such lists for several pictures. image/png or image/jpeg: the picture with the boxes drawn into it.

Settings: form: "rows" (one output [boxes, 5 + classes]: centre, width and height in pixels of the graph's picture,
objectness, classes) or "pairs" (outputs boxes [boxes, 4], left, top, right, bottom in pixels, and probabilities
[boxes, classes], of which the first is the background). fit: "letterbox" (the picture keeps its shape; the rest is
filled with the grey of setting fill, 0 to 1) or "stretch". labels: a name for each class, by default LABEL_0 and so on.
mean, std: of the values 0 to 1, by default none. threshold (0.5), overlap (0.45, above which the worse of two boxes of
one class goes) and most (100 boxes).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from inference_code.artifact.manifest import PackagedVariant, flatten
from inference_code.codecs.drawing import boxes_drawn
from inference_code.codecs.images import IMAGES, Picture
from inference_code.codecs.json_text import JSON
from inference_code.codecs.negotiation import negotiate
from inference_code.codecs.npy import NPY
from inference_code.errors import BadRequest, EndpointError, LoadError, Unprocessable
from inference_code.request import Answer, Array, Item, ModelInfo, Request
from inference_code.tasks import Task, register
from inference_code.tasks.images import each, picture, read_kind, split_parameters

READS = (*IMAGES, NPY, JSON)
DRAWN = ("image/png", "image/jpeg")
FORMS, FITS = ("rows", "pairs"), ("letterbox", "stretch")
_DEFAULTS: Mapping[str, Any] = {
    "form": "rows",
    "fit": "letterbox",
    "fill": 0.5,
    "labels": None,
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "threshold": 0.5,
    "overlap": 0.45,
    "most": 100,
}


def check(info: ModelInfo) -> None:
    """Raise LoadError for settings or graphs that are none of a detector's."""
    unknown = sorted(set(info.settings) - set(_DEFAULTS))
    if unknown:
        raise LoadError(f"task object-detection has no setting {', '.join(unknown)}; it has {', '.join(_DEFAULTS)}")
    given = {**_DEFAULTS, **info.settings}
    for name, allowed in (("form", FORMS), ("fit", FITS)):
        if given[name] not in allowed:
            raise LoadError(f"task object-detection: setting {name} is {given[name]!r}, not {' or '.join(allowed)}")
    for name in ("fill", "threshold", "overlap"):
        if not isinstance(given[name], (int, float)) or not 0 <= given[name] <= 1:
            raise LoadError(f"task object-detection: setting {name} is {given[name]!r}, not a number from 0 to 1")
    if not info.graphs_of():
        raise LoadError("task object-detection needs a graph of the role main")
    for graph in info.graphs_of():
        shape = graph.inputs[0].shape
        if len(graph.inputs) != 1 or len(shape) != 4 or shape[1] != 3:
            raise LoadError(f"task object-detection needs one input [batch, 3, height, width]; {graph.file} differs")
        classes = _classes(graph, given["form"])
        labels = given["labels"]
        if classes is None:
            raise LoadError(f"task object-detection: {graph.file} has no outputs of the form {given['form']}")
        if labels is not None and len(labels) != classes:
            raise LoadError(f"task object-detection: {len(labels)} labels for the {classes} classes of {graph.file}")


def _classes(graph: PackagedVariant, form: str) -> int | None:
    """How many classes the outputs have, without the background; None for outputs of another form."""
    shapes = {output.name: output.shape for output in graph.outputs}
    if form == "rows":
        last = next(iter(shapes.values()))[-1]
        return last - 5 if len(shapes) == 1 and last > 5 else None
    if shapes.keys() != {"boxes", "probabilities"} or shapes["boxes"][-1] != 4:
        return None
    return shapes["probabilities"][-1] - 1


def preprocess(request: Request) -> Item | list[Item | EndpointError]:
    """One item for a picture; a list of them for several."""
    kind = read_kind(request, READS)
    answer_kind = negotiate(request.accept, (JSON, *DRAWN)).content_type
    return each(request, kind, _item, lone=None if answer_kind == JSON else answer_kind)


def _item(value: Any, request: Request) -> Item:
    info = request.model
    assert info is not None  # noqa: S101  (the handler always fills it)
    value, asked = split_parameters(value, ("threshold",))
    threshold = asked.get("threshold", request.parameters.get("threshold", _setting(info, "threshold")))
    drawn = negotiate(request.accept, (JSON, *DRAWN)).content_type != JSON
    graphs = info.graphs_of()
    # What is drawn into is needed whole.
    found = picture(value, request, lambda *size: size if drawn else _inner(size, _size(_nearest(graphs, size)), info))
    graph = _nearest(graphs, found.size)
    size = _size(graph)
    inner = _inner(found.size, size, info)
    pixels = np.full((3, *size), _setting(info, "fill"), np.float32)
    top, left = ((whole - part) // 2 for whole, part in zip(size, inner, strict=True))
    pixels[:, top : top + inner[0], left : left + inner[1]] = found.resized(*inner)
    for name, operate in (("mean", np.subtract), ("std", np.divide)):
        operate(pixels, np.asarray(_setting(info, name), np.float32).reshape(3, 1, 1), out=pixels)
    context = {
        "accept": request.accept,
        "model": info,
        "picture_size": found.size,
        "scale": (found.size[0] / inner[0], found.size[1] / inner[1]),
        "offset": (top, left),
        "threshold": _threshold(threshold),
        "picture": found if drawn else None,
    }
    return Item({graph.inputs[0].name: pixels}, context)


def _setting(info: ModelInfo, name: str) -> Any:
    return info.settings.get(name, _DEFAULTS[name])


def _threshold(value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not 0 <= found <= 1:
        raise BadRequest(f"threshold is {str(value)[:40]!r}; it is a number from 0 to 1")
    return found


def _size(graph: PackagedVariant) -> tuple[int, int]:
    height, width = graph.inputs[0].shape[2:]
    return height, width


def _nearest(graphs: tuple[PackagedVariant, ...], size: tuple[int, int]) -> PackagedVariant:
    """The graph whose shape is nearest to the picture's; of equals the largest."""
    wanted = math.log(size[0] / size[1])
    return min(graphs, key=lambda one: (abs(math.log(_size(one)[0] / _size(one)[1]) - wanted), -math.prod(_size(one))))


def _inner(picture_size: tuple[int, int], size: tuple[int, int], info: ModelInfo) -> tuple[int, int]:
    """(height, width) of the picture within the graph's."""
    if _setting(info, "fit") == "stretch":
        return size
    ratio = min(whole / part for whole, part in zip(size, picture_size, strict=True))
    height, width = (min(whole, max(1, round(part * ratio))) for whole, part in zip(size, picture_size, strict=True))
    return height, width


def postprocess(outputs: Any, item: Item) -> Answer:
    """The boxes in the form asked for."""
    context = item.context
    info: ModelInfo = context["model"]
    boxes, scores, classes = _candidates(outputs, _setting(info, "form"), context["threshold"])
    (top, left), (down, across) = context["offset"], context["scale"]
    boxes = (boxes - np.array([left, top, left, top])) * np.array([across, down, across, down])
    height, width = context["picture_size"]
    boxes = np.clip(boxes, 0, np.array([width, height, width, height]))
    kept = _kept(boxes, scores, classes, _setting(info, "overlap"), _setting(info, "most"))
    labels = _setting(info, "labels")
    names = [labels[number] if labels else f"LABEL_{number}" for number in classes[kept].tolist()]
    rows = [
        {
            "label": name,
            "score": float(score),
            "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), (round(side) for side in box), strict=True)),
        }
        for name, score, box in zip(names, scores[kept].tolist(), boxes[kept].tolist(), strict=True)
    ]
    kind = negotiate(context["accept"], (JSON, *DRAWN)).content_type
    if kind == JSON:
        return Answer(rows, JSON)
    drawn: Picture = context["picture"]
    return Answer(boxes_drawn(drawn, rows, kind), kind, f"ask for {JSON}, or send a smaller picture")


def _candidates(outputs: Any, form: str, threshold: float) -> tuple[Array, Array, Array]:
    """Boxes (n, 4) as left, top, right, bottom in the graph's pixels, scores (n,) and classes (n,) above the
    threshold."""
    flat = flatten(outputs, lambda value: isinstance(value, np.ndarray))
    if form == "pairs":
        by_name = dict(zip(flat.names, flat.leaves, strict=True))
        boxes, all_scores = by_name["boxes"], by_name["probabilities"][:, 1:]
    else:
        rows = flat.leaves[0]
        half = rows[:, 2:4] / 2
        boxes = np.concatenate([rows[:, :2] - half, rows[:, :2] + half], 1)
        all_scores = rows[:, 4:5] * rows[:, 5:]
    if np.isnan(all_scores).any():
        raise Unprocessable("the model's scores hold NaN")
    found, classes = np.nonzero(all_scores > threshold)
    return boxes[found].astype(np.float64), all_scores[found, classes], classes


def _kept(boxes: Array, scores: Array, classes: Array, overlap: float, most: int) -> Array:
    """Places of the boxes that stay, best first: of two of one class that overlap more, the better."""
    order = np.argsort(-scores, kind="stable")
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    kept: list[int] = []
    while order.size and len(kept) < most:
        best, order = int(order[0]), order[1:]
        kept.append(best)
        shared = np.minimum(boxes[order, 2:], boxes[best, 2:]) - np.maximum(boxes[order, :2], boxes[best, :2])
        common = np.prod(np.clip(shared, 0, None), axis=1)
        union = areas[order] + areas[best] - common
        apart = common <= overlap * np.maximum(union, 1e-9)
        order = order[apart | (classes[order] != classes[best])]
    return np.asarray(kept, np.int64)


TASK = register(Task("object-detection", preprocess, postprocess, check))
