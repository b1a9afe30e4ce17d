"""ResNet-50 and ResNeXt-50 32x4d: what a picture shows, one of 1000 classes.

Network: our own (networks/resnet.py), with torchvision's parameter names, so that its checkpoints and timm's load.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from compile.definition import ModelDefinition
from compile.models import family
from compile.models.networks.resnet import ResNet
from compile.models.parts.draw import drawer
from compile.models.parts.labels import classification
from compile.models.parts.options import require
from compile.models.parts.pictures import Pictures


@dataclass(frozen=True)
class Sizes:
    """The numbers of a variant; `groups` and `group_width` make the difference between ResNet and ResNeXt."""

    layers: tuple[int, ...] = (3, 4, 6, 3)
    groups: int = 1
    group_width: int = 64
    stem: int = 64
    classes: int = 1000
    image_size: int = 224
    labels: tuple[str, ...] = ()


VARIANTS = {"resnet50": Sizes(), "resnext50_32x4d": Sizes(groups=32, group_width=4)}
PICTURES = Pictures("resnet")
# The last norm of a block is halved: sixteen sums would otherwise double the variance sixteen times.
DRAW = drawer(gain=math.sqrt(2), gains={"bn3.weight": 0.5})


@family(
    name="resnet",
    variants=VARIANTS,
    task="image-classification",
    source="https://github.com/pytorch/vision/blob/main/torchvision/models/resnet.py",
)
def build(sizes: Sizes) -> ModelDefinition:
    """Input `pixel_values` float32 (batch, 3, height, width), normalised; output logits float32 (batch, classes).

    Options: any field of `Sizes`.
    """
    require("resnet", (len(sizes.layers) == 4, f"layers needs 4 numbers, not {sizes.layers}"))
    module = ResNet(sizes.layers, sizes.groups, sizes.group_width, sizes.classes, sizes.stem)
    task = classification("resnet", sizes.classes, sizes.labels)
    return PICTURES.definition(module, sizes.image_size, DRAW, **task)
