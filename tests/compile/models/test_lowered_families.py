"""Every family, small, lowers to one subgraph of supported operators (embeddings aside) with equal outputs."""

from __future__ import annotations

import pytest
import torch

from compile.coverage import analyze
from compile.lowering import lower
from compile.models import find
from compile.parity import compare
from compile.structure import flat_module, signature
from tests.compile.models.tiny import TINY

# Large tables stay on the host, in front of the compiled graph.
HOST_PROLOGUE = {"aten::embedding"}


@pytest.mark.parametrize("key", TINY, ids=":".join)
def test_a_family_lowers_to_one_subgraph(key: tuple[str, str]) -> None:
    options, bucket = TINY[key]
    found, variant = find(*key)
    definition = found.build(variant, options)
    assert definition.initialise is not None
    definition.initialise(definition.weights, torch.Generator().manual_seed(0))
    for role, graph in definition.graphs.items():
        example = graph.example_inputs(bucket, 1)
        flat = flat_module(graph.module, example)
        tensors = tuple(example.values())
        lowered = lower(flat, tensors).module
        report = analyze(lowered, tensors)
        missing = {kind for kind, row in report.to_json()["operators"].items() if row["reason"]}
        assert missing <= HOST_PROLOGUE, f"{role}: {missing}"
        assert report.safe is not None
        assert report.safe.subgraphs == 1, role
        names = [output.name for output in signature(flat, example).outputs]
        parity = compare(flat, lowered, graph.reference_inputs(bucket, 1), names)
        assert parity.passed, f"{role}: {parity.worst}"
