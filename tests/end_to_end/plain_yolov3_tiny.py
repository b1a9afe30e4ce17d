"""YOLOv3-tiny without anything of this project: darknet's configuration and numbers, PyTorch and Pillow alone.

`python plain_yolov3_tiny.py WEIGHTS PICTURE` prints the boxes above 0.5 as JSON, best first.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

# cfg/yolov3-tiny.cfg: filters and kernel of each convolution (batch norm and leaky, but for the two linear ones).
CONVOLUTIONS = [(16, 3), (32, 3), (64, 3), (128, 3), (256, 3), (512, 3), (1024, 3), (256, 1), (512, 3), (255, 1)]
MORE = [(128, 1), (256, 3), (255, 1)]
ANCHORS = {32: [(81, 82), (135, 169), (344, 319)], 16: [(10, 14), (23, 27), (37, 58)]}
SIDE = 416


class Numbers:
    """The floats of the file, one after the other."""

    def __init__(self, path: str) -> None:
        self.left = torch.from_numpy(np.fromfile(path, "<f4", offset=20))

    def take(self, *shape: int) -> torch.Tensor:
        count = int(np.prod(shape))
        found, self.left = self.left[:count], self.left[count:]
        return found.reshape(shape)


def convolution(x: torch.Tensor, filters: int, kernel: int, numbers: Numbers) -> torch.Tensor:
    bias = numbers.take(filters)
    if filters == 255:
        return functional.conv2d(x, numbers.take(filters, x.shape[1], kernel, kernel), bias)
    scale, mean, variance = (numbers.take(filters) for _ in range(3))
    x = functional.conv2d(x, numbers.take(filters, x.shape[1], kernel, kernel), padding=kernel // 2)
    shaped = [value[:, None, None] for value in (mean, variance, scale, bias)]
    return functional.leaky_relu((x - shaped[0]) / (shaped[1] + 1e-3).sqrt() * shaped[2] + shaped[3], 0.1)


def heads(x: torch.Tensor, numbers: Numbers) -> dict[int, torch.Tensor]:
    kept = {}
    for number, (filters, kernel) in enumerate(CONVOLUTIONS):
        x = convolution(x, filters, kernel, numbers)
        kept[number] = x
        if number < 5:
            x = functional.max_pool2d(x, 2)
        elif number == 5:
            x = functional.max_pool2d(functional.pad(x, (0, 1, 0, 1), value=float("-inf")), 2, 1)
    y = functional.interpolate(convolution(kept[7], *MORE[0], numbers), scale_factor=2.0)
    y = convolution(torch.cat([y, kept[4]], 1), *MORE[1], numbers)
    return {32: x, 16: convolution(y, *MORE[2], numbers)}


def main() -> None:
    numbers, picture = Numbers(sys.argv[1]), Image.open(sys.argv[2]).convert("RGB")
    ratio = SIDE / max(picture.size)
    width, height = (round(side * ratio) for side in picture.size)
    left, top = (SIDE - width) // 2, (SIDE - height) // 2
    canvas = torch.full((3, SIDE, SIDE), 0.5)
    small = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 255
    canvas[:, top : top + height, left : left + width] = torch.from_numpy(small).permute(2, 0, 1)
    found = []
    for stride, head in heads(canvas[None], numbers).items():
        for anchor, values in zip(ANCHORS[stride], head[0].view(3, 85, *head.shape[2:]), strict=True):
            for row in range(values.shape[1]):
                for column in range(values.shape[2]):
                    cell = values[:, row, column]
                    scores = torch.sigmoid(cell[4]) * torch.sigmoid(cell[5:])
                    if float(scores.max()) <= 0.5:
                        continue
                    x, y = ((torch.sigmoid(cell[n]) + at) * stride for n, at in ((0, column), (1, row)))
                    w, h = (torch.exp(cell[n]) * size for n, size in zip((2, 3), anchor, strict=True))
                    sides = (x - w / 2 - left, y - h / 2 - top, x + w / 2 - left, y + h / 2 - top)
                    found.append((float(scores.max()), int(scores.argmax()), [float(side) / ratio for side in sides]))
    assert not len(numbers.left), "numbers are left over"
    print(json.dumps(sorted(found, reverse=True)))  # noqa: T201  (its answer)


if __name__ == "__main__":
    with torch.no_grad():
        main()
