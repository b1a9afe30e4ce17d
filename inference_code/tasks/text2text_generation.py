"""Tokens in, tokens out: an encoder-decoder such as MarianMT, BART or Pegasus, decoded greedily or with beams.

In: application/json, an object of input_ids (whole numbers of one text, without padding) and, if wanted, options of the
search for this text; or a list of such objects. Out: application/json {"tokens": [...], "ended": bool}, or a list of
them; tokens without the start token, and without the end token, which `ended` speaks of. Text becomes tokens, and
tokens text, where the tokenizer is: at the caller, or in a handler of one's own.

Settings: start, end, padding (token ids) and vocabulary (how many ids there are) have to be there; the others are the
options of a search and their defaults (see decoding.search.Settings; max_length's is all the places that the graph
has). A request may give the ones in OPTIONS, and at most MOST_BEAMS beams.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from inference_code.artifact.manifest import PackagedVariant
from inference_code.codecs.json_text import JSON, read_array, read_json
from inference_code.codecs.negotiation import negotiate, require
from inference_code.errors import BadRequest, EndpointError, LoadError, TooLarge
from inference_code.generation import Call, graph
from inference_code.generation.beam_search import Settings, generate
from inference_code.request import Answer, Array, Item, ModelInfo, Request
from inference_code.tasks import Task, register
from inference_code.tasks.items import items

OPTIONS = ("max_length", "min_length", "num_beams", "length_penalty", "early_stopping", "no_repeat_ngram_size")
MOST_BEAMS = 16
_NEEDED = ("start", "end", "padding", "vocabulary")


def check(info: ModelInfo) -> None:
    """Raise LoadError for settings or graphs that no search can work with."""
    known = {field.name for field in dataclasses.fields(Settings)} | {"vocabulary"}
    unknown, missing = sorted(set(info.settings) - known), sorted(set(_NEEDED) - set(info.settings))
    if unknown or missing:
        what = f"no setting {', '.join(unknown)}" if unknown else f"no value for {', '.join(missing)}"
        raise LoadError(f"task text2text-generation has {what}; its settings are {', '.join(sorted(known))}")
    encoders, steps = info.graphs_of("encoder"), info.graphs_of("step")
    if not encoders or not steps:
        raise LoadError("task text2text-generation needs graphs of the roles encoder and step")
    inputs = {tensor.name for tensor in steps[0].inputs}
    if "slot" not in inputs or not {"token", "tokens"} & inputs:
        raise LoadError(
            f"task text2text-generation needs a step with slot and token or tokens; it has {', '.join(inputs)}"
        )
    try:
        settings(info, {}).check(places(info))
    except EndpointError as error:
        raise LoadError(f"task text2text-generation: {error}") from None


def places(info: ModelInfo) -> int:
    """How many tokens the step has room for."""
    return next(tensor.shape[1] for tensor in info.graphs_of("step")[0].inputs if tensor.name == "slot")


def empty_cache(step: PackagedVariant) -> dict[str, torch.Tensor]:
    """The step's caches before the first token, of one row; nothing for a step that has none."""
    return {
        tensor.name: torch.from_numpy(np.zeros((1, *tensor.shape[1:]), tensor.dtype))
        for tensor in step.inputs
        if tensor.name.startswith("cache_")
    }


def settings(info: ModelInfo, asked: Mapping[str, Any]) -> Settings:
    """The model's settings with those of one request."""
    own = {name: value for name, value in info.settings.items() if name != "vocabulary"}
    own["bad_words"] = tuple(own.get("bad_words", ()))
    return Settings(**{"max_length": places(info) + 1, **own, **asked})


def preprocess(request: Request) -> Item | list[Item | EndpointError]:
    """One item for a text; a list of them for several."""
    require(request.content_type, (JSON,))
    negotiate(request.accept, (JSON,))  # refused before the model has worked for nothing
    value = read_json(request.body)
    return items(value, request, _item) if isinstance(value, list) else _item(value, request)


def _item(value: Any, request: Request) -> Item:
    info = request.model
    assert info is not None  # noqa: S101  (the handler always fills it)
    if not isinstance(value, Mapping) or "input_ids" not in value:
        raise BadRequest("an item is an object with input_ids, the tokens of one text")
    unknown = sorted(str(name)[:60] for name in value.keys() - {"input_ids", *OPTIONS})
    if unknown:
        raise BadRequest(f"the item has unknown {', '.join(unknown)}; it may have input_ids, {', '.join(OPTIONS)}")
    chosen = settings(info, {name: _option(name, value[name]) for name in OPTIONS if name in value})
    chosen.check(places(info))
    ids = _ids(value["input_ids"], info)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    wanted = {tensor.name for tensor in info.graphs_of("encoder")[0].inputs}
    padding = {"input_ids": info.settings["padding"], "attention_mask": 0}
    return Item(
        {name: array for name, array in inputs.items() if name in wanted},
        {"model": info, "settings": chosen},
        role="encoder",
        padding={name: number for name, number in padding.items() if name in wanted},
    )


def _ids(value: Any, info: ModelInfo) -> Array:
    """The tokens of a text as the encoder takes them. Raises BadRequest, TooLarge."""
    ids = read_array(value, "input_ids")
    if ids.ndim != 1 or ids.size == 0 or ids.dtype.kind not in "iu":
        raise BadRequest("input_ids is a list of whole numbers, the tokens of one text")
    vocabulary = info.settings["vocabulary"]
    if int(ids.min()) < 0 or int(ids.max()) >= vocabulary:
        raise BadRequest(f"input_ids has tokens from {ids.min()} to {ids.max()}; the model knows 0 to {vocabulary - 1}")
    most = max(tensor.shape[1] for one in info.graphs_of("encoder") for tensor in one.inputs)
    if ids.size > most:
        raise TooLarge(f"input_ids has {ids.size} tokens; the model takes at most {most}")
    return ids.astype(np.int64)


def _option(name: str, value: Any) -> Any:
    """One option of a request, of its type and within its limits. Raises BadRequest."""
    if name == "early_stopping":
        if not isinstance(value, bool):
            raise BadRequest(f"early_stopping is {str(value)[:60]!r}; it is true or false")
        return value
    number = isinstance(value, int if name != "length_penalty" else (int, float)) and not isinstance(value, bool)
    if not number or not -1e6 <= value <= 1e6 or (name != "length_penalty" and value < 0):
        raise BadRequest(f"{name} is {str(value)[:60]!r}; it is a number from {'-' if 'penalty' in name else ''}1 on")
    if name == "num_beams" and value > MOST_BEAMS:
        raise BadRequest(f"num_beams is {value}; at most {MOST_BEAMS} are searched")
    return value


def decode(item: Item, call: Call) -> list[int]:
    """The tokens of one text, with its start token and, where it ended, its end token."""
    info: ModelInfo = item.context["model"]
    graphs = {"encoder": graph(call, "encoder", item.padding), "step": graph(call, "step")}
    inputs = {name: torch.from_numpy(np.asarray(array)[None]) for name, array in item.inputs.items()}
    cache = empty_cache(info.graphs_of("step")[0])
    return generate(graphs, inputs, item.context["settings"], places=places(info), cache=cache)[0]


def postprocess(outputs: list[int], item: Item) -> Answer:
    """The tokens, and whether the text ended or was cut off."""
    end = item.context["settings"].end
    ended = len(outputs) > 1 and outputs[-1] == end
    tokens = outputs[1 : -1 if ended else None]
    return Answer({"tokens": tokens, "ended": ended, **item.context["model"].metadata}, JSON)


TASK = register(Task("text2text-generation", preprocess, postprocess, check, decode))
