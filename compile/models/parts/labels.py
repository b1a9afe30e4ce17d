"""What families that know kinds of things hand to the tasks object-detection and image-classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compile.models.parts.options import require

# COCO's 80 kinds in the order of its detectors: https://github.com/pjreddie/darknet, data/coco.names.
_COCO = (
    "person,bicycle,car,motorbike,aeroplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,sofa,"
    "pottedplant,bed,diningtable,toilet,tvmonitor,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
COCO = tuple(_COCO.split(","))
# COCO's 90 numbers as torchvision's detectors have them, behind the background; "" is a number that no thing has:
# https://github.com/pytorch/vision, torchvision/models/_meta.py.
_COCO_NUMBERS = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,,backpack,umbrella,,,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,,dining table,,,toilet,,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
COCO_NUMBERS = tuple(_COCO_NUMBERS.split(","))


def detection(family: str, classes: int, labels: Sequence[str], **settings: Any) -> dict[str, Any]:
    """Fields of a ModelDefinition: the task and its settings; labels, or COCO's where there are as many classes.

    Raises CompileError for another number of labels than classes.
    """
    known = {len(names): names for names in (COCO, COCO_NUMBERS)}
    named = _named(family, classes, labels or known.get(classes, ()))
    return {"task": "object-detection", "task_settings": {**named, **settings}}


def classification(family: str, classes: int, labels: Sequence[str]) -> dict[str, Any]:
    """The same of a classifier, which as torchvision's sees the middle 224 of 256 pixels."""
    named = _named(family, classes, labels)
    return {"task": "image-classification", "task_settings": {"crop": 0.875, **named}}


def _named(family: str, classes: int, labels: Sequence[str]) -> dict[str, Any]:
    require(family, (len(labels) in (0, classes), f"labels has {len(labels)} names, classes is {classes}"))
    return {"labels": list(labels)} if labels else {}
