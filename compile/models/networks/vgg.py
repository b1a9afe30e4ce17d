"""VGG: stacks of 3x3 convolutions between poolings.

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014 (configuration D).
Parameter names: torchvision.models.vgg16 (features.0 ... features.28, classifier.0, classifier.3, classifier.6).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

# Configuration D: channels of each convolution, stage by stage; a 2x2 pooling ends each stage.
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
POOLED = 7


def convolutions(stages: Sequence[Sequence[int]], *, batch_norm: bool = False) -> list[nn.Module]:
    """The convolutional part as a flat list whose indices are torchvision's parameter names."""
    modules: list[nn.Module] = []
    inputs = 3
    for stage in stages:
        for outputs in stage:
            modules.append(nn.Conv2d(inputs, outputs, 3, padding=1))
            if batch_norm:
                modules.append(nn.BatchNorm2d(outputs))
            modules.append(nn.ReLU())
            inputs = outputs
        modules.append(nn.MaxPool2d(2, stride=2))
    return modules


class VGG(nn.Module):
    """(batch, 3, height, width) float32 to logits (batch, classes). hidden: width of the two dense layers."""

    def __init__(self, stages: Sequence[Sequence[int]] = VGG16, hidden: int = 4096, classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(*convolutions(stages))
        self.classifier = nn.Sequential(
            nn.Linear(stages[-1][-1] * POOLED * POOLED, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, classes),
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = self.features(pixel_values)
        if x.shape[-2:] != (POOLED, POOLED):  # at 224x224 the pooling changes nothing
            x = functional.adaptive_avg_pool2d(x, (POOLED, POOLED))
        logits: Tensor = self.classifier(torch.flatten(x, 1))
        return logits
