"""The tensor task through the handler's four functions."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_code import handler
from inference_code.artifact.manifest import TaskEntry
from inference_code.errors import EndpointError, LoadError
from inference_code.handler import Headers
from inference_code.settings import Limits, Settings
from tests.inference_code.artifacts import change_manifest, doubling_artifact, npy, read_npy, sums_artifact

JSON = "application/json"
NPY = "application/x-npy"
NPZ = "application/x-npz"


def ask(served: Any, body: bytes | str, content_type: str = JSON, accept: str = "") -> tuple[bytes, str]:
    context = Headers({"accept": accept})
    done = handler.predict_fn(handler.input_fn(body, content_type, context), served)
    return handler.output_fn(done, accept, context)


def refused(served: Any, body: Any, content_type: str = JSON, accept: str = "") -> EndpointError:
    with pytest.raises(EndpointError) as caught:
        ask(served, body if isinstance(body, (bytes, str)) else json.dumps(body), content_type, accept)
    return caught.value


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


@pytest.fixture
def sums(tmp_path: Path) -> Any:
    """x float32 [3], n int64 [2] -> {"sum": float32 [], "more": (int64 [2], "x")}."""
    return handler.model_fn(str(sums_artifact(tmp_path)))


@pytest.fixture
def doubling(tmp_path: Path) -> Any:
    """x float32 [3] -> float32 [3]."""
    return handler.model_fn(str(doubling_artifact(tmp_path)))


def test_json_in_and_nested_json_out(sums: Any) -> None:
    body, kind = ask(sums, '{"x": [1, 2.5, 3], "n": [4, 5]}')
    assert kind == JSON
    assert json.loads(body) == {"outputs": {"sum": 6.5, "more": [[8, 10], "x"]}, "rehearsal": True}


def test_a_list_is_answered_in_order_and_one_fails_alone(sums: Any) -> None:
    items = [{"x": [index, 0, 0], "n": [0, 0]} for index in range(6)]
    assert [answer["outputs"]["sum"] for answer in json.loads(ask(sums, json.dumps(items))[0])] == [0, 1, 2, 3, 4, 5]
    items[2] = {"x": [1, 2], "n": [0, 0]}
    answers = json.loads(ask(sums, json.dumps(items))[0])
    assert [answer.get("outputs", {}).get("sum") for answer in answers] == [0, 1, None, 3, 4, 5]
    assert answers[2] == {"error": "bad_request", "detail": "input x has shape [2]; the model takes [3]"}


def test_a_list_of_one_is_answered_by_a_list(sums: Any) -> None:
    assert len(json.loads(ask(sums, '[{"x": [1, 2, 3], "n": [4, 5]}]')[0])) == 1


def test_a_list_in_which_all_fail_is_an_error(sums: Any) -> None:
    assert refused(sums, [{"x": [1]}, {"n": [1]}]).status == 400


def test_named_arrays_in_and_out(sums: Any) -> None:
    sent = npz(x=np.array([1, 2, 3], np.float32), n=np.array([4, 5]))
    body, kind = ask(sums, sent, NPZ, NPZ)
    assert kind == NPZ
    with np.load(io.BytesIO(body), allow_pickle=False) as found:
        assert {name: found[name].tolist() for name in found} == {"sum": 6.0, "more.0": [8, 10]}
        assert found["sum"].dtype == np.float32
    assert json.loads(ask(sums, sent, NPZ, JSON)[0])["outputs"]["sum"] == 6


def test_npy_for_one_input_and_one_output(doubling: Any) -> None:
    one, kind = ask(doubling, npy(np.array([1, 2, 3], np.float32)), NPY, NPY)
    assert (kind, read_npy(one).tolist()) == (NPY, [2, 4, 6])
    several, _ = ask(doubling, npy(np.arange(15, dtype=np.float32).reshape(5, 3)), NPY, NPY)
    assert read_npy(several).tolist() == (np.arange(15).reshape(5, 3) * 2).tolist()
    assert json.loads(ask(doubling, npy(np.ones(3, np.float32)), NPY)[0])["outputs"] == [2, 2, 2]


def test_dtypes_that_lose_nothing_are_taken(doubling: Any) -> None:
    for dtype in (">f4", "f2", "i2", "u1", "?"):
        assert read_npy(ask(doubling, npy(np.ones(3, dtype)), NPY, NPY)[0]).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("body", "content_type", "part"),
    [
        ("", JSON, "not JSON"),
        ("[]", JSON, "no items"),
        ("7", JSON, "inputs x, n, not int"),
        ({"x": [1, 2, 3]}, JSON, "lacks n"),
        ({"x": [1, 2, 3], "n": [1, 2], "z": 1}, JSON, "unknown z"),
        ({"x": [[1, 2, 3]], "n": [1, 2]}, JSON, "shape [1, 3]; the model takes [3]"),
        ({"x": [1, 2, "3"], "n": [1, 2]}, JSON, "input x"),
        ({"x": [1, 2, None], "n": [1, 2]}, JSON, "input x"),
        ({"x": [1, 2, 1e39], "n": [1, 2]}, JSON, "not finite"),
        ('{"x": [1, 2, NaN], "n": [1, 2]}', JSON, "NaN"),
        ('{"x": [1, 2, 1e999], "n": [1, 2]}', JSON, "not finite"),
        (
            {"x": [1, 2, 3], "n": [1.5, 2]},
            JSON,
            "input n is decimal numbers (or beyond 64 bits); the model takes int64",
        ),
        ({"x": [1, 2, 3], "n": [2**63, 2**63]}, JSON, "beyond"),
        ({"x": [1, 2, 3], "n": [2**80, 2]}, JSON, "input n"),
        (npy(np.ones(3)), NPY, "inputs x, n; one npy array cannot carry them"),
        (npz(x=np.ones(3), n=np.ones(2, int)), NPZ, "input x is float64; the model takes float32"),
        (npz(x=np.full(3, np.nan, np.float32), n=np.ones(2, int)), NPZ, "not finite"),
        (b"PK", NPZ, "cannot be unpacked"),
        (b'{"x": "\xff"}', JSON, "not JSON"),
    ],
)
def test_what_does_not_fit_is_400(sums: Any, body: Any, content_type: str, part: str) -> None:
    error = refused(sums, body, content_type)
    assert error.status == 400
    assert part in str(error)


@pytest.mark.parametrize(
    ("content_type", "accept", "status"), [("text/csv", "", 415), (JSON, NPY, 406), (JSON, "a/b", 406)]
)
def test_types_that_cannot_be_are_refused(sums: Any, content_type: str, accept: str, status: int) -> None:
    assert refused(sums, '{"x": [1, 2, 3], "n": [4, 5]}', content_type, accept).status == status


def test_too_many_items_are_413(sums: Any) -> None:
    assert refused(sums, [{}] * 17).status == 413


def test_several_items_do_not_fit_into_npz(sums: Any) -> None:
    assert refused(sums, [{"x": [1, 2, 3], "n": [4, 5]}], JSON, NPZ).status == 406


def test_an_answer_that_json_cannot_say_is_422(doubling: Any) -> None:
    huge = npy(np.full(3, 3e38, np.float32))
    assert refused(doubling, huge, NPY, JSON).status == 422
    assert np.isinf(read_npy(ask(doubling, huge, NPY, NPY)[0])).all()


def test_nonfinite_inputs_can_be_allowed(tmp_path: Path) -> None:
    entry = TaskEntry("tensor", {"allow_nonfinite": True})
    served = handler.model_fn(str(sums_artifact(tmp_path, task=entry)))
    body, _ = ask(served, npz(x=np.array([np.inf, 1, 1], np.float32), n=np.ones(2, int)), NPZ, NPZ)
    with np.load(io.BytesIO(body)) as found:
        assert np.isinf(found["sum"])


def test_an_unknown_setting_stops_the_worker(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="no setting beam"):
        handler.model_fn(str(sums_artifact(tmp_path, task=TaskEntry("tensor", {"beam": 3}))))


def test_inputs_that_may_be_shorter_are_padded_and_the_answer_cut_back(tmp_path: Path) -> None:
    settings = {"padding": {"x": 9}, "cut": {"output": "x"}}
    change_manifest(doubling_artifact(tmp_path), task=TaskEntry("tensor", settings))
    served = handler.model_fn(str(tmp_path))
    answers = json.loads(ask(served, '[{"x": [1]}, {"x": [1, 2, 3]}, {"x": [1, 2, 3, 4]}]')[0])
    assert [answer.get("outputs") for answer in answers] == [[2], [2, 4, 6], None]
    assert "takes at most x [3]" in answers[2]["detail"]


@pytest.mark.parametrize(
    "settings",
    [{"padding": {"z": 0}}, {"padding": {"x": "a"}}, {"padding": [1]}, {"cut": {"output": "x"}}, {"cut": {"z": "x"}},
     {"cut": [1]}, {"padding": {"x": 0}, "cut": {"output": ["x"]}}],
)  # fmt: skip
def test_wrong_settings_of_padding_stop_the_worker(tmp_path: Path, settings: Any) -> None:
    change_manifest(doubling_artifact(tmp_path), task=TaskEntry("tensor", settings))
    with pytest.raises(LoadError, match=r"setting (padding|cut) is"):
        handler.model_fn(str(tmp_path))


@pytest.mark.parametrize(
    "settings",
    [
        {"defaults": {"x": "1"}},
        {"defaults": {"x": 1, "n": 1}},
        {"ranges": {"x": [1]}},
        {"ranges": {"y": [0, 1]}},
        {"ranges": 3},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_stop_the_worker(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = sums_artifact(tmp_path, task=TaskEntry("tensor", settings))
    with pytest.raises(LoadError, match="setting"):
        handler.model_fn(str(folder))


def test_json_that_takes_more_memory_than_there_is_is_413(tmp_path: Path) -> None:
    """A few bytes of it become hundreds of Python's."""
    settings = Settings(limits=Limits(decode_bytes=10_000_000))
    served = handler.ModelHandler(handler.load(doubling_artifact(tmp_path), settings))
    bomb = served.output(served.input(b"[" + b"{}," * 100_000 + b"{}]", JSON, Headers()))
    assert bomb.status == 413
    assert b"ENDPOINT_DECODE_BYTES" in bomb.body
    honest = served.predict(served.input(b'{"x": [1, 2, 3]}', JSON, Headers()))
    assert served.output(honest).status == 200
