"""Depth Anything V2 with a graph for each shape: what is served is the model on the reference's own input."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DPTImageProcessor

import endpoint_spec as specs
from compile.frontend import loading, weights
from compile.packaging import artifact
from inference_code import handler
from inference_code.codecs import images
from inference_code.handler import Headers
from tests.compile.projects import rehearse, write_spec

PHOTOGRAPH = Path(__file__).parents[3] / "examples" / "photographs" / "coffee.jpg"
SHAPES = {"4:3": (90, 120), "portrait": (120, 90), "square": (77, 77), "16:9": (90, 160)}
BUCKETS = "compile: {buckets: [{image: [56, 56]}, {image: [56, 70]}, {image: [70, 56]}, {image: [56, 98]}]}\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_spec(tmp_path_factory.mktemp("aspect"), more=BUCKETS)
    rehearse(path)
    return path


@pytest.mark.slow
def test_each_shape_is_answered_by_the_graph_of_the_references_size(project: Path) -> None:
    spec = specs.load(project)
    definition = loading.definition(spec)
    weights.fill(spec, definition)
    processor = DPTImageProcessor(
        size={"height": 56, "width": 56},
        keep_aspect_ratio=True,
        ensure_multiple_of=14,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    with artifact.unpacked(artifact.find(spec, rehearsal=True)) as files:
        served = handler.model_fn(str(files.folder))
        seen = set()
        for height, width in SHAPES.values():
            with Image.open(PHOTOGRAPH) as image:
                picture = image.convert("RGB").resize((width, height))
            pixels = torch.from_numpy(np.asarray(processor(picture, return_tensors="np")["pixel_values"]))
            with torch.no_grad():
                expected = definition.weights(pixel_values=pixels).predicted_depth[0].numpy()
            found = asked(served, picture)
            assert found.shape == expected.shape
            # The reference resizes by Pillow; torch, where it resizes, rounds a few values of 255 otherwise.
            share = 2e-3 if images._TORCH_CAN else 1e-4
            np.testing.assert_allclose(found, expected, atol=share * float(np.abs(expected).max()))
            seen.add(found.shape)
    assert seen == {(56, 70), (70, 56), (56, 56), (56, 98)}


def asked(served: Any, picture: Image.Image) -> np.ndarray[Any, Any]:
    """The map in the model's own size."""
    body = io.BytesIO()
    picture.save(body, "PNG")
    context = Headers({"accept": "application/x-npy; size=model"})
    work = handler.input_fn(body.getvalue(), "image/png", context)
    answer, _ = handler.output_fn(handler.predict_fn(work, served, context), "", context)
    return np.asarray(np.load(io.BytesIO(answer)))
