"""Full-size networks have the number of parameters that their publishers count."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compile.models import find

# Family, variant, options: trainable parameters, and who says so.
PUBLISHED: dict[tuple[str, str], tuple[int, str]] = {
    ("resnet", "resnet50"): (25_557_032, "torchvision, ResNet50_Weights.meta num_params"),
    ("resnet", "resnext50_32x4d"): (25_028_904, "torchvision, ResNeXt50_32X4D_Weights.meta num_params"),
    ("vgg", "vgg16"): (138_357_544, "torchvision, VGG16_Weights.meta num_params"),
    ("ssd300", "vgg16"): (35_641_826, "torchvision, SSD300_VGG16_Weights.meta num_params"),
    ("yolov3", "yolov3"): (61_949_149, "ultralytics/yolov3, model summary"),
    ("yolov5", "yolov5n"): (1_872_157, "ultralytics/yolov5, model summary"),
    ("yolov5", "yolov5s"): (7_235_389, "ultralytics/yolov5, model summary"),
    ("yolov5", "yolov5m"): (21_190_557, "ultralytics/yolov5, model summary"),
    ("yolov5", "yolov5l"): (46_563_709, "ultralytics/yolov5, model summary"),
    ("yolov5", "yolov5x"): (86_749_405, "ultralytics/yolov5, model summary"),
    ("parseq", "base"): (23_832_671, "keras-hub, parseq preset; 23.8 M in the paper"),
    ("dinov2", "small"): (22_056_576, "facebookresearch/dinov2, ViT-S/14 with its mask token"),
    ("dinov2", "base"): (86_580_480, "facebookresearch/dinov2, ViT-B/14"),
    ("dinov2", "large"): (304_368_640, "facebookresearch/dinov2, ViT-L/14"),
    ("dinov2", "giant"): (1_136_480_768, "facebookresearch/dinov2, ViT-g/14"),
    ("bert", "base-uncased"): (109_483_778, "transformers, BERT-base with two labels"),
    ("distilbert", "base-uncased"): (66_955_010, "transformers, DistilBERT-base with two labels"),
    ("roberta", "base"): (124_647_170, "transformers, RoBERTa-base with two labels"),
    ("xlm_roberta", "base"): (278_045_186, "transformers, XLM-RoBERTa-base with two labels"),
}
# Published with one decimal, in millions.
ROUNDED: dict[tuple[str, str], tuple[float, str]] = {
    ("craft", "vgg16_bn"): (20.8, "clovaai/CRAFT-pytorch: 83.1 MB of float32 in craft_mlt_25k.pth"),
    ("parseq", "tiny"): (6.0, "Bautista and Atienza, 2022, PARSeq-Ti"),
    ("vitmatte", "small"): (25.8, "Yao et al., 2023, ViTMatte-S"),
    ("vitmatte", "base"): (96.7, "Yao et al., 2023, ViTMatte-B"),
}
pytestmark = pytest.mark.skipif(
    not hasattr(torch.nn.Module, "to_empty") or torch.__version__.startswith("1."),
    reason="building without memory needs torch 2's device context",
)


def built(family: str, variant: str) -> Any:
    """The whole network on the meta device: shapes without memory."""
    found, name = find(family, variant)
    with torch.device("meta"):
        return found.build(name, {}).weights


@pytest.mark.parametrize("key", PUBLISHED, ids=":".join)
def test_parameters_are_those_published(key: tuple[str, str]) -> None:
    assert sum(parameter.numel() for parameter in built(*key).parameters()) == PUBLISHED[key][0]


@pytest.mark.parametrize("key", ROUNDED, ids=":".join)
def test_parameters_are_those_published_in_millions(key: tuple[str, str]) -> None:
    count = sum(parameter.numel() for parameter in built(*key).parameters())
    assert round(count / 1e6, 1) == ROUNDED[key][0]


def test_yolov4_has_as_many_numbers_as_its_darknet_file() -> None:
    # yolov4.weights: 257,717,640 bytes, 20 of them header; running statistics are in the file.
    state = built("yolov4", "yolov4").state_dict()
    numbers = sum(value.numel() for name, value in state.items() if not name.endswith("num_batches_tracked"))
    assert numbers == (257_717_640 - 20) // 4


def test_yolov3_has_as_many_numbers_as_its_darknet_file() -> None:
    # yolov3.weights: 248,007,048 bytes, 20 of them header. The anchors are ours (Darknet has them in its cfg).
    state = built("yolov3", "yolov3").state_dict()
    kept = {k: v for k, v in state.items() if not k.endswith(("num_batches_tracked", "anchors"))}
    assert sum(value.numel() for value in kept.values()) == (248_007_048 - 20) // 4


def test_yolov3_tiny_has_as_many_numbers_as_its_darknet_file() -> None:
    # yolov3-tiny.weights: 35,434,956 bytes, 20 of them header.
    state = built("yolov3", "tiny").state_dict()
    kept = {k: v for k, v in state.items() if not k.endswith(("num_batches_tracked", "anchors"))}
    assert sum(value.numel() for value in kept.values()) == (35_434_956 - 20) // 4


def test_dlrm_has_the_tables_of_criteo_kaggle() -> None:
    tables = built("dlrm", "kaggle").emb_l
    assert len(tables) == 26
    assert sum(table.weight.numel() for table in tables) == 33_762_577 * 16
