"""The text in a picture of one word or line, as PARSeq reads it.

In: JPEG, PNG, WebP; npy (uint8 [height, width, 3], or [pictures, height, width, 3]); JSON {"image": base64 of a file}
or a list of these. Out: application/json {"text", "confidence", "characters"}, or a list of them; confidence is the
product of the characters' and the end's probabilities, as the original reports it, characters their probabilities.

Preprocessing is the original's (github.com/baudm/parseq): RGB, resized to the graph's size by the bicubic filter
whatever the aspect ratio, -1 to 1. Settings: charset (a string; token 1 is its first character; 0 ends a text, the two
behind the charset begin and pad it) and refinements (how often the whole text is looked at again; needs a graph of the
role refine).
"""

from __future__ import annotations

import math
from typing import Any

import torch

from inference_code.codecs.images import IMAGES
from inference_code.codecs.json_text import JSON
from inference_code.codecs.negotiation import negotiate
from inference_code.codecs.npy import NPY
from inference_code.errors import EndpointError, LoadError
from inference_code.generation import Call, graph
from inference_code.generation.parseq import Alphabet, spell
from inference_code.request import Answer, Item, ModelInfo, Request
from inference_code.tasks import Task, register
from inference_code.tasks.images import each, picture, read_kind
from inference_code.tasks.text2text_generation import empty_cache, places

READS = (*IMAGES, NPY, JSON)
_SETTINGS = ("charset", "refinements")


def check(info: ModelInfo) -> None:
    """Raise LoadError unless settings and graphs are those of a reader."""
    unknown = sorted(set(info.settings) - set(_SETTINGS))
    if unknown:
        raise LoadError(f"task image-to-text has no setting {', '.join(unknown)}; it has {', '.join(_SETTINGS)}")
    charset, refinements = info.settings.get("charset"), info.settings.get("refinements", 0)
    if not isinstance(charset, str) or len(set(charset)) != len(charset) or not charset:
        raise LoadError(f"task image-to-text: setting charset is {charset!r}, not a string of different characters")
    if not isinstance(refinements, int) or refinements < 0:
        raise LoadError(f"task image-to-text: setting refinements is {refinements!r}, not a whole number from 0 on")
    for role in ("encoder", "step", *(["refine"] if refinements else [])):
        if not info.graphs_of(role):
            raise LoadError(f"task image-to-text needs a graph of the role {role}")
    shape = info.graphs_of("encoder")[0].inputs[0].shape
    if len(shape) != 4 or shape[1] != 3:
        raise LoadError(f"task image-to-text needs an encoder of [batch, 3, height, width], not of {list(shape)}")
    found = next((tensor.shape[-1] for tensor in info.graphs_of("step")[0].outputs if tensor.name == "logits"), None)
    if found != len(charset) + 1:
        raise LoadError(
            f"task image-to-text: the step predicts {found} tokens, the charset and the end are {len(charset) + 1}"
        )


def alphabet(info: ModelInfo) -> Alphabet:
    """The special tokens of the model."""
    count = len(info.settings["charset"])
    return Alphabet(0, count + 1, count + 2, places(info), info.settings.get("refinements", 0))


def preprocess(request: Request) -> Item | list[Item | EndpointError]:
    """One item for a picture; a list of them for several."""
    kind = read_kind(request, READS)
    negotiate(request.accept, (JSON,))  # refused before the model has worked for nothing
    return each(request, kind, _item)


def _item(value: Any, request: Request) -> Item:
    assert request.model is not None  # noqa: S101  (the handler always fills it)
    tensor = request.model.graphs_of("encoder")[0].inputs[0]
    height, width = tensor.shape[2:]
    pixels = picture(value, request, lambda *_: (height, width)).resized(height, width)
    pixels *= 2
    pixels -= 1
    return Item({tensor.name: pixels}, {"model": request.model}, role="encoder")


def decode(item: Item, call: Call) -> torch.Tensor:
    """The logits of one text, (n, characters + 1)."""
    info: ModelInfo = item.context["model"]
    graphs = {role: graph(call, role) for role in ("encoder", "step", "refine") if info.graphs_of(role)}
    pixels = torch.from_numpy(next(iter(item.inputs.values()))[None])
    return spell(graphs, pixels, alphabet(info), cache=empty_cache(info.graphs_of("step")[0]))[0]


def postprocess(outputs: torch.Tensor, item: Item) -> Answer:
    """The text up to its end, and how sure the model is."""
    info: ModelInfo = item.context["model"]
    probabilities, tokens = (column.tolist() for column in outputs.softmax(-1).max(-1))
    length = tokens.index(0) if 0 in tokens else len(tokens)
    text = "".join(info.settings["charset"][token - 1] for token in tokens[:length])
    confidence = math.prod(probabilities[: length + 1])  # of the end too, where there is one
    value = {"text": text, "confidence": confidence, "characters": probabilities[:length]}
    return Answer({**value, **info.metadata}, JSON)


TASK = register(Task("image-to-text", preprocess, postprocess, check, decode))
