"""Depth Anything V2, ViT-S (Yang et al., 2024): a DINOv2 encoder and a DPT head.

`as_published` traces it as the published report did: the position embedding always goes through its resizing, and the
last upsampling takes the traced sizes. Without it the code's own short cuts are taken (577 nodes instead of 603).
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

PATCH = 14
TAKEN = (2, 5, 8, 11)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.attn_drop, self.proj_drop = nn.Dropout(0.0), nn.Dropout(0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv[0] * self.scale, qkv[1], qkv[2]
        weights = self.attn_drop((query @ key.transpose(-2, -1)).softmax(dim=-1))
        x = (weights @ value).transpose(1, 2).reshape(batch, length, width)
        return self.proj_drop(self.proj(x))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = _Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.0), nn.Linear(4 * width, width), nn.Dropout(0.0)
        )
        self.scale1, self.scale2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x)) * self.scale1
        return x + self.mlp(self.norm2(x)) * self.scale2


class _Encoder(nn.Module):
    def __init__(self, width: int, heads: int, depth: int, as_published: bool) -> None:
        super().__init__()
        self.as_published = as_published
        self.patch = nn.Conv2d(3, width, PATCH, PATCH)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 37 * 37 + 1, width))
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def positions(self, x: torch.Tensor, height: int, width: int) -> torch.Tensor:
        count = self.position.shape[1] - 1
        if not self.as_published and x.shape[1] - 1 == count and height == width:
            return self.position
        table = self.position.float()
        first, rest = table[:, 0], table[:, 1:]
        channels = x.shape[-1]
        side = int(math.sqrt(count))
        grid = rest.reshape(1, side, side, channels).permute(0, 3, 1, 2)
        rest = functional.interpolate(grid, size=(height // PATCH, width // PATCH), mode="bicubic")
        rest = rest.permute(0, 2, 3, 1).view(1, -1, channels)
        return torch.cat((first.unsqueeze(0), rest), dim=1).to(x.dtype)

    def forward(self, image: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        _, _, height, width = image.shape
        x = self.patch(image).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        x = x + self.positions(x, height, width)
        taken = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in TAKEN:
                taken.append(x)
        normed = [self.norm(part) for part in taken]
        return [(part[:, 1:], part[:, 0]) for part in normed]


class _Residual(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(features, features, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.add(self.conv2(functional.relu(self.conv1(functional.relu(x)))), x)


class _Fusion(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.skip, self.main = _Residual(features), _Residual(features)
        self.out = nn.Conv2d(features, features, 1)

    def forward(self, x, skip=None, size=None):
        if skip is not None:
            x = torch.add(x, self.skip(skip))
        x = self.main(x)
        how = {"scale_factor": 2} if size is None else {"size": size}
        return self.out(functional.interpolate(x, **how, mode="bilinear", align_corners=True))


class _Head(nn.Module):
    def __init__(self, width: int, features: int, channels: tuple[int, ...], as_published: bool) -> None:
        super().__init__()
        self.as_published = as_published
        self.projects = nn.ModuleList(nn.Conv2d(width, out, 1) for out in channels)
        self.resizes = nn.ModuleList(
            [
                nn.ConvTranspose2d(channels[0], channels[0], 4, 4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, 2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, 2, 1),
            ]
        )
        self.reduces = nn.ModuleList(nn.Conv2d(out, features, 3, padding=1, bias=False) for out in channels)
        self.fusions = nn.ModuleList(_Fusion(features) for _ in channels)
        self.out1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.out2 = nn.Sequential(
            *(nn.Conv2d(features // 2, 32, 3, padding=1), nn.ReLU(True), nn.Conv2d(32, 1, 1), nn.ReLU(True))
        )

    def forward(self, features, rows, columns):
        maps = []
        for (x, _), project, resize in zip(features, self.projects, self.resizes, strict=True):
            plane = x.permute(0, 2, 1)
            maps.append(resize(project(plane.reshape((x.shape[0], x.shape[-1], rows, columns)))))
        first, second, third, fourth = (reduce(x) for reduce, x in zip(self.reduces, maps, strict=True))
        path = self.fusions[3](fourth, size=third.shape[2:])
        path = self.fusions[2](path, third, size=second.shape[2:])
        path = self.fusions[1](path, second, size=first.shape[2:])
        path = self.fusions[0](path, first)
        size = (rows * PATCH, columns * PATCH) if self.as_published else (int(rows * PATCH), int(columns * PATCH))
        return self.out2(functional.interpolate(self.out1(path), size, mode="bilinear", align_corners=True))


class DepthAnythingV2(nn.Module):
    """image [N, 3, H, W] (multiples of 14) -> depth [N, H, W]."""

    def __init__(self, as_published: bool = True, width: int = 384, features: int = 64) -> None:
        super().__init__()
        self.encoder = _Encoder(width, 6, 12, as_published)
        self.head = _Head(width, features, (width // 8, width // 4, width // 2, width), as_published)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        rows, columns = image.shape[-2] // PATCH, image.shape[-1] // PATCH
        return functional.relu(self.head(self.encoder(image), rows, columns)).squeeze(1)
