"""Two functions of PyTorch that a recorder needs to see differently, in its own thread only and only while it is open.

- PyTorch 1.13 does not tell a function mode about ``x[i]`` and ``x[i] = v`` (later versions do): ``torch.Tensor`` carries Python versions
  of both that ask the mode first.
- ``torch.jit.is_tracing()`` answers what the recorder says, the same in every run. Libraries use it to leave out shortcuts that depend
  on the data (transformers: "no mask is needed when all of it is one"), which a fixed graph must leave out as well.

The replacements look at the calling thread's own recorders, so other threads (tracing or not) see PyTorch's behaviour; the last
recorder that closes puts everything back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function

_lock = threading.Lock()
_local = threading.local()
_open = 0
_INDEXING = ("__getitem__", "__setitem__")
_is_tracing: Callable[[], bool] = torch.jit.is_tracing


def _mode_sees_indexing() -> bool:
    class Probe(TorchFunctionMode):
        seen = False

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen = True
            return func(*args, **(kwargs or {}))

    tensor = torch.zeros(1)
    with Probe() as probe:
        tensor[0]
    return bool(probe.seen)


_PATCH_INDEXING = not _mode_sees_indexing()


def _depth() -> int:
    return int(getattr(_local, "depth", 0))


def _indexing(name: str) -> Any:
    original = getattr(torch._C._TensorBase, name)

    def indexing(self: Tensor, *args: Any) -> Any:
        if _depth() and has_torch_function((self,)):
            return handle_torch_function(original, (self,), self, *args)
        return original(self, *args)

    return indexing


def _tracing() -> bool:
    answers = _local.answers if _depth() else None
    return answers[-1] if answers else _is_tracing()


def enter(says_tracing: bool) -> None:
    """Count one more open recorder of this thread; ``says_tracing`` is what ``torch.jit.is_tracing()`` answers inside."""
    global _open, _is_tracing  # noqa: PLW0603 - one count for the process, under the lock
    with _lock:
        if _open == 0:
            _is_tracing = torch.jit.is_tracing
            torch.jit.is_tracing = _tracing
            for name in _INDEXING if _PATCH_INDEXING else ():
                setattr(torch.Tensor, name, _indexing(name))
        _open += 1
    _local.depth = _depth() + 1
    _local.answers = [*getattr(_local, "answers", ()), says_tracing]


def leave() -> None:
    """Count one open recorder of this thread less; the last of all puts PyTorch's functions back."""
    global _open  # noqa: PLW0603
    _local.depth -= 1
    _local.answers.pop()
    with _lock:
        _open -= 1
        if _open == 0:
            torch.jit.is_tracing = _is_tracing
            for name in _INDEXING if _PATCH_INDEXING else ():
                delattr(torch.Tensor, name)
