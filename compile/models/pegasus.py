"""Pegasus: a short summary of a text.

Network: transformers' PegasusForConditionalGeneration, built from its configuration; sizes of google/pegasus-xsum and
google/pegasus-large. Decoding is an encoder and a step of fixed shape (autoregression/seq2seq.py).
"""

from __future__ import annotations

from transformers import PegasusConfig, PegasusForConditionalGeneration

from compile.definition import ModelDefinition
from compile.models import family
from compile.models.autoregression.seq2seq import Sizes, definition
from compile.models.parts.draw import drawer
from compile.models.parts.tokens import Tokens

VARIANTS = {
    "xsum": Sizes(96103, 1024, 16, 16, 4096, 512, tokens=512, target=64),
    "large": Sizes(96103, 1024, 16, 16, 4096, 1024, tokens=512, target=256),
}
PADDING, END = 0, 1
FIRST_WORD = 107  # the special tokens of the pre-training come before
# The tied table is drawn last as the output layer, so tokens enter with the size of positions after the scaling.
DRAW = drawer(gains={"q_proj.weight": 2.0, "lm_head.weight": 1.5})


@family(
    name="pegasus", variants=VARIANTS, task="text2text-generation", source="https://github.com/google-research/pegasus"
)
def build(sizes: Sizes) -> ModelDefinition:
    """Graphs encoder and step. Token 0 pads and begins. Options: see `seq2seq.Sizes`."""
    return definition(
        sizes,
        Tokens("pegasus", sizes.vocabulary, PADDING, min(FIRST_WORD, sizes.vocabulary // 2), sizes.positions),
        PegasusForConditionalGeneration,
        PegasusConfig,
        start=PADDING,
        end=END,
        draw=DRAW,
        normalise_first=True,
        activation_function="relu",
        scale_embedding=True,
    )
