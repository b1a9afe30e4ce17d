"""YOLOv4: CSPDarknet53 with Mish, spatial pyramid pooling and a path aggregation network.

Bochkovskiy, Wang and Liao, YOLOv4: Optimal Speed and Accuracy of Object Detection, 2020; the layers are those of the
authors' yolov4.cfg.
Parameter names: the PyTorch checkpoint yolov4.pth of Tianxiaomo/pytorch-YOLOv4, converted from the authors' Darknet
file (down1.conv1.conv.0.weight ... neck.conv1 ... head.conv18.conv.0.bias). Its older files spell "neek".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from compile.models.networks.yolo import ACTIVATIONS, exponential_boxes

ANCHORS = ((12, 16, 19, 36, 40, 28), (36, 75, 76, 55, 72, 146), (142, 110, 192, 243, 459, 401))
STRIDES = (8, 16, 32)
SCALES = (1.2, 1.1, 1.05)  # scale_x_y of yolov4.cfg, finest first


class Conv(nn.Module):
    """Convolution, batch norm and activation under the names conv.0 and conv.1; without norm a bias instead."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, activation: str = "mish", norm: bool = True
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=not norm)]
        if norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(ACTIVATIONS[activation]())
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class Residuals(nn.Module):
    """`count` residual blocks of a 1x1 and a 3x3 convolution."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.module_list = nn.ModuleList(
            nn.ModuleList([Conv(channels, channels, 1), Conv(channels, channels, 3)]) for _ in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.module_list:
            first, second = block.children()
            x = x + second(first(x))
        return x


class FirstStage(nn.Module):
    """The stem and the first cross-stage-partial stage, whose two ways are as wide as the stage itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        double = 2 * width
        self.conv1 = Conv(3, width, 3)
        self.conv2 = Conv(width, double, 3, 2)
        self.conv3 = Conv(double, double, 1)
        self.conv4 = Conv(double, double, 1)
        self.conv5 = Conv(double, width, 1)
        self.conv6 = Conv(width, double, 3)
        self.conv7 = Conv(double, double, 1)
        self.conv8 = Conv(2 * double, double, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.conv1(x))
        beside, main = self.conv3(x), self.conv4(x)
        main = self.conv7(main + self.conv6(self.conv5(main)))
        joined: Tensor = self.conv8(torch.cat([main, beside], 1))
        return joined


class Stage(nn.Module):
    """A cross-stage-partial stage: half the channels go round the residual blocks."""

    def __init__(self, inputs: int, blocks: int) -> None:
        super().__init__()
        outputs = 2 * inputs
        self.conv1 = Conv(inputs, outputs, 3, 2)
        self.conv2 = Conv(outputs, inputs, 1)
        self.conv3 = Conv(outputs, inputs, 1)
        self.resblock = Residuals(inputs, blocks)
        self.conv4 = Conv(inputs, inputs, 1)
        self.conv5 = Conv(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        beside = self.conv2(x)
        main = self.conv4(self.resblock(self.conv3(x)))
        joined: Tensor = self.conv5(torch.cat([main, beside], 1))
        return joined


def leaky(inputs: int, outputs: int, kernel: int, stride: int = 1) -> Conv:
    """The neck and the head keep Darknet's older activation."""
    return Conv(inputs, outputs, kernel, stride, "leaky")


class _Numbered(nn.Module):
    """Layers named conv1, conv2, ..."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        for number, layer in enumerate(layers, 1):
            self.add_module(f"conv{number}", layer)

    def run(self, first: int, last: int, x: Tensor) -> Tensor:
        """x through conv`first` to conv`last`."""
        for number in range(first, last + 1):
            x = self.get_submodule(f"conv{number}")(x)
        return x


def _alternating(wide: int, narrow: int, count: int) -> list[Conv]:
    """1x1 to narrow, 3x3 to wide, 1x1 to narrow ..."""
    return [leaky(narrow, wide, 3) if place % 2 else leaky(wide, narrow, 1) for place in range(count)]


def _output(wide: int, outputs: int) -> list[Conv]:
    """3x3, then the 1x1 convolution whose values are read as boxes."""
    return [leaky(wide // 2, wide, 3), Conv(wide, outputs, 1, activation="linear", norm=False)]


class Neck(_Numbered):
    """Spatial pyramid pooling and the way up: features of strides 8, 16 and 32."""

    def __init__(self, c: int) -> None:
        super().__init__(
            *_alternating(32 * c, 16 * c, 3),
            leaky(64 * c, 16 * c, 1),
            leaky(16 * c, 32 * c, 3),
            leaky(32 * c, 16 * c, 1),
            leaky(16 * c, 8 * c, 1),
            leaky(16 * c, 8 * c, 1),
            *_alternating(16 * c, 8 * c, 5),
            leaky(8 * c, 4 * c, 1),
            leaky(8 * c, 4 * c, 1),
            *_alternating(8 * c, 4 * c, 5),
        )

    def forward(self, coarse: Tensor, middle: Tensor, fine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.run(1, 3, coarse)
        pools = [functional.max_pool2d(x, size, stride=1, padding=size // 2) for size in (13, 9, 5)]
        deep = self.run(4, 6, torch.cat([*pools, x], 1))
        up = functional.interpolate(self.run(7, 7, deep), scale_factor=2.0, mode="nearest")
        mixed = self.run(9, 13, torch.cat([self.run(8, 8, middle), up], 1))
        up = functional.interpolate(self.run(14, 14, mixed), scale_factor=2.0, mode="nearest")
        finest = self.run(16, 20, torch.cat([self.run(15, 15, fine), up], 1))
        return finest, mixed, deep


class Head(_Numbered):
    """The way down again and the three last convolutions (conv2, conv10, conv18), finest first."""

    def __init__(self, c: int, outputs: int) -> None:
        super().__init__(
            *_output(8 * c, outputs),
            leaky(4 * c, 8 * c, 3, 2),
            *_alternating(16 * c, 8 * c, 5),
            *_output(16 * c, outputs),
            leaky(8 * c, 16 * c, 3, 2),
            *_alternating(32 * c, 16 * c, 5),
            *_output(32 * c, outputs),
        )

    def forward(self, fine: Tensor, middle: Tensor, deep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.run(4, 8, torch.cat([self.run(3, 3, fine), middle], 1))
        y = self.run(12, 16, torch.cat([self.run(11, 11, x), deep], 1))
        return self.run(1, 2, fine), self.run(9, 10, x), self.run(17, 18, y)


class YOLOv4(nn.Module):
    """(batch, 3, height, width) float32 in 0..1, sides multiples of 32, to (batch, boxes, 5 + classes).

    Rows as of YOLOv3. width: channels of the first convolution, 32 in the paper; blocks: of the four later stages.
    scales: grid sensitivity of the three heads, finest first.
    """

    anchors: Tensor

    def __init__(
        self, classes: int = 80, width: int = 32, blocks: Sequence[int] = (2, 8, 8, 4), scales: Sequence[float] = SCALES
    ) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.down1 = FirstStage(width)
        two, three, four, five = (Stage(width << stage, count) for stage, count in enumerate(blocks, 1))
        self.down2, self.down3, self.down4, self.down5 = two, three, four, five
        self.neck = Neck(width)
        self.head = Head(width, 3 * (5 + classes))
        self.register_buffer("anchors", torch.tensor(ANCHORS).float().view(3, 3, 2), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.down3(self.down2(self.down1(images)))
        middle = self.down4(fine)
        heads = self.head(*self.neck(self.down5(middle), middle, fine))
        rows = [
            exponential_boxes(head, self.anchors[scale], STRIDES[scale], self.scales[scale])
            for scale, head in enumerate(heads)
        ]
        return torch.cat(rows, 1)


def current_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The older spelling of the neck's keys, corrected."""
    return {"neck" + key[4:] if key.startswith("neek.") else key: value for key, value in state.items()}
