from __future__ import annotations

import collections
import dataclasses
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference_code.codecs.json_text import json_memory, read_array, read_json, write_json
from inference_code.errors import BadRequest, Internal, TooLarge, Unprocessable

Pair = collections.namedtuple("Pair", ["a", "b"])


@dataclasses.dataclass
class Data:
    c: Any


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b"[Infinity]", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000 + b"x"])
def test_what_is_no_json_is_400(body: bytes) -> None:
    with pytest.raises(BadRequest, match="not JSON"):
        read_json(body)


@pytest.mark.parametrize(
    "piece",
    ["{},", "[],", "0,", "0.5,", "123456789012,", '"",', '"a",', '{"a":0},', '[[[[1]]]],', '{"":{"":{"":{}}}},',
     "true,", '"' + "x" * 1000 + '",', '"\u00e9",', '"\u20ac\u20ac\u20ac\u20ac",', '"\U0001f600",', '{"k":[2,3]},'],
)  # fmt: skip
def test_the_memory_of_json_is_not_underestimated(piece: str) -> None:
    body = f"[{piece * (150_000 // len(piece.encode()))}0]".encode()
    tracemalloc.start()
    try:
        value = read_json(body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert value
    assert peak <= json_memory(body) + 10_000  # what a reader takes for anything


def test_small_json_is_not_counted_and_base64_costs_little() -> None:
    assert json_memory(b"[" * 60_000) == 0
    assert json_memory(b'{"image": "' + b"A" * 10_000_000 + b'"}') < 21_000_000


@pytest.mark.parametrize(
    "value", [[[1], [1, 2]], ["a"], [None], [{"a": 1}], {"a": 1}, None, "1", [[1, "2"]], [2**70], [[[1]], [1]]]
)
def test_what_is_no_array_is_400(value: Any) -> None:
    with pytest.raises(BadRequest, match="input x"):
        read_array(value, "input x")


def test_arrays_are_read() -> None:
    assert read_array([[1, 2], [3, 4]], "x").dtype == np.int64
    assert read_array([1, 2.5], "x").tolist() == [1.0, 2.5]
    assert read_array([True, False], "x").dtype == np.bool_
    assert read_array(3, "x").shape == ()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_float32_comes_back_bit_for_bit(values: list[float]) -> None:
    array = np.array(values, np.float32)
    back = np.array(json.loads(write_json({"a": array}, 10_000))["a"], np.float32)
    np.testing.assert_array_equal(back, array)


def test_everything_that_a_handler_may_return_is_written() -> None:
    value = {
        "pair": Pair(np.float32(0.5), np.int64(2)),
        "data": Data(torch.ones(1, 2)),
        "list": [None, True, "é\n", 1.25, (), []],
        "array": np.array([[1, 2], [3, 4]], np.uint8),
        "flags": np.array([True, False]),
        "float64": np.array([0.1]),
        "scalar": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
        3: "key",
    }
    assert json.loads(write_json(value, 10_000)) == {
        "pair": {"a": 0.5, "b": 2},
        "data": {"c": [[1, 1]]},
        "list": [None, True, "é\n", 1.25, [], []],
        "array": [[1, 2], [3, 4]],
        "flags": [True, False],
        "float64": [0.1],
        "scalar": 7,
        "empty": [],
        "3": "key",
    }


@pytest.mark.parametrize("value", [float("nan"), [np.float32("inf")], {"a": np.array([1, np.nan])}])
def test_what_is_not_finite_is_said(value: Any) -> None:
    with pytest.raises(Unprocessable, match="JSON cannot represent"):
        write_json(value, 10_000)


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array(["a"]), b"bytes"])
def test_what_json_cannot_say_is_the_handlers_fault(value: Any) -> None:
    with pytest.raises(Internal, match="JSON cannot represent"):
        write_json(value, 10_000)


def test_the_limit_is_kept_and_named_with_the_alternatives() -> None:
    assert len(write_json(np.zeros(10, np.float32), 30)) == 30
    with pytest.raises(TooLarge, match="exceeds the 29 bytes that can be sent; ask for a pony"):
        write_json(np.zeros(10, np.float32), 29, "ask for a pony")
