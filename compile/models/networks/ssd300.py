"""SSD300: detection from six feature maps of a VGG-16.

Liu et al., SSD: Single Shot MultiBox Detector, 2016.
Parameter names: torchvision.models.detection.ssd300_vgg16 (backbone.features.0 ... backbone.extra.0.7.1 ...
head.classification_head.module_list.0 ...). `ssd_pytorch_names` renames those of amdegroot/ssd.pytorch
(vgg, L2Norm, extras, loc, conf), the other common source.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from compile.models.networks.vgg import VGG16, convolutions

SIZE = 300
CONV4_3 = 23  # VGG's modules up to the ReLU of conv4_3
MAPS = (38, 19, 10, 5, 3, 1)
STEPS = (8, 16, 32, 64, 100, 300)  # pixels between centres, as in the paper's prototxt
SCALES = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)  # for COCO; those for PASCAL VOC are larger
VOC_SCALES = (0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05)
RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
VARIANCES = (10.0, 5.0)  # offsets are a tenth of a box, sizes a fifth on a logarithmic scale


def default_boxes(scales: Sequence[float] = SCALES) -> Tensor:
    """(8732, 4) float32: centre x, centre y, width, height in pixels, map by map, row by row.

    scales: the smallest box of each map as a share of the side, and the one that would come next.
    """
    rows = []
    for index, (size, step) in enumerate(zip(MAPS, STEPS, strict=True)):
        scale, between = scales[index], math.sqrt(scales[index] * scales[index + 1])
        shapes = [(scale, scale), (between, between)]
        for ratio in RATIOS[index]:
            wide, high = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            shapes += [(wide, high), (high, wide)]
        for y in range(size):
            for x in range(size):
                centre = ((x + 0.5) * step, (y + 0.5) * step)
                rows += [(*centre, min(w, 1.0) * SIZE, min(h, 1.0) * SIZE) for w, h in shapes]
    return torch.tensor(rows, dtype=torch.float32)


class Backbone(nn.Module):
    """VGG-16 without its dense layers, and five more blocks; six maps of 38, 19, 10, 5, 3 and 1 cells a side."""

    def __init__(self, stages: Sequence[Sequence[int]], deep: int, extra: Sequence[int]) -> None:
        super().__init__()
        vgg = convolutions(stages)
        for module in vgg[:CONV4_3]:
            if isinstance(module, nn.MaxPool2d):
                module.ceil_mode = False
        vgg[16].ceil_mode = True  # type: ignore[assignment]  # pool3: 75 becomes 38
        self.features = nn.Sequential(*vgg[:CONV4_3])
        self.scale_weight = nn.Parameter(torch.full((stages[3][-1],), 20.0))
        dense = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1),
            nn.Conv2d(stages[4][-1], deep, 3, padding=6, dilation=6),
            nn.ReLU(),
            nn.Conv2d(deep, deep, 1),
            nn.ReLU(),
        )
        six, seven, eight, nine = extra
        self.extra = nn.ModuleList(
            [
                nn.Sequential(*vgg[CONV4_3:-1], dense),
                _shrinking(deep, six // 2, six, 2),
                _shrinking(six, seven // 2, seven, 2),
                _shrinking(seven, eight // 2, eight, 1),
                _shrinking(eight, nine // 2, nine, 1),
            ]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.features(x)
        maps = [self.scale_weight.view(1, -1, 1, 1) * functional.normalize(x)]
        for block in self.extra:
            x = block(x)
            maps.append(x)
        return maps


def _shrinking(inputs: int, middle: int, outputs: int, stride: int) -> nn.Sequential:
    """1x1, then 3x3: strided with padding, or plain without."""
    return nn.Sequential(
        nn.Conv2d(inputs, middle, 1),
        nn.ReLU(),
        nn.Conv2d(middle, outputs, 3, stride=stride, padding=1 if stride == 2 else 0),
        nn.ReLU(),
    )


class Predictor(nn.Module):
    """One 3x3 convolution a map; `values` numbers for each of its boxes."""

    def __init__(self, channels: Sequence[int], values: int) -> None:
        super().__init__()
        self.values = values
        boxes = [2 + 2 * len(ratios) for ratios in RATIOS]
        self.module_list = nn.ModuleList(
            nn.Conv2d(inputs, count * values, 3, padding=1) for inputs, count in zip(channels, boxes, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        rows = []
        for convolution, features in zip(self.module_list, maps, strict=True):
            y = convolution(features).permute(0, 2, 3, 1)
            rows.append(y.reshape(y.shape[0], -1, self.values))
        return torch.cat(rows, 1)


class Head(nn.Module):
    """Class scores and box offsets."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.classification_head = Predictor(channels, classes)
        self.regression_head = Predictor(channels, 4)


class SSD300(nn.Module):
    """(batch, 3, 300, 300) float32 to {"boxes": (batch, 8732, 4), "probabilities": (batch, 8732, classes)}.

    boxes: left, top, right, bottom in pixels of the 300 x 300 picture, not clipped. Class 0 is the background.
    stages, deep, extra: channels, the paper's by default. scales: as of default_boxes; torchvision's by default.
    """

    default_boxes: Tensor

    def __init__(
        self,
        classes: int = 91,
        stages: Sequence[Sequence[int]] = VGG16,
        deep: int = 1024,
        extra: Sequence[int] = (512, 256, 256, 256),
        scales: Sequence[float] = SCALES,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(stages, deep, extra)
        self.head = Head([stages[3][-1], deep, *extra], classes)
        self.register_buffer("default_boxes", default_boxes(scales), persistent=False)

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        offsets, scores = self.predictions(pixel_values)
        return {"boxes": self.boxes(offsets), "probabilities": torch.softmax(scores, -1)}

    def predictions(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Box offsets (batch, 8732, 4) and class scores (batch, 8732, classes) before softmax."""
        maps = self.backbone(pixel_values)
        return self.head.regression_head(maps), self.head.classification_head(maps)

    def boxes(self, offsets: Tensor) -> Tensor:
        """The boxes that offsets mean, (batch, 8732, 4) as left, top, right, bottom."""
        centres, sizes = self.default_boxes[:, :2], self.default_boxes[:, 2:]
        middle = centres + offsets[..., :2] * (sizes / VARIANCES[0])
        half = torch.exp(offsets[..., 2:] / VARIANCES[1]) * (sizes / 2)
        return torch.cat([middle - half, middle + half], -1)


_SSD_PYTORCH = (
    (r"L2Norm\.weight", "backbone.scale_weight"),
    (r"loc\.(.+)", r"head.regression_head.module_list.\1"),
    (r"conf\.(.+)", r"head.classification_head.module_list.\1"),
)


def ssd_pytorch_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint of amdegroot/ssd.pytorch under torchvision's names; another one comes back unchanged."""
    if "L2Norm.weight" not in state:
        return state
    return {_torchvision_name(key): value for key, value in state.items()}


def _torchvision_name(key: str) -> str:
    found = re.fullmatch(r"(vgg|extras)\.(\d+)\.(weight|bias)", key)
    if found and found[1] == "vgg":
        index = int(found[2])
        if index < CONV4_3:
            return f"backbone.features.{index}.{found[3]}"
        if index < 30:
            return f"backbone.extra.0.{index - CONV4_3}.{found[3]}"
        return f"backbone.extra.0.7.{index - 30}.{found[3]}"  # its pool5 is 30, conv6 31, conv7 33
    if found:
        block, place = divmod(int(found[2]), 2)
        return f"backbone.extra.{block + 1}.{2 * place}.{found[3]}"
    for pattern, name in _SSD_PYTORCH:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(name)
    return key
