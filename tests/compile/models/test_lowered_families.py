"""Every family, small, lowers to one subgraph of supported operators behind its host prologue, with equal outputs."""

from __future__ import annotations

import pytest
import torch

from compile.analysis import analyze
from compile.ir.flat_module import flat_module, signature
from compile.lowering import lower, split
from compile.models import find
from compile.verification.parity import compare
from tests.compile.models.tiny import TINY

# Families whose graphs begin with a table that the host looks up.
LOOK_UPS = {"dlrm", "bert", "distilbert", "roberta", "xlm_roberta", "xlm", "marian", "bart", "pegasus", "parseq"}


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
        prologue = split(lower(flat, tensors).module, tensors)
        report = analyze(prologue.device, prologue.device_inputs)
        assert report.supported == report.total, f"{role}: {set(report.operators)}"
        assert report.safe is not None
        assert report.safe.subgraphs == 1, role
        names = [output.name for output in signature(flat, example).outputs]
        parity = compare(flat, prologue.whole, graph.reference_inputs(bucket, 1), names)
        assert parity.passed, f"{role}: {parity.worst}"
        with_tables = key[0] in LOOK_UPS and (key[0], role) != ("parseq", "encoder")
        assert bool(prologue.report.tables) == with_tables, role
        assert (prologue.host is not None) == with_tables, role
        assert not any(tensor.dtype == torch.int64 for tensor in prologue.device_inputs), role
