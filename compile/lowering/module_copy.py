"""A copy of a module that shares nothing with it."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def duplicate(module: Module) -> Module:
    """``copy.deepcopy`` that also takes tensors with a history of gradients.

    Modules keep such tensors as attributes: the weight that ``nn.utils.weight_norm`` has computed, a cache.
    """
    kept = (value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor))
    return copy.deepcopy(module, {id(tensor): tensor.detach().clone() for tensor in kept if not tensor.is_leaf})
