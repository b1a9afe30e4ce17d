"""MarianMT: a text in another language.

Network: transformers' MarianMTModel, built from its configuration; sizes of Helsinki-NLP/opus-mt-en-de. Decoding is an
encoder and a step of fixed shape (autoregression/seq2seq.py).
"""

from __future__ import annotations

from transformers import MarianConfig, MarianMTModel

from compile.definition import ModelDefinition
from compile.models import family
from compile.models.autoregression.seq2seq import Sizes, definition
from compile.models.parts.draw import drawer
from compile.models.parts.tokens import Tokens

VARIANTS = {"opus-mt-en-de": Sizes(58101, 512, 6, 8, 2048, 512)}
END = 0
# The tied table is drawn last as the output layer, so tokens enter with the size of positions after the scaling.
DRAW = drawer(gains={"q_proj.weight": 2.0, "lm_head.weight": 1.5})


@family(name="marian", variants=VARIANTS, task="text2text-generation", source="https://huggingface.co/Helsinki-NLP")
def build(sizes: Sizes) -> ModelDefinition:
    """Graphs encoder and step. The last token of the vocabulary pads and begins. Options: see `seq2seq.Sizes`."""
    padding = sizes.vocabulary - 1
    return definition(
        sizes,
        Tokens("marian", padding, padding, 1, sizes.positions),
        MarianMTModel,
        MarianConfig,
        start=padding,
        end=END,
        draw=DRAW,
        bad_words=(padding,),
        decoder_vocab_size=sizes.vocabulary,
        activation_function="swish",
        scale_embedding=True,
    )
