"""Depth Anything V2 under the module names of its published checkpoints, written for these tests from the papers.

An oracle for the mapping of names: the same weights in both networks must give the same depth. Position embeddings are
not resized here, so inputs have the size of the embedding.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (the field's name for it)

from compile.models.depth_anything_v2 import Sizes


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        weights = ((q * (width // self.heads) ** -0.5) @ k.transpose(-2, -1)).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, width))


class Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = Attention(width, heads), Mlp(width)
        self.ls1, self.ls2 = Scale(width), Scale(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.ls1.gamma * self.attn(self.norm1(x))
        return x + self.ls2.gamma * self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class Patches(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 14, stride=14)


class Backbone(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width, side = sizes.hidden_size, sizes.image_size // 14
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, side * side + 1, width))
        self.patch_embed = Patches(width)
        self.blocks = nn.ModuleList(Block(width, sizes.heads) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: torch.Tensor, out: tuple[int, ...]) -> list[torch.Tensor]:
        tokens = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1) + self.pos_embed
        taken = []
        for number, block in enumerate(self.blocks, 1):
            tokens = block(tokens)
            if number in out:
                taken.append(self.norm(tokens)[:, 1:])
        return taken


class ResConfUnit(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class RefineNet(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(width, width, 1)
        self.resConfUnit1, self.resConfUnit2 = ResConfUnit(width), ResConfUnit(width)

    def forward(self, deep: torch.Tensor, fine: torch.Tensor | None, size: list[int]) -> torch.Tensor:
        x = deep if fine is None else deep + self.resConfUnit1(fine)
        x = F.interpolate(self.resConfUnit2(x), size, mode="bilinear", align_corners=True)
        return self.out_conv(x)


class Scratch(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        for number, channels in enumerate(sizes.neck, 1):
            setattr(self, f"layer{number}_rn", nn.Conv2d(channels, sizes.fusion, 3, padding=1, bias=False))
            setattr(self, f"refinenet{number}", RefineNet(sizes.fusion))
        half = sizes.fusion // 2
        self.output_conv1 = nn.Conv2d(sizes.fusion, half, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(half, sizes.head, 3, padding=1), nn.ReLU(), nn.Conv2d(sizes.head, 1, 1)
        )


class Head(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        a, b, _, d = sizes.neck
        self.projects = nn.ModuleList(nn.Conv2d(sizes.hidden_size, channels, 1) for channels in sizes.neck)
        up = [nn.ConvTranspose2d(a, a, 4, stride=4), nn.ConvTranspose2d(b, b, 2, stride=2)]
        self.resize_layers = nn.ModuleList([*up, nn.Identity(), nn.Conv2d(d, d, 3, stride=2, padding=1)])
        self.scratch = Scratch(sizes)


class OfficialDepth(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.pretrained, self.depth_head = Backbone(sizes), Head(sizes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        head, side = self.depth_head, x.shape[-1] // 14
        maps = []
        for number, tokens in enumerate(self.pretrained(x, self.sizes.layers_out)):
            grid = tokens.transpose(1, 2).reshape(len(x), -1, side, side)
            grid = head.resize_layers[number](head.projects[number](grid))
            maps.append(getattr(head.scratch, f"layer{number + 1}_rn")(grid))
        path = head.scratch.refinenet4(maps[3], None, maps[2].shape[2:])
        for number in (3, 2, 1):
            fine = maps[number - 1]
            size = maps[number - 2].shape[2:] if number > 1 else [2 * length for length in fine.shape[2:]]
            path = getattr(head.scratch, f"refinenet{number}")(path, fine, size)
        out = F.interpolate(head.scratch.output_conv1(path), x.shape[2:], mode="bilinear", align_corners=True)
        return F.relu(head.scratch.output_conv2(out))[:, 0]
