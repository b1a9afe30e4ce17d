"""A few functions that a recorder needs to see differently, in its own thread only and only while it is open.

- ``torch.autograd.Function.apply`` becomes one opaque node of a trace: its forward runs as the Python code that it
  is.
- ``torch.jit.is_tracing()`` answers what the recorder says, the same in every run. Libraries use it to leave out
  shortcuts that depend on the data (transformers: "no mask is needed when all of it is one"), which a fixed graph
  must leave out as well.
- transformers builds attention masks by ``torch.vmap`` over functions of four indices, which cannot be traced: the
  same functions are called with index tensors that broadcast.

The replacements look at the calling thread's own recorders, so other threads (tracing or not) see the libraries'
behaviour; the last recorder that closes puts everything back.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Wishes:
    """What one open recorder wants: the answer of ``is_tracing`` and how to run Python code unrecorded."""

    says_tracing: bool
    unrecorded: Callable[[], AbstractContextManager[None]]


_lock = threading.Lock()
_local = threading.local()
_open = 0
_undo: list[Callable[[], None]] = []


def _current() -> Wishes | None:
    wishes = getattr(_local, "wishes", None)
    return wishes[-1] if wishes else None


def _apply() -> Any:
    home = torch.autograd.Function
    descriptor = next(vars(kind)["apply"] for kind in home.__mro__ if "apply" in vars(kind))

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        original = descriptor.__get__(None, cls)
        wishes = _current()
        if wishes is None:
            return original(*args, **kwargs)
        with wishes.unrecorded():
            return original(*args, **kwargs)

    return classmethod(apply)


def _is_tracing() -> Any:
    original: Callable[[], bool] = vars(torch.jit)["is_tracing"]

    def is_tracing() -> bool:
        wishes = _current()
        return wishes.says_tracing if wishes else original()

    return is_tracing


def _masks_by_broadcasting(original: Any) -> Any:
    """For transformers' helper that maps a mask function over batch, head, query and key indices."""

    def mapped(mask_function: Any, bh_indices: bool = True) -> Any:
        if _current() is None:
            return original(mask_function, bh_indices)
        axes = range(0 if bh_indices else 2, 4)  # of batch, head, query and key

        def masks(*indices: Tensor) -> Any:
            spread = list(indices)
            for axis in axes:
                spread[axis] = indices[axis].reshape([-1 if other == axis else 1 for other in axes])
            return mask_function(*spread).expand([len(indices[axis]) for axis in axes])

        return masks

    return mapped


def _replace(home: Any, name: str, value: Any) -> None:
    own = vars(home).get(name)

    def undo() -> None:
        if own is None:
            delattr(home, name)
        else:
            setattr(home, name, own)

    setattr(home, name, value)
    _undo.append(undo)


@contextlib.contextmanager
def patched(wishes: Wishes) -> Iterator[None]:
    """Apply the wishes to this thread inside; nothing stays replaced after the last recorder of the process."""
    global _open  # noqa: PLW0603 - one count for the process, under the lock
    with _lock:
        if _open == 0:
            _replace(torch.jit, "is_tracing", _is_tracing())
            _replace(torch.autograd.Function, "apply", _apply())
            masks = sys.modules.get("transformers.masking_utils")
            for name, wrap in (
                ("_vmap_for_bhqkv", _masks_by_broadcasting),
                ("TransformGetItemToIndex", lambda plain: lambda: contextlib.nullcontext() if _current() else plain()),
            ):
                if hasattr(masks, name):
                    _replace(masks, name, wrap(getattr(masks, name)))
        _open += 1
    _local.wishes = [*getattr(_local, "wishes", ()), wishes]
    try:
        yield
    finally:
        _local.wishes.pop()
        with _lock:
            _open -= 1
            while _open == 0 and _undo:
                _undo.pop()()
