"""BERT and BioBERT: a class for a text, or for a pair of texts.

Network: transformers' BertForSequenceClassification, built from its configuration; sizes of bert-{base,large}-uncased,
bert-base-cased and dmis-lab/biobert-base-cased-v1.1 (a BERT with the cased vocabulary). Their files load.
"""

from __future__ import annotations

from transformers import BertConfig, BertForSequenceClassification

from compile.definition import ModelDefinition
from compile.models import family
from compile.models.parts.classifiers import Classifier, Sizes

VARIANTS = {
    "base-uncased": Sizes(),
    "base-cased": Sizes(vocabulary=28996),
    "large-uncased": Sizes(hidden_size=1024, heads=16, layers=24, intermediate_size=4096),
    "biobert-base-cased": Sizes(vocabulary=28996),
}
CLASSIFIER = Classifier("bert", BertForSequenceClassification, BertConfig, segments=True)


@family(name="bert", variants=VARIANTS, source="https://github.com/google-research/bert")
def build(sizes: Sizes) -> ModelDefinition:
    """Inputs input_ids, attention_mask, token_type_ids int64 (batch, tokens); output logits float32 (batch, labels).

    Options: any field of `Sizes`.
    """
    return CLASSIFIER.build(sizes)
