"""Made-up pictures as inputs: deterministic, with large shapes and fine noise for the outputs to follow."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from compile.definition import Bucket, ModelDefinition
from compile.errors import CompileError
from compile.models.parts.drawn import drawn

# ImageNet statistics, used by torchvision, timm and the families trained with them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def picture(seed: int, height: int, width: int) -> Tensor:
    """(3, height, width) float32 in 0..1: discs of one colour on a gradient, and noise of standard deviation 0.02."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.linspace(0, 1, height)[:, None]
    columns = torch.linspace(0, 1, width)[None, :]
    ends = torch.rand(2, 3, 1, 1, generator=generator)
    drawn = ends[0] * (1 - rows) + ends[1] * (rows + columns) / 2
    for _ in range(6):
        y, x, radius, *colour = torch.rand(6, generator=generator).tolist()
        inside = (rows - y) ** 2 + (columns - x) ** 2 < (0.05 + 0.3 * radius) ** 2
        drawn = torch.where(inside, torch.tensor(colour)[:, None, None], drawn)
    noise = torch.randn(3, height, width, generator=generator)
    return (drawn + 0.02 * noise).clamp(0, 1)


def png(seed: int, height: int, width: int) -> bytes:
    """A made-up picture as a file; lossless, so that every decoder gives the same pixels."""
    pixels = (picture(seed, height, width) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    body = io.BytesIO()
    Image.frombytes("RGB", (width, height), bytes(pixels.flatten().tolist())).save(body, "PNG")
    return body.getvalue()


@dataclass(frozen=True)
class Pictures:
    """The inputs of a family that takes one batch of normalised pictures.

    name: the parameter of forward. multiple: what height and width must be divisible by. fixed: the only size that
    the network takes, or None. mean, std: of values in 0..1.
    """

    family: str
    name: str = "pixel_values"
    multiple: int = 1
    fixed: tuple[int, int] | None = None
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD

    def size(self, bucket: Bucket) -> tuple[int, int]:
        """(height, width) of a bucket. Raises CompileError when the network cannot take it."""
        given = bucket.get("image", ())
        size = () if isinstance(given, int) else tuple(given)
        usable = len(size) == 2 and all(side > 0 and side % self.multiple == 0 for side in size)
        if not usable or (self.fixed is not None and size != self.fixed):
            wanted = list(self.fixed) if self.fixed else f"[height, width] in multiples of {self.multiple}"
            raise CompileError(f"compile.buckets: {dict(bucket)} does not fit {self.family}.", f"Give image: {wanted}.")
        return size[0], size[1]

    def batch(self, seed: int, bucket: Bucket, batch: int) -> dict[str, Tensor]:
        """float32 (batch, 3, height, width); every picture of every seed differs."""
        height, width = self.size(bucket)
        pictures = torch.stack([picture(1000 * seed + index, height, width) for index in range(batch)])
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return {self.name: (pictures - mean) / std}

    def definition(
        self,
        module: nn.Module,
        size: int | tuple[int, int],
        initialise: Callable[[nn.Module, torch.Generator], None],
        **more: Any,
    ) -> ModelDefinition:
        """A model of one graph for pictures of `size`; more: further fields, or others than the usual."""
        bucket: Bucket = {"image": (size, size) if isinstance(size, int) else size}
        usual = {"graphs": {"main": drawn(module.eval(), self.batch)}, "task": "tensor"}
        return ModelDefinition(buckets=[bucket], initialise=initialise, **{**usual, **more})
