"""Pegasus: a short summary of a text.

Network: transformers' PegasusForConditionalGeneration, built from its configuration; sizes of google/pegasus-xsum and
google/pegasus-large. Decoding is an encoder and a step of fixed shape (autoregression/seq2seq.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PegasusConfig, PegasusForConditionalGeneration

from compile.definition import ModelDefinition
from compile.models import family
from compile.models.autoregression.seq2seq import Sizes, draw_around, graphs, search_settings, with_computed_positions
from compile.models.parts.draw import drawer
from compile.models.parts.options import with_options
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
    name="pegasus", variants=tuple(VARIANTS), task="generation", source="https://github.com/google-research/pegasus"
)
def build(variant: str, options: Mapping[str, Any]) -> ModelDefinition:
    """Graphs encoder and step. Token 0 pads and begins. Options: see `seq2seq.Sizes`."""
    sizes = with_options("pegasus", VARIANTS[variant], options)
    sizes.check("pegasus")
    configuration = PegasusConfig(
        **sizes.configuration(),
        activation_function="relu",
        scale_embedding=True,
        pad_token_id=PADDING,
        decoder_start_token_id=PADDING,
        eos_token_id=END,
        forced_eos_token_id=END,
    )
    model = PegasusForConditionalGeneration(configuration).eval()
    tokens = Tokens("pegasus", sizes.vocabulary, PADDING, min(FIRST_WORD, sizes.vocabulary // 2), sizes.positions)
    return ModelDefinition(
        graphs=graphs(model, sizes, tokens, normalise_first=True),
        buckets=[{"tokens": sizes.tokens}],
        task="generation",
        sample=tokens.sample,
        task_settings=search_settings(sizes, start=PADDING, end=END, padding=PADDING),
        weights_module=model,
        checkpoint_keys=lambda state: with_computed_positions(model, state),
        initialise=_draw,
    )


def _draw(module: torch.nn.Module, generator: torch.Generator) -> None:
    draw_around(DRAW, module, generator)
