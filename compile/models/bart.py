"""BART: a text written anew, a summary for instance.

Network: transformers' BartForConditionalGeneration, built from its configuration; sizes of facebook/bart-{base,large}
and facebook/bart-large-cnn. Decoding is an encoder and a step of fixed shape (autoregression/seq2seq.py).
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration

from compile.definition import ModelDefinition
from compile.models import family
from compile.models.autoregression.seq2seq import Sizes, definition
from compile.models.parts.draw import drawer
from compile.models.parts.tokens import Tokens

VARIANTS = {
    "base": Sizes(50265, 768, 6, 12, 3072, 1024),
    "large": Sizes(50265, 1024, 12, 16, 4096, 1024),
    "large-cnn": Sizes(50264, 1024, 12, 16, 4096, 1024, tokens=512, target=142),
}
BEGINNING, PADDING, END = 0, 1, 2
# The tied table is drawn last as the output layer and read without scaling: positions must be as small.
DRAW = drawer(gains={"q_proj.weight": 2.0, "lm_head.weight": 1.5, "embed_positions.weight": 0.04})


@family(name="bart", variants=VARIANTS, task="text2text-generation", source="https://arxiv.org/abs/1910.13461")
def build(sizes: Sizes) -> ModelDefinition:
    """Graphs encoder and step. Decoding begins with the end token. Options: see `seq2seq.Sizes`."""
    return definition(
        sizes,
        Tokens("bart", sizes.vocabulary, PADDING, 4, sizes.positions),
        BartForConditionalGeneration,
        BartConfig,
        start=END,
        end=END,
        draw=DRAW,
        names=lambda state: with_head(state, sizes.vocabulary),
        activation_function="gelu",
        scale_embedding=False,
        bos_token_id=BEGINNING,
    )


def with_head(state: dict[str, Tensor], vocabulary: int) -> dict[str, Tensor]:
    """facebook/bart-{base,large} hold the network without its output layer, which is tied and has no bias."""
    if any(key.startswith("model.") for key in state):
        return state
    bare = {f"model.{key}": value for key, value in state.items()}
    return {**bare, "final_logits_bias": torch.zeros(1, vocabulary)}
