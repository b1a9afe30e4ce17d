"""DistilBERT: BERT's classes at half the depth.

Network: transformers' DistilBertForSequenceClassification, built from its configuration; sizes of
distilbert-base-{uncased,cased}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import DistilBertConfig, DistilBertForSequenceClassification

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
    layers: int = 6
    intermediate_size: int = 3072
    positions: int = 512
    labels: int = 2
    tokens: int = 128


VARIANTS = {"base-uncased": Sizes(), "base-cased": Sizes(vocabulary=28996)}
FIRST_WORD = 1000  # [PAD], [UNK], [CLS], [SEP], [MASK] and the unused ones come before
# Sharper attention than by default, so that the logits follow single words.
DRAW = drawer(gains={"q_lin.weight": 3.0})


@family(name="distilbert", variants=tuple(VARIANTS), task="tensor", source="https://arxiv.org/abs/1910.01108")
def build(variant: str, options: Mapping[str, Any]) -> ModelDefinition:
    """Inputs input_ids, attention_mask int64 (batch, tokens); output logits float32 (batch, labels).

    Options: any field of `Sizes`.
    """
    sizes = with_options("distilbert", VARIANTS[variant], options)
    divisible = sizes.hidden_size % sizes.heads == 0
    require("distilbert", (divisible, f"hidden_size {sizes.hidden_size} is no multiple of heads {sizes.heads}"))
    configuration = DistilBertConfig(
        vocab_size=sizes.vocabulary,
        dim=sizes.hidden_size,
        n_heads=sizes.heads,
        n_layers=sizes.layers,
        hidden_dim=sizes.intermediate_size,
        max_position_embeddings=sizes.positions,
        num_labels=sizes.labels,
        attn_implementation="eager",
    )
    module = DistilBertForSequenceClassification(configuration).eval()
    tokens = Tokens("distilbert", sizes.vocabulary, 0, min(FIRST_WORD, sizes.vocabulary // 2), sizes.positions)
    return ModelDefinition(
        graphs={"main": GraphDefinition(module, tokens.example, tokens.references)},
        buckets=[{"tokens": sizes.tokens}],
        task="tensor",
        task_settings=tokens.task_settings(),
        checkpoint_keys=without_position_ids,
        initialise=DRAW,
    )
