"""The one class that timm's networks use."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation whose four vectors are buffers: as torchvision.ops.misc computes it, float32 [N, C, H, W]."""

    def __init__(self, num_features: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((num_features,), value))

    def forward(self, image: Tensor) -> Tensor:
        """Each channel with its own scale and shift."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return image * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)
