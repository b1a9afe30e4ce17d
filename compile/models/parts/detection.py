"""What the families that find things in a picture hand to the task object-detection."""

from __future__ import annotations

from typing import Any

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


def detection(classes: int, **settings: Any) -> dict[str, Any]:
    """Fields of a ModelDefinition: the task and its settings, with COCO's labels where there are as many classes."""
    known = {len(names): list(names) for names in (COCO, COCO_NUMBERS)}
    labels = {"labels": known[classes]} if classes in known else {}
    return {"task": "object-detection", "task_settings": {**labels, **settings}}
