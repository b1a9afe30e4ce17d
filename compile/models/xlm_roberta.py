"""XLM-RoBERTa: a class for a text in any of a hundred languages.

Network: transformers' XLMRobertaForSequenceClassification, built from its configuration; sizes of
xlm-roberta-{base,large}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

from compile.definition import GraphDefinition, ModelDefinition
from compile.models import family
from compile.models.parts.draw import drawer
from compile.models.parts.options import require, with_options
from compile.models.parts.tokens import Tokens, without_position_ids

PADDING = 1
# Position 0 and 1 are the padding's, so a text of n tokens needs n + 2 positions.
RESERVED = 2


@dataclass(frozen=True)
class Sizes:
    """The numbers of a variant; `labels` are the classes of the fine-tuned head."""

    vocabulary: int = 250002
    hidden_size: int = 768
    heads: int = 12
    layers: int = 12
    intermediate_size: int = 3072
    positions: int = 514
    labels: int = 2
    tokens: int = 128


VARIANTS = {
    "base": Sizes(),
    "large": Sizes(hidden_size=1024, heads=16, layers=24, intermediate_size=4096),
}
# Sharper attention than by default, so that the logits follow single words.
DRAW = drawer(gains={"query.weight": 3.0})


@family(name="xlm_roberta", variants=tuple(VARIANTS), task="tensor", source="https://arxiv.org/abs/1911.02116")
def build(variant: str, options: Mapping[str, Any]) -> ModelDefinition:
    """Inputs input_ids, attention_mask int64 (batch, tokens); output logits float32 (batch, labels).

    Options: any field of `Sizes`.
    """
    sizes = with_options("xlm_roberta", VARIANTS[variant], options)
    divisible = sizes.hidden_size % sizes.heads == 0
    require("xlm_roberta", (divisible, f"hidden_size {sizes.hidden_size} is no multiple of heads {sizes.heads}"))
    configuration = XLMRobertaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden_size,
        num_attention_heads=sizes.heads,
        num_hidden_layers=sizes.layers,
        intermediate_size=sizes.intermediate_size,
        max_position_embeddings=sizes.positions,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=PADDING,
        num_labels=sizes.labels,
        attn_implementation="eager",
    )
    module = XLMRobertaForSequenceClassification(configuration).eval()
    tokens = Tokens("xlm_roberta", sizes.vocabulary, PADDING, 4, sizes.positions - RESERVED)
    return ModelDefinition(
        graphs={"main": GraphDefinition(module, tokens.example, tokens.references)},
        buckets=[{"tokens": sizes.tokens}],
        task="tensor",
        task_settings=tokens.task_settings(),
        checkpoint_keys=without_position_ids,
        initialise=DRAW,
    )
