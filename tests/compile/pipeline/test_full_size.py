"""Depth Anything V2 and BERT at their published sizes, from spec to a proven artifact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.compile.projects import rehearse

# Operators of the lowered graph, by torch: 12 blocks of ViT-S and ViT-B, 24 of ViT-L. `make demo` builds ViT-S, too.
TORCH_1 = torch.__version__.startswith("1.")
CASES = {"vits": 448, "vitb": 448, "vitl": 796} if TORCH_1 else {"vits": 437, "vitb": 437, "vitl": 773}


@pytest.mark.slow
@pytest.mark.timeout(1800)  # ViT-L takes ten minutes on two quiet cores
@pytest.mark.parametrize(("variant", "operators"), CASES.items())
def test_a_published_variant_is_built_and_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, operators: int
) -> None:
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
    assert graph.coverage.total == operators
    assert lock.parity.inputs == 5
    assert 1e-6 < lock.parity.error < 1e-3
    assert 1 < lock.parity.maximum < 100
    assert lock.parity.bound < 1e-4 * lock.parity.maximum
    assert lock.parity.details[graph.file]["notes"] == []
    assert lock.sample is not None


@pytest.mark.slow
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
    assert graph.coverage.total == 361
    assert lock.parity.inputs == 5
    assert lock.parity.error < 1e-5
    assert 0.5 < lock.parity.maximum < 2
