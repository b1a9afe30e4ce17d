"""XLM: a class for a text, with a vocabulary shared by languages.

Network: transformers' XLMForSequenceClassification, built from its configuration; sizes of xlm-mlm-ende-1024,
xlm-mlm-en-2048 and xlm-mlm-100-1280.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import XLMConfig, XLMForSequenceClassification

from compile.definition import ModelDefinition
from compile.models import family
from compile.models.parts.classifiers import Classifier


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
CLASSIFIER = Classifier(
    "xlm",
    XLMForSequenceClassification,
    XLMConfig,
    names={
        **{"hidden_size": "emb_dim", "heads": "n_heads", "layers": "n_layers"},
        **{"languages": "n_langs", "language_embeddings": "use_lang_emb"},
    },
    constants={"gelu_activation": True},
    padding=2,
    first=14,  # <s>, </s>, <pad>, <unk> and ten special tokens come before
    query="q_lin.weight",
)


@family(name="xlm", variants=VARIANTS, source="https://github.com/facebookresearch/XLM")
def build(sizes: Sizes) -> ModelDefinition:
    """Inputs input_ids, attention_mask and, where languages have embeddings, langs (the number of each token's
    language), int64 (batch, tokens); output logits float32 (batch, labels). Options: any field of `Sizes`.
    """
    return CLASSIFIER.build(sizes, sizes.languages if sizes.language_embeddings else 0)
