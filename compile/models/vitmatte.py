"""ViTMatte: the exact outline of a foreground, from a picture and a rough trimap.

Network: transformers' VitMatteForImageMatting on a VitDet backbone, built from its configuration; sizes of
hustvl/vitmatte-{small,base}-composition-1k, whose files load; so do those of hustvl/ViTMatte itself
(ViTMatte_S_Com.pth: backbone.blocks.0.attn.qkv.weight ..., decoder.fusion_blks.0 ...).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import VitDetConfig, VitMatteConfig, VitMatteForImageMatting

from compile.definition import Bucket, ModelDefinition
from compile.models import family
from compile.models.parts.draw import drawer
from compile.models.parts.drawn import drawn
from compile.models.parts.options import divides, require
from compile.models.parts.pictures import Pictures

PATCH = 16


@dataclass(frozen=True)
class Sizes:
    """The numbers of a variant. Every third layer attends to the whole picture, the others to windows."""

    hidden_size: int = 384
    heads: int = 6
    layers: int = 12
    window: int = 14
    residual_layers: tuple[int, ...] = (2, 5, 8, 11)
    detail: tuple[int, ...] = (48, 96, 192)
    fusion: tuple[int, ...] = (256, 128, 64, 32)
    pretrained_size: int = 224
    image_size: tuple[int, int] = (512, 512)


VARIANTS = {"small": Sizes(), "base": Sizes(768, 12)}
# The published preprocessor_config.json scales to -1..1.
PICTURES = Pictures("vitmatte", multiple=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
DRAW = drawer(gain=math.sqrt(2), embedding=0.2, gains={"matting_convs.3.weight": 0.5})


@family(name="vitmatte", variants=VARIANTS, source="https://github.com/hustvl/ViTMatte")
def build(sizes: Sizes) -> ModelDefinition:
    """Input `pixel_values` float32 (batch, 4, height, width): a picture in -1..1 and the trimap (0 background, 0.5
    unknown, 1 foreground); sides multiples of 32. Output alphas float32 (batch, 1, height, width) in 0..1.

    Options: any field of `Sizes`.
    """
    require(
        "vitmatte",
        divides(sizes, "hidden_size", "heads"),
        (len(sizes.detail) == 3 and len(sizes.fusion) == 4, "detail needs 3 numbers and fusion 4"),
        (max(sizes.residual_layers, default=0) < sizes.layers, "residual_layers count from 0, below layers"),
    )
    module = VitMatteForImageMatting(_configuration(sizes)).eval()
    graph = drawn(module, _pixels)
    return PICTURES.definition(
        module, sizes.image_size, DRAW, checkpoint_keys=transformers_names, graphs={"main": graph}
    )


# Names of hustvl/ViTMatte (vit.py and detail_capture.py) to transformers'; what is not here has the same name.
_RENAMES = (
    (r"^backbone\.pos_embed$", "backbone.embeddings.position_embeddings"),
    (r"^backbone\.patch_embed\.proj\.", "backbone.embeddings.projection."),
    (r"^backbone\.blocks\.(\d+)\.attn\.", r"backbone.encoder.layer.\1.attention."),
    (r"^backbone\.blocks\.", "backbone.encoder.layer."),
    (r"^decoder\.fusion_blks\.", "decoder.fusion_blocks."),
    (r"^(decoder\.(?:convstream|fusion_blocks)\..+)\.bn\.", r"\1.batch_norm."),
)


def transformers_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint of hustvl/ViTMatte under transformers' names; one that has these already comes back unchanged."""
    return {_transformers_name(key): value for key, value in state.items()}


def _transformers_name(key: str) -> str:
    for pattern, name in _RENAMES:
        key = re.sub(pattern, name, key)
    return key


def _configuration(sizes: Sizes) -> VitMatteConfig:
    backbone = VitDetConfig(
        hidden_size=sizes.hidden_size,
        num_attention_heads=sizes.heads,
        num_hidden_layers=sizes.layers,
        num_channels=4,
        image_size=512,
        patch_size=PATCH,
        pretrain_image_size=sizes.pretrained_size,
        window_size=sizes.window,
        window_block_indices=[layer for layer in range(sizes.layers) if layer not in sizes.residual_layers],
        residual_block_indices=list(sizes.residual_layers),
        use_relative_position_embeddings=True,
        out_features=[f"stage{sizes.layers}"],
    )
    return VitMatteConfig(
        backbone_config=backbone,
        hidden_size=sizes.hidden_size,
        convstream_hidden_sizes=list(sizes.detail),
        fusion_hidden_sizes=list(sizes.fusion),
    )


def _pixels(seed: int, bucket: Bucket, batch: int) -> dict[str, Tensor]:
    """Pictures with a trimap: a disc of foreground, a ring of unknown around it."""
    pictures = PICTURES.batch(seed, bucket, batch)[PICTURES.name]
    height, width = pictures.shape[2:]
    rows, columns = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)[None, :]
    centres = 0.3 + 0.4 * torch.rand(batch, 2, 1, 1, generator=torch.Generator().manual_seed(seed))
    distance = ((rows - centres[:, :1]) ** 2 + (columns - centres[:, 1:]) ** 2).sqrt()
    trimap = (distance < 0.2).float() * 0.5 + (distance < 0.35).float() * 0.5
    return {PICTURES.name: torch.cat([pictures, trimap], 1)}
