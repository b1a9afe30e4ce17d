"""XLM: a class for a text, with a vocabulary shared by languages.

Network: transformers' XLMForSequenceClassification, built from its configuration; sizes of xlm-mlm-ende-1024,
xlm-mlm-en-2048 and xlm-mlm-100-1280.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import XLMConfig, XLMForSequenceClassification

from compile.definition import GraphDefinition, ModelDefinition
from compile.models import family
from compile.models.parts.draw import drawer
from compile.models.parts.options import require, with_options
from compile.models.parts.tokens import Tokens, without_position_ids

PADDING = 2
FIRST_WORD = 14  # <s>, </s>, <pad>, <unk> and ten special tokens come before


@dataclass(frozen=True)
class Sizes:
    """The numbers of a variant; `languages` have an embedding each where there is more than one."""

    vocabulary: int = 64699
    hidden_size: int = 1024
    heads: int = 8
    layers: int = 6
    positions: int = 512
    languages: int = 2
    language_embeddings: bool = True
    labels: int = 2
    tokens: int = 128


VARIANTS = {
    "mlm-ende-1024": Sizes(),
    "mlm-en-2048": Sizes(30145, 2048, 16, 12, languages=1, language_embeddings=False),
    "mlm-100-1280": Sizes(200000, 1280, 16, 16, languages=100, language_embeddings=False),
}
# Sharper attention than by default, so that the logits follow single words.
DRAW = drawer(gains={"q_lin.weight": 3.0})


@family(name="xlm", variants=tuple(VARIANTS), task="tensor", source="https://github.com/facebookresearch/XLM")
def build(variant: str, options: Mapping[str, Any]) -> ModelDefinition:
    """Inputs input_ids, attention_mask and, where languages have embeddings, langs (the number of each token's
    language), int64 (batch, tokens); output logits float32 (batch, labels). Options: any field of `Sizes`.
    """
    sizes = with_options("xlm", VARIANTS[variant], options)
    divisible = sizes.hidden_size % sizes.heads == 0
    require("xlm", (divisible, f"hidden_size {sizes.hidden_size} is no multiple of heads {sizes.heads}"))
    configuration = XLMConfig(
        vocab_size=sizes.vocabulary,
        emb_dim=sizes.hidden_size,
        n_heads=sizes.heads,
        n_layers=sizes.layers,
        max_position_embeddings=sizes.positions,
        n_langs=sizes.languages,
        use_lang_emb=sizes.language_embeddings,
        gelu_activation=True,
        num_labels=sizes.labels,
    )
    module = XLMForSequenceClassification(configuration).eval()
    first = min(FIRST_WORD, sizes.vocabulary // 2)
    languages = sizes.languages if sizes.language_embeddings else 0
    tokens = Tokens("xlm", sizes.vocabulary, PADDING, first, sizes.positions, languages=languages)
    return ModelDefinition(
        graphs={"main": GraphDefinition(module, tokens.example, tokens.references)},
        buckets=[{"tokens": sizes.tokens}],
        task="tensor",
        task_settings=tokens.task_settings(),
        checkpoint_keys=without_position_ids,
        initialise=DRAW,
    )
