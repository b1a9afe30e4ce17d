"""CRAFT: where characters are in a picture, and which belong to one word.

Baek et al., Character Region Awareness for Text Detection, 2019: a VGG-16 with batch norm whose features are brought
back up to half the picture's size in four steps.
Parameter names: the checkpoints of clovaai/CRAFT-pytorch (basenet.slice1.0.weight ... upconv1.conv.0.weight ...
conv_cls.0.weight). In the slices they are the indices of torchvision's vgg16_bn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from compile.models.networks.vgg import VGG16, convolutions

# The slices end before the ReLU of conv2_2, conv3_2, conv4_2 and conv5_2. (Indices into vgg16_bn.)
SLICES = ((0, 12), (12, 19), (19, 29), (29, 39))


class Backbone(nn.Module):
    """Features of five depths, the shallowest first.

    What the next slice reads and what goes to the decoder is the same, rectified tensor: the original's ReLUs work in
    place and so change the features that it kept. Only conv5_2's are kept unrectified, since a pooling follows them.
    """

    def __init__(self, stages: Sequence[Sequence[int]], deep: int) -> None:
        super().__init__()
        modules = convolutions(stages, batch_norm=True)
        for number, (start, end) in enumerate(SLICES, 1):
            part = nn.Sequential()
            first_relu = start if number > 1 else None
            for index in range(start, end):
                if index != first_relu:
                    part.add_module(str(index), modules[index])
            self.add_module(f"slice{number}", part)
        self.slice5 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1),
            nn.Conv2d(stages[-1][-1], deep, 3, padding=6, dilation=6),
            nn.Conv2d(deep, deep, 1),
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for name in ("slice1", "slice2", "slice3"):
            x = functional.relu(self.get_submodule(name)(x))
            features.append(x)
        fourth = self.get_submodule("slice4")(x)
        return [*features, fourth, self.slice5(fourth)]


class UpConvolution(nn.Module):
    """Two features, side by side, to the channels of the next step."""

    def __init__(self, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, middle, 1),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class CRAFT(nn.Module):
    """(batch, 3, height, width) float32 to (scores, features) at half the size.

    scores (batch, height / 2, width / 2, 2): region and affinity. features (batch, upper[-1], height / 2, width / 2):
    what CRAFT's link refiner reads. Height and width are multiples of 16 (32 in the original's own preparation).
    stages, deep: channels of the backbone; upper: channels after each of the four steps up.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]] = VGG16,
        deep: int = 1024,
        upper: Sequence[int] = (256, 128, 64, 32),
        head: int = 16,
    ) -> None:
        super().__init__()
        self.basenet = Backbone(stages, deep)
        one, two, three, four = upper
        self.upconv1 = UpConvolution(deep + stages[4][1], 2 * one, one)
        self.upconv2 = UpConvolution(one + stages[3][1], 2 * two, two)
        self.upconv3 = UpConvolution(two + stages[2][1], 2 * three, three)
        self.upconv4 = UpConvolution(three + stages[1][1], 2 * four, four)
        self.conv_cls = nn.Sequential(
            nn.Conv2d(four, four, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(four, four, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(four, head, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(head, head, 1),
            nn.ReLU(),
            nn.Conv2d(head, 2, 1),
        )

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        second, third, fourth, fifth, deep = self.basenet(pixel_values)
        y = self.upconv1(torch.cat([deep, fifth], 1))
        for skip, step in ((fourth, self.upconv2), (third, self.upconv3), (second, self.upconv4)):
            y = functional.interpolate(y, size=skip.shape[2:], mode="bilinear", align_corners=False)
            y = step(torch.cat([y, skip], 1))
        return self.conv_cls(y).permute(0, 2, 3, 1), y
