"""SSD300 on VGG-16: boxes in a picture of 300 x 300.

Network: our own (networks/ssd300.py). Files of torchvision's ssd300_vgg16 load (backbone.features.0.weight ...), and
those of amdegroot/ssd.pytorch (vgg.0.weight, L2Norm, extras, loc, conf). The latter's for PASCAL VOC have 21 classes
and larger boxes: options {classes: 21, scales: [0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05]}.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from compile.definition import ModelDefinition
from compile.models import family
from compile.models.networks.ssd300 import SCALES, SIZE, SSD300, ssd_pytorch_names
from compile.models.networks.vgg import VGG16
from compile.models.parts.draw import drawer
from compile.models.parts.labels import detection
from compile.models.parts.options import require
from compile.models.parts.pictures import Pictures


@dataclass(frozen=True)
class Sizes:
    """The numbers of the network; classes count the background. scales: the default boxes', as shares of the side."""

    classes: int = 91
    stages: tuple[tuple[int, ...], ...] = VGG16
    deep: int = 1024
    extra: tuple[int, ...] = (512, 256, 256, 256)
    scales: tuple[float, ...] = SCALES
    labels: tuple[str, ...] = ()


VARIANTS = {"vgg16": Sizes()}
# torchvision's ssd300_vgg16: the Caffe means of 123, 117 and 104, no scaling beside 1/255.
PICTURES = Pictures("ssd300", fixed=(SIZE, SIZE), mean=(0.48235, 0.45882, 0.40784), std=(1 / 255, 1 / 255, 1 / 255))
# The backbone's input is in 0..255, which its first layer takes back to about one. Box sizes are exponentials of the
# regression heads, so these stay small.
DRAW = drawer(
    gain=math.sqrt(2),
    gains={
        "features.0.weight": 0.02,
        "backbone.scale_weight": 200.0,
        **{f"regression_head.module_list.{index}.weight": 0.3 for index in range(6)},
    },
)


@family(
    name="ssd300",
    variants=VARIANTS,
    task="object-detection",
    source="https://github.com/pytorch/vision/blob/main/torchvision/models/detection/ssd.py",
)
def build(sizes: Sizes) -> ModelDefinition:
    """Input `pixel_values` float32 (batch, 3, 300, 300), normalised.

    Outputs: boxes (batch, 8732, 4) as left, top, right, bottom in pixels; probabilities (batch, 8732, classes).
    Options: any field of `Sizes`.
    """
    require(
        "ssd300",
        (tuple(map(len, sizes.stages)) == tuple(map(len, VGG16)), "stages needs 2, 2, 3, 3 and 3 channels"),
        (len(sizes.extra) == 4, f"extra needs 4 numbers, not {sizes.extra}"),
        (len(sizes.scales) == 7, f"scales needs 7 numbers, not {sizes.scales}"),
    )
    module = SSD300(sizes.classes, sizes.stages, sizes.deep, sizes.extra, sizes.scales)
    settings = detection(
        "ssd300",
        sizes.classes - 1,
        sizes.labels,
        form="pairs",
        fit="stretch",
        mean=list(PICTURES.mean),
        std=list(PICTURES.std),
    )
    return PICTURES.definition(module, SIZE, DRAW, checkpoint_keys=ssd_pytorch_names, **settings)
