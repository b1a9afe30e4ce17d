"""Published checkpoints load: names against lists that are known, outputs against the library where there is one."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from compile.frontend.weights import load
from compile.models import find
from compile.models.craft import without_parallel_prefix
from compile.models.networks.ssd300 import VOC_SCALES, default_boxes, ssd_pytorch_names
from compile.models.networks.yolov4 import current_names
from compile.models.vitmatte import transformers_names
from tests.compile.models.tiny import TINY

# Names that the publishers' files have, with shapes at full size.
KNOWN: dict[tuple[str, str], dict[str, tuple[int, ...]]] = {
    ("resnet", "resnet50"): {
        "conv1.weight": (64, 3, 7, 7),
        "layer1.0.downsample.1.running_var": (256,),
        "layer3.5.conv2.weight": (256, 256, 3, 3),
        "layer4.2.bn3.num_batches_tracked": (),
        "fc.weight": (1000, 2048),
    },
    ("vgg", "vgg16"): {
        "features.0.weight": (64, 3, 3, 3),
        "features.28.bias": (512,),
        "classifier.0.weight": (4096, 25088),
        "classifier.6.bias": (1000,),
    },
    ("craft", "vgg16_bn"): {
        "basenet.slice1.0.weight": (64, 3, 3, 3),
        "basenet.slice1.11.weight": (128,),
        "basenet.slice2.17.weight": (256, 256, 3, 3),
        "basenet.slice3.28.running_mean": (512,),
        "basenet.slice4.37.weight": (512, 512, 3, 3),
        "basenet.slice5.1.weight": (1024, 512, 3, 3),
        "basenet.slice5.2.bias": (1024,),
        "upconv1.conv.0.weight": (512, 1536, 1, 1),
        "upconv4.conv.3.weight": (32, 64, 3, 3),
        "conv_cls.8.weight": (2, 16, 1, 1),
    },
    ("parseq", "base"): {
        "pos_queries": (1, 26, 384),
        "encoder.pos_embed": (1, 128, 384),
        "encoder.patch_embed.proj.weight": (384, 3, 4, 8),
        "encoder.blocks.11.attn.qkv.weight": (1152, 384),
        "encoder.blocks.0.mlp.fc1.bias": (1536,),
        "encoder.norm.weight": (384,),
        "decoder.layers.0.self_attn.in_proj_weight": (1152, 384),
        "decoder.layers.0.cross_attn.out_proj.bias": (384,),
        "decoder.layers.0.norm_q.weight": (384,),
        "decoder.layers.0.norm_c.bias": (384,),
        "decoder.norm.weight": (384,),
        "head.weight": (95, 384),
        "text_embed.embedding.weight": (97, 384),
    },
    ("yolov3", "yolov3"): {
        "model.0.conv.weight": (32, 3, 3, 3),
        "model.2.cv1.conv.weight": (32, 64, 1, 1),
        "model.6.7.cv2.bn.running_mean": (256,),
        "model.19.cv1.conv.weight": (256, 768, 1, 1),
        "model.27.1.cv2.conv.weight": (256, 128, 3, 3),
        "model.28.anchors": (3, 3, 2),
        "model.28.m.0.weight": (255, 256, 1, 1),
        "model.28.m.2.bias": (255,),
    },
    ("yolov4", "yolov4"): {
        "down1.conv1.conv.0.weight": (32, 3, 3, 3),
        "down2.resblock.module_list.1.1.conv.0.weight": (64, 64, 3, 3),
        "down5.conv5.conv.1.running_var": (1024,),
        "neck.conv4.conv.0.weight": (512, 2048, 1, 1),
        "neck.conv20.conv.0.weight": (128, 256, 1, 1),
        "head.conv11.conv.0.weight": (512, 256, 3, 3),
        "head.conv18.conv.0.bias": (255,),
    },
    ("yolov5", "yolov5s"): {
        "model.0.conv.weight": (32, 3, 6, 6),
        "model.4.m.1.cv2.conv.weight": (64, 64, 3, 3),
        "model.9.cv2.conv.weight": (512, 1024, 1, 1),
        "model.24.anchors": (3, 3, 2),
        "model.24.m.1.weight": (255, 256, 1, 1),
    },
    ("ssd300", "vgg16"): {
        "backbone.scale_weight": (512,),
        "backbone.features.21.weight": (512, 512, 3, 3),
        "backbone.extra.0.7.1.weight": (1024, 512, 3, 3),
        "backbone.extra.4.2.bias": (256,),
        "head.classification_head.module_list.0.weight": (364, 512, 3, 3),
        "head.regression_head.module_list.5.bias": (16,),
    },
    ("dlrm", "kaggle_10k"): {
        "emb_l.0.weight": (1460, 16),
        "emb_l.25.weight": (10_000, 16),
        "bot_l.0.weight": (512, 13),
        "bot_l.6.bias": (16,),
        "top_l.0.weight": (512, 367),
        "top_l.4.weight": (1, 256),
    },
}


@pytest.mark.parametrize("key", KNOWN, ids=":".join)
def test_names_and_shapes_are_those_of_the_published_file(key: tuple[str, str]) -> None:
    found, variant = find(*key)
    state = found.build(variant, {}).weights.state_dict()
    assert {name: tuple(state[name].shape) for name in KNOWN[key] if name in state} == KNOWN[key]


def test_craft_files_saved_in_parallel_lose_their_prefix() -> None:
    state = {"module.conv_cls.0.weight": torch.zeros(1), "module.upconv1.conv.0.bias": torch.ones(1)}
    assert set(without_parallel_prefix(state)) == {"conv_cls.0.weight", "upconv1.conv.0.bias"}
    assert without_parallel_prefix({"conv_cls.0.weight": torch.zeros(1)}).keys() == {"conv_cls.0.weight"}


def test_yolov4_files_with_the_older_spelling_load() -> None:
    found, variant = find("yolov4", None)
    weights = found.build(variant, TINY["yolov4", "yolov4"][0]).weights
    older = {re.sub("^neck", "neek", name): value for name, value in weights.state_dict().items()}
    assert set(older) != set(weights.state_dict())
    assert set(current_names(older)) == set(weights.state_dict())


def test_bart_files_without_an_output_layer_load() -> None:
    found, variant = find("bart", None)
    definition = found.build(variant, TINY["bart", "base"][0])
    state = {key: value.clone() for key, value in definition.weights.state_dict().items()}
    bare = {key[len("model.") :]: value for key, value in state.items() if key.startswith("model.")}
    load(definition, bare, "a file")
    load(definition, state, "a file")


def test_ssd_pytorch_names_cover_every_weight() -> None:
    # The layout of amdegroot/ssd.pytorch: vgg holds ReLUs and poolings too, extras only convolutions.
    vgg = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33]
    theirs = [f"vgg.{i}" for i in vgg] + [f"extras.{i}" for i in range(8)]
    theirs += [f"{head}.{i}" for head in ("loc", "conf") for i in range(6)]
    state = {f"{name}.{part}": torch.zeros(1) for name in theirs for part in ("weight", "bias")}
    state["L2Norm.weight"] = torch.zeros(1)
    found, variant = find("ssd300", None)
    assert set(ssd_pytorch_names(state)) == set(found.build(variant, {"classes": 21}).weights.state_dict())


# Names of the files that hustvl/ViTMatte publishes, with shapes at full size (small).
VITMATTE = {
    "backbone.pos_embed": (1, 197, 384),
    "backbone.patch_embed.proj.weight": (384, 4, 16, 16),
    "backbone.blocks.0.norm1.weight": (384,),
    "backbone.blocks.0.attn.qkv.weight": (1152, 384),
    "backbone.blocks.0.attn.proj.bias": (384,),
    "backbone.blocks.0.attn.rel_pos_h": (27, 64),
    "backbone.blocks.2.attn.rel_pos_w": (63, 64),
    "backbone.blocks.11.mlp.fc1.weight": (1536, 384),
    "backbone.blocks.5.residual.conv2.weight": (192, 192, 3, 3),
    "backbone.blocks.5.residual.norm3.bias": (384,),
    "decoder.convstream.convs.0.conv.weight": (48, 4, 3, 3),
    "decoder.convstream.convs.2.bn.running_mean": (192,),
    "decoder.fusion_blks.0.conv.conv.weight": (256, 576, 3, 3),
    "decoder.fusion_blks.3.conv.bn.num_batches_tracked": (),
    "decoder.matting_head.matting_convs.0.weight": (16, 32, 3, 3),
    "decoder.matting_head.matting_convs.1.running_var": (16,),
    "decoder.matting_head.matting_convs.3.bias": (1,),
}


def test_vitmattes_own_files_load() -> None:
    found, variant = find("vitmatte", "small")
    state = found.build(variant, {}).weights.state_dict()
    theirs = transformers_names({name: torch.zeros(shape) for name, shape in VITMATTE.items()})
    assert {name: tuple(value.shape) for name, value in theirs.items()} == {
        name: tuple(state[name].shape) for name in theirs if name in state
    }
    assert set(transformers_names(dict(state))) == set(state)


def test_vitmattes_older_names_cover_every_weight() -> None:
    """transformers' names, spelt as the original spells them, come back."""
    found, variant = find("vitmatte", None)
    state = found.build(variant, TINY["vitmatte", "small"][0]).weights.state_dict()
    theirs = dict(state)
    for new, old in (
        ("backbone.embeddings.position_embeddings", "backbone.pos_embed"),
        ("backbone.embeddings.projection", "backbone.patch_embed.proj"),
        ("backbone.encoder.layer", "backbone.blocks"),
        (".attention.", ".attn."),
        ("fusion_blocks", "fusion_blks"),
        (".batch_norm.", ".bn."),
    ):
        theirs = {name.replace(new, old): value for name, value in theirs.items()}
    assert not set(theirs) & {name for name in state if name.startswith("backbone.")}
    assert set(transformers_names(theirs)) == set(state)


def test_ssd_pytorchs_box_sizes_for_voc() -> None:
    """min_sizes 30, 60, 111, 162, 213, 264 and max_sizes up to 315 of the original's config for PASCAL VOC."""
    boxes = default_boxes(VOC_SCALES)
    first, last = boxes[0, 2:], boxes[-1, 2:]
    assert first.tolist() == pytest.approx([30.0, 30.0])
    assert boxes[1, 2:].tolist() == pytest.approx([(30 * 60) ** 0.5] * 2)
    assert last.tolist() == pytest.approx([264 / 2**0.5, min(264 * 2**0.5, 300)])


# --- against torchvision and timm, where they are installed ----------------------------------------------------------


def vision(name: str) -> Any:
    """torchvision's constructor, or a skip where torchvision is not installed (or does not import)."""
    models = pytest.importorskip("torchvision.models", exc_type=Exception)
    return getattr(models.detection if name.startswith("ssd") else models, name)


def with_our_weights(ours: torch.nn.Module, theirs: torch.nn.Module) -> torch.nn.Module:
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return theirs.eval()


def drawn(family: str, variant: str) -> tuple[Any, Any]:
    found, name = find(family, variant)
    definition = found.build(name, {})
    definition.initialise(definition.weights, torch.Generator().manual_seed(1))
    graph = definition.graphs["main"]
    return graph.module, graph.example_inputs(definition.buckets[0], 1)["pixel_values"]


@pytest.mark.parametrize(
    ("family", "variant", "constructor"),
    [("resnet", "resnet50", "resnet50"), ("resnet", "resnext50_32x4d", "resnext50_32x4d"), ("vgg", "vgg16", "vgg16")],
)
def test_classifiers_answer_as_torchvision_with_the_same_weights(family: str, variant: str, constructor: str) -> None:
    make: Callable[..., torch.nn.Module] = vision(constructor)
    module, pixels = drawn(family, variant)
    theirs = with_our_weights(module, make(weights=None))
    with torch.no_grad():
        torch.testing.assert_close(module(pixels), theirs(pixels), rtol=1e-5, atol=1e-4)


def test_resnet50_answers_as_timm_with_the_same_weights() -> None:
    timm = pytest.importorskip("timm", exc_type=Exception)
    module, pixels = drawn("resnet", "resnet50")
    theirs = with_our_weights(module, timm.create_model("resnet50"))
    with torch.no_grad():
        torch.testing.assert_close(module(pixels), theirs(pixels), rtol=1e-5, atol=1e-4)


def test_ssd300_answers_as_torchvision_with_the_same_weights() -> None:
    make = vision("ssd300_vgg16")
    module, pixels = drawn("ssd300", "vgg16")
    theirs = with_our_weights(module, make(weights=None, weights_backbone=None))
    with torch.no_grad():
        features = list(theirs.backbone(pixels).values())
        heads = theirs.head(features)
        offsets, scores = module.predictions(pixels)
        torch.testing.assert_close(offsets, heads["bbox_regression"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(scores, heads["cls_logits"], rtol=1e-4, atol=1e-4)
        (anchors,) = theirs.anchor_generator(_images(pixels), features)
        boxes = theirs.box_coder.decode_single(heads["bbox_regression"][0], anchors)
        torch.testing.assert_close(module.boxes(offsets)[0], boxes, rtol=1e-4, atol=1e-2)


def _images(pixels: torch.Tensor) -> Any:
    lists = importlib.import_module("torchvision.models.detection.image_list")
    return lists.ImageList(pixels, [(300, 300)])


def test_default_boxes_lie_in_the_picture_and_cover_all_maps() -> None:
    boxes = default_boxes()
    assert boxes.shape == (38 * 38 * 4 + 19 * 19 * 6 + 10 * 10 * 6 + 5 * 5 * 6 + 3 * 3 * 4 + 4, 4)
    assert bool(((boxes > 0) & (boxes <= 304)).all())
