"""Which tensors depend on the inputs, watched below Python: also through scripted functions, ``torch.vmap`` and other
unseen code.

Only the finding run pays for it. A function mode knows the calls of Python code; when it meets a tensor whose making
it has not seen, this says whether the tensor is a constant (a cached index, a mask made inside ``torch.vmap``) or
data.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from compile.lowering.operator_names import LIKE, tensors


def unwrapped(tensor: Tensor) -> Tensor:
    """The plain tensor inside the wrappers of ``torch.vmap`` and its like."""
    functorch = getattr(torch._C, "_functorch", None)
    while functorch is not None and functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor


def is_wrapped(tensor: Tensor) -> bool:
    """Whether the tensor only lives inside ``torch.vmap`` or its like."""
    return unwrapped(tensor) is not tensor


class Dataflow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the inputs through every operator that runs, conservatively: whatever takes data gives data."""

    def __init__(self, inputs: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.busy = False  # inside an operator: calls that a function mode sees now are not the model's
        self._data: dict[int, StorageWeakRef] = {}  # a weak reference keeps its address from being given to another
        for tensor in inputs:
            self._remember(tensor)

    def _remember(self, tensor: Tensor) -> None:
        storage = _storage(unwrapped(tensor))
        if storage is not None and storage._cdata not in self._data:
            self._data[storage._cdata] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]

    def depends(self, tensor: Tensor) -> bool:
        """Whether the tensor, or one over the same memory, was computed from the inputs."""
        storage = _storage(unwrapped(tensor))
        return storage is None or storage._cdata in self._data

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        busy, self.busy = self.busy, True
        try:
            result = func(*args, **(kwargs or {}))
            name = str(func).split(".")[1] if "." in str(func) else str(func)
            if name not in LIKE and any(self.depends(tensor) for tensor in tensors((args, kwargs))):
                for tensor in tensors(result):
                    self._remember(tensor)
            return result
        finally:
            self.busy = busy


def _storage(tensor: Tensor) -> Any:
    """The storage object, or None when the tensor has none of its own (then nothing is known of it)."""
    try:
        return tensor.untyped_storage() if hasattr(tensor, "untyped_storage") else tensor.storage()._storage  # type: ignore[no-untyped-call]
    except (NotImplementedError, RuntimeError, AttributeError):
        return None
