"""Which bucket a picture is resized to, against the reference preprocessings of Depth Anything V2."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inference_code import handler
from inference_code.artifact.manifest import TaskEntry
from inference_code.codecs import images
from inference_code.handler import Headers
from inference_code.tasks.resize import ResizeRule, aspect_distortion, nearest
from tests.inference_code.artifacts import depth_artifact, encoded

PHOTOGRAPH = Path(__file__).parents[3] / "examples" / "photographs" / "coffee.jpg"
RULE = ResizeRule(518, 14)
BUCKETS = ((518, 518), (518, 686), (518, 784), (518, 924), (686, 518), (784, 518), (924, 518))
SIDES = st.integers(1, 12_000)


def of_the_repository(height: int, width: int) -> tuple[int, int]:
    """The lower bound of 518 and the multiple of 14, in numpy's numbers as the model's repository computes them."""
    scale_height, scale_width = 518 / height, 518 / width
    if scale_width > scale_height:
        scale_height = scale_width
    else:
        scale_width = scale_height
    sides = []
    for side in (scale_height * height, scale_width * width):
        rounded = (np.round(side / 14) * 14).astype(int)
        sides.append(int(rounded if rounded >= 518 else np.ceil(side / 14) * 14))
    return sides[0], sides[1]


@given(SIDES, SIDES)
def test_the_size_is_that_of_the_repository(height: int, width: int) -> None:
    assert RULE.size(height, width) == of_the_repository(height, width)


@settings(deadline=None, max_examples=50)  # the first call imports transformers
@given(st.integers(518, 3000), st.integers(518, 3000))
def test_for_large_pictures_transformers_says_the_same(height: int, width: int) -> None:
    module = pytest.importorskip("transformers.models.dpt.image_processing_dpt")
    if not hasattr(module, "get_resize_output_image_size"):
        pytest.skip("this version of transformers has no such function")
    picture = np.zeros((height, width, 1), np.uint8)
    found = module.get_resize_output_image_size(picture, (518, 518), keep_aspect_ratio=True, multiple=14)
    assert RULE.size(height, width) == tuple(found)


def test_common_photographs() -> None:
    sizes = {(3000, 4000): (518, 686), (1080, 1920): (518, 924), (2000, 3000): (518, 784), (500, 500): (518, 518)}
    for (height, width), (rows, columns) in sizes.items():
        assert RULE.size(height, width) == (rows, columns)
        assert RULE.size(width, height) == (columns, rows)


@given(SIDES, SIDES)
def test_the_very_size_comes_first_and_else_nothing_is_squeezed_less(height: int, width: int) -> None:
    found = nearest((height, width), BUCKETS, RULE)
    if RULE.size(height, width) in BUCKETS:
        assert found == RULE.size(height, width)
    else:
        least = min(aspect_distortion((height, width), bucket) for bucket in BUCKETS)
        assert aspect_distortion((height, width), found) == pytest.approx(least)


def test_of_one_shape_the_smallest_that_loses_nothing() -> None:
    squares = [(28, 28), (14, 14), (56, 56)]
    assert [nearest((side, side), squares, None)[0] for side in (10, 14, 15, 28, 40, 56, 90)] == [
        14, 14, 28, 28, 56, 56, 56,
    ]  # fmt: skip
    # 3:2 in both: equal although their quotients differ in the last digit.
    assert nearest((20, 30), [(140, 210), (28, 42)], None) == (28, 42)


def test_squeeze() -> None:
    assert aspect_distortion((300, 400), (518, 518)) == pytest.approx(1 / 3)
    assert aspect_distortion((400, 300), (518, 518)) == pytest.approx(1 / 3)
    assert aspect_distortion((259, 343), (518, 686)) == 0


# The whole preprocessing, on the photograph ---------------------------------------------------------------------------

# Of these the bucket is the very size that the reference gives.
FITTING = {
    "3:2": (800, 1200),
    "4:3": (960, 1280),
    "16:9": (720, 1280),
    "square": (640, 640),
    "portrait 3:4": (1280, 960),
    "portrait 9:16": (1280, 720),
    "portrait 2:3": (1200, 800),
    "odd": (577, 761),
}


pytestmark = pytest.mark.usefixtures("served")  # input_fn serves what model_fn loaded last


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    task = TaskEntry("depth-estimation", {"resize": {"least": 518, "multiple": 14}})
    folder = depth_artifact(tmp_path_factory.mktemp("aspect"), sizes=BUCKETS, task=task)
    return handler.model_fn(str(folder))


def photograph(height: int, width: int) -> Image.Image:
    """The photograph's middle at this shape, enlarged to this size."""
    with Image.open(PHOTOGRAPH) as image:
        scale = min(image.width / width, image.height / height)
        columns, rows = round(width * scale), round(height * scale)
        left, top = (image.width - columns) // 2, (image.height - rows) // 2
        cut = image.convert("RGB").crop((left, top, left + columns, top + rows))
    return cut.resize((width, height), Image.Resampling.BICUBIC)


def reference(picture: Image.Image) -> np.ndarray[Any, Any]:
    """What transformers' processor makes of it, with the settings that are published with the model."""
    transformers = pytest.importorskip("transformers")
    processor = transformers.DPTImageProcessor(
        size={"height": 518, "width": 518},
        keep_aspect_ratio=True,
        ensure_multiple_of=14,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    return np.asarray(processor(picture, return_tensors="np")["pixel_values"][0])


def ours(body: bytes, content_type: str) -> np.ndarray[Any, Any]:
    (work,) = handler.input_fn(body, content_type, Headers({"accept": "*/*; size=model"}))
    assert work.item is not None, work.error
    return np.asarray(work.item.inputs["pixels"])


@pytest.mark.parametrize("name", FITTING)
def test_where_the_bucket_fits_the_input_is_the_references(name: str) -> None:
    picture = photograph(*FITTING[name])
    expected = reference(picture)
    found = ours(encoded(picture), "image/png")
    assert found.shape == expected.shape
    assert found.shape[1:] in BUCKETS
    if images._TORCH_CAN:  # the reference resizes by Pillow: test_resizing_is_pillows
        apart = np.rint(np.abs(found - expected) * np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1) * 255)
        assert apart.max() <= 2
        assert (apart > 0).mean() < 0.01
    else:
        np.testing.assert_allclose(found, expected, atol=5e-6)


def test_a_photograph_file_decoded_at_reduced_size_is_near_the_reference() -> None:
    """3000 x 4000 is decoded at half its size; the bound is that of codecs/images.py, in units of 255."""
    body = encoded(photograph(3000, 4000), "JPEG", quality=90)
    with Image.open(io.BytesIO(body)) as image:
        expected = reference(image.convert("RGB"))
    found = ours(body, "image/jpeg")
    assert found.shape == expected.shape == (3, 518, 686)
    apart = np.abs(found - expected) * np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1) * 255
    assert apart.mean() < 1
    assert apart.max() < 18


def test_a_photograph_between_two_buckets_goes_to_the_nearer_shape() -> None:
    assert ours(encoded(photograph(600, 840)), "image/png").shape[1:] == (518, 686)  # 1.4 is nearer to 1.32 than 1.51
    assert ours(encoded(photograph(300, 1200)), "image/png").shape[1:] == (518, 924)


def test_the_map_has_the_size_of_the_photograph(served: Any) -> None:
    context = Headers({"accept": "application/x-npy"})
    for height, width in (FITTING["portrait 9:16"], FITTING["odd"]):
        work = handler.input_fn(encoded(photograph(height, width)), "image/png", context)
        body, _ = handler.output_fn(handler.predict_fn(work, served, context), "", context)
        assert np.load(io.BytesIO(body)).shape == (height, width)
