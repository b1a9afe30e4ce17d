"""DINOv2: features of a picture, one vector a patch and one for the whole.

Network: transformers' Dinov2Model, built from its configuration; sizes of facebook/dinov2-{small,base,large,giant}.
Position embeddings are resized as facebookresearch/dinov2 does it, with every version of transformers.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import Dinov2Config, Dinov2Model

from compile.definition import ModelDefinition
from compile.models import family
from compile.models.parts.dinov2 import with_official_positions
from compile.models.parts.draw import drawer
from compile.models.parts.options import divides, require
from compile.models.parts.pictures import Pictures

PATCH = 14


@dataclass(frozen=True)
class Sizes:
    """The numbers of a variant. `pretrained_size` is the position embedding's; other sizes resize it."""

    hidden_size: int = 384
    heads: int = 6
    layers: int = 12
    gated: bool = False
    pretrained_size: int = 518
    image_size: int = 224


VARIANTS = {
    "small": Sizes(),
    "base": Sizes(768, 12),
    "large": Sizes(1024, 16, 24),
    "giant": Sizes(1536, 24, 40, gated=True),
}
PICTURES = Pictures("dinov2", multiple=PATCH)
DRAW = drawer()


@family(name="dinov2", variants=VARIANTS, source="https://github.com/facebookresearch/dinov2")
def build(sizes: Sizes) -> ModelDefinition:
    """Input `pixel_values` float32 (batch, 3, height, width), normalised, sides multiples of 14.

    Outputs: last_hidden_state (batch, 1 + patches, hidden_size) and pooler_output (batch, hidden_size), the class
    token's. Options: any field of `Sizes`.
    """
    require(
        "dinov2",
        divides(sizes, "hidden_size", "heads"),
        (sizes.pretrained_size % PATCH == 0, f"pretrained_size {sizes.pretrained_size} is no multiple of {PATCH}"),
    )
    configuration = Dinov2Config(
        hidden_size=sizes.hidden_size,
        num_attention_heads=sizes.heads,
        num_hidden_layers=sizes.layers,
        use_swiglu_ffn=sizes.gated,
        image_size=sizes.pretrained_size,
        patch_size=PATCH,
        attn_implementation="eager",
    )
    module = with_official_positions(Dinov2Model(configuration))
    return PICTURES.definition(module, sizes.image_size, DRAW)
