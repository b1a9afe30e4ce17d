"""XLM-RoBERTa: a class for a text in any of a hundred languages.

Network: transformers' XLMRobertaForSequenceClassification, built from its configuration; sizes of
xlm-roberta-{base,large}, whose files load.
"""

from __future__ import annotations

from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

from compile.definition import ModelDefinition
from compile.models import family
from compile.models.parts.classifiers import ROBERTA, Classifier, Sizes

VARIANTS = {
    "base": Sizes(vocabulary=250002, positions=514),
    "large": Sizes(250002, 1024, 16, 24, 4096, 514),
}
CLASSIFIER = Classifier("xlm_roberta", XLMRobertaForSequenceClassification, XLMRobertaConfig, **ROBERTA)


@family(name="xlm_roberta", variants=VARIANTS, source="https://arxiv.org/abs/1911.02116")
def build(sizes: Sizes) -> ModelDefinition:
    """Inputs input_ids, attention_mask int64 (batch, tokens); output logits float32 (batch, labels).

    Options: any field of `Sizes`.
    """
    return CLASSIFIER.build(sizes)
