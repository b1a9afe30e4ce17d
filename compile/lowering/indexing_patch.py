"""PyTorch 1.13 does not tell a function mode about ``x[i]`` and ``x[i] = v``; later versions do.

While at least one recorder is open, ``torch.Tensor`` carries Python versions of both methods that ask the mode first. They look
at the calling thread's own recorders only, so other threads (tracing or not) see PyTorch's behaviour, and the last recorder that
closes removes them.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function

_lock = threading.Lock()
_local = threading.local()
_open = 0
_METHODS = ("__getitem__", "__setitem__")


def _mode_sees_indexing() -> bool:
    class Probe(TorchFunctionMode):
        seen = False

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen = True
            return func(*args, **(kwargs or {}))

    tensor = torch.zeros(1)
    with Probe() as probe:
        tensor[0]
    return probe.seen


NEEDED = not _mode_sees_indexing()


def _method(name: str) -> Any:
    original = getattr(torch._C._TensorBase, name)

    def indexing(self: Tensor, *args: Any) -> Any:
        if getattr(_local, "depth", 0) and has_torch_function((self,)):
            return handle_torch_function(original, (self,), self, *args)
        return original(self, *args)

    return indexing


def enter() -> None:
    """Count one more open recorder of this thread."""
    global _open  # noqa: PLW0603 - one count for the process, under the lock
    if not NEEDED:
        return
    with _lock:
        if _open == 0:
            for name in _METHODS:
                setattr(torch.Tensor, name, _method(name))
        _open += 1
    _local.depth = getattr(_local, "depth", 0) + 1


def leave() -> None:
    """Count one open recorder of this thread less; the last of all removes the methods."""
    global _open  # noqa: PLW0603
    if not NEEDED:
        return
    _local.depth -= 1
    with _lock:
        _open -= 1
        if _open == 0:
            for name in _METHODS:
                delattr(torch.Tensor, name)
