"""A class for a text: what BERT, DistilBERT, RoBERTa, XLM and XLM-RoBERTa have in common.

Networks are transformers' ...ForSequenceClassification, built from a configuration, so no hub is needed. Published
files of these networks load under transformers' own names (see `without_position_ids` for what older ones carry).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from compile.definition import ModelDefinition
from compile.models.parts.draw import drawer
from compile.models.parts.drawn import drawn
from compile.models.parts.options import divides, require
from compile.models.parts.tokens import Tokens, without_position_ids


@dataclass(frozen=True)
class Sizes:
    """The numbers of a variant; `labels` are the classes of the fine-tuned head, `tokens` the usual bucket."""

    vocabulary: int = 30522
    hidden_size: int = 768
    heads: int = 12
    layers: int = 12
    intermediate_size: int = 3072
    positions: int = 512
    labels: int = 2
    tokens: int = 128


# transformers' names of the sizes that reach a configuration.
NAMES = {
    "vocabulary": "vocab_size",
    "hidden_size": "hidden_size",
    "heads": "num_attention_heads",
    "layers": "num_hidden_layers",
    "intermediate_size": "intermediate_size",
    "positions": "max_position_embeddings",
    "labels": "num_labels",
}


@dataclass(frozen=True)
class Classifier:
    """One family. network, configuration: transformers' classes; names: of sizes, where they differ from NAMES.

    constants: further keys of the configuration. padding: the id behind a text. first: the smallest id of a word
    (special tokens come before). reserved: positions that no token has. segments: whether token_type_ids are read.
    query: the end of the names of the matrices that make queries, which are drawn larger: sharper attention than by
    default, so that the logits follow single words.
    """

    family: str
    network: Any
    configuration: Any
    names: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    padding: int = 0
    first: int = 1000  # [PAD], [UNK], [CLS], [SEP], [MASK] and the unused ones of BERT's vocabularies
    reserved: int = 0
    segments: bool = False
    query: str = "query.weight"

    def build(self, sizes: Any, languages: int = 0) -> ModelDefinition:
        """The definition of a `Sizes`, or of a family's own. Raises CompileError for impossible ones."""
        require(self.family, divides(sizes, "hidden_size", "heads"))
        names = {**NAMES, **self.names}
        given = {names[name]: size for name, size in asdict(sizes).items() if name in names}
        configuration = self.configuration(**given, **self.constants, attn_implementation="eager")
        longest, first = sizes.positions - self.reserved, min(self.first, sizes.vocabulary // 2)
        tokens = Tokens(self.family, sizes.vocabulary, self.padding, first, longest, self.segments, languages)
        module = self.network(configuration).eval()
        return ModelDefinition(
            graphs={"main": drawn(module, tokens.batch)},
            buckets=[{"tokens": sizes.tokens}],
            task="tensor",
            task_settings=tokens.task_settings(),
            checkpoint_keys=without_position_ids,
            initialise=drawer(gains={self.query: 3.0}),
        )


# What RoBERTa and XLM-RoBERTa share: four special tokens, padding 1, and positions 0 and 1 that are the padding's, so
# that a text of n tokens needs n + 2.
ROBERTA: Any = {
    "constants": {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1},
    "padding": 1,
    "first": 4,
    "reserved": 2,
}
