"""`make coverage-table`: the committed table belongs to the code, and a run that was stopped goes on."""

from __future__ import annotations

import copy
import functools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from compile import lowering
from compile.models import families
from tests.compile.models.tiny import TINY
from tools import coverage_table
from tools.coverage_table import MODELS, SIZES, Model, digest, document, is_exception, measure, page

OLD = coverage_table.ROOT / ".venv310" / "bin" / "python"
PYTHON = str(OLD) if OLD.exists() else sys.executable
ASKED_FOR = {
    *("depth_anything_v2-vits", "depth_anything_v2-vitb", "depth_anything_v2-vitl", "dinov2-small", "vitmatte-small"),
    *("parseq-base", "craft-vgg16_bn", "yolov3-yolov3", "yolov4-yolov4", "yolov5-yolov5s", "ssd300-vgg16"),
    *("bert-base-uncased", "distilbert-base-uncased", "roberta-base", "xlm_roberta-base", "xlm-mlm-ende-1024"),
    *("marian-opus-mt-en-de", "bart-base", "pegasus-xsum", "resnet-resnet50", "resnet-resnext50_32x4d", "vgg-vgg16"),
    "dlrm-kaggle_10k",
}


@pytest.fixture(scope="module")
def tiny() -> dict[str, Any]:
    """A row of a network that runs in a blink."""
    options, bucket = TINY["bert", "base-uncased"]
    return measure(Model("Tiny BERT", "bert", "base-uncased", "tiny"), PYTHON, options, bucket)


def test_every_model_that_the_table_owes_is_a_row() -> None:
    assert {model.key for model in MODELS} >= ASKED_FOR
    for model in MODELS:
        assert model.variant in families()[model.family].variants


@pytest.mark.slow
def test_the_committed_table_belongs_to_the_code() -> None:
    if not coverage_table.DOCUMENT.is_file():
        pytest.skip("no table is committed yet")
    assert coverage_table.stale() == [], (
        "made by other code: run make coverage-table, or leave them out until then: tools/coverage_table.py --prune"
    )


def test_the_committed_page_says_what_the_json_says() -> None:
    if not coverage_table.DOCUMENT.is_file():
        pytest.skip("no table is committed yet")
    table = json.loads(coverage_table.DOCUMENT.read_text(encoding="utf-8"))
    assert coverage_table.PAGE.read_text(encoding="utf-8") == page(table)
    assert document(table["rows"]) == table


@pytest.mark.slow
def test_a_row_says_what_lowering_did(tiny: dict[str, Any]) -> None:
    (graph,) = tiny["graphs"]
    assert graph["before"]["operators"] > graph["after"]["operators"] == graph["after"]["supported"] > 0
    assert graph["after"]["subgraphs"] == 1
    assert graph["before"]["unsupported"]["aten::embedding"] == 3
    assert graph["prologue"]["tables"]
    assert all(table["product_flops"] > 0 for table in graph["prologue"]["tables"])
    assert graph["error"]["beyond"] == ""
    assert graph["error"]["compared_inputs"] == 5
    assert not is_exception(graph)
    assert graph["differing"] == {}
    assert tiny["versions"]["torch"] == torch.__version__
    assert tiny["versions"]["torch of the replay"].startswith("1.13.1" if OLD.exists() else torch.__version__)
    assert tiny["machine"]


@pytest.mark.slow
def test_the_page_names_exceptions_and_missing_rows(tiny: dict[str, Any]) -> None:
    row = {**tiny, "digest": "0", "title": "BERT base"}
    text = page(document({"bert-base-uncased": row}))
    assert "Not in this table yet" in text
    assert "Depth Anything V2 ViT-L" in text
    assert "## Exceptions: 0" in text
    assert row["date"] in text
    assert "](analyzing.md)" in text
    assert (coverage_table.PAGE.parent / "analyzing.md").is_file()
    graph = copy.deepcopy(row["graphs"][0])
    graph["after"]["supported"] -= 2
    graph["after"] |= {"flops_host": 3 * 10**9, "reason": "2 aten::erfinv: no such operator"}
    graph["error"]["beyond"] = "output logits of the replay differs"
    graph["differing"] = {"device: aten::add": [2, 3]}
    text = page(document({"bert-base-uncased": {**row, "graphs": [graph]}}))
    assert "## Exceptions: 1" in text
    assert "| main | 2 aten::erfinv: no such operator; output logits of the replay differs | 3.0 |" in text
    assert "**beyond the bound**" in text
    assert "- BERT base: graph main: device: aten::add 2 in the file, 3 traced." in text


def test_the_digest_is_of_what_the_code_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage_table, "SIZES", {key: SIZES[key] for key in SIZES if key[0] in ("vgg", "bert")})
    before = {family: digest.__wrapped__(family) for family in ("vgg", "bert")}
    assert before["vgg"] != before["bert"]
    assert digest.__wrapped__("vgg") == before["vgg"], "the same twice"
    without = functools.partial(
        lowering.lower, disabled=("fold_constants", "indexed_reads", "activations", "dropout_off")
    )
    monkeypatch.setattr(lowering, "lower", without)
    assert digest.__wrapped__("bert") != before["bert"], "another lowering is noticed"


def test_a_row_is_kept_until_its_code_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = next(model for model in MODELS if model.key == "bert-base-uncased")
    monkeypatch.setattr(coverage_table, "DOCUMENT", tmp_path / "none.json")
    monkeypatch.setattr(coverage_table, "CACHE", tmp_path)
    monkeypatch.setattr(coverage_table, "_torch_of", lambda python: "1")
    made: list[str] = []

    def in_process(model: Model, python: str) -> dict[str, Any]:
        made.append(model.key)
        row = {"digest": digest(model.family), "versions": {"torch of the replay": "1"}}
        (tmp_path / f"{model.key}.json").write_text(json.dumps(row))
        return row

    monkeypatch.setattr(coverage_table, "_in_process", in_process)
    for _ in range(2):
        ((_, row),) = coverage_table.rows([model], "python")
        assert row is not None
    assert made == [model.key]
    (tmp_path / f"{model.key}.json").write_text(
        json.dumps({"digest": "another", "versions": {"torch of the replay": "1"}})
    )
    list(coverage_table.rows([model], "python"))
    assert made == [model.key] * 2


def test_a_row_that_fails_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(coverage_table, "DOCUMENT", tmp_path / "none.json")
    monkeypatch.setattr(coverage_table, "CACHE", tmp_path)
    monkeypatch.setattr(coverage_table, "_torch_of", lambda python: "1")

    def in_process(model: Model, python: str) -> dict[str, Any]:
        if model.family == "bert":
            raise coverage_table.TableError("bert-base-uncased: killed")
        return {}

    monkeypatch.setattr(coverage_table, "_in_process", in_process)
    chosen = [model for model in MODELS if model.family in ("bert", "vgg")]
    found = {model.key: row for model, row in coverage_table.rows(chosen, "python")}
    assert found == {"bert-base-uncased": None, "vgg-vgg16": {}}
    assert "bert-base-uncased: killed" in capsys.readouterr().err
