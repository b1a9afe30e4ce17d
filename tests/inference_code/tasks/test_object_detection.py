"""The task object-detection: a model that boxes what is white, asked with pictures whose white place is known."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from inference_code import handler
from inference_code.artifact.manifest import TaskEntry
from inference_code.errors import LoadError, Unprocessable
from inference_code.handler import Headers
from inference_code.tasks.object_detection import TASK, _kept
from tests.inference_code.artifacts import add_graph, encoded, finish, npy

SIZE = (64, 96)
WHITE = (30, 20, 80, 60)  # left, top, right, bottom
LABELS = ["white", "other"]


class White(nn.Module):
    """Rows of the form "rows": the box of what is white, twice; the second of lower score."""

    def forward(self, images: Tensor) -> Tensor:
        mask = (images[:, 0] > 0.9).float()
        sides = []
        for axis in (1, 2):
            line = mask.amax(axis)
            places = torch.arange(line.shape[1], dtype=torch.float32)
            sides += [(places + (1 - line) * 1e4).amin(1), ((places + 1) * line).amax(1)]
        left, right, top, bottom = sides
        there = mask.amax((1, 2))
        box = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
        rows = [torch.stack([*box, there * score, there, 0 * there], 1) for score in (0.9, 0.6)]
        return torch.stack(rows, 1)


def artifact(folder: Path, **settings: Any) -> Path:
    graph = add_graph(folder, White(), {"images": torch.rand(1, 3, *SIZE)}, bucket={"image": list(SIZE)})
    task = TaskEntry("object-detection", {"labels": LABELS, **settings})
    return finish(folder, (graph,), "object-detection", task=task)


@pytest.fixture
def served(tmp_path: Path) -> Any:
    return handler.model_fn(str(artifact(tmp_path)))


def picture(width: int = 200, height: int = 100, box: tuple[int, int, int, int] | None = WHITE) -> Image.Image:
    pixels = np.full((height, width, 3), 40, np.uint8)
    if box is not None:
        pixels[box[1] : box[3], box[0] : box[2]] = 255
    return Image.fromarray(pixels)


def ask(served: Any, body: bytes, kind: str = "image/png", accept: str = "", attributes: str = "") -> Any:
    context = Headers({"accept": accept, "x-amzn-sagemaker-custom-attributes": attributes})
    body, found = handler.output_fn(handler.predict_fn(handler.input_fn(body, kind, context), served), accept, context)
    return json.loads(body) if found == "application/json" else (body, found)


def sides(row: dict[str, Any]) -> list[int]:
    return [row["box"][name] for name in ("xmin", "ymin", "xmax", "ymax")]


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (96, 64), (700, 80)])
@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_boxes_are_in_the_pixels_of_the_picture_that_was_sent(tmp_path: Path, size: tuple[int, int], fit: str) -> None:
    served = handler.model_fn(str(artifact(tmp_path, fit=fit)))
    (row,) = ask(served, encoded(picture(*size)))
    assert row["label"] == "white"
    assert row["score"] == pytest.approx(0.9)
    pixel = max(size[0] / SIZE[1], size[1] / SIZE[0])
    assert np.abs(np.subtract(sides(row), WHITE)).max() <= 1.5 * pixel


def test_exif_turns_the_picture_before_it_is_looked_at(served: Any) -> None:
    turned = picture().transpose(Image.Transpose.ROTATE_90)  # orientation 6 turns it back
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    turned.save(stream, "JPEG", exif=exif, quality=95)
    (row,) = ask(served, stream.getvalue(), "image/jpeg")
    assert np.abs(np.subtract(sides(row), WHITE)).max() <= 4


def test_nothing_found_is_an_empty_list(served: Any) -> None:
    assert ask(served, encoded(picture(box=None))) == []


def test_every_form_of_the_body_answers_alike(served: Any) -> None:
    body = encoded(picture())
    text = base64.b64encode(body).decode()
    wanted = ask(served, body)
    assert wanted
    assert ask(served, json.dumps({"image": text}).encode(), "application/json") == wanted
    assert ask(served, json.dumps({"inputs": text, "parameters": {}}).encode(), "application/json") == wanted
    assert ask(served, json.dumps([{"image": text}] * 2).encode(), "application/json") == [wanted, wanted]
    assert ask(served, npy(np.asarray(picture())), "application/x-npy") == wanted
    for unsaid in ("", "application/octet-stream", "application/x-image"):
        assert ask(served, body, unsaid) == wanted
        assert ask(served, json.dumps({"inputs": text}).encode(), unsaid) == wanted


def test_the_threshold_is_the_callers(served: Any) -> None:
    text = base64.b64encode(encoded(picture())).decode()
    asked = json.dumps({"inputs": text, "parameters": {"threshold": 0.95}}).encode()
    assert ask(served, asked, "application/json") == []
    assert ask(served, encoded(picture()), attributes="threshold=0.95") == []


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"threshold": 2}, "threshold is '2'"),
        ({"threshold": "x"}, "threshold is 'x'"),
        ({"top": 1}, "parameters has top"),
    ],
)
def test_other_parameters_are_refused(served: Any, parameters: dict[str, Any], said: str) -> None:
    text = base64.b64encode(encoded(picture())).decode()
    body = json.dumps({"inputs": text, "parameters": parameters}).encode()
    work = handler.input_fn(body, "application/json", Headers({}))
    assert said in str(work[0].error)


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg"])
def test_the_boxes_are_drawn_into_the_whole_picture(served: Any, kind: str) -> None:
    stream = io.BytesIO()
    picture(1200, 900, (300, 200, 800, 600)).save(stream, "JPEG")  # which would be decoded smaller
    body, found = ask(served, stream.getvalue(), "image/jpeg", accept=kind)
    drawn = Image.open(io.BytesIO(body))
    assert found == kind
    assert drawn.size == (1200, 900)
    edge = np.asarray(drawn.convert("RGB"))[400, 290:315]
    assert (edge.max(1).astype(int) - edge.min(1)).max() > 60, "a coloured line where grey and white meet"
    plain, _ = ask(served, encoded(picture(box=None)), accept="image/png")
    assert (np.asarray(Image.open(io.BytesIO(plain))) == np.asarray(picture(box=None))).all()


def test_a_score_that_is_no_number_is_an_error(served: Any) -> None:
    item = handler.input_fn(encoded(picture()), "image/png", Headers({}))[0].item
    assert item is not None
    with pytest.raises(Unprocessable, match="the model's scores hold NaN"):
        TASK.postprocess(np.full((2, 7), np.nan, np.float32), item)


def test_of_two_boxes_of_one_class_that_overlap_the_better_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 11, 10], [20, 0, 30, 10]], np.float64)
    scores, classes = np.array([0.5, 0.9, 0.8, 0.1]), np.array([0, 0, 1, 0])
    assert _kept(boxes, scores, classes, 0.45, 100).tolist() == [1, 2, 3]
    assert _kept(boxes, scores, classes, 0.9, 100).tolist() == [1, 2, 0, 3]
    assert _kept(boxes, scores, classes, 0.45, 1).tolist() == [1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"labels": ["one"]}, "1 labels for the 2 classes"),
        ({"form": "pairs", "labels": None}, "no outputs of the form pairs"),
        ({"fit": "crop"}, "setting fit is 'crop', not letterbox or stretch"),
        ({"overlap": 2}, "setting overlap is 2"),
        ({"top": 1}, "no setting top"),
    ],
)
def test_settings_that_do_not_fit_end_the_start(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(LoadError, match=said):
        handler.model_fn(str(artifact(tmp_path, **settings)))
