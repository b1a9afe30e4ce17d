"""What a rewrite is: a small declarative class that says what it matches, what it puts there, why and at which cost."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from compile.lowering.recorder import Recorder


class LoweringError(RuntimeError):
    """A module that cannot be lowered, or a lowered module that is used in another way than it was made for."""


@dataclass(frozen=True)
class Left:
    """A rewrite's answer "this is mine, but it cannot apply here"; the operator stays and the report gives the
    reason."""

    reason: str


class NotMine:
    """A rewrite's answer "this call does not concern me"; nothing is reported."""


NOT_MINE = NotMine()


class Rewrite:
    """Base of all rewrites; every subclass fills these in.

    ``name`` is the switch in ``disabled`` and in the spec, ``why`` says what Neuron does not take, ``cost`` what the
    replacement costs in words; the report carries the figures.
    """

    name: ClassVar[str]
    mechanism: ClassVar[str]
    why: ClassVar[str]
    cost: ClassVar[str]


class FunctionRewrite(Rewrite):
    """Replaces calls of PyTorch functions and tensor methods that depend on the inputs.

    ``operators`` are the names under which PyTorch announces the call (``interpolate``,
    ``scaled_dot_product_attention``, ``__setitem__`` ...). ``apply`` receives the call's own arguments and returns
    its result, made of any PyTorch functions: shapes are plain integers there and whatever depends only on weights
    and shapes becomes a constant. It may return ``Left(reason)`` or ``NOT_MINE`` instead. ``held``: those of the
    operators that a graph file holds as they are, so that a graph for a processor keeps them.
    """

    mechanism: ClassVar[str] = "function"
    operators: ClassVar[frozenset[str]]
    held: ClassVar[frozenset[str]] = frozenset()
    apply: Callable[..., Any]

    def for_chips_alone(self, operator: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:  # noqa: ARG002
        """Whether a processor takes this call as it is."""
        return operator in self.held

    def attempt(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``apply`` with the call's arguments, or ``Left`` when the call has arguments that ``apply`` does not know."""
        try:
            inspect.signature(self.apply).bind(call, *args, **kwargs)
        except TypeError as error:
            return Left(f"called in a form that this rewrite does not know ({error})")
        return self.apply(call, *args, **kwargs)


class ModuleRewrite(Rewrite):
    """Replaces submodules of the (copied) module before anything runs."""

    mechanism: ClassVar[str] = "module"

    def matches(self, module: nn.Module) -> bool:
        """Whether this submodule is to be replaced."""
        raise NotImplementedError

    def replace(self, module: nn.Module) -> nn.Module | Left:
        """The module to put there; it may reuse the parameters of ``module``, which belongs to the copy."""
        raise NotImplementedError


class Call:
    """One call that a ``FunctionRewrite`` looks at, and what the rewrite may ask of the recorder."""

    def __init__(self, recorder: Recorder, rewrite: str, operator: str) -> None:
        self._recorder = recorder
        self._rewrite = rewrite
        self.operator = operator

    def is_static(self, value: Any) -> bool:
        """Whether a value depends only on weights, constants and shapes (Python numbers and None do)."""
        return not isinstance(value, Tensor) or self._recorder.is_static(value)

    def rebind(self, target: Tensor, value: Tensor) -> Left | None:
        """Let ``value`` stand for ``target`` from now on: the functional form of writing into ``target``.

        Returns ``Left`` when the write cannot be expressed that way, and None when it was done.
        """
        return self._recorder.rebind(target, value)

    def follow(self, result: Tensor, base: Tensor, view: Callable[..., Tensor], *args: Any) -> None:
        """Say that ``result`` replaces ``view(base, *args)``, which would share base's memory: what is written into
        one is seen in the other."""
        self._recorder.follow(result, base, view, args)

    def reshape_in_place(self, target: Tensor, value: Tensor) -> Left | None:
        """Let ``value``, a view of ``target``, stand for it from now on; ``Left`` when others share its memory."""
        return self._recorder.reshape_in_place(target, value)

    def unselected(self, value: Any, mask: Tensor) -> Tensor | None:
        """The tensor of which ``mask``, which depends on the data, selects ``value``, or None where none is known."""
        return self._recorder.unselected(value, mask) if isinstance(value, Tensor) else None

    def adds(self, *, flops: int = 0, bytes_: int = 0) -> None:
        """Account for what the replacement adds to one inference and to the artifact."""
        self._recorder.findings.flops[self._rewrite] += flops
        self._recorder.findings.bytes[self._rewrite] += bytes_
