"""Interpolation with fixed sizes is a linear map of each axis: multiply with its matrix instead."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compile.lowering.operator_names import tensors
from compile.lowering.rewrite import NOT_MINE, Call, FunctionRewrite, Left

AXES = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
KERNEL = {"linear": "linear", "bilinear": "bilinear", "bicubic": "bicubic", "trilinear": "linear"}


class Interpolate(FunctionRewrite):
    """``F.interpolate`` in the modes linear, bilinear, bicubic and trilinear, any scale, align_corners and antialias.

    The matrices are what PyTorch's own kernel makes of the identity in float64, cast to the input's dtype. Nearest
    modes move values without arithmetic and ``area`` is average pooling: neither concerns this rewrite.
    """

    name = "interpolate"
    operators = frozenset({"interpolate"})
    why = "upsample_bicubic2d and upsample_linear1d are not supported, upsample_bilinear2d only without align_corners"
    cost = "two dense products for each image instead of a few taps for each pixel; a matrix for each axis"

    def for_chips_alone(self, _: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Graph files hold linear and bilinear, without antialiasing."""
        names = ("input", "size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return given.get("mode") in ("linear", "bilinear") and not given.get("antialias")

    def apply(
        self,
        call: Call,
        input: Tensor,  # noqa: A002 - PyTorch's own argument names
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
        antialias: bool = False,
    ) -> Any:
        """X [N, C, H, W] becomes W_h @ X @ W_w^T; the axis that shrinks most goes first."""
        if mode not in AXES:
            return NOT_MINE
        if not all(call.is_static(tensor) for tensor in tensors((size, scale_factor))):
            return Left("its size depends on the data")
        if input.dim() != AXES[mode] + 2:
            return NOT_MINE  # PyTorch's own error message is the right one
        sizes = _per_axis(size, AXES[mode])
        scales = _per_axis(scale_factor, AXES[mode])
        options = {"mode": KERNEL[mode], "align_corners": align_corners, **({"antialias": True} if antialias else {})}
        options["recompute_scale_factor"] = recompute_scale_factor
        matrices = {
            axis: axis_matrix(input.shape[axis + 2], sizes[axis], scales[axis], input.dtype, options)
            for axis in range(AXES[mode])
        }
        return _multiply(call, input, matrices)


def _per_axis(value: Any, axes: int) -> list[Any]:
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [part.item() if isinstance(part, Tensor) else part for part in value]
    return [value] * axes


def axis_matrix(
    length: int, size: int | None, scale: float | None, dtype: torch.dtype, options: dict[str, Any]
) -> Tensor:
    """The matrix [out, length] that interpolates one axis, read off PyTorch's kernel in float64."""
    linear = options["mode"] == "linear"
    identity = torch.eye(length, dtype=torch.float64)
    image = identity[None] if linear else identity[None, None]  # the second axis, the columns, stays as it is
    if size is not None:
        result = functional.interpolate(image, size=size if linear else (size, length), **options)
    else:
        result = functional.interpolate(image, scale_factor=scale if linear else (scale, 1.0), **options)  # type: ignore[arg-type]
    matrix = result[0].transpose(0, 1) if linear else result[0, 0]
    return matrix.contiguous().to(dtype)


def _multiply(call: Call, image: Tensor, matrices: dict[int, Tensor]) -> Tensor:
    last = max(matrices)
    for axis in sorted(matrices, key=lambda one: matrices[one].shape[0] / matrices[one].shape[1]):
        matrix = matrices[axis]
        call.adds(flops=2 * image.numel() * matrix.shape[0], bytes_=matrix.numel() * matrix.element_size())
        if axis == last:
            image = torch.matmul(image, matrix.transpose(0, 1))
        elif axis == last - 1:
            image = torch.matmul(matrix, image)
        else:
            image = torch.matmul(image.transpose(2, -1), matrix.transpose(0, 1)).transpose(2, -1)
    return image
