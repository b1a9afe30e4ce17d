"""Reduced precision as neuron-cc's --fast-math gives it, emulated on the CPU: an emulation, not a measurement.

Every operator that runs inside rounds its float32 operands to the smaller type, computes in float32 (as the chip
accumulates), and in the modes that cast everything rounds its result too. Integers and booleans stay as they are, so
comparisons of indices stay exact. What this cannot show: the compiler's own order of additions, fused operators that
round less often, and how the chip approximates exp, tanh or erf.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from compile.lowering import Prologue
from compile.lowering.operator_names import map_tensors
from compile.portable.replay import Joined


@dataclass(frozen=True)
class Mode:
    """One precision. `dtype` None rounds nothing; `everywhere` rounds at every operator, not at products alone.

    fast_math: what to write into the spec for it.
    """

    name: str
    dtype: torch.dtype | None
    everywhere: bool
    fast_math: str


# The fastest first: the order in which neuron-cc's documentation ranks --fast-math (more casts, more speed), the
# narrower type of equal ones later, since only bfloat16 keeps float32's range. An order, not a measurement.
MODES = (
    Mode("bf16-all", torch.bfloat16, True, "fp32-cast-all"),
    Mode("fp16", torch.float16, True, "fp32-cast-all-fp16"),
    Mode("bf16-matmult", torch.bfloat16, False, "fp32-cast-matmult-bf16"),
    Mode("fp32", None, False, "none"),
)

# Products and the places of their two factors; what is added to a product stays float32 in the accumulator.
_FACTORS: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "matmul", "linear", "convolution", "_convolution"), (0, 1)),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"), (0, 1)),
    **dict.fromkeys(("mkldnn_convolution", "mkldnn_linear", "_mkldnn_convolution"), (0, 1)),
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "addbmm"), (1, 2)),
}


def rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A float32 tensor with the values that `dtype` holds (too large ones become infinite); others as they are."""
    return tensor.to(dtype).to(torch.float32) if tensor.dtype == torch.float32 else tensor


class Emulation(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, every PyTorch operator of this thread computes in the mode's precision. Use under torch.no_grad()."""

    def __init__(self, mode: Mode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._mode = mode

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # A function mode (lowering's recorder) must not take what happens in here for the model's own calls.
        with torch._C.DisableTorchFunction():
            if self._mode.dtype is None:
                return func(*args, **kwargs)
            if self._mode.everywhere:
                return self._all(func, self._mode.dtype, args, kwargs)
            # The operator without namespace and overload: addmm of aten.addmm.default.
            factors = _FACTORS.get(str(func._schema.name).rpartition("::")[2], ())
            cast = [rounded(value, self._mode.dtype) if at in factors else value for at, value in enumerate(args)]
            return func(*cast, **kwargs)

    @staticmethod
    def _all(func: Any, dtype: torch.dtype, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        def cast(tensor: Tensor) -> Tensor:
            return rounded(tensor, dtype)

        kinds = [argument.alias_info for argument in func._schema.arguments]
        if any(kind is not None and not kind.is_write for kind in kinds):
            return func(*args, **kwargs)  # a view: nothing is computed
        written = [value for value, kind in zip(args, kinds, strict=False) if kind is not None]
        held = {id(value) for value in written}
        given = [value if id(value) in held else map_tensors(value, cast) for value in args]
        result = func(*given, **map_tensors(kwargs, cast))
        for tensor in written:
            if isinstance(tensor, Tensor):
                tensor.copy_(cast(tensor))
        return result if written else map_tensors(result, cast)


class _Rounded(nn.Module):
    """A module that computes in a mode's precision."""

    def __init__(self, module: nn.Module, mode: Mode) -> None:
        super().__init__()
        self.module, self.mode = module, mode

    def forward(self, *inputs: Tensor) -> Any:
        with Emulation(self.mode):
            return self.module(*inputs)


def emulated(parts: Prologue, inputs: tuple[Tensor, ...], mode: Mode) -> Any:
    """The outputs of a lowered model whose device part computes in the mode's precision; its host part is exact.

    Use under torch.no_grad().
    """
    device = _Rounded(parts.device, mode)
    if parts.host is None or parts.wiring is None:
        return device(*inputs)
    return Joined(parts.host, device, parts.wiring)(*inputs)
