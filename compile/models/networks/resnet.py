"""ResNet and ResNeXt with bottleneck blocks.

He et al., Deep Residual Learning for Image Recognition, 2015 (stride in the 3x3 convolution, as torchvision's "v1.5");
Xie et al., Aggregated Residual Transformations for Deep Neural Networks, 2016 (grouped convolution).
Parameter names: torchvision.models.resnet (conv1, bn1, layer1.0.conv1 ... layer4, fc), which timm shares.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 (grouped, strided), 1x1, added to the input or its projection."""

    def __init__(self, inputs: int, planes: int, stride: int, groups: int, group_width: int) -> None:
        super().__init__()
        width = planes * group_width // 64 * groups
        outputs = planes * EXPANSION
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + shortcut)


class ResNet(nn.Module):
    """(batch, 3, height, width) float32 to logits (batch, classes).

    layers: blocks in each of the four stages. groups, group_width: 1 and 64 for ResNet, 32 and 4 for ResNeXt 32x4d.
    stem: channels after the first convolution, 64 in every published network.
    """

    def __init__(
        self, layers: Sequence[int], groups: int = 1, group_width: int = 64, classes: int = 1000, stem: int = 64
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = stem
        stages = []
        for index, blocks in enumerate(layers):
            planes = stem << index
            stages.append(_stage(inputs, planes, blocks, 1 if index == 0 else 2, groups, group_width))
            inputs = planes * EXPANSION
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(inputs, classes)

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = self.maxpool(functional.relu(self.bn1(self.conv1(pixel_values))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(torch.flatten(functional.adaptive_avg_pool2d(x, (1, 1)), 1))
        return logits


def _stage(inputs: int, planes: int, blocks: int, stride: int, groups: int, group_width: int) -> nn.Sequential:
    first = Bottleneck(inputs, planes, stride, groups, group_width)
    rest = [Bottleneck(planes * EXPANSION, planes, 1, groups, group_width) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)
