"""VGG-16: what a picture shows, one of 1000 classes.

Network: our own (networks/vgg.py), with torchvision's parameter names, so that its checkpoints load.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from compile.definition import ModelDefinition
from compile.models import family
from compile.models.networks.vgg import VGG, VGG16
from compile.models.parts.draw import drawer
from compile.models.parts.labels import classification
from compile.models.parts.options import require
from compile.models.parts.pictures import Pictures


@dataclass(frozen=True)
class Sizes:
    """The numbers of a variant: channels of each convolution by stage, and the width of the dense layers."""

    stages: tuple[tuple[int, ...], ...] = VGG16
    hidden: int = 4096
    classes: int = 1000
    image_size: int = 224
    labels: tuple[str, ...] = ()


VARIANTS = {"vgg16": Sizes()}
# The smallest side leaves one cell after five poolings; at 224 the last map has the 7 cells of the dense layers.
PICTURES = Pictures("vgg", multiple=32)
DRAW = drawer(gain=math.sqrt(2))


@family(
    name="vgg",
    variants=VARIANTS,
    task="image-classification",
    source="https://github.com/pytorch/vision/blob/main/torchvision/models/vgg.py",
)
def build(sizes: Sizes) -> ModelDefinition:
    """Input `pixel_values` float32 (batch, 3, height, width), normalised; output logits float32 (batch, classes).

    Options: any field of `Sizes`.
    """
    require("vgg", (len(sizes.stages) == 5, f"stages needs 5 groups, not {len(sizes.stages)}"))
    module = VGG(sizes.stages, sizes.hidden, sizes.classes)
    task = classification("vgg", sizes.classes, sizes.labels)
    return PICTURES.definition(module, sizes.image_size, DRAW, **task)
