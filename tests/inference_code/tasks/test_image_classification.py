"""The task image-classification: a model that names the colour in the middle of the picture."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from inference_code import handler
from inference_code.artifact.manifest import TaskEntry
from inference_code.errors import LoadError
from inference_code.handler import Headers
from tests.inference_code.artifacts import add_graph, encoded, finish, npy

SIZE = (48, 64)
PLAIN = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
LABELS = ["red", "green", "blue"]


class Colour(nn.Module):
    """The mean of each channel, times 4."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        return pixel_values.mean((2, 3)) * 4


def artifact(folder: Path, **settings: Any) -> Path:
    graph = add_graph(folder, Colour(), {"pixel_values": torch.rand(1, 3, *SIZE)}, bucket={"image": list(SIZE)})
    task = TaskEntry("image-classification", {"labels": LABELS, **PLAIN, **settings})
    return finish(folder, (graph,), "image-classification", task=task)


def served(folder: Path, **settings: Any) -> Any:
    return handler.model_fn(str(artifact(folder, **settings)))


def framed(
    colour: tuple[int, int, int], frame: tuple[int, int, int], width: int = 200, height: int = 150
) -> Image.Image:
    """A picture whose outer eighth on every side has another colour."""
    pixels = np.full((height, width, 3), frame, np.uint8)
    pixels[height // 8 : -(height // 8), width // 8 : -(width // 8)] = colour
    return Image.fromarray(pixels)


def ask(model: Any, body: bytes, kind: str = "image/png") -> Any:
    context = Headers({})
    return json.loads(
        handler.output_fn(handler.predict_fn(handler.input_fn(body, kind, context), model), "", context)[0]
    )


def inputs(image: Image.Image, **parameters: Any) -> bytes:
    text = base64.b64encode(encoded(image)).decode()
    return json.dumps({"inputs": text, "parameters": parameters}).encode()


def test_labels_come_best_first_with_probabilities(tmp_path: Path) -> None:
    rows = ask(served(tmp_path), encoded(Image.new("RGB", (100, 80), (0, 255, 51))))
    powers = [math.exp(4), math.exp(4 * 0.2), 1.0]
    assert [row["label"] for row in rows] == ["green", "blue", "red"]
    assert [row["score"] for row in rows] == pytest.approx([power / sum(powers) for power in powers], abs=1e-6)


def test_without_labels_they_are_numbered(tmp_path: Path) -> None:
    (row,) = ask(served(tmp_path, labels=None, top=1), encoded(Image.new("RGB", (100, 80), (0, 255, 0))))
    assert row["label"] == "LABEL_1"


@pytest.mark.parametrize("size", [(200, 150), (800, 150), (150, 800), (64, 48)])
def test_what_is_cut_off_is_not_looked_at(tmp_path: Path, size: tuple[int, int]) -> None:
    picture = framed((255, 0, 0), (0, 0, 255), *size)
    whole, middle = (ask(served(tmp_path / str(crop), crop=crop), encoded(picture)) for crop in (1, 0.7))
    scores = [{row["label"]: row["score"] for row in rows} for rows in (whole, middle)]
    assert scores[0]["blue"] > scores[0]["green"] + 0.01
    assert scores[1]["blue"] == pytest.approx(scores[1]["green"], abs=0.01)


def test_parameters_of_hugging_face(tmp_path: Path) -> None:
    model = served(tmp_path)
    picture = Image.new("RGB", (100, 80), (0, 255, 51))
    assert len(ask(model, inputs(picture, top_k=2), "application/json")) == 2
    plain = ask(model, inputs(picture, function_to_apply="none"), "application/json")
    assert plain[0]["score"] == pytest.approx(4.0, abs=1e-5)
    single = ask(model, inputs(picture, function_to_apply="sigmoid"), "application/json")
    assert single[0]["score"] == pytest.approx(1 / (1 + math.exp(-4)), abs=1e-6)
    several = json.dumps([json.loads(inputs(picture, top_k=1))] * 2).encode()
    assert [len(rows) for rows in ask(model, several, "application/json")] == [1, 1]
    assert ask(model, npy(np.asarray(picture)), "application/x-npy")[0]["label"] == "green"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"top_k": 0}, "top_k is '0'; it is a whole number from 1 on"),
        ({"top_k": "many"}, "top_k is 'many'"),
        ({"function_to_apply": "relu"}, "function_to_apply is 'relu'; it can be softmax or sigmoid or none"),
        ({"threshold": 1}, "parameters has threshold; it can have top_k, function_to_apply"),
    ],
)
def test_other_parameters_are_refused(tmp_path: Path, parameters: dict[str, Any], said: str) -> None:
    served(tmp_path)
    body = inputs(Image.new("RGB", (10, 10)), **parameters)
    assert said in str(handler.input_fn(body, "application/json", Headers({}))[0].error)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"labels": ["one"]}, "1 labels for 3 classes"),
        ({"crop": 0}, "setting crop is 0"),
        ({"function": "relu"}, "setting function is 'relu', not softmax or sigmoid or none"),
        ({"fit": "crop"}, "no setting fit"),
    ],
)
def test_settings_that_do_not_fit_end_the_start(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(LoadError, match=said):
        served(tmp_path, **settings)
