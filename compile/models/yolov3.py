"""YOLOv3: boxes of 80 kinds of things in a picture.

Network: our own (networks/yolov3.py). Files of ultralytics/yolov3 load, and of yolov5's yolov3.yaml
(model.0.conv.weight ..., model.28.m.0.weight): these were trained with options {activation: silu, boxes: squared}.
They are pickled models; export the weights once with `torch.save(model.float().state_dict(), path)` where
ultralytics is installed. Files of darknet (yolov3.weights, yolov3-tiny.weights) load as they are; `inferentia weights
yolov3-tiny` gets one.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compile.definition import DARKNET, ModelDefinition
from compile.models import family
from compile.models.networks.yolo import ACTIVATIONS, Numbered, darknet_layers
from compile.models.networks.yolov3 import BOXES, YOLOv3, YOLOv3Tiny, darknet_order
from compile.models.parts.draw import drawer
from compile.models.parts.labels import detection
from compile.models.parts.options import require
from compile.models.parts.pictures import Pictures


@dataclass(frozen=True)
class Sizes:
    """The numbers of the network. activation, boxes: leaky and exponential (the paper) or, for checkpoints trained by
    ultralytics, silu and squared. tiny: the small network, which has no residual blocks.
    """

    classes: int = 80
    width: int = 32
    blocks: tuple[int, ...] = (1, 2, 8, 8, 4)
    activation: str = "leaky"
    boxes: str = "exponential"
    image_size: int = 416
    labels: tuple[str, ...] = ()
    tiny: bool = False


VARIANTS = {"yolov3": Sizes(), "tiny": Sizes(width=16, blocks=(), tiny=True)}
# Pictures in 0..1, not normalised further.
PICTURES = Pictures("yolov3", name="images", multiple=32, mean=(0, 0, 0), std=(1, 1, 1))
# The second convolution of a residual block is damped, so that 23 sums do not blow the values up; so are the heads,
# since box sizes are their exponentials.
HEADS = {f"{layer}.m.{scale}.weight": 0.3 for layer in (20, 28) for scale in range(3)}
DRAW = drawer(gain=1.4, gains={"cv2.bn.weight": 0.25, **HEADS})


@family(name="yolov3", variants=VARIANTS, task="object-detection", source="https://github.com/ultralytics/yolov3")
def build(sizes: Sizes) -> ModelDefinition:
    """Input `images` float32 (batch, 3, height, width) in 0..1, sides multiples of 32.

    Output float32 (batch, boxes, 5 + classes): centre, size in pixels, objectness, classes. Options: see `Sizes`.
    """
    require(
        "yolov3",
        (sizes.tiny or len(sizes.blocks) == 5, f"blocks needs 5 numbers, not {sizes.blocks}"),
        (sizes.activation in ACTIVATIONS, f"activation {sizes.activation!r} is none of {', '.join(ACTIVATIONS)}"),
        (sizes.boxes in BOXES, f"boxes {sizes.boxes!r} is none of {', '.join(BOXES)}"),
    )
    if sizes.tiny:
        module: Numbered = YOLOv3Tiny(sizes.classes, sizes.width, sizes.activation, sizes.boxes)
    else:
        module = YOLOv3(sizes.classes, sizes.width, sizes.blocks, sizes.activation, sizes.boxes)

    def names(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return darknet_layers(state[DARKNET], module, darknet_order(module)) if DARKNET in state else state

    settings = detection("yolov3", sizes.classes, sizes.labels, fill=0.5)
    return PICTURES.definition(module, sizes.image_size, DRAW, checkpoint_keys=names, **settings)
