"""DINOv2's position embedding at other sizes, as the code that it was trained with resizes it.

facebookresearch/dinov2 and DepthAnything/Depth-Anything-V2 add 0.1 to the number of rows and columns and pass the
ratios as scale factors, which shifts where the bicubic kernel reads. transformers does the same up to 4.44 and passes
whole sizes in later versions, so that one checkpoint would give two models (for a picture of 392 x 518 and random
weights their depth maps were 13 % of the maximum apart).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.dinov2.modeling_dinov2 import Dinov2Embeddings

OFFSET = 0.1


class OfficialEmbeddings(Dinov2Embeddings):  # type: ignore[misc]
    """transformers' embeddings with the official resizing."""

    def interpolate_pos_encoding(self, embeddings: Tensor, height: int, width: int) -> Tensor:
        """(1, 1 + patches, width of the model) for a picture of height x width pixels; embeddings hold the patches."""
        positions: Tensor = self.position_embeddings
        known = positions.shape[1] - 1
        if embeddings.shape[1] - 1 == known and height == width:
            return positions
        side, patch = math.isqrt(int(known)), self.config.patch_size
        grid = positions[:, 1:].reshape(1, side, side, positions.shape[-1]).permute(0, 3, 1, 2)
        scale = (float((height // patch + OFFSET) / side), float((width // patch + OFFSET) / side))
        resized = functional.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
        return torch.cat([positions[:, :1], resized.permute(0, 2, 3, 1).reshape(1, -1, positions.shape[-1])], 1)


def with_official_positions(module: nn.Module) -> nn.Module:
    """The module, whose DINOv2 embeddings resize as the official code does from now on."""
    for part in module.modules():
        if type(part) is Dinov2Embeddings:
            part.__class__ = OfficialEmbeddings
    return module
