"""A sample's answer, recorded and compared."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from compile.errors import CompileError
from compile.packaging.golden_sample import difference, environment, recorded
from compile.packaging.local_server import Answer
from endpoint_spec import load
from endpoint_spec.lock import SampleAnswer
from tests.endpoint_spec.projects import SMALL, a_lock, fill


def npy(array: np.ndarray) -> Answer:
    body = io.BytesIO()
    np.save(body, array)
    return Answer(200, "application/x-npy", body.getvalue())


def text(value: object) -> Answer:
    return Answer(200, "application/json; charset=utf-8", json.dumps(value).encode())


def test_an_array_is_kept_by_values_at_positions() -> None:
    array = np.arange(1000, dtype=np.float32).reshape(10, 100)
    kept = recorded(npy(array))
    assert kept.shape == [10, 100]
    assert len(set(kept.positions or [])) == 64
    assert kept.values == [float(position) for position in kept.positions or []]
    assert kept.tolerance == pytest.approx(0.0999)
    array[kept.positions[7] // 100, kept.positions[7] % 100] += 3  # type: ignore[index]
    assert difference(npy(array), kept) == 3.0


def test_another_shape_or_dtype_is_infinitely_far() -> None:
    kept = recorded(npy(np.ones((4, 4), np.float32)))
    assert difference(npy(np.ones((4, 5), np.float32)), kept) == math.inf
    assert difference(npy(np.ones((4, 4), np.float64)), kept) == math.inf


def test_json_is_compared_by_key_and_not_by_order() -> None:
    kept = recorded(text({"b": [1.0, 2.5], "a": {"verdict": "worn", "score": 3}}))
    again = SampleAnswer.model_validate(json.loads(json.dumps(kept.model_dump(by_alias=True), sort_keys=True)))
    assert difference(text({"b": [1.0, 2.5], "a": {"verdict": "worn", "score": 3}}), again) == 0.0
    assert difference(text({"a": {"score": 3.5, "verdict": "worn"}, "b": [1.0, 2.5]}), again) == 0.5
    for other in (
        {"b": [1.0, 2.5], "a": {"verdict": "sound", "score": 3}},
        {"b": [1.0], "a": {"verdict": "worn", "score": 3}},
        {"b": [1.0, 2.5], "a": {"verdict": "worn"}},
        [1.0, 2.5],
    ):
        assert difference(text(other), again) == math.inf


def test_what_has_no_values_to_compare_is_refused() -> None:
    with pytest.raises(CompileError, match="image/png"):
        recorded(Answer(200, "image/png", b""))


def test_the_sample_is_answered_by_one_process(tmp_path: Path) -> None:
    path = fill(tmp_path / "project") / "endpoints" / "depth.yaml"
    path.write_text(SMALL + "serve: {server: native, processes: 4}\n")
    spec = load(path)
    found = environment(spec, a_lock(spec))
    assert (found["ENDPOINT_PROCESSES"], found["ENDPOINT_WORKERS"]) == ("1", "1")
