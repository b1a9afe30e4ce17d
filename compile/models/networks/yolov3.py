"""YOLOv3: Darknet-53 and three detection scales.

Redmon and Farhadi, YOLOv3: An Incremental Improvement, 2018.
Parameter names: the PyTorch checkpoints of ultralytics/yolov3 (model.0.conv.weight ... model.28.m.2.bias), whose
weights were converted from the original Darknet file, layer by layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from compile.models.networks.yolo import Bottleneck, Conv, Detect, Numbered, exponential_boxes, squared_boxes

ANCHORS = ((10, 13, 16, 30, 33, 23), (30, 61, 62, 45, 59, 119), (116, 90, 156, 198, 373, 326))
STRIDES = (8, 16, 32)


# How a head's values become sizes: exp(v) times the anchor, or (2 sigmoid(v)) squared times it.
BOXES = {"exponential": exponential_boxes, "squared": squared_boxes}


class YOLOv3(Numbered):
    """(batch, 3, height, width) float32 in 0..1, sides multiples of 32, to (batch, boxes, 5 + classes).

    A row: centre x, centre y, width, height in pixels, objectness, one probability a class; finest scale first.
    width: channels of the first convolution, 32 in the paper. blocks: residual blocks of the five stages.
    activation, boxes: leaky and exponential in the paper; checkpoints trained by ultralytics want silu and squared.
    """

    def __init__(
        self,
        classes: int = 80,
        width: int = 32,
        blocks: Sequence[int] = (1, 2, 8, 8, 4),
        activation: str = "leaky",
        boxes: str = "exponential",
        anchors: Sequence[Sequence[float]] = ANCHORS,
    ) -> None:
        channels = [width << stage for stage in range(6)]  # 32, 64, 128, 256, 512, 1024
        layers: list[nn.Module] = [Conv(3, width, 3, 1, activation)]
        for inputs, outputs, count in zip(channels[:-1], channels[1:], blocks, strict=True):
            layers += [Conv(inputs, outputs, 3, 2, activation), _residuals(outputs, count, activation)]
        layers += _neck(width, activation)
        layers.append(Detect([8 * width, 16 * width, 32 * width], classes, anchors, STRIDES))
        super().__init__(layers, BOXES[boxes])

    def features(self, x: Tensor) -> list[Tensor]:
        """What the three heads read, finest first. The numbers are those of the checkpoint's layers."""
        fine = self.run(0, 7, x)
        middle = self.run(7, 9, fine)
        coarse = self.run(9, 15, middle)
        x = functional.interpolate(self.run(16, 17, coarse), scale_factor=2.0, mode="nearest")
        x = self.run(19, 22, torch.cat([x, middle], 1))
        up = functional.interpolate(self.run(23, 24, x), scale_factor=2.0, mode="nearest")
        finest = self.run(26, 28, torch.cat([up, fine], 1))
        return [finest, self.run(22, 23, x), self.run(15, 16, coarse)]


def _residuals(channels: int, count: int, activation: str) -> nn.Module:
    """Residual blocks of one stage: a single one has no index in the checkpoint's names."""
    blocks = [Bottleneck(channels, channels, channels // 2, activation) for _ in range(count)]
    return blocks[0] if count == 1 else nn.Sequential(*blocks)


def _neck(width: int, activation: str) -> list[nn.Module]:
    """Layers 11 to 27. Upsampling and joining (17, 18, 24, 25) have no weights and hold a place only."""

    def pair(inputs: int, outputs: int) -> Bottleneck:
        return Bottleneck(inputs, outputs, outputs // 2, activation, shortcut=False)

    def conv(inputs: int, outputs: int, kernel: int) -> Conv:
        return Conv(inputs, outputs, kernel, 1, activation)

    c128, c256, c512, c1024 = 4 * width, 8 * width, 16 * width, 32 * width
    return [
        pair(c1024, c1024),
        conv(c1024, c512, 1),
        conv(c512, c1024, 3),
        conv(c1024, c512, 1),
        conv(c512, c1024, 3),
        conv(c512, c256, 1),
        nn.Identity(),
        nn.Identity(),
        pair(c256 + c512, c512),
        pair(c512, c512),
        conv(c512, c256, 1),
        conv(c256, c512, 3),
        conv(c256, c128, 1),
        nn.Identity(),
        nn.Identity(),
        pair(c128 + c256, c256),
        nn.Sequential(pair(c256, c256), pair(c256, c256)),
    ]


TINY_ANCHORS = ((10, 14, 23, 27, 37, 58), (81, 82, 135, 169, 344, 319))


class YOLOv3Tiny(Numbered):
    """The small network of darknet's yolov3-tiny.cfg: rows as of YOLOv3, of two scales.

    width: channels of the first convolution. The names are those of ultralytics' yolov3-tiny.yaml; the pooling of
    stride 1 sees no zeros beyond the border, as in darknet.
    """

    def __init__(
        self,
        classes: int = 80,
        width: int = 16,
        activation: str = "leaky",
        boxes: str = "exponential",
        anchors: Sequence[Sequence[float]] = TINY_ANCHORS,
    ) -> None:
        def conv(inputs: int, outputs: int, kernel: int = 3) -> Conv:
            return Conv(inputs, outputs, kernel, 1, activation)

        layers: list[nn.Module] = [conv(3, width)]
        for stage in range(5):
            layers += [nn.MaxPool2d(2), conv(width << stage, width << stage + 1)]
        layers += [nn.ReplicationPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1)]
        layers += [conv(32 * width, 64 * width), conv(64 * width, 16 * width, 1), conv(16 * width, 32 * width)]
        layers += [conv(16 * width, 8 * width, 1), nn.Identity(), nn.Identity(), conv(24 * width, 16 * width)]
        layers.append(Detect([16 * width, 32 * width], classes, anchors, STRIDES[1:]))
        super().__init__(layers, BOXES[boxes])

    def features(self, x: Tensor) -> list[Tensor]:
        """What the two heads read, finer first."""
        middle = self.run(0, 9, x)
        coarse = self.run(9, 15, middle)
        up = functional.interpolate(self.run(16, 17, coarse), scale_factor=2.0, mode="nearest")
        return [self.run(19, 20, torch.cat([up, middle], 1)), self.run(15, 16, coarse)]


def darknet_order(network: Numbered) -> list[str]:
    """The convolutions of YOLOv3 or YOLOv3Tiny as darknet lists them: each head behind what it reads."""
    tiny = isinstance(network, YOLOv3Tiny)
    heads = {15: "20.m.1", 19: "20.m.0"} if tiny else {15: "28.m.2", 22: "28.m.1", 27: "28.m.0"}
    order: list[str] = []
    for number, layer in enumerate(network.model):
        inner = [name for name, part in layer.named_modules() if isinstance(part, Conv)]
        order += [f"model.{number}.{name}".rstrip(".") for name in inner]
        order += [f"model.{heads[number]}"] if number in heads else []
    return order
