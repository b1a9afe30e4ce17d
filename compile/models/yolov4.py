"""YOLOv4: boxes of 80 kinds of things in a picture.

Network: our own (networks/yolov4.py). Files of Tianxiaomo/pytorch-YOLOv4 load (yolov4.pth: down1.conv1.conv.0.weight
..., neck or, in older ones, neek, head). Its code leaves out the grid scales of darknet's yolov4.cfg that the weights
were trained with; options {scales: [1.0, 1.0, 1.0]} give its boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

from compile.definition import ModelDefinition
from compile.models import family
from compile.models.networks.yolov4 import SCALES, YOLOv4, current_names
from compile.models.parts.draw import drawer
from compile.models.parts.labels import detection
from compile.models.parts.options import require
from compile.models.parts.pictures import Pictures


@dataclass(frozen=True)
class Sizes:
    """The numbers of the network: `blocks` are the residual blocks of the four later stages.

    scales: how far a centre reaches beyond its cell, finest head first: those of darknet's yolov4.cfg.
    """

    classes: int = 80
    width: int = 32
    blocks: tuple[int, ...] = (2, 8, 8, 4)
    scales: tuple[float, ...] = SCALES
    image_size: int = 416
    labels: tuple[str, ...] = ()


VARIANTS = {"yolov4": Sizes()}
# Pictures in 0..1, not normalised further.
PICTURES = Pictures("yolov4", name="images", multiple=32, mean=(0, 0, 0), std=(1, 1, 1))
# The last norm of a residual block is damped, so that the sums do not blow the values up; so are the heads, since box
# sizes are their exponentials.
RESIDUALS = {f"module_list.{block}.1.conv.1.weight": 0.25 for block in range(8)}
HEADS = {f"head.conv{number}.conv.0.weight": 0.3 for number in (2, 10, 18)}
DRAW = drawer(gain=1.4, gains={**RESIDUALS, **HEADS})


@family(name="yolov4", variants=VARIANTS, task="object-detection", source="https://github.com/AlexeyAB/darknet")
def build(sizes: Sizes) -> ModelDefinition:
    """Input `images` float32 (batch, 3, height, width) in 0..1, sides multiples of 32.

    Output float32 (batch, boxes, 5 + classes): centre, size in pixels, objectness, classes. Options: see `Sizes`.
    """
    require(
        "yolov4",
        (len(sizes.blocks) == 4, f"blocks needs 4 numbers, not {sizes.blocks}"),
        (len(sizes.scales) == 3, f"scales needs 3 numbers, not {sizes.scales}"),
    )
    module = YOLOv4(sizes.classes, sizes.width, sizes.blocks, sizes.scales)
    # darknet resizes to the network's size whatever the shape
    settings = detection("yolov4", sizes.classes, sizes.labels, fit="stretch")
    return PICTURES.definition(module, sizes.image_size, DRAW, checkpoint_keys=current_names, **settings)
