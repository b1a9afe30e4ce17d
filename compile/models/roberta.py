"""RoBERTa: a class for a text.

Network: transformers' RobertaForSequenceClassification, built from its configuration; sizes of
roberta-{base,large}, whose files load.
"""

from __future__ import annotations

from transformers import RobertaConfig, RobertaForSequenceClassification

from compile.definition import ModelDefinition
from compile.models import family
from compile.models.parts.classifiers import ROBERTA, Classifier, Sizes

VARIANTS = {
    "base": Sizes(vocabulary=50265, positions=514),
    "large": Sizes(50265, 1024, 16, 24, 4096, 514),
}
CLASSIFIER = Classifier("roberta", RobertaForSequenceClassification, RobertaConfig, **ROBERTA)


@family(name="roberta", variants=VARIANTS, source="https://arxiv.org/abs/1907.11692")
def build(sizes: Sizes) -> ModelDefinition:
    """Inputs input_ids, attention_mask int64 (batch, tokens); output logits float32 (batch, labels).

    Options: any field of `Sizes`.
    """
    return CLASSIFIER.build(sizes)
