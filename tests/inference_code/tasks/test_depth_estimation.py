"""The task depth-estimation through the handler's four functions."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from inference_code import handler
from inference_code.artifact.manifest import TaskEntry
from inference_code.codecs.images import from_array
from inference_code.errors import EndpointError, LoadError
from inference_code.handler import Headers
from inference_code.settings import Limits
from tests.inference_code.artifacts import BUCKET, depth_artifact, encoded, gradient, npy, read_npy

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
WEIGHTS = np.array([0.5, 0.3, 0.2], np.float32)


def ask(
    served: Any, body: bytes, content_type: str = "image/png", accept: str = "", attributes: str = ""
) -> tuple[bytes, str]:
    headers = {"accept": accept, "x-amzn-sagemaker-custom-attributes": attributes}
    context = Headers(headers)
    work = handler.input_fn(body, content_type, context)
    return handler.output_fn(handler.predict_fn(work, served, context), accept, context)


def refused(*arguments: Any, **options: Any) -> EndpointError:
    with pytest.raises(EndpointError) as caught:
        ask(*arguments, **options)
    return caught.value


def expected_map(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What the tiny model says of the resized picture."""
    small = from_array(picture, Limits()).resized(BUCKET, BUCKET).transpose(1, 2, 0)
    found: np.ndarray[Any, Any] = ((small - MEAN) / STD * WEIGHTS).sum(2) + 3
    return found


@pytest.fixture
def served(tmp_path: Path) -> Any:
    return handler.model_fn(str(depth_artifact(tmp_path)))


def test_the_map_has_the_size_of_the_picture_and_the_models_values(served: Any) -> None:
    body, kind = ask(served, encoded(Image.fromarray(gradient(30, 40))))
    assert kind == "application/x-npy"
    depth = read_npy(body)
    assert (depth.shape, depth.dtype) == ((30, 40), np.float32)
    small = torch.from_numpy(expected_map(gradient(30, 40)))[None, None]
    reference = torch.nn.functional.interpolate(small, (30, 40), mode="bilinear", align_corners=True)[0, 0]
    np.testing.assert_allclose(depth, reference.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("accept", "attributes"),
    [("application/x-npy; size=model", ""), ("", "trace=7;size=model"), ("*/*;size=model", "")],
)
def test_size_model_is_the_models_own_map(served: Any, accept: str, attributes: str) -> None:
    body, _ = ask(served, encoded(Image.fromarray(gradient())), accept=accept, attributes=attributes)
    np.testing.assert_allclose(read_npy(body), expected_map(gradient()), atol=1e-5)


def test_all_forms_say_the_same(served: Any) -> None:
    picture = encoded(Image.fromarray(gradient()))
    depth = read_npy(ask(served, picture)[0])
    answer = json.loads(ask(served, picture, accept="application/json; charset=utf-8")[0])
    np.testing.assert_array_equal(np.array(answer["depth"], np.float32), depth)
    assert (answer["height"], answer["width"], answer["rehearsal"]) == (30, 40, True)
    assert (np.float32(answer["minimum"]), np.float32(answer["maximum"])) == (depth.min(), depth.max())
    with Image.open(io.BytesIO(ask(served, picture, accept="image/png")[0])) as image:
        low, high = float(image.text["minimum"]), float(image.text["maximum"])
        assert (image.size, image.text["rehearsal"]) == ((40, 30), "true")
        back = low + np.asarray(image) * (high - low) / 65535
    assert np.abs(back - depth).max() <= (high - low) / 65535


def test_a_picture_as_array_is_answered_as_the_file(served: Any) -> None:
    as_file = read_npy(ask(served, encoded(Image.fromarray(gradient())))[0])
    as_array = read_npy(ask(served, npy(gradient()), "application/x-npy")[0])
    np.testing.assert_array_equal(as_file, as_array)
    as_floats = read_npy(ask(served, npy(gradient().astype(np.float32) / 255), "application/x-npy")[0])
    np.testing.assert_allclose(as_file, as_floats, atol=0.02)  # 8 bits are rounded once more by the filter


def test_preprocessing_is_that_of_transformers(served: Any) -> None:
    transformers = pytest.importorskip("transformers")
    processor = transformers.DPTImageProcessor(
        size={"height": BUCKET, "width": BUCKET},
        resample=3,
        image_mean=MEAN.tolist(),
        image_std=STD.tolist(),
    )
    expected = processor(Image.fromarray(gradient(50, 70)), return_tensors="np")["pixel_values"][0]
    (work,) = handler.input_fn(encoded(Image.fromarray(gradient(50, 70))), "image/png", Headers())
    assert work.item is not None
    np.testing.assert_allclose(work.item.inputs["pixels"], expected, atol=2e-6)


@pytest.mark.parametrize(
    ("changes", "marks"),
    [
        ({}, {"rehearsal": True}),
        ({"stand_in": True}, {"rehearsal": True, "stand_in": True}),
    ],
)
def test_what_the_artifact_is_not_is_said(tmp_path: Path, changes: dict[str, Any], marks: dict[str, bool]) -> None:
    served = handler.model_fn(str(depth_artifact(tmp_path, **changes)))
    done = handler.predict_fn(handler.input_fn(encoded(Image.fromarray(gradient())), "image/png"), served)
    answer = served.output(done, "application/json")
    found = json.loads(answer.body)
    assert {name: found[name] for name in ("rehearsal", "stand_in") if name in found} == marks
    assert answer.headers == {"X-Amzn-SageMaker-Custom-Attributes": "; ".join(f"{name}=true" for name in marks)}
    with Image.open(io.BytesIO(served.output(done, "image/png").body)) as image:
        assert {name for name in ("rehearsal", "stand_in") if name in image.text} == marks.keys()


def test_several_pictures_are_answered_in_order_and_one_fails_alone(served: Any) -> None:
    pictures = np.stack([gradient() / np.float32(255)] * 3).astype(np.float32)
    pictures[2] *= 0.5
    body, _ = ask(served, npy(pictures), "application/x-npy")
    maps = read_npy(body)
    assert maps.shape == (3, 30, 40)
    assert (maps[0] > maps[2])[5:, 5:].all()
    pictures[1, 3, 3] = np.nan
    body, kind = ask(served, npy(pictures), "application/x-npy", "application/json")
    answers = json.loads(body)
    assert kind == "application/json"
    assert [sorted(answer) for answer in answers] == [
        ["depth", "height", "maximum", "minimum", "rehearsal", "width"],
        ["detail", "error"],
        ["depth", "height", "maximum", "minimum", "rehearsal", "width"],
    ]
    assert answers[1]["error"] == "bad_request"
    np.testing.assert_array_equal(np.array(answers[2]["depth"], np.float32), maps[2])
    body, kind = ask(served, npy(pictures), "application/x-npy", "application/x-npy, application/json;q=0.1")
    assert (kind, json.loads(body)[1]["error"]) == ("application/json", "bad_request")
    error = refused(served, npy(pictures), "application/x-npy", "application/x-npy")
    assert error.status == 400
    assert "item 1" in str(error)


def test_several_pictures_cannot_be_one_png(served: Any) -> None:
    error = refused(served, npy(np.zeros((2, 4, 4, 3), np.uint8)), "application/x-npy", "image/png")
    assert error.status == 406


@pytest.mark.parametrize(
    ("body", "content_type", "accept", "status"),
    [
        (b"hello", "text/plain", "", 415),
        (b"hello", "", "", 415),
        (b"{}", "application/json", "", 400),
        (b"[]", "application/json", "", 400),
        (b'{"image": "!"}', "application/json", "", 400),
        (b'{"image": "aGVsbG8="}', "application/json", "", 400),
        (b'{"image": 1}', "application/json", "", 400),
        (b"hello", "image/jpeg", "", 400),
        (b"", "image/jpeg", "", 400),
        (b"", "application/x-npy", "", 400),
        (npy(np.zeros((1, 2, 3, 4, 5))), "application/x-npy", "", 400),
        (npy(np.zeros((0, 4, 4, 3), np.uint8)), "application/x-npy", "", 400),
        (encoded(Image.fromarray(gradient())), "image/png", "text/html", 406),
        (encoded(Image.fromarray(gradient())), "image/png", "image/png;size=huge", 400),
        (encoded(Image.fromarray(gradient())), "image/png", "image", 400),
    ],
)
def test_errors_have_their_status(served: Any, body: bytes, content_type: str, accept: str, status: int) -> None:
    error = refused(served, body, content_type, accept)
    assert error.status == status
    assert json.loads(error.body()).keys() == {"error", "detail"}


def test_items_and_bodies_are_limited(served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDPOINT_MAX_ITEMS", "2")
    monkeypatch.setenv("ENDPOINT_REQUEST_BYTES", "1000")
    again = handler.model_fn(str(tmp_path))
    error = refused(again, npy(np.zeros((3, 4, 4, 3), np.uint8)), "application/x-npy")
    assert (error.status, "3 items; at most 2" in str(error)) == (413, True)
    error = refused(again, bytes(1001), "image/png")
    assert (error.status, "1001 bytes; at most 1000" in str(error)) == (413, True)


def test_an_answer_beyond_the_limit_names_sizes_and_alternatives(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT_RESPONSE_BYTES", "20000")
    again = handler.model_fn(str(tmp_path))
    large = encoded(Image.fromarray(gradient(100, 200)))
    error = refused(again, large)
    assert error.status == 413
    for part in ("200 x 100", "80128 bytes", "20000", "size=model", "image/png", "3264"):
        assert part in str(error)
    assert refused(again, large, accept="application/json").status == 413
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    error = refused(again, encoded(Image.fromarray(noise)), accept="image/png")
    assert (error.status, "as image/png; at most 20000" in str(error)) == (413, True)
    assert read_npy(ask(again, large, accept="application/x-npy;size=model")[0]).shape == (BUCKET, BUCKET)


def test_what_cannot_be_sent_is_refused_before_the_model_works(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT_RESPONSE_BYTES", "4000")
    handler.model_fn(str(tmp_path))
    (work,) = handler.input_fn(encoded(Image.fromarray(gradient())), "image/png", Headers())
    assert work.error is not None
    assert work.error.status == 413


def test_the_bucket_of_the_nearest_shape_is_taken(tmp_path: Path) -> None:
    served = handler.model_fn(str(depth_artifact(tmp_path, sizes=((28, 28), (14, 28), (42, 42), (28, 14)))))
    shapes = {}
    for height, width in ((50, 50), (20, 40), (40, 20), (30, 40)):
        body, _ = ask(served, encoded(Image.new("RGB", (width, height))), accept="*/*;size=model")
        shapes[height, width] = read_npy(body).shape
    assert shapes == {(50, 50): (42, 42), (20, 40): (14, 28), (40, 20): (28, 14), (30, 40): (42, 42)}


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"means": 1}, "no setting means"),
        ({"mean": [1, 2]}, "mean is [1, 2]"),
        ({"mean": "abc"}, "three numbers"),
        ({"std": [1, 1, 0]}, "above 0"),
        ({"output": "depth"}, "output is 'depth'"),
        ({"resize": 518}, "resize is 518"),
        ({"resize": {"least": 518}}, "resize is {'least': 518}"),
        ({"resize": {"least": 518, "multiple": 0}}, "not {least, multiple}"),
    ],
)
def test_bad_settings_stop_the_worker(tmp_path: Path, settings: dict[str, Any], part: str) -> None:
    with pytest.raises(LoadError) as caught:
        handler.model_fn(str(depth_artifact(tmp_path, task=TaskEntry("depth-estimation", settings))))
    assert part in str(caught.value)


def test_an_unknown_task_stops_the_worker_naming_the_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = "depth-estimation, image-classification, image-to-text, object-detection, tensor"
    with pytest.raises(LoadError, match=f"no task 'magic'; there are {known}"):
        handler.model_fn(str(depth_artifact(tmp_path, task=TaskEntry("magic", {}))))
    assert capsys.readouterr().err.count("\n") == 1


def test_output_fn_decides_the_form_where_no_context_did(served: Any) -> None:
    """As notebooks and local tests call the four functions."""
    done = handler.predict_fn(handler.input_fn(encoded(Image.fromarray(gradient())), "image/png"), served)
    assert handler.output_fn(done, "image/png")[1] == "image/png"
    assert handler.output_fn(done, "application/json")[1] == "application/json"


def test_items_of_many_requests_go_to_the_model_together(served: Any) -> None:
    bodies = [encoded(Image.new("RGB", (8, 8), (grey, grey, grey))) for grey in (0, 100, 200)]
    work = [handler.input_fn(body, "image/png", Headers()) for body in [*bodies, b"broken"]]
    done = handler.predict_fn([one for part in work for one in part], served)
    means = [read_npy(handler.output_fn([one], "", Headers())[0]).mean() for one in done[:3]]
    assert means == sorted(means)
    assert means[0] < means[2]
    with pytest.raises(EndpointError, match="not a JPEG"):
        handler.output_fn(done[3:], "", Headers())


def test_pillow_sees_nothing_of_a_bad_request_in_stderr(served: Any, capfd: pytest.CaptureFixture[str]) -> None:
    refused(served, b"broken", "image/png")
    sys.stderr.flush()
    assert capfd.readouterr().err == ""
