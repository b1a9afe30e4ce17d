"""What the code of a definition made, as one digest.

A user's entry may read files that no import shows, such as a configuration or a table. What it made of them is in the
modules: their types, plain attributes, parameters and buffers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from compile.definition import ModelDefinition
from endpoint_spec.digests import canonical

_DEPTH = 5  # of attributes within attributes, such as a configuration's; what lies deeper counts by its type
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def digest(definition: ModelDefinition) -> str:
    """sha256, in hex, of the graphs' modules as they are now: the same in every process of one environment."""
    found = hashlib.sha256()
    for role, graph in sorted(definition.graphs.items()):
        for name, module in graph.module.named_modules():
            own = {key: value for key, value in vars(module).items() if key not in _OF_EVERY_MODULE}
            found.update(canonical([role, name, _name(type(module)), _plain(own, _DEPTH)]).encode())
        for name, tensor in [*graph.module.named_parameters(), *graph.module.named_buffers()]:
            found.update(canonical([role, name, _tensor(tensor)]).encode())
    return found.hexdigest()


def _tensor(tensor: torch.Tensor) -> list[Any]:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return [list(tensor.shape), str(tensor.dtype), hashlib.sha256(raw.data).hexdigest()]


def _plain(value: Any, depth: int) -> Any:
    """A value as JSON has it, without anything that differs from one process to the next, such as an address."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | torch.dtype | torch.device):
        return repr(value)  # floats too: JSON has not all of them
    if isinstance(value, torch.Tensor):
        return _tensor(value)
    if isinstance(value, nn.Module) or not depth:
        return _name(type(value))
    return _inside(value, depth - 1)


def _inside(value: Any, depth: int) -> Any:
    """A value that holds others, down to a depth."""
    if isinstance(value, Mapping):
        return [[_plain(key, depth), _plain(item, depth)] for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(item, depth) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(canonical(_plain(item, depth)) for item in value)
    if callable(value):
        return _name(value)
    return [_name(type(value)), _plain(getattr(value, "__dict__", None), depth)]


def _name(value: Any) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
