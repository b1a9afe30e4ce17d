"""YOLOv5, release 6: CSP backbone with SiLU, SPPF, path aggregation, three detection scales.

There is no paper; the layers are those of the published configurations yolov5{n,s,m,l,x}.yaml.
Parameter names: the checkpoints of ultralytics/yolov5 (model.0.conv.weight ... model.24.m.2.bias).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from compile.models.networks.yolo import Bottleneck, Conv, Detect, Numbered, squared_boxes
from compile.models.networks.yolov3 import ANCHORS, STRIDES


class C3(nn.Module):
    """Cross-stage-partial block with three convolutions: half the channels go round the bottlenecks."""

    def __init__(self, inputs: int, outputs: int, count: int, shortcut: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.cv1 = Conv(inputs, half)
        self.cv2 = Conv(inputs, half)
        self.cv3 = Conv(2 * half, outputs)
        self.m = nn.Sequential(*(Bottleneck(half, half, half, "silu", shortcut) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cv3(torch.cat([self.m(self.cv1(x)), self.cv2(x)], 1))
        return y


class SPPF(nn.Module):
    """Spatial pyramid pooling as three poolings of size 5 in a row (equal to 5, 9 and 13 side by side)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.cv1 = Conv(inputs, inputs // 2)
        self.cv2 = Conv(inputs // 2 * 4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [self.cv1(x)]
        for _ in range(3):
            pooled.append(functional.max_pool2d(pooled[-1], 5, stride=1, padding=2))
        y: Tensor = self.cv2(torch.cat(pooled, 1))
        return y


class YOLOv5(Numbered):
    """(batch, 3, height, width) float32 in 0..1, sides multiples of 32, to (batch, boxes, 5 + classes).

    Rows: centre x, centre y, width, height in pixels, objectness, one probability a class; finest scale first.
    depth, width: the multiples of the published configurations (0.33 and 0.50 for yolov5s).
    """

    def __init__(
        self, depth: float = 0.33, width: float = 0.50, classes: int = 80, anchors: Sequence[Sequence[float]] = ANCHORS
    ) -> None:
        c64, c128, c256, c512, c1024 = (math.ceil(c * width / 8) * 8 for c in (64, 128, 256, 512, 1024))

        def count(blocks: int) -> int:
            return max(round(blocks * depth), 1)

        backbone = [
            Conv(3, c64, 6, 2, padding=2),
            Conv(c64, c128, 3, 2),
            C3(c128, c128, count(3)),
            Conv(c128, c256, 3, 2),
            C3(c256, c256, count(6)),
            Conv(c256, c512, 3, 2),
            C3(c512, c512, count(9)),
            Conv(c512, c1024, 3, 2),
            C3(c1024, c1024, count(3)),
            SPPF(c1024, c1024),
        ]
        # Upsampling and joining (11, 12, 15, 16, 19, 22) have no weights and hold a place only.
        head = [
            Conv(c1024, c512),
            nn.Identity(),
            nn.Identity(),
            C3(2 * c512, c512, count(3), shortcut=False),
            Conv(c512, c256),
            nn.Identity(),
            nn.Identity(),
            C3(2 * c256, c256, count(3), shortcut=False),
            Conv(c256, c256, 3, 2),
            nn.Identity(),
            C3(2 * c256, c512, count(3), shortcut=False),
            Conv(c512, c512, 3, 2),
            nn.Identity(),
            C3(2 * c512, c1024, count(3), shortcut=False),
            Detect([c256, c512, c1024], classes, anchors, STRIDES),
        ]
        super().__init__([*backbone, *head], squared_boxes)

    def features(self, x: Tensor) -> list[Tensor]:
        """What the three heads read, finest first. The numbers are those of the checkpoint's layers."""
        fine = self.run(0, 5, x)
        middle = self.run(5, 7, fine)
        tenth = self.run(7, 11, middle)
        up = functional.interpolate(tenth, scale_factor=2.0, mode="nearest")
        fourteenth = self.run(13, 15, torch.cat([up, middle], 1))
        up = functional.interpolate(fourteenth, scale_factor=2.0, mode="nearest")
        finest = self.run(17, 18, torch.cat([up, fine], 1))
        down = self.run(20, 21, torch.cat([self.run(18, 19, finest), fourteenth], 1))
        deepest = self.run(23, 24, torch.cat([self.run(21, 22, down), tenth], 1))
        return [finest, down, deepest]
