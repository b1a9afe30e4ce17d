"""YOLOv5 (release 6): boxes of 80 kinds of things in a picture.

Network: our own (networks/yolov5.py), with the parameter names of ultralytics/yolov5. Its published files are pickled
models; export the weights once with `torch.save(model.float().state_dict(), path)` where ultralytics is installed.
"""

from __future__ import annotations

from dataclasses import dataclass

from compile.definition import ModelDefinition
from compile.models import family
from compile.models.networks.yolov5 import YOLOv5
from compile.models.parts.draw import drawer
from compile.models.parts.labels import detection
from compile.models.parts.pictures import Pictures


@dataclass(frozen=True)
class Sizes:
    """The multiples of the published configurations."""

    depth: float = 0.33
    width: float = 0.50
    classes: int = 80
    image_size: int = 640
    labels: tuple[str, ...] = ()


VARIANTS = {
    "yolov5s": Sizes(),
    "yolov5n": Sizes(0.33, 0.25),
    "yolov5m": Sizes(0.67, 0.75),
    "yolov5l": Sizes(1.0, 1.0),
    "yolov5x": Sizes(1.33, 1.25),
}
# Pictures in 0..1, not normalised further.
PICTURES = Pictures("yolov5", name="images", multiple=32, mean=(0, 0, 0), std=(1, 1, 1))
DRAW = drawer(gain=1.6)


@family(name="yolov5", variants=VARIANTS, task="object-detection", source="https://github.com/ultralytics/yolov5")
def build(sizes: Sizes) -> ModelDefinition:
    """Input `images` float32 (batch, 3, height, width) in 0..1, sides multiples of 32.

    Output float32 (batch, boxes, 5 + classes): centre, size in pixels, objectness, classes. Options: see `Sizes`.
    """
    module = YOLOv5(sizes.depth, sizes.width, sizes.classes)
    settings = detection("yolov5", sizes.classes, sizes.labels, fill=114 / 255)
    return PICTURES.definition(module, sizes.image_size, DRAW, **settings)
