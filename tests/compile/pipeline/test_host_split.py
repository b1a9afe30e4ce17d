"""The host part of a graph in a build: in the lock beside the device graph, and in the artifact that answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import endpoint_spec as specs
from compile.frontend import loading, weights
from compile.packaging import archive, golden_sample
from compile.packaging.local_server import running
from compile.pipeline import verify
from compile.pipeline.build import Result
from compile.progress import Silent
from tests.compile.models.tiny import TINY
from tests.compile.projects import files, rehearse


def plain(value: Any) -> Any:
    """Tuples as lists, for YAML."""
    return json.loads(json.dumps(value))


def built(root: Path, family: str, variant: str) -> Result:
    options, bucket = TINY[family, variant]
    path = root / "endpoints" / f"{family}.yaml"
    path.parent.mkdir(parents=True)
    model = {"family": family, "variant": variant, "weights": "random:0", "options": plain(options)}
    accept = {"min_supported": "100%", "max_subgraphs": 1}
    section: dict[str, Any] = {"batch_sizes": [1, 2], "accept": accept}
    if "tokens" in bucket:  # DLRM has the one bucket of its tables
        section["buckets"] = [plain(bucket)]
    path.write_text(yaml.safe_dump({"name": family, "model": model, "compile": section}))
    return rehearse(path)


CHOICES = {
    "dlrm": {"emb_l.0": "host", "emb_l.1": "host", "emb_l.2": "product"},
    "bert": {"bert.embeddings.word_embeddings": "host", "bert.embeddings.token_type_embeddings": "product"},
}


@pytest.mark.parametrize(
    ("family", "variant"), [("dlrm", "kaggle_10k"), pytest.param("bert", "base-uncased", marks=pytest.mark.slow)]
)
def test_the_lock_names_the_host_part_and_the_packaged_code_answers(tmp_path: Path, family: str, variant: str) -> None:
    result = built(tmp_path, family, variant)
    for graph in result.lock.graphs:
        assert graph.coverage is not None
        assert graph.coverage.supported == graph.coverage.total
        host = graph.coverage.model_dump()["host"]
        assert {table["name"]: table["choice"] for table in host["tables"]} == CHOICES[family]
        assert host["operators"]["aten::embedding"] == list(CHOICES[family].values()).count("host")
        assert not [dense for dense in host["inputs"] if dense["dtype"] != "float32"]
        assert graph.unused_inputs == []
    before = files(tmp_path)
    assert not rehearse(result.spec.path).changed
    assert files(tmp_path) == before
    archive.extract(result.artifact, tmp_path / "model")
    expected, given = reference(result)
    with running(tmp_path / "model", golden_sample.environment(result.spec, result.lock), tmp_path / "log") as worker:
        answer = worker.invoke(json.dumps(given).encode(), "application/json", "application/json")
    assert answer.status == 200
    (found,) = flat(json.loads(answer.body)["outputs"])
    assert torch.allclose(torch.tensor(found), expected, rtol=1e-5, atol=1e-6)
    checks = verify.verify(result.spec, rehearsal=True, reporter=Silent())
    assert [check.detail for check in checks if not check.passed] == []


def reference(result: Result) -> tuple[torch.Tensor, dict[str, Any]]:
    """What the original model answers to one of its reference inputs, without the batch axis."""
    definition = loading.definition(result.spec)
    weights.fill(specs.load(result.spec.path), definition)
    graph = definition.graphs["main"]
    inputs = graph.reference_inputs(result.lock.graphs[0].bucket, 1)[2]
    with torch.no_grad():
        (expected,) = flat(graph.module(**inputs))
    return expected[0], {name: tensor[0].tolist() for name, tensor in inputs.items()}


def flat(outputs: Any) -> list[Any]:
    return list(outputs.values()) if isinstance(outputs, dict) else [outputs]
