"""Depth Anything V2 and BERT at their published sizes, from spec to a proven artifact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.compile.projects import rehearse

CASES = [
    "vits",
    pytest.param("vitb", marks=pytest.mark.slow),
    pytest.param("vitl", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("variant", CASES)
def test_a_published_variant_is_built_and_proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str) -> None:
    torch.set_num_threads(2)
    monkeypatch.delenv("OMP_NUM_THREADS")
    path = tmp_path / "endpoints" / "depth.yaml"
    path.parent.mkdir()
    path.write_text(f'name: depth\nmodel: {{family: depth_anything_v2, variant: {variant}, weights: "random:0"}}\n')
    lock = rehearse(path).lock
    (graph,) = lock.graphs
    assert graph.inputs[0].shape == [1, 3, 518, 518]
    assert graph.outputs[0].shape == [1, 518, 518]
    assert graph.coverage is not None
    assert graph.subgraphs is not None
    assert graph.coverage.supported == graph.coverage.total
    assert graph.subgraphs.count == 1
    assert lock.parity.inputs == 5
    assert 0 < lock.parity.error <= lock.parity.bound < 1e-4 * lock.parity.maximum
    assert lock.parity.details[graph.file]["notes"] == []
    assert lock.sample is not None


def test_bert_base_is_built_and_proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    monkeypatch.delenv("OMP_NUM_THREADS")
    path = tmp_path / "endpoints" / "text.yaml"
    path.parent.mkdir()
    path.write_text('name: text\nmodel: {family: bert, variant: base-uncased, weights: "random:0"}\n')
    lock = rehearse(path).lock
    (graph,) = lock.graphs
    assert {tensor.name: tensor.shape for tensor in graph.inputs} == {
        "input_ids": [1, 128],
        "attention_mask": [1, 128],
        "token_type_ids": [1, 128],
    }
    assert graph.coverage is not None
    assert graph.subgraphs is not None
    assert graph.coverage.supported == graph.coverage.total
    assert graph.subgraphs.count == 1
    assert lock.parity.inputs == 5
    assert lock.parity.error <= lock.parity.bound
