"""Which tensors depend on the inputs, watched below Python: also through scripted functions, ``torch.vmap`` and other
unseen code.

Only the finding run pays for it. A function mode knows the calls of Python code; when it meets a tensor whose making
it has not seen, this says whether the tensor is a constant (a cached index, a mask made inside ``torch.vmap``) or
data.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from compile.lowering.names import LIKE, tensors


def unwrapped(tensor: Tensor) -> Tensor:
    """The plain tensor inside the wrappers of ``torch.vmap`` and its like."""
    functorch = getattr(torch._C, "_functorch", None)
    while functorch is not None and functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor


def is_wrapped(tensor: Tensor) -> bool:
    """Whether the tensor only lives inside ``torch.vmap`` or its like."""
    functorch = getattr(torch._C, "_functorch", None)
    return functorch is not None and bool(functorch.is_functorch_wrapped_tensor(tensor))


class Dataflow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the inputs through every operator that runs, conservatively: whatever takes data gives data."""

    def __init__(self, inputs: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._data: dict[int, weakref.ReferenceType[Tensor]] = {}
        for tensor in inputs:
            self._data[id(tensor)] = weakref.ref(tensor)

    def depends(self, tensor: Tensor) -> bool:
        """Whether the tensor was computed from the inputs."""
        tensor = unwrapped(tensor)
        reference = self._data.get(id(tensor))
        return reference is not None and reference() is tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func).split(".")[1] if "." in str(func) else str(func)
        if name not in LIKE and any(self.depends(tensor) for tensor in tensors((args, kwargs))):
            for tensor in tensors(result):
                self._data[id(tensor)] = weakref.ref(tensor)
        return result
