"""Families that take tokens answer texts of any length, and refuse tokens that they do not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from compile.frontend import loading, weights
from compile.packaging import archive
from inference_code.handler import Headers, ModelHandler, load
from inference_code.settings import Settings
from tests.compile.models.tiny import TINY
from tests.compile.projects import rehearse


def built(root: Path, family: str, variant: str) -> tuple[Any, ModelHandler]:
    """The model of a tiny family with the weights of its build, and its artifact, loaded."""
    path = root / "endpoints" / "texts.yaml"
    path.parent.mkdir()
    model = {"family": family, "variant": variant, "weights": "random:3", "options": TINY[(family, variant)][0]}
    path.write_text(f"name: texts\nmodel: {json.dumps(model)}\n")
    result = rehearse(path)
    archive.extract(result.artifact, root / "model")
    definition = loading.definition(result.spec)
    weights.fill(result.spec, definition)
    return definition.weights, ModelHandler(load(root / "model", Settings()))


def ask(served: ModelHandler, value: Any) -> Any:
    items = served.input(json.dumps(value).encode(), "application/json", Headers())
    return json.loads(served.output(served.predict(items)).body)


@pytest.mark.parametrize(("family", "variant"), [("bert", "base-uncased"), ("xlm", "mlm-ende-1024")])
def test_a_text_shorter_than_the_bucket_gets_the_answer_of_the_text_alone(
    tmp_path: Path, family: str, variant: str
) -> None:
    model, served = built(tmp_path, family, variant)
    ids = [31, 40, 33, 50, 45]
    more = {"langs": [1] * len(ids)} if family == "xlm" else {}
    answer = ask(served, {"input_ids": ids, **more})["outputs"]["logits"]
    with torch.no_grad():
        inputs = {name: torch.tensor([value]) for name, value in more.items()}
        expected = model(input_ids=torch.tensor([ids]), **inputs).logits[0]
    torch.testing.assert_close(torch.tensor(answer), expected, rtol=1e-4, atol=1e-5)
    mask = {"attention_mask": [1, 1, 1, 0, 0]}
    assert ask(served, {"input_ids": ids, **mask, **more})["outputs"]["logits"] != answer
    for bad in ({"input_ids": [*ids, 60]}, {"input_ids": [-1]}, {"input_ids": ids, "attention_mask": [1, 1, 1, 1, 2]}):
        assert "the model knows 0 to" in ask(served, {**more, **bad})["detail"]


def test_a_recommender_refuses_rows_that_its_tables_do_not_have(tmp_path: Path) -> None:
    _, served = built(tmp_path, "dlrm", "kaggle_10k")  # tables of 9, 20 and 7 rows
    dense = [0.5] * 13
    assert "outputs" in ask(served, {"dense": dense, "sparse": [8, 19, 6]})
    answer = ask(served, {"dense": dense, "sparse": [8, 20, 6]})
    assert answer["error"] == "bad_request"
    assert "at most [8, 19, 6]" in answer["detail"]
    assert "shape" in ask(served, {"dense": dense, "sparse": [8, 20]})["detail"]
