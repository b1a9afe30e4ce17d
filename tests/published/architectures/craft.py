"""CRAFT (Baek et al., 2019): a VGG-16 with batch normalisation, and a U-shaped decoder that ends in two score maps."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

# Channels of the VGG-16 convolutions, M for a pooling; the last block of VGG-16 is replaced by dilated convolutions.
_VGG = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512)
# The backbone is cut behind the normalisation of these convolutions: the next stage starts with their ReLU.
_CUTS = (4, 6, 9, 12)


def _backbone() -> nn.ModuleList:
    stages, stage, channels, convolutions = [], [], 3, 0
    for width in _VGG:
        if width == "M":
            stage.append(nn.MaxPool2d(2, 2))
            continue
        stage += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width)]
        channels, convolutions = width, convolutions + 1
        if convolutions in _CUTS:
            stages.append(nn.Sequential(*stage))
            stage = []
        stage.append(nn.ReLU(inplace=True))
    return nn.ModuleList(stages)


class _Merge(nn.Module):
    def __init__(self, channels: int, middle: int, out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, middle, 1),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, out, 3, padding=1),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Craft(nn.Module):
    """image [N, 3, H, W] -> (scores [N, H/2, W/2, 2], features [N, 32, H/2, W/2])."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = _backbone()
        self.wide = nn.Sequential(
            nn.MaxPool2d(3, 1, 1), nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.Conv2d(1024, 1024, 1)
        )
        self.merges = nn.ModuleList(
            [_Merge(1536, 512, 256), _Merge(768, 256, 128), _Merge(384, 128, 64), _Merge(192, 64, 32)]
        )
        head: list[nn.Module] = []
        for channels, out, kernel in ((32, 32, 3), (32, 32, 3), (32, 16, 3), (16, 16, 1)):
            head += [nn.Conv2d(channels, out, kernel, padding=kernel // 2), nn.ReLU(inplace=True)]
        self.head = nn.Sequential(*head, nn.Conv2d(16, 2, 1))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        skips = []
        x = image
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        y = self.merges[0](torch.cat([self.wide(x), skips[3]], dim=1))
        for merge, skip in zip(self.merges[1:], (skips[2], skips[1], skips[0]), strict=True):
            y = functional.interpolate(y, size=skip.size()[2:], mode="bilinear", align_corners=False)
            y = merge(torch.cat([y, skip], dim=1))
        return self.head(y).permute(0, 2, 3, 1), y
