"""A graph whose inputs are drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from compile.definition import MINIMUM_REFERENCES, Bucket, GraphDefinition, Inputs


def drawn(
    module: nn.Module, draw: Callable[[int, Bucket, int], Inputs], padding: Mapping[str, float] | None = None
) -> GraphDefinition:
    """`draw(seed, bucket, batch)` gives the example for seed 0, and the references for the seeds behind it."""

    def example(bucket: Bucket, batch: int) -> Inputs:
        return draw(0, bucket, batch)

    def references(bucket: Bucket, batch: int) -> Sequence[Inputs]:
        return [draw(seed, bucket, batch) for seed in range(1, MINIMUM_REFERENCES + 1)]

    return GraphDefinition(module, example, references, padding=padding or {})
