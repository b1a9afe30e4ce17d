"""Trained weights and a real photograph: what is answered is what a person sees, and what the plain network says."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from PIL import Image

from compile.frontend import trained_weights
from compile.models.parts.labels import COCO
from compile.packaging import golden_sample
from compile.packaging.artifact import find, unpacked
from compile.packaging.local_server import Worker, running
from tests.compile.projects import rehearse
from tests.end_to_end.rehearsal import ROOT

pytestmark = pytest.mark.slow
COFFEE = ROOT / "examples" / "photographs" / "coffee.jpg"


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Worker, Path]]:
    """zoo/yolov3-tiny, built as a rehearsal and served; with its weights."""
    root = tmp_path_factory.mktemp("yolov3-tiny")
    folder, _ = trained_weights.fetch("yolov3-tiny", root, unlicensed=False, say=print)
    (root / "endpoints").mkdir()
    spec = root / "endpoints" / "yolov3-tiny.yaml"
    spec.write_text((ROOT / "zoo" / "yolov3-tiny.yaml").read_text())
    result = rehearse(spec)
    with unpacked(find(result.spec, rehearsal=True)) as files:
        environment = golden_sample.environment(result.spec, result.lock)
        with running(files.folder, environment, files.scratch / "worker.log") as worker:
            yield worker, folder / "yolov3-tiny.weights"


def test_the_cup_is_where_it_is(detector: tuple[Worker, Path]) -> None:
    worker, weights = detector
    client = InferenceClient(model=f"{worker.url}/invocations")
    (cup,) = client.object_detection(str(COFFEE))
    assert cup.label == "cup"
    assert cup.score == pytest.approx(0.646, abs=1e-3)
    sides = [cup.box.xmin, cup.box.ymin, cup.box.xmax, cup.box.ymax]
    assert np.abs(np.subtract(sides, [150, 22, 427, 310])).max() <= 1
    command = [sys.executable, str(Path(__file__).with_name("plain_yolov3_tiny.py")), str(weights), str(COFFEE)]
    plain = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    score, number, box = plain[0]
    assert COCO[number] == "cup"
    assert cup.score == pytest.approx(score, abs=0.01)  # the picture is resized in another way
    assert np.abs(np.subtract(sides, box)).max() <= 2


def test_more_is_seen_with_a_lower_threshold(detector: tuple[Worker, Path]) -> None:
    found = InferenceClient(model=f"{detector[0].url}/invocations").object_detection(str(COFFEE), threshold=0.05)
    assert [one.label for one in found] == ["cup", "bowl", "diningtable"]


def test_the_boxes_are_drawn(detector: tuple[Worker, Path]) -> None:
    answer = detector[0].invoke(COFFEE.read_bytes(), "image/jpeg", "image/png")
    drawn = np.asarray(Image.open(io.BytesIO(answer.body)), np.int32)
    plain = np.asarray(Image.open(COFFEE).convert("RGB"), np.int32)
    changed = np.abs(drawn - plain).max(2) > 60
    assert drawn.shape == plain.shape
    assert changed[166, 148:153].any(), "the left side of the cup's box"
    assert not changed[320:, :].any(), "nothing below it"
