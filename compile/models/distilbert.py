"""DistilBERT: BERT's classes at half the depth.

Network: transformers' DistilBertForSequenceClassification, built from its configuration; sizes of
distilbert-base-{uncased,cased}, whose files load.
"""

from __future__ import annotations

from transformers import DistilBertConfig, DistilBertForSequenceClassification

from compile.definition import ModelDefinition
from compile.models import family
from compile.models.parts.classifiers import Classifier, Sizes

VARIANTS = {"base-uncased": Sizes(layers=6), "base-cased": Sizes(vocabulary=28996, layers=6)}
CLASSIFIER = Classifier(
    "distilbert",
    DistilBertForSequenceClassification,
    DistilBertConfig,
    names={"hidden_size": "dim", "heads": "n_heads", "layers": "n_layers", "intermediate_size": "hidden_dim"},
    query="q_lin.weight",
)


@family(name="distilbert", variants=VARIANTS, source="https://arxiv.org/abs/1910.01108")
def build(sizes: Sizes) -> ModelDefinition:
    """Inputs input_ids, attention_mask int64 (batch, tokens); output logits float32 (batch, labels).

    Options: any field of `Sizes`.
    """
    return CLASSIFIER.build(sizes)
