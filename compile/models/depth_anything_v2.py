"""Depth Anything V2: relative depth from one photograph.

Architecture: transformers' DepthAnythingForDepthEstimation on a DINOv2 backbone, built from its configuration, so no
hub is needed. Sizes: the official repository's `model_configs` (DepthAnything/Depth-Anything-V2) and the
configurations published as depth-anything/Depth-Anything-V2-{Small,Base,Large}-hf. Both kinds of files load: those of
the official repository (depth_anything_v2_{vits,vitb,vitl}.pth, names of its dpt.py and dinov2.py) and transformers'.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

from compile.definition import Bucket, ModelDefinition, SampleRequest
from compile.models import family
from compile.models.parts.dinov2 import with_official_positions
from compile.models.parts.options import divides, require
from compile.models.parts.pictures import Pictures, png

PATCH = 14
# ImageNet statistics, as the official transform and the published preprocessor_config.json have them.
PICTURES = Pictures("depth_anything_v2", multiple=PATCH)


@dataclass(frozen=True)
class Sizes:
    """The numbers that make a variant. `layers_out` counts blocks from 1; `image_size` is the position embedding's."""

    hidden_size: int
    heads: int
    layers: int
    layers_out: tuple[int, ...]
    neck: tuple[int, ...]
    fusion: int
    head: int = 32
    image_size: int = 518


VARIANTS = {
    "vits": Sizes(384, 6, 12, (3, 6, 9, 12), (48, 96, 192, 384), 64),
    "vitb": Sizes(768, 12, 12, (3, 6, 9, 12), (96, 192, 384, 768), 128),
    "vitl": Sizes(1024, 16, 24, (5, 12, 18, 24), (256, 512, 1024, 1024), 256),
}


@family(
    name="depth_anything_v2",
    variants=VARIANTS,
    task="depth-estimation",
    source="https://github.com/DepthAnything/Depth-Anything-V2",
)
def build(sizes: Sizes) -> ModelDefinition:
    """Input `pixel_values` float32 (batch, 3, height, width), normalised; output `predicted_depth` float32
    (batch, height, width), larger is nearer. Height and width are multiples of 14.

    Options: any field of `Sizes`, for a network smaller or larger than the published ones.
    """
    require(
        "depth_anything_v2",
        (
            len(sizes.layers_out) == 4 and len(sizes.neck) == 4,
            f"layers_out and neck need 4 values each, not {sizes.layers_out} and {sizes.neck}",
        ),
        divides(sizes, "hidden_size", "heads"),
        (
            max(sizes.layers_out, default=0) <= sizes.layers,
            f"layers_out {sizes.layers_out} goes beyond layers {sizes.layers}",
        ),
        (sizes.image_size % PATCH == 0, f"image_size {sizes.image_size} is no multiple of {PATCH}"),
    )
    return PICTURES.definition(
        with_official_positions(DepthAnythingForDepthEstimation(_configuration(sizes))),
        sizes.image_size,
        draw,
        task="depth-estimation",
        task_settings={
            "mean": list(PICTURES.mean),
            "std": list(PICTURES.std),
            "output": "predicted_depth",
            "resize": {"least": sizes.image_size, "multiple": PATCH},
        },
        checkpoint_keys=lambda state: transformers_names(state, sizes),
        sample=_sample,
    )


def _configuration(sizes: Sizes) -> DepthAnythingConfig:
    backbone = Dinov2Config(
        hidden_size=sizes.hidden_size,
        num_attention_heads=sizes.heads,
        num_hidden_layers=sizes.layers,
        image_size=sizes.image_size,
        patch_size=PATCH,
        out_indices=list(sizes.layers_out),
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    return DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=PATCH,
        reassemble_hidden_size=sizes.hidden_size,
        reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_sizes=list(sizes.neck),
        fusion_hidden_size=sizes.fusion,
        head_hidden_size=sizes.head,
        head_in_index=-1,
    )


def draw(module: nn.Module, generator: torch.Generator) -> None:
    """Random weights with which the depth map visibly follows the picture.

    The library's default (std 0.02, zero biases) shrinks the signal at each layer until the map is constant. Here each
    matrix keeps the variance of what it gets (std = 1 / sqrt(fan in)), and the last layer's weights are positive, so
    that its ReLU lets everything through.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            owner = module.get_submodule(name.rpartition(".")[0])
            if isinstance(owner, nn.ConvTranspose2d) and parameter.dim() == 4:
                parameter.copy_(_smooth_kernel(parameter, generator))
            elif isinstance(owner, (nn.Linear, nn.Conv2d)) and parameter.dim() > 1:
                parameter.normal_(0.0, 1.0 / math.sqrt(parameter[0].numel()), generator=generator)
            elif name.endswith(("cls_token", "position_embeddings")):
                parameter.normal_(0.0, 0.2, generator=generator)
            elif name.endswith(("lambda1", "weight")):
                parameter.fill_(1.0)
            else:
                parameter.zero_()
        module.get_submodule("head.conv3").get_parameter("weight").abs_()


def _smooth_kernel(parameter: Tensor, generator: torch.Generator) -> Tensor:
    """Upsampling kernels that differ little over a patch: independent values would print the patch grid on the map."""
    inputs, outputs, height, width = parameter.shape
    base = torch.randn(inputs, outputs, 1, 1, generator=generator)
    detail = torch.randn(inputs, outputs, height, width, generator=generator)
    return (base + 0.2 * detail) / math.sqrt(inputs)


def _sample(_: Bucket) -> SampleRequest:
    """A small PNG (lossless, so every decoder gives the same pixels) answered at the model's own size."""
    return SampleRequest(png(7, 96, 128), "image/png", "application/x-npy", png(8, 96, 128))


# --- official checkpoints -------------------------------------------------------------------------------------------

# Official module names (DepthAnything/Depth-Anything-V2: dpt.py and dinov2.py) to transformers' names.
_RENAMES: tuple[tuple[str, str], ...] = (
    (r"pretrained\.cls_token", "backbone.embeddings.cls_token"),
    (r"pretrained\.mask_token", "backbone.embeddings.mask_token"),
    (r"pretrained\.pos_embed", "backbone.embeddings.position_embeddings"),
    (r"pretrained\.patch_embed\.proj\.(.+)", r"backbone.embeddings.patch_embeddings.projection.\1"),
    (r"pretrained\.norm\.(.+)", r"backbone.layernorm.\1"),
    (r"pretrained\.blocks\.(\d+)\.attn\.proj\.(.+)", r"backbone.encoder.layer.\1.attention.output.dense.\2"),
    (r"pretrained\.blocks\.(\d+)\.ls([12])\.gamma", r"backbone.encoder.layer.\1.layer_scale\2.lambda1"),
    (r"pretrained\.blocks\.(\d+)\.(norm[12]|mlp\.fc[12])\.(.+)", r"backbone.encoder.layer.\1.\2.\3"),
    (r"depth_head\.projects\.(\d)\.(.+)", r"neck.reassemble_stage.layers.\1.projection.\2"),
    (r"depth_head\.resize_layers\.(\d)\.(.+)", r"neck.reassemble_stage.layers.\1.resize.\2"),
    (r"depth_head\.scratch\.output_conv1\.(.+)", r"head.conv1.\1"),
    (r"depth_head\.scratch\.output_conv2\.0\.(.+)", r"head.conv2.\1"),
    (r"depth_head\.scratch\.output_conv2\.2\.(.+)", r"head.conv3.\1"),
)
_QKV = re.compile(r"pretrained\.blocks\.(\d+)\.attn\.qkv\.(weight|bias)")
_REFINE = re.compile(r"depth_head\.scratch\.refinenet([1-4])\.(out_conv|resConfUnit([12])\.conv([12]))\.(.+)")
_RN = re.compile(r"depth_head\.scratch\.layer([1-4])_rn\.(.+)")


def transformers_names(state: dict[str, Tensor], sizes: Sizes) -> dict[str, Tensor]:
    """An official .pth state dict under transformers' names; one that has those names already comes back unchanged.

    The fused qkv matrix (3 x hidden, hidden) becomes query, key and value. Names that neither side knows are kept, so
    that loading reports them as unexpected.
    """
    if not any(key.startswith(("pretrained.", "depth_head.")) for key in state):
        return state
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        qkv = _QKV.fullmatch(key)
        if qkv and value.shape[0] == 3 * sizes.hidden_size:
            prefix = f"backbone.encoder.layer.{qkv[1]}.attention.attention"
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[f"{prefix}.{part}.{qkv[2]}"] = piece.clone()
        else:
            renamed[_renamed(key)] = value
    return renamed


def _renamed(key: str) -> str:
    refine = _REFINE.fullmatch(key)
    if refine:
        # The library stores the fusion layers in the order they run: refinenet4 first.
        layer = f"neck.fusion_stage.layers.{4 - int(refine[1])}"
        part = "projection" if refine[2] == "out_conv" else f"residual_layer{refine[3]}.convolution{refine[4]}"
        return f"{layer}.{part}.{refine[5]}"
    rn = _RN.fullmatch(key)
    if rn:
        return f"neck.convs.{int(rn[1]) - 1}.{rn[2]}"
    for pattern, name in _RENAMES:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(name)
    return key
