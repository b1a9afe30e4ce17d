"""MarianMT: a text in another language.

Network: transformers' MarianMTModel, built from its configuration; sizes of Helsinki-NLP/opus-mt-en-de. Decoding is an
encoder and a step of fixed shape (autoregression/seq2seq.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import MarianConfig, MarianMTModel

from compile.definition import ModelDefinition
from compile.models import family
from compile.models.autoregression.seq2seq import Sizes, draw_around, graphs, search_settings, with_computed_positions
from compile.models.parts.draw import drawer
from compile.models.parts.options import with_options
from compile.models.parts.tokens import Tokens

VARIANTS = {"opus-mt-en-de": Sizes(58101, 512, 6, 8, 2048, 512)}
END = 0
# The tied table is drawn last as the output layer, so tokens enter with the size of positions after the scaling.
DRAW = drawer(gains={"q_proj.weight": 2.0, "lm_head.weight": 1.5})


@family(name="marian", variants=tuple(VARIANTS), task="generation", source="https://huggingface.co/Helsinki-NLP")
def build(variant: str, options: Mapping[str, Any]) -> ModelDefinition:
    """Graphs encoder and step. The last token of the vocabulary pads and begins. Options: see `seq2seq.Sizes`."""
    sizes = with_options("marian", VARIANTS[variant], options)
    sizes.check("marian")
    padding = sizes.vocabulary - 1
    configuration = MarianConfig(
        **sizes.configuration(),
        decoder_vocab_size=sizes.vocabulary,
        activation_function="swish",
        scale_embedding=True,
        pad_token_id=padding,
        decoder_start_token_id=padding,
        eos_token_id=END,
        forced_eos_token_id=END,
    )
    model = MarianMTModel(configuration).eval()
    tokens = Tokens("marian", padding, padding, 1, sizes.positions)
    return ModelDefinition(
        graphs=graphs(model, sizes, tokens, normalise_first=False),
        buckets=[{"tokens": sizes.tokens}],
        task="generation",
        sample=tokens.sample,
        task_settings=search_settings(sizes, start=padding, end=END, padding=padding, bad_words=(padding,)),
        weights_module=model,
        checkpoint_keys=lambda state: with_computed_positions(model, state),
        initialise=_draw,
    )


def _draw(module: torch.nn.Module, generator: torch.Generator) -> None:
    draw_around(DRAW, module, generator)
