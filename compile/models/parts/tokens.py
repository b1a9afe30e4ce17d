"""Made-up token sequences as inputs: deterministic, of different lengths, padded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compile.definition import Bucket, SampleRequest
from compile.errors import CompileError


@dataclass(frozen=True)
class Tokens:
    """The inputs of a family that takes one batch of padded token sequences.

    vocabulary: ids below it are drawn, `first` the smallest of them (those below are special tokens).
    padding: the id after a sequence's end. segments: whether token_type_ids (0, then 1) are an input too.
    longest: how many positions the network knows. languages: how many there are, where langs is an input too.
    """

    family: str
    vocabulary: int
    padding: int
    first: int
    longest: int
    segments: bool = False
    languages: int = 0

    def length(self, bucket: Bucket) -> int:
        """The number of tokens of a bucket. Raises CompileError when the network cannot take it."""
        given = bucket.get("tokens", 0)
        length = given if isinstance(given, int) else given[0] if len(given) == 1 else 0
        if not 0 < length <= self.longest:
            raise CompileError(
                f"compile.buckets: {dict(bucket)} does not fit {self.family}.",
                f"Give tokens: N, at most {self.longest} for this model, e.g. {{tokens: {min(128, self.longest)}}}.",
            )
        return length

    def batch(self, seed: int, bucket: Bucket, batch: int) -> dict[str, Tensor]:
        """int64 (batch, tokens): input_ids, attention_mask and, where the network reads it, token_type_ids.

        A quarter to all of each row is text, the rest padding.
        """
        length = self.length(bucket)
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(self.first, self.vocabulary, (batch, length), generator=generator)
        texts = torch.randint(max(1, length // 4), length + 1, (batch, 1), generator=generator)
        mask = torch.arange(length)[None, :] < texts
        inputs = {"input_ids": torch.where(mask, ids, torch.tensor(self.padding)), "attention_mask": mask.long()}
        if self.segments:
            inputs["token_type_ids"] = (mask & (torch.arange(length)[None, :] >= texts // 2)).long()
        if self.languages:
            languages = torch.randint(0, self.languages, (batch, 1), generator=generator)
            inputs["langs"] = languages.expand(batch, length).contiguous()
        return inputs

    def task_settings(self) -> dict[str, Any]:
        """Settings of the task tensor: shorter texts are padded, masks made, ids that do not exist refused."""
        highest, defaults = {"input_ids": self.vocabulary - 1, "attention_mask": 1}, {"attention_mask": 1}
        if self.segments:
            highest["token_type_ids"], defaults["token_type_ids"] = 1, 0
        if self.languages:
            highest["langs"] = self.languages - 1
        return {
            "padding": {name: self.padding if name == "input_ids" else 0 for name in highest},
            "defaults": defaults,
            "ranges": {name: [0, largest] for name, largest in highest.items()},
        }

    def sample(self, bucket: Bucket) -> SampleRequest:
        """A request of one short text to the task text2text-generation."""
        bodies = []
        for seed in (7, 8):
            row = self.batch(seed, bucket, 1)
            ids = row["input_ids"][0, : min(8, int(row["attention_mask"].sum()))].tolist()
            bodies.append(json.dumps({"input_ids": ids, "num_beams": 2}).encode())
        return SampleRequest(bodies[0], "application/json", "application/json", bodies[1])


def without_position_ids(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint of an older transformers, which stored 0, 1, 2 ... as a weight, without these.

    Raises CompileError when they are anything else.
    """
    kept = {}
    for key, value in state.items():
        if not key.endswith(".position_ids"):
            kept[key] = value
        elif not torch.equal(value.flatten(), torch.arange(value.numel(), dtype=value.dtype)):
            raise CompileError(f"{key} of the checkpoint is not 0, 1, 2 ...: this model numbers positions otherwise.")
    return kept
