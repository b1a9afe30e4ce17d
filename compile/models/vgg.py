"""VGG-16: what a picture shows, one of 1000 classes.

Network: our own (networks/vgg.py), with torchvision's parameter names, so that its checkpoints load.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compile.definition import GraphDefinition, ModelDefinition
from compile.models import family
from compile.models.networks.vgg import VGG, VGG16
from compile.models.parts.draw import drawer
from compile.models.parts.options import require, with_options
from compile.models.parts.pictures import Pictures


@dataclass(frozen=True)
class Sizes:
    """The numbers of a variant: channels of each convolution by stage, and the width of the dense layers."""

    stages: tuple[tuple[int, ...], ...] = VGG16
    hidden: int = 4096
    classes: int = 1000
    image_size: int = 224


VARIANTS = {"vgg16": Sizes()}
# The smallest side leaves one cell after five poolings; at 224 the last map has the 7 cells of the dense layers.
PICTURES = Pictures("vgg", multiple=32)
DRAW = drawer(gain=math.sqrt(2))


@family(
    name="vgg",
    variants=tuple(VARIANTS),
    task="tensor",
    source="https://github.com/pytorch/vision/blob/main/torchvision/models/vgg.py",
)
def build(variant: str, options: Mapping[str, Any]) -> ModelDefinition:
    """Input `pixel_values` float32 (batch, 3, height, width), normalised; output logits float32 (batch, classes).

    Options: any field of `Sizes`.
    """
    sizes = with_options("vgg", VARIANTS[variant], options)
    require("vgg", (len(sizes.stages) == 5, f"stages needs 5 groups, not {len(sizes.stages)}"))
    module = VGG(sizes.stages, sizes.hidden, sizes.classes).eval()
    return ModelDefinition(
        graphs={"main": GraphDefinition(module, PICTURES.example, PICTURES.references)},
        buckets=[{"image": (sizes.image_size, sizes.image_size)}],
        task="tensor",
        initialise=DRAW,
    )
