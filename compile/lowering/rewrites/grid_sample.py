"""Sampling an image at positions that are data: the weights of bilinear interpolation as a matrix of the positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compile.lowering.rewrite import NOT_MINE, Call, FunctionRewrite, Left

# Above this the product with every pixel is dearer than fetching four of them on the host.
MOST_FLOPS = 2_000_000_000


class GridSample(FunctionRewrite):
    """``F.grid_sample`` of images, bilinear, with padding by zeros or by the border, align_corners either way."""

    name = "grid_sample"
    operators = frozenset({"grid_sample"})
    held = operators
    why = "aten::grid_sampler is not supported, nor is any gather at positions that are data"
    cost = "a product of [positions, H x W] with the image, 2 x positions x H x W FLOP a channel, instead of four taps"

    def apply(
        self,
        call: Call,
        input: Tensor,  # noqa: A002
        grid: Tensor,
        mode: str = "bilinear",
        padding_mode: str = "zeros",
        align_corners: bool | None = None,
    ) -> Any:
        """input [N, C, H, W], grid [N, h, w, 2] in -1 .. 1 (x, y); a pixel weighs 1 - its distance, or nothing."""
        if input.dim() != 4:
            return Left("it samples a volume") if mode == "bilinear" else NOT_MINE
        if mode != "bilinear" or padding_mode not in ("zeros", "border"):
            return Left(f"it samples in mode {mode} with padding by {padding_mode}")
        batch, channels, height, width = input.shape
        rows, columns = grid.shape[1:3]
        flops = 2 * batch * rows * columns * height * width * channels
        if flops > MOST_FLOPS:
            return Left(f"a product of {flops:,} FLOP; fetching four pixels is cheaper on the host")
        weights_x, weights_y = (
            _weights(grid[..., axis].reshape(batch, rows * columns, 1), length, padding_mode, bool(align_corners))
            for axis, length in ((0, width), (1, height))
        )
        weights = weights_y.unsqueeze(-1) * weights_x.unsqueeze(-2)
        call.adds(flops=flops + weights.numel())
        sampled = torch.matmul(
            input.reshape(batch, channels, height * width), weights.reshape(batch, -1, height * width).transpose(1, 2)
        )
        return sampled.reshape(batch, channels, rows, columns)


def _weights(place: Tensor, length: int, padding: str, align_corners: bool) -> Tensor:
    """[N, P, 1] in -1 .. 1 -> [N, P, length], the share of each pixel of an axis."""
    place = (place + 1.0) * ((length - 1) / 2) if align_corners else ((place + 1.0) * length - 1.0) * 0.5
    if padding == "border":
        place = torch.clamp(place, min=0, max=length - 1)
    pixels = torch.arange(length, dtype=place.dtype)
    return torch.relu(1.0 - torch.abs(place - pixels))
