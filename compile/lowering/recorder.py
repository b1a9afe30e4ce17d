"""The function mode that lowers one run of a module: folds, rewrites, rebinds what is written into, records the rest.

Every PyTorch call of the module's Python code passes through ``Recorder.__torch_function__``. While a trace is being
recorded, recording is paused for Python code and resumed around the calls that are to become graph nodes. Hence
shapes are plain integers, ``torch.jit.is_tracing()`` is false in the model's code, and ``script_if_tracing`` helpers
run as the Python functions that they are. The tracing state and the mode belong to the calling thread; nothing global
changes (but see ``thread_patches``).
"""

from __future__ import annotations

import contextlib
import functools
import time
import types
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from compile.lowering import functionalize, thread_patches
from compile.lowering.dataflow import Dataflow, is_wrapped
from compile.lowering.operator_names import (
    AS_OTHER,
    LIKE,
    METADATA,
    RANDOM,
    TAKES_SIZES,
    map_tensors,
    operator_name,
    tensors,
    writes,
)
from compile.lowering.report import LeftAlone
from compile.lowering.rewrite import NOT_MINE, Call, FunctionRewrite, Left, LoweringError
from compile.lowering.selections import Selection, by_entry, is_mask
from compile.portable.replay import GraphPart

FOLD = "fold_constants"
# Hand a value to Python, where a trace loses it.
READS_VALUES = frozenset(
    {
        *("item", "__int__", "__float__", "__bool__", "__index__", "__complex__", "tolist", "numpy", "__array__"),
        *("is_nonzero", "equal"),
    }
)


class NotFoldableError(Exception):
    """A constant turned out to be written with data of the inputs in a form that only a real write expresses."""

    def __init__(self, ordinals: frozenset[int]) -> None:
        super().__init__(ordinals)
        self.ordinals = ordinals


@dataclass
class Plan:
    """What the finding run decided; the same in every later run."""

    rewrites: tuple[FunctionRewrite, ...]
    signature: tuple[tuple[torch.Size, torch.dtype], ...]
    fold: bool
    chip: bool = True  # what only a chip's compiler needs is rewritten, too
    strict: bool = True  # Python code runs unrecorded
    says_tracing: bool = False  # what torch.jit.is_tracing() answers
    watched: bool = True  # below Python as well; TorchScript's interpreter does not run under that
    unseen_data: tuple[bool, ...] = ()
    kept: frozenset[int] = frozenset()  # ordinals of folded calls that must not be folded
    positions: tuple[int, ...] = ()  # which buffer holds the n-th constant
    survivors: list[weakref.ReferenceType[Tensor]] = field(default_factory=list)

    def known(self) -> Iterator[Tensor]:
        """Constants that an earlier run left in a cache of the model."""
        for reference in self.survivors:
            tensor = reference()
            if tensor is not None:
                yield tensor

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "survivors": []}


@dataclass
class Entry:
    """What the recorder knows of one tensor object."""

    reference: weakref.ReferenceType[Tensor]
    static: bool
    storage: int
    origins: frozenset[int] = frozenset()
    value: Tensor | None = None  # what stands for the tensor since it was written into
    base: Tensor | None = None  # the tensor over whose memory this one is a view
    again: Callable[[Tensor], Tensor] | None = None  # makes the same view of another base
    back: functionalize.Back | None = None  # makes the new base when a value is written into the view
    selection: Selection | None = None


@dataclass
class Findings:
    """What one run found out; ``lower`` makes the report and the constants of it."""

    constants: list[Tensor] = field(default_factory=list)
    applied: Counter[tuple[str, str]] = field(default_factory=Counter)
    flops: Counter[str] = field(default_factory=Counter)  # that a rewrite adds
    bytes: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)  # by rewrite
    left: Counter[LeftAlone] = field(default_factory=Counter)
    unseen: Counter[tuple[str, str]] = field(default_factory=Counter)
    unseen_data: list[bool] = field(default_factory=list)
    adopted: list[Tensor] = field(default_factory=list)  # taken for constants though nobody saw them being made
    frozen: Counter[tuple[str, str]] = field(default_factory=Counter)


@functools.cache
def _opened(function: types.FunctionType) -> types.FunctionType | None:
    """A copy of a PyTorch function written in Python that runs its body instead of asking the mode again, or
    None."""
    asks = [name for name in function.__code__.co_names if name.startswith("has_torch_function")]
    if not asks or not str(function.__module__).startswith("torch"):
        return None
    names = {**function.__globals__, **dict.fromkeys(asks, lambda *_: False)}
    copy = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def storage_of(tensor: Tensor) -> int:
    """An address that all views of one memory share (0 for a tensor without memory of its own)."""
    try:
        storage = tensor.untyped_storage() if hasattr(tensor, "untyped_storage") else tensor.storage()  # type: ignore[no-untyped-call]
        return int(storage.data_ptr())
    except (NotImplementedError, RuntimeError):  # a tensor inside torch.vmap, a sparse one
        return 0


class Recorder(TorchFunctionMode):
    """One run of one module; make a new one for every call of forward.

    ``owned`` are the module's parameters and buffers, ``attributes`` its other tensors, ``constants`` the values that
    an earlier run found (None while finding them). Tensors whose making the mode has not seen are data or constants:
    ``flow`` finds out which in the finding run, the plan's ``unseen_data`` repeats what it found.
    """

    def __init__(
        self,
        plan: Plan,
        owned: Iterable[Tensor],
        attributes: Iterable[Tensor],
        constants: Sequence[Tensor] | None,
        flow: Dataflow | None,
    ) -> None:
        super().__init__()
        self.findings = Findings()
        self.path: list[str | GraphPart] = []
        self.placed = False
        self._plan = plan
        self._rewrites: dict[str, list[FunctionRewrite]] = {}
        for rewrite in plan.rewrites:
            for operator in rewrite.operators:
                self._rewrites.setdefault(operator, []).append(rewrite)
        self._owned = {id(tensor): tensor for tensor in owned}
        self._entries: dict[int, Entry] = {}
        self._constants = constants
        self._given: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self._flow = flow
        self._calls = 0
        self._busy: set[Any] = set()
        self._tracing = torch._C._get_tracing_state()
        for tensor in (*attributes, *plan.known()):
            self._mark(tensor, static=True)

    # -- running

    @contextlib.contextmanager
    def running(self, inputs: Iterable[Tensor]) -> Iterator[None]:
        """Everything inside is recorded through this mode; the thread's tracing state is restored afterwards in any
        case."""
        for tensor in inputs:
            self._mark(tensor, static=False)
        wishes = thread_patches.Wishes(self._plan.says_tracing, functools.partial(self._recording, on=False))
        with thread_patches.patched(wishes), self._recording(on=not self._plan.strict), self:
            yield

    @contextlib.contextmanager
    def _recording(self, *, on: bool) -> Iterator[None]:
        before = torch._C._get_tracing_state()
        wanted = self._tracing if on else None
        if (before is None) == (wanted is None):  # inside torch.vmap not even a change to the same may be made
            yield
            return
        torch._C._set_tracing_state(wanted)  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch._C._set_tracing_state(before)  # type: ignore[attr-defined]

    @contextlib.contextmanager
    def _in_module(self) -> Iterator[None]:
        """What a trace records inside has the path of the module that runs now, where such is asked for."""
        state = torch._C._get_tracing_state() if self.placed and self.path else None
        if state is None:
            yield
            return
        step = None if isinstance(self.path[-1], str) else self.path[-1].running
        state.push_scope(step.place if step else self.where)
        try:
            yield
        finally:
            state.pop_scope()

    @contextlib.contextmanager
    def _inside(self, key: Any) -> Iterator[None]:
        """Python code that again passes through this mode, except for what ``key`` names."""
        self._busy.add(key)
        try:
            with self._recording(on=not self._plan.strict), self:
                yield
        finally:
            self._busy.discard(key)

    @property
    def where(self) -> str:
        """Path of the module that runs now; of a graph that is replayed, the one that its step comes from."""
        here = self.path[-1] if self.path else ""
        return here if isinstance(here, str) else here.running.module if here.running else ""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self._flow is not None and self._flow.busy:
            return func(*args, **(kwargs or {}))
        with self._recording(on=False):
            return self._dispatch(func, args, kwargs or {})

    def _dispatch(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = operator_name(func)
        if name == "data":  # no operator, so that a trace loses it; the tensor shares its memory, as one detached does
            func, name = Tensor.detach, "detach"
        args, kwargs = map_tensors(args, self.resolve), map_tensors(kwargs, self.resolve)
        if name in METADATA:
            return func(*args, **kwargs)
        for tensor in tensors((args, kwargs)):
            if not self._known(tensor):
                self._adopt(tensor, name)
        if name in TAKES_SIZES:
            args = (*args[:1], *map_tensors(args[1:], self._as_number))
            kwargs = {
                key: value if key == "input" else map_tensors(value, self._as_number) for key, value in kwargs.items()
            }
        if not self._needs_inputs(name, args, kwargs):
            self._calls += 1
            writes_owned = writes(name) and args and isinstance(args[0], Tensor) and id(args[0]) in self._owned
            if self._plan.fold and self._calls not in self._plan.kept and not writes_owned:
                return self._folded(func, args, kwargs)
        for rewrite in self._rewrites.get(name, ()):
            result = self._rewritten(rewrite, name, args, kwargs)
            if result is not NOT_MINE:
                return result
        body = _opened(func) if isinstance(func, types.FunctionType) and func not in self._busy else None
        if body is None:
            return self._recorded(func, name, args, kwargs)
        with self._inside(func):
            return body(*args, **kwargs)

    def _needs_inputs(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if name in RANDOM:
            return True
        if name in LIKE:
            args = args[1:]
        elif name in AS_OTHER:
            args = args[:1]
            kwargs = {key: value for key, value in kwargs.items() if key != "other"}
        return not all(self.is_static(tensor) for tensor in tensors((args, kwargs)))

    def _folded(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result as a constant: computed now, unrecorded."""
        with torch.no_grad():
            result = func(*args, **kwargs)
        origins = frozenset({self._calls}).union(*(self._origins(tensor) for tensor in tensors((args, kwargs))))
        self._mark_results(result, func, args, kwargs, static=True, origins=origins)
        return result

    def _rewritten(self, rewrite: FunctionRewrite, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        key = (rewrite.name, name)
        if key in self._busy or (not self._plan.chip and rewrite.for_chips_alone(name, args, kwargs)):
            return NOT_MINE
        started = time.perf_counter()
        with self._inside(key):
            result = rewrite.attempt(Call(self, rewrite.name, name), args, kwargs)
        self.findings.seconds[rewrite.name] += time.perf_counter() - started  # type: ignore[assignment]
        if isinstance(result, Left):
            self.findings.left[LeftAlone(rewrite.name, name, self.where, result.reason)] += 1
            return NOT_MINE
        if result is not NOT_MINE:
            self.findings.applied[rewrite.name, self.where] += 1
        return result

    def _as_number(self, tensor: Tensor) -> Any:
        """A size that the model's code computes as a tensor is a number all the same."""
        is_number = tensor.dim() == 0 and tensor.dtype in (torch.int64, torch.int32) and self.is_static(tensor)
        return int(tensor) if is_number else tensor

    def _recorded(self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call as a graph node; constants that it takes are handed to it as buffers."""
        if writes(name) and args and isinstance(args[0], Tensor):
            for tensor in (args[0], *self._aliases(args[0])):  # constants over memory that is written are none
                if self.is_static(tensor) and id(tensor) not in self._owned:
                    raise NotFoldableError(self._origins(tensor))
        if name in READS_VALUES:
            self.findings.frozen[name, self.where] += 1
        handed_args, handed_kwargs = map_tensors(args, self._handed), map_tensors(kwargs, self._handed)
        # A trace would only keep a node that nothing uses.
        with self._recording(on=name not in READS_VALUES), self._in_module():
            result = func(*handed_args, **handed_kwargs)
        self._mark_results(result, func, args, kwargs, static=False)
        if isinstance(result, Tensor):
            self._follow_selection(result, func, name, args, kwargs)
        return result

    def _follow_selection(
        self, result: Tensor, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if name == "__getitem__" and is_mask(args[1]):
            mask, whole = args[1], args[0]
        else:
            given = list(tensors((args, kwargs)))
            found = {id(tensor): one for tensor in given if (one := self._selection(tensor)) is not None}
            of_given = [found[id(tensor)] for tensor in given if id(tensor) in found]
            if not found or not by_entry(name, given, of_given):
                return
            mask = of_given[0].mask
            whole = self._dispatch(
                func,
                *map_tensors((args, kwargs), lambda tensor: found[id(tensor)].whole if id(tensor) in found else tensor),
            )
        entry, parts = self._entry(result), (result, mask, whole)
        if entry is not None and not any(tensor.is_inference() for tensor in parts):  # these count no writes
            entry.selection = Selection(mask, whole, tuple(tensor._version for tensor in parts))

    def _selection(self, tensor: Tensor) -> Selection | None:
        """Of a tensor that is one still: nothing was written since into it, its mask or what it was selected from."""
        entry = self._entry(tensor)
        found = entry.selection if entry else None
        if found is None or self.resolve(found.whole) is not found.whole:
            return None
        now = tuple(part._version for part in (tensor, found.mask, found.whole))
        return found if found.versions == now else None

    def unselected(self, value: Tensor, mask: Tensor) -> Tensor | None:
        """See ``Call.unselected``."""
        found = self._selection(value)
        return found.whole if found and found.mask is mask else None

    # -- what is known of tensors

    def _entry(self, tensor: Tensor) -> Entry | None:
        entry = self._entries.get(id(tensor))
        return entry if entry is not None and entry.reference() is tensor else None

    def _known(self, tensor: Tensor) -> bool:
        return id(tensor) in self._owned or self._entry(tensor) is not None

    def _adopt(self, tensor: Tensor, name: str) -> None:
        """Decide on a tensor whose making was not seen: data of the inputs, or a constant."""
        number = len(self.findings.unseen_data)
        if self._flow is not None:
            is_data = self._flow.depends(tensor)
        else:
            is_data = self._plan.unseen_data[number] if number < len(self._plan.unseen_data) else True
        self.findings.unseen_data.append(is_data)
        if is_data:
            self.findings.unseen[name, self.where] += 1
        elif self._flow is not None and not is_wrapped(tensor):
            self.findings.adopted.append(tensor.detach().clone())
        self._mark(tensor, static=not is_data)

    def _origins(self, tensor: Tensor) -> frozenset[int]:
        entry = self._entry(tensor)
        return entry.origins if entry else frozenset()

    def _mark(self, tensor: Tensor, *, static: bool, origins: frozenset[int] = frozenset()) -> None:
        if id(tensor) in self._owned:
            return
        entry = self._entry(tensor)
        if entry is not None:
            entry.static, entry.origins = static, entry.origins | origins
            return
        self._entries[id(tensor)] = Entry(weakref.ref(tensor), static, storage_of(tensor), origins)

    def _mark_results(
        self,
        result: Any,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        static: bool,
        origins: frozenset[int] = frozenset(),
    ) -> None:
        """Remember the results, and of which argument they are views."""
        base = args[0] if args else kwargs.get("input")
        for place, tensor in enumerate(tensors(result)):
            is_new = self._entry(tensor) is None
            self._mark(tensor, static=static, origins=origins)
            entry = self._entry(tensor)
            if not is_new or entry is None or not isinstance(base, Tensor) or tensor is base:
                continue
            if entry.storage and entry.storage == storage_of(base):
                self._link(entry, base, func, args[1:], kwargs, place)

    def _link(
        self,
        entry: Entry,
        base: Tensor,
        view: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        place: int = 0,
    ) -> None:
        entry.base = base
        entry.again = functools.partial(self._view_again, view, args, kwargs, place)
        entry.back = functionalize.back(operator_name(view), args, kwargs, place)

    def _view_again(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], place: int, base: Tensor
    ) -> Tensor:
        kwargs = {key: value for key, value in kwargs.items() if key != "input"}
        return list(tensors(self._dispatch(func, (base, *args), kwargs)))[place]

    def follow(self, result: Tensor, base: Tensor, view: Callable[..., Tensor], args: tuple[Any, ...]) -> None:
        """See ``Call.follow``."""
        entry = self._entry(result)
        if entry is not None:
            self._link(entry, base, view, args, {})

    def is_static(self, tensor: Tensor) -> bool:
        """Whether the tensor depends only on weights, constants and shapes; what the mode has not seen being made
        does not."""
        if id(tensor) in self._owned:
            return True
        entry = self._entry(tensor)
        return entry is not None and entry.static

    def resolve(self, tensor: Tensor) -> Tensor:
        """The tensor that stands for this one since it, or the memory of which it is a view, was last written into."""
        while True:
            entry = self._entry(tensor)
            if entry is None:
                return tensor
            if entry.value is None and entry.base is not None and entry.again is not None:
                base = self.resolve(entry.base)
                if base is not entry.base:
                    entry.value = entry.again(base)
            if entry.value is None:
                return tensor
            tensor = entry.value

    def _handed(self, tensor: Tensor) -> Tensor:
        """The tensor as a graph node may take it: constants become the buffers that the finding run made of them."""
        if id(tensor) in self._owned or not self.is_static(tensor) or is_wrapped(tensor):
            return tensor
        key = (id(tensor), tensor._version)
        if key not in self._given:
            self._given[key] = (tensor, self._constant(tensor, len(self._given)))
        return self._given[key][1]

    def _constant(self, tensor: Tensor, ordinal: int) -> Tensor:
        if self._constants is None:
            value = tensor.detach().clone(memory_format=torch.contiguous_format)
            self.findings.constants.append(value)
            return value
        expected = self._constants[ordinal] if ordinal < len(self._constants) else None
        if expected is None or expected.shape != tensor.shape or expected.dtype != tensor.dtype:
            found = "nothing" if expected is None else f"{expected.dtype}{list(expected.shape)}"
            raise LoweringError(
                f"constant {ordinal} of {self.where or 'the module'} is {tensor.dtype}{list(tensor.shape)} now and "
                f"was {found} when the module was lowered: its Python code takes another path; lower it again with "
                "these inputs"
            )
        return expected

    # -- writes

    def _aliases(self, tensor: Tensor) -> list[Tensor]:
        """Other live tensors over the same memory whose value still is that memory."""
        storage = storage_of(tensor)
        found = []
        for key, entry in list(self._entries.items()):
            other = entry.reference()
            if other is None:
                del self._entries[key]
            elif other is not tensor and entry.storage == storage and entry.value is None and storage:
                found.append(other)
        return found

    def _is_view_of(self, tensor: Tensor, base: Tensor) -> bool:
        entry = self._entry(tensor)
        while entry is not None and entry.base is not None:
            if entry.base is base:
                return True
            entry = self._entry(entry.base)
        return False

    def rebind(self, target: Tensor, value: Tensor) -> Left | None:
        """See ``Call.rebind``: the value stands for the target, and views of the target are made again of it."""
        with self._recording(on=False):
            return self._rebind(self.resolve(target), value)

    def _rebind(self, target: Tensor, value: Tensor) -> Left | None:
        if value is target:  # nothing was written, for instance into an empty slice
            return None
        entry = self._entry(target)
        if entry is None:  # every other tensor that a call takes has been marked or adopted
            return Left("it writes into a parameter or buffer of the module")
        if entry.base is not None:
            if entry.back is None:
                return Left("it writes into a view that has no way back to the tensor that it is a view of")
            with self._inside(("back", id(target))):
                base = entry.back(entry.base, value)
            return self._rebind(entry.base, base)
        if not all(self._is_view_of(other, target) for other in self._aliases(target)):
            return Left("other tensors share the memory that it writes into")
        if self._aliases(value):  # the two must not follow each other's writes
            value = self._copied(value)
        entry.value = value
        return None

    def reshape_in_place(self, target: Tensor, value: Tensor) -> Left | None:
        """See ``Call.reshape_in_place``."""
        with self._recording(on=False):
            target = self.resolve(target)
            entry, viewed = self._entry(target), self._entry(value)
            others = [other for other in self._aliases(target) if other is not value]
            if entry is None or viewed is None:
                return Left("it changes the shape of a parameter or buffer of the module")
            if entry.base is not None or others:
                return Left("other tensors share the memory of which it changes the shape")
            viewed.base = None  # the two are one from now on
            entry.value = value
            return None

    # -- account

    def survivors(self) -> list[Tensor]:
        """Constants that outlive the run, in a cache that the model keeps; later runs get them without seeing them
        made."""
        self._given.clear()
        found = (entry.reference() for entry in self._entries.values() if entry.static and entry.value is None)
        return [tensor for tensor in found if tensor is not None]

    def output(self, tensor: Tensor) -> Tensor:
        """The tensor as an output of the graph; an output that no node made gets one."""
        tensor = self.resolve(tensor)
        if not self._known(tensor):
            self._adopt(tensor, "output")
        return self._copied(tensor) if self.is_static(tensor) else tensor

    def _copied(self, tensor: Tensor) -> Tensor:
        copied: Tensor = self._recorded(torch.clone, "clone", (tensor,), {})
        return copied
