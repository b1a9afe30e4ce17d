"""BERT and BioBERT: a class for a text, or for a pair of texts.

Network: transformers' BertForSequenceClassification, built from its configuration; sizes of bert-{base,large}-uncased,
bert-base-cased and dmis-lab/biobert-base-cased-v1.1 (a BERT with the cased vocabulary).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import BertConfig, BertForSequenceClassification

from compile.definition import GraphDefinition, ModelDefinition
from compile.models import family
from compile.models.parts.draw import drawer
from compile.models.parts.options import require, with_options
from compile.models.parts.tokens import Tokens, without_position_ids


@dataclass(frozen=True)
class Sizes:
    """The numbers of a variant; `labels` are the classes of the fine-tuned head."""

    vocabulary: int = 30522
    hidden_size: int = 768
    heads: int = 12
    layers: int = 12
    intermediate_size: int = 3072
    positions: int = 512
    labels: int = 2
    tokens: int = 128


VARIANTS = {
    "base-uncased": Sizes(),
    "base-cased": Sizes(vocabulary=28996),
    "large-uncased": Sizes(hidden_size=1024, heads=16, layers=24, intermediate_size=4096),
    "biobert-base-cased": Sizes(vocabulary=28996),
}
FIRST_WORD = 1000  # [PAD], [UNK], [CLS], [SEP], [MASK] and the unused ones come before
# Sharper attention than by default, so that the logits follow single words.
DRAW = drawer(gains={"query.weight": 3.0})


@family(name="bert", variants=tuple(VARIANTS), task="tensor", source="https://github.com/google-research/bert")
def build(variant: str, options: Mapping[str, Any]) -> ModelDefinition:
    """Inputs input_ids, attention_mask, token_type_ids int64 (batch, tokens); output logits float32 (batch, labels).

    Options: any field of `Sizes`.
    """
    sizes = with_options("bert", VARIANTS[variant], options)
    divisible = sizes.hidden_size % sizes.heads == 0
    require("bert", (divisible, f"hidden_size {sizes.hidden_size} is no multiple of heads {sizes.heads}"))
    configuration = BertConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden_size,
        num_attention_heads=sizes.heads,
        num_hidden_layers=sizes.layers,
        intermediate_size=sizes.intermediate_size,
        max_position_embeddings=sizes.positions,
        num_labels=sizes.labels,
        attn_implementation="eager",
    )
    module = BertForSequenceClassification(configuration).eval()
    first = min(FIRST_WORD, sizes.vocabulary // 2)
    tokens = Tokens("bert", sizes.vocabulary, 0, first, sizes.positions, segments=True)
    return ModelDefinition(
        graphs={"main": GraphDefinition(module, tokens.example, tokens.references)},
        buckets=[{"tokens": sizes.tokens}],
        task="tensor",
        task_settings=tokens.task_settings(),
        checkpoint_keys=without_position_ids,
        initialise=DRAW,
    )
