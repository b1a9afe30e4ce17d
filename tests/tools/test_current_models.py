"""`make current-models`: tiny models of today's libraries go through a build's steps and into torch 1.13.1."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tools import current_models
from tools.current_models import Model, main, models, page, publish, row
from tools.graph_files import beyond_bounds

OLD = current_models.ROOT / ".venv310" / "bin" / "python"
IMAGE = {"pixel_values": [3, 32, 32]}
SAID = {"use_cache", "use_pretrained_backbone"}  # configurations that cut nothing
VIT = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2, "image_size": 32}
TOKENS = {"input_ids": {"ids": 90, "shape": [12]}, "attention_mask": {"mask": [12]}}
TEXT = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 4, "vocab_size": 99},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
}
QWEN3 = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 99},
    **{"num_key_value_heads": 2, "head_dim": 16, "use_cache": False},
}
SPEECH = {
    **{"hidden_size": 32, "intermediate_size": 48, "vocab_size": 99, "encoder_num_hidden_layers": 2},
    **{"decoder_num_hidden_layers": 1, "encoder_num_attention_heads": 2, "decoder_num_attention_heads": 2},
}
TINY = [
    Model("modernbert", "ModernBERT", "transformers", "4.48", "ModernBertModel", TOKENS, TEXT),
    Model("dinov3", "DINOv3", "transformers", "4.56", "DINOv3ViTModel", IMAGE, VIT),
    Model("qwen3", "Qwen3", "transformers", "4.51", "Qwen3Model", TOKENS, QWEN3),
    Model("ijepa", "I-JEPA", "transformers", "4.47", "IJepaModel", IMAGE, VIT),
    Model("hgnetv2", "HGNetV2", "transformers", "4.52", "HGNetV2Backbone", {"pixel_values": [3, 64, 64]}),
    Model(
        "moonshine",
        "Moonshine",
        "transformers",
        "4.48",
        "MoonshineModel",
        {"input_values": [4000]},
        SPEECH,
        part="encoder",
    ),
]


REPLAY = (
    "import json, sys, pathlib; from tools.graph_files import replayed; "
    "print(json.dumps([one for name in sys.argv[1:] for one in replayed(pathlib.Path(name))]))"
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The tiny models' rows: captured here, replayed by the container's Python, or this one."""
    place = tmp_path_factory.mktemp("graphs")
    captured = {model.key: current_models.captured(model, place / model.key) for model in TINY}
    python = str(OLD) if OLD.exists() else sys.executable
    command = [python, "-W", "ignore", "-c", REPLAY, *(str(place / key) for key in captured)]
    done = subprocess.run(command, cwd=current_models.ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    both = zip(TINY, captured.values(), json.loads(done.stdout), strict=True)
    seconds = {"captured_seconds": 0, "replayed_seconds": 0}
    return {one.key: {"entry": asdict(one), "captured": here, "replayed": there} | seconds for one, here, there in both}


@pytest.mark.slow
@pytest.mark.parametrize("key", [model.key for model in TINY])
def test_a_tiny_model_comes_through(key: str, rows: dict[str, dict[str, Any]]) -> None:
    found = rows[key]
    assert found["replayed"]["torch"].startswith("1.13.1" if OLD.exists() else torch.__version__)
    assert beyond_bounds(found["captured"]["outputs"], found["replayed"]["errors"]) == ""
    assert found["replayed"]["supported"] == found["replayed"]["operators"] > 0
    assert found["replayed"]["subgraphs"] == 1
    assert found["replayed"]["differing"] == {}
    assert all(0 < output["bound"] < 1e-3 * output["maximum"] for output in found["captured"]["outputs"])


@pytest.mark.slow
def test_a_replay_that_is_further_off_is_named(rows: dict[str, dict[str, Any]]) -> None:
    outputs, errors = rows["dinov3"]["captured"]["outputs"], rows["dinov3"]["replayed"]["errors"]
    for off in (3 * outputs[1]["bound"], math.nan):
        assert "output pooler_output of the replay differs" in beyond_bounds(outputs, [errors[0], off])


@pytest.mark.slow
def test_the_page_has_every_row(rows: dict[str, dict[str, Any]]) -> None:
    bad = rows["ijepa"] | {"failed": "not captured: an operator | of two lines\n  and its place"}
    text = page([*(one for key, one in rows.items() if key != "ijepa"), bad])
    assert f"{len(TINY) - 1} of {len(TINY)} came through" in text
    assert text.count("| 100.00 | 1 |") == len(TINY) - 1
    assert "| I-JEPA | transformers 4.47 | not captured: an operator \\| of two lines and its place |" in text


def test_a_run_that_was_stopped_goes_on(
    rows: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failed = rows["dinov3"] | {"failed": "not replayed: killed"}
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(current_models, "ROOT", tmp_path)
    monkeypatch.setattr(current_models, "DOCUMENT", tmp_path / "rows.json")
    monkeypatch.setattr(current_models, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(current_models, "models", lambda: TINY)
    made: list[str] = []
    monkeypatch.setattr(current_models, "row", lambda model, python: made.append(model.key) or rows[model.key])
    publish([rows["modernbert"], failed])
    assert "these 4 were **not tried yet**: Qwen3, I-JEPA" in current_models.PAGE.read_text(encoding="utf-8")
    assert main([]) == 1  # the failed one is kept
    assert "not tried yet" not in current_models.PAGE.read_text(encoding="utf-8")
    assert made == ["qwen3", "ijepa", "hgnetv2", "moonshine"]
    assert main(["--again"]) == 0
    assert made[4:] == ["dinov3"]
    monkeypatch.setattr(current_models, "models", lambda: [replace(TINY[0], since="4.49"), *TINY[1:]])
    main([])
    assert made[5:] == ["modernbert"]


def test_every_entry_of_the_list_is_whole() -> None:
    listed = models()
    assert len({model.key for model in listed}) == len(listed) >= 40
    assert {model.library for model in listed} == {"timm", "transformers"}
    assert all(model.cut or not set(model.config) - SAID for model in listed), "what is cut is said"


@pytest.mark.slow
def test_a_model_of_default_size_comes_through(tmp_path: Path) -> None:
    found = row(next(model for model in models() if model.key == "dinov3-vit"), str(OLD))
    assert found.get("failed") is None


def test_the_committed_page_says_what_the_json_says() -> None:
    rows = json.loads(current_models.DOCUMENT.read_text(encoding="utf-8"))["rows"]
    known = {one["entry"]["key"] for one in rows}
    missing = [model.title for model in models() if model.key not in known]
    assert current_models.PAGE.read_text(encoding="utf-8") == page(rows, missing)
    assert all(found["captured"]["outputs"] for found in rows if "failed" not in found)
