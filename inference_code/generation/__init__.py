"""Decoding on the host: loops over an artifact's graphs that end when the text does.

A task whose model is called more than once an item has a `decode(item, call)` beside preprocess and postprocess; it
runs the loop, and `call` is its way to the device. Steps of different requests meet in the scheduler's queues and share
batches there, so that a long text does not keep a short one waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from inference_code.errors import EndpointError
from inference_code.execution.batching import Scheduler
from inference_code.request import Item

# Items (of any role of the artifact) to the graphs' restored outputs, one each, in order. Raises EndpointError.
Call = Callable[[Sequence[Item]], list[Any]]
# A graph as a function of tensors with batch axis, by input name.
Graph = Callable[..., Mapping[str, torch.Tensor]]


def caller(scheduler: Scheduler) -> Call:
    """The way to the device through a scheduler."""
    return lambda items: answered(scheduler.run(items))


def answered(outcomes: Sequence[Any]) -> list[Any]:
    """The outcomes of a call, when all of them are answers. Raises the first EndpointError among them."""
    for outcome in outcomes:
        if isinstance(outcome, EndpointError):
            raise outcome
    return list(outcomes)


def graph(call: Call, role: str, padding: Mapping[str, float] | None = None) -> Graph:
    """A role of the artifact as a function of batches; each row goes to the scheduler as an item of its own.

    padding: as an Item's, for inputs that may be smaller than the compiled ones.
    """

    def run(**tensors: torch.Tensor) -> Mapping[str, torch.Tensor]:
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        rows = len(next(iter(arrays.values())))
        items = [
            Item({name: array[row] for name, array in arrays.items()}, role=role, padding=padding or {})
            for row in range(rows)
        ]
        answers = call(items)
        return {name: torch.from_numpy(np.stack([answer[name] for answer in answers])) for name in answers[0]}

    return run
