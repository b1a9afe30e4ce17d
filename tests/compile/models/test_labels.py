"""Labels of families that know kinds of things: the spec's, COCO's where there are as many classes, or none."""

from __future__ import annotations

import pytest

from compile.errors import CompileError
from compile.models import find
from tests.compile.models.tiny import TINY

KNOWING = [("resnet", "resnet50"), ("vgg", "vgg16"), ("yolov3", "yolov3"), ("yolov3", "tiny"), ("yolov5", "yolov5s")]


@pytest.mark.parametrize(("name", "variant"), KNOWING)
def test_the_labels_of_the_spec_come_to_the_task(name: str, variant: str) -> None:
    family, options = find(name, variant)[0], {**TINY[name, variant][0], "classes": 2}
    assert "labels" not in family.build(variant, options).task_settings
    named = family.build(variant, {**options, "labels": ["cat", "dog"]})
    assert named.task_settings["labels"] == ["cat", "dog"]
    assert named.task in ("image-classification", "object-detection")
    with pytest.raises(CompileError, match="labels has 1 names, classes is 2"):
        family.build(variant, {**options, "labels": ["cat"]})


def test_coco_is_known_by_its_number() -> None:
    options = {key: value for key, value in TINY["yolov3", "tiny"][0].items() if key != "classes"}
    assert find("yolov3", "tiny")[0].build("tiny", options).task_settings["labels"][41] == "cup"
    ssd = {**TINY["ssd300", "vgg16"][0], "classes": 91}
    labels = find("ssd300", "vgg16")[0].build("vgg16", ssd).task_settings["labels"]
    assert (labels[0], labels[46], len(labels)) == ("person", "cup", 90)
