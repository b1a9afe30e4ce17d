"""What the YOLO networks share: convolution blocks and the reading of their heads as boxes.

Redmon and Farhadi, YOLO9000 (2016) and YOLOv3 (2018); Bochkovskiy et al., YOLOv4 (2020).
Parameter names of the blocks: ultralytics/yolov5 and ultralytics/yolov3 (conv, bn, cv1, cv2, m).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from compile.errors import CompileError

BATCH_NORM_EPS = 1e-3  # ultralytics sets it on every batch norm


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky": functools.partial(nn.LeakyReLU, 0.1),  # Darknet's slope below zero
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "linear": nn.Identity,
}


class Conv(nn.Module):
    """Convolution without bias, batch norm, activation; padding keeps the size at stride 1."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        activation: str = "silu",
        padding: int | None = None,
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)
        self.act = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y


class Bottleneck(nn.Module):
    """1x1 to `hidden`, 3x3 to `outputs`, added to the input where `shortcut` is set and the channels agree."""

    def __init__(self, inputs: int, outputs: int, hidden: int, activation: str, shortcut: bool = True) -> None:
        super().__init__()
        self.cv1 = Conv(inputs, hidden, 1, 1, activation)
        self.cv2 = Conv(hidden, outputs, 3, 1, activation)
        self.add = shortcut and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.add else y


def cells(height: int, width: int, like: Tensor) -> Tensor:
    """(height, width, 2): x and y of each cell's corner, in cells."""
    columns = torch.arange(width, dtype=like.dtype, device=like.device)[None, :].expand(height, width)
    rows = torch.arange(height, dtype=like.dtype, device=like.device)[:, None].expand(height, width)
    return torch.stack([columns, rows], -1)


def anchors_last(head: Tensor, anchors: int) -> Tensor:
    """(batch, anchors * values, height, width) to (batch, anchors, height, width, values)."""
    batch, channels, height, width = head.shape
    return head.view(batch, anchors, channels // anchors, height, width).permute(0, 1, 3, 4, 2)


def flat(centres: Tensor, sizes: Tensor, scores: Tensor) -> Tensor:
    """(batch, anchors * height * width, 4 + scores): the predictions of one head as rows."""
    joined = torch.cat([centres, sizes, scores], -1)
    return joined.reshape(joined.shape[0], -1, joined.shape[-1])


def exponential_boxes(head: Tensor, anchors: Tensor, stride: int, scale: float = 1.0) -> Tensor:
    """YOLOv2 to v4: rows of (x, y, width, height in pixels, objectness, classes).

    anchors (n, 2) in pixels. scale: YOLOv4's grid sensitivity, which lets a centre reach its cell's border.
    """
    y = anchors_last(head, anchors.shape[0])
    corner = cells(y.shape[2], y.shape[3], y)
    centres = (torch.sigmoid(y[..., 0:2]) * scale - (scale - 1) / 2 + corner) * stride
    sizes = torch.exp(y[..., 2:4]) * anchors.view(1, -1, 1, 1, 2)
    return flat(centres, sizes, torch.sigmoid(y[..., 4:]))


def squared_boxes(head: Tensor, anchors: Tensor, stride: int) -> Tensor:
    """YOLOv5: rows as of exponential_boxes; sizes are bounded by four times the anchor."""
    y = torch.sigmoid(anchors_last(head, anchors.shape[0]))
    corner = cells(y.shape[2], y.shape[3], y)
    centres = (y[..., 0:2] * 2 - 0.5 + corner) * stride
    doubled = y[..., 2:4] * 2
    return flat(centres, doubled * doubled * anchors.view(1, -1, 1, 1, 2), y[..., 4:])


class Detect(nn.Module):
    """The last 1x1 convolutions, one a scale, finest first.

    anchors: buffer (scales, anchors, 2) in units of the scale's stride, as in ultralytics checkpoints.
    """

    anchors: Tensor

    def __init__(
        self, channels: Sequence[int], classes: int, anchors: Sequence[Sequence[float]], strides: Sequence[int]
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        pairs = torch.tensor(anchors).view(len(anchors), -1, 2)
        self.register_buffer("anchors", pairs / torch.tensor(strides).view(-1, 1, 1))
        self.m = nn.ModuleList(nn.Conv2d(c, pairs.shape[1] * (5 + classes), 1) for c in channels)

    def heads(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The raw values of each scale, (batch, anchors * (5 + classes), height, width)."""
        return [convolution(feature) for convolution, feature in zip(self.m, features, strict=True)]


class Numbered(nn.Module):
    """A network of layers that checkpoints number; the last one is a Detect.

    boxes: how a head's values are read. Inputs (batch, 3, height, width) float32 in 0..1, sides multiples of 32; the
    result is (batch, boxes, 5 + classes), the finest scale first.
    """

    def __init__(self, layers: Sequence[nn.Module], boxes: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = nn.ModuleList(layers)
        self.boxes = boxes

    def forward(self, images: Tensor) -> Tensor:
        detect = cast(Detect, self.model[-1])
        heads = zip(detect.heads(self.features(images)), detect.strides, strict=True)
        rows = [self.boxes(head, detect.anchors[n] * stride, stride) for n, (head, stride) in enumerate(heads)]
        return torch.cat(rows, 1)

    def features(self, x: Tensor) -> list[Tensor]:
        """What the heads read, finest first."""
        raise NotImplementedError

    def run(self, start: int, end: int, x: Tensor) -> Tensor:
        """x through the layers from `start` to before `end`."""
        for index in range(start, end):
            x = self.model[index](x)
        return x


def darknet_layers(flat: Tensor, network: nn.Module, order: Sequence[str]) -> dict[str, Tensor]:
    """The numbers of a darknet file under the network's names.

    order: prefixes of its convolutions as the configuration lists them. A convolution with batch norm has its bias,
    scale, mean, variance and weights in the file; one without has bias and weights.
    Raises CompileError for a file with more or fewer numbers.
    """
    state, at = network.state_dict(), 0
    found = {}
    for prefix in order:
        normed = f"{prefix}.bn.weight" in state
        names = [f"{prefix}.bn.{part}" for part in ("bias", "weight", "running_mean", "running_var")]
        names = [*names, f"{prefix}.conv.weight"] if normed else [f"{prefix}.bias", f"{prefix}.weight"]
        for name in names:
            count = state[name].numel()
            found[name] = flat[at : at + count]
            at += count
    if at != len(flat):
        raise CompileError(
            f"The darknet file has {len(flat)} numbers, the network takes {at}.",
            "Name the variant that it is of, with as many classes.",
        )
    # Anchors are in the configuration: the network has them.
    others = {name: value for name, value in state.items() if name.endswith(".anchors")}
    return {**others, **{name: values.reshape(state[name].shape) for name, values in found.items()}}
