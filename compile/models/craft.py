"""CRAFT: a map of where characters are, and of which neighbours belong to one word.

Network: our own (networks/craft.py). Files of clovaai/CRAFT-pytorch load (craft_mlt_25k.pth: basenet.slice1.0.weight
..., upconv1.conv.0.weight ..., conv_cls), with or without the "module." of nn.DataParallel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from compile.definition import ModelDefinition
from compile.models import family
from compile.models.networks.craft import CRAFT
from compile.models.networks.vgg import VGG16
from compile.models.parts.draw import drawer
from compile.models.parts.options import require
from compile.models.parts.pictures import Pictures


@dataclass(frozen=True)
class Sizes:
    """The numbers of the network: channels of the backbone, of its dilated part, of the steps up, of the last layer."""

    stages: tuple[tuple[int, ...], ...] = VGG16
    deep: int = 1024
    upper: tuple[int, ...] = (256, 128, 64, 32)
    head: int = 16
    image_size: tuple[int, int] = (768, 768)


VARIANTS = {"vgg16_bn": Sizes()}
PICTURES = Pictures("craft", multiple=32)
DRAW = drawer(gain=math.sqrt(2))


@family(name="craft", variants=VARIANTS, source="https://github.com/clovaai/CRAFT-pytorch")
def build(sizes: Sizes) -> ModelDefinition:
    """Input `pixel_values` float32 (batch, 3, height, width), normalised, sides multiples of 32.

    Outputs at half the size: scores (batch, height / 2, width / 2, 2) and features (batch, 32, height / 2, width / 2).
    Options: any field of `Sizes`.
    """
    require(
        "craft",
        (tuple(map(len, sizes.stages)) == tuple(map(len, VGG16)), "stages needs 2, 2, 3, 3 and 3 channels"),
        (len(sizes.upper) == 4, f"upper needs 4 numbers, not {sizes.upper}"),
        (len(sizes.image_size) == 2, f"image_size is (height, width), not {sizes.image_size}"),
    )
    module = CRAFT(sizes.stages, sizes.deep, sizes.upper, sizes.head)
    return PICTURES.definition(module, sizes.image_size, DRAW, checkpoint_keys=without_parallel_prefix)


def without_parallel_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published files were saved from nn.DataParallel: every key starts with "module."."""
    if not all(key.startswith("module.") for key in state):
        return state
    return {key[len("module.") :]: value for key, value in state.items()}
