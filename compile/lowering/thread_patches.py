"""A few functions that a recorder needs to see differently, in its own thread only and only while it is open.

- PyTorch 1.13 does not pass ``x[i]`` and ``x[i] = v`` to a function mode (later versions do): ``torch.Tensor``
  carries Python versions of both that ask the mode first.
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
import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function


@dataclass(frozen=True)
class Wishes:
    """What one open recorder wants: the answer of ``is_tracing`` and how to run Python code unrecorded."""

    says_tracing: bool
    unrecorded: Callable[[], AbstractContextManager[None]]


_lock = threading.Lock()
_local = threading.local()
_open = 0
_undo: list[Callable[[], None]] = []


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


_INDEXING = () if _mode_sees_indexing() else ("__getitem__", "__setitem__")


def _current() -> Wishes | None:
    wishes = getattr(_local, "wishes", None)
    return wishes[-1] if wishes else None


def _indexing(name: str) -> Any:
    original = getattr(torch._C._TensorBase, name)

    def indexing(self: Tensor, *args: Any) -> Any:
        if _current() and has_torch_function((self,)):
            return handle_torch_function(original, (self,), self, *args)
        return original(self, *args)

    return indexing


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


# The pointer to a type's sequence methods is the 14th of CPython's PyTypeObject; of these, the 4th and the 6th read and
# write an item (Include/cpython/object.h).
_AS_SEQUENCE, _ITEM_SLOTS = 13, (3, 5)


def _item_slots() -> list[tuple[Any, int, int | None]]:
    """The sequence slots for items of Tensor and its subclasses: (methods, number, value)."""
    kinds: list[Any] = [Tensor]
    for kind in kinds:
        kinds += kind.__subclasses__()
    found = []
    for kind in kinds:
        address = ctypes.c_void_p.from_address(id(kind) + _AS_SEQUENCE * ctypes.sizeof(ctypes.c_void_p)).value
        if address is not None:
            methods = (ctypes.c_void_p * (max(_ITEM_SLOTS) + 1)).from_address(address)
            found += [(methods, number, methods[number]) for number in _ITEM_SLOTS]
    return found


def _replace_indexing() -> None:
    """Both methods, in Python.

    CPython then makes the type a sequence, and leaves it one, so that ``torch.tensor([tensor(1)])`` fails with "len()
    of a 0-d tensor": the slots get their values back at once, and again when the methods are gone.
    """
    slots = _item_slots()

    def restore() -> None:
        for methods, number, value in slots:
            methods[number] = value

    _undo.append(restore)
    for name in _INDEXING:
        _replace(Tensor, name, _indexing(name))
    restore()


@contextlib.contextmanager
def patched(wishes: Wishes) -> Iterator[None]:
    """Apply the wishes to this thread inside; nothing stays replaced after the last recorder of the process."""
    global _open  # noqa: PLW0603 - one count for the process, under the lock
    with _lock:
        if _open == 0:
            _replace(torch.jit, "is_tracing", _is_tracing())
            _replace(torch.autograd.Function, "apply", _apply())
            if _INDEXING:
                _replace_indexing()
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
