"""A copy of a module that shares nothing with it."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn

from compile.errors import CompileError, one_line

Module = TypeVar("Module", bound=nn.Module)


def duplicate(module: Module) -> Module:
    """``copy.deepcopy`` that also takes tensors with a history of gradients.

    Modules keep such tensors as attributes: the weight that ``nn.utils.weight_norm`` has computed, a cache. Raises
    CompileError naming what cannot be copied.
    """
    kept = (value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor))
    try:
        return copy.deepcopy(module, {id(tensor): tensor.detach().clone() for tensor in kept if not tensor.is_leaf})
    except Exception as error:  # whatever the objects that a module holds raise
        raise CompileError(
            f"{_not_copied(module)} cannot be copied: {one_line(error)}",
            "A build works on copies: make such an object outside of the model, or give its class a __deepcopy__.",
        ) from error


def _not_copied(module: nn.Module) -> str:
    """The first attribute that no copy can be made of, with its path."""
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                try:
                    copy.deepcopy(value)
                except Exception:  # as above
                    return f"{path}.{name} ({type(value).__name__})" if path else f"{name} ({type(value).__name__})"
    return type(module).__name__
