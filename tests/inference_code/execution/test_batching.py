from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_code.artifact.manifest import PackagedVariant, TensorDescription
from inference_code.errors import BadRequest, EndpointError, Internal
from inference_code.execution.batching import fitting
from inference_code.execution.direct_scheduler import DirectScheduler, plan
from inference_code.request import Item
from tests.inference_code.helpers import graph, item


class Device:
    """Doubles, and remembers what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, np.ndarray[Any, Any]]] = []

    def __call__(self, entry: PackagedVariant, arrays: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        assert arrays[0].shape == entry.inputs[0].shape
        assert arrays[0].dtype == np.float32
        self.calls.append((entry.file, arrays[0]))
        if (arrays[0] == 13).any():
            raise Internal("the device stumbled")
        return [arrays[0] * 2]


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (1, (1, 4), [(1, 1)]),
        (3, (1, 4), [(4, 3)]),
        (4, (1, 4), [(4, 4)]),
        (5, (1, 4), [(4, 4), (1, 1)]),
        (9, (4,), [(4, 4), (4, 4), (4, 1)]),
        (0, (4,), []),
    ],
)
def test_plan_fills_large_batches_then_the_smallest_that_holds_the_rest(
    count: int, sizes: tuple[int, ...], expected: list[tuple[int, int]]
) -> None:
    graphs = [graph(size) for size in sizes]
    assert [(entry.batch_size, taken) for entry, taken in plan(count, graphs)] == expected


def test_answers_come_in_the_order_of_the_items_whatever_their_bucket() -> None:
    device = Device()
    scheduler = DirectScheduler([graph(2), graph(1), graph(2, length=5)], device)
    values = [(1, 3), (2, 5), (3, 3), (4, 5), (5, 3)]
    outcomes = scheduler.run([item(value, length) for value, length in values])
    assert [outcome["y"].tolist() for outcome in outcomes] == [[2.0 * value] * length for value, length in values]
    assert sorted(name for name, _ in device.calls) == ["main-3-1.pt", "main-3-2.pt", "main-5-2.pt"]


def test_padding_repeats_the_last_item_and_is_sliced_off() -> None:
    device = Device()
    outcomes = DirectScheduler([graph(4)], device).run([item(1), item(2)])
    assert len(outcomes) == 2
    assert device.calls[0][1][:, 0].tolist() == [1, 2, 2, 2]


def test_an_item_that_fits_nothing_fails_alone() -> None:
    outcomes = DirectScheduler([graph(4)], Device()).run([item(1), item(2, length=7), item(3)])
    assert outcomes[0]["y"][0] == 2
    assert outcomes[2]["y"][0] == 6
    assert isinstance(outcomes[1], BadRequest)
    assert str(outcomes[1]) == "the item has x [7]; graph main takes x [3]"


def test_roles_are_kept_apart() -> None:
    device = Device()
    DirectScheduler([graph(1), graph(1, role="encoder")], device).run([item(1, role="encoder")])
    assert [name for name, _ in device.calls] == ["encoder-3-1.pt"]
    (outcome,) = DirectScheduler([graph(1)], device).run([item(1, role="step")])
    assert "graph step takes nothing" in str(outcome)


def test_a_batch_that_fails_fails_for_its_items_only() -> None:
    outcomes = DirectScheduler([graph(2)], Device()).run([item(1), item(2), item(13), item(4)])
    assert [isinstance(outcome, EndpointError) for outcome in outcomes] == [False, False, True, True]


def test_precision_is_converted_kinds_are_not() -> None:
    scheduler = DirectScheduler([graph(1)], Device())
    (good,) = scheduler.run([Item({"x": np.ones(3, np.float64)})])
    assert good["y"].dtype == np.float32
    (bad,) = scheduler.run([Item({"x": np.ones(3, np.complex64)})])
    assert "complex64; the model takes float32" in str(bad)


def test_an_output_without_batch_axis_belongs_to_the_lone_item() -> None:
    entry = PackagedVariant(
        role="main",
        bucket={},
        batch_size=1,
        file="a.pt",
        inputs=(TensorDescription("x", (1, 3), "float32"),),
        outputs=(TensorDescription("a", (1, 3), "float32"), TensorDescription("b", (7,), "float32", None)),
        structure={"kind": "tuple", "items": [{"kind": "tensor", "index": 0}, {"kind": "tensor", "index": 1}]},
    )

    def run(_: PackagedVariant, arrays: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        return [arrays[0], np.arange(7, dtype=np.float32)]

    (outcome,) = DirectScheduler([entry], run).run([item(1)])
    assert (outcome[0].shape, outcome[1].shape) == ((3,), (7,))


def test_outputs_are_cut_along_the_axis_that_counts_the_items() -> None:
    """As a bidirectional LSTM's state of two layers: its first axis is as long as the batch, and is not the batch's."""
    state = np.arange(4 * 4 * 2, dtype=np.float32).reshape(4, 4, 2)
    entry = PackagedVariant(
        role="main",
        bucket={},
        batch_size=4,
        file="a.pt",
        inputs=(TensorDescription("x", (4, 3), "float32"),),
        outputs=(
            TensorDescription("state", (4, 4, 2), "float32", 1),
            TensorDescription("last", (3, 4), "float32", 1),
            TensorDescription("anchors", (4, 2), "float32", None),
        ),
        structure={"kind": "tuple", "items": [{"kind": "tensor", "index": index} for index in range(3)]},
    )

    def run(_: PackagedVariant, arrays: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        return [state, arrays[0].T, state[0]]

    outcomes = DirectScheduler([entry], run).run([item(n) for n in range(3)])
    for n, (own, last, anchors) in enumerate(outcomes):
        assert own.tolist() == state[:, n].tolist()
        assert last.tolist() == [n, n, n]
        assert anchors.tolist() == state[0].tolist()


def test_a_shorter_item_is_padded_to_the_smallest_bucket_and_cut_back() -> None:
    device = Device()
    scheduler = DirectScheduler([graph(1, 8), graph(2, 4), graph(1, 4)], device)
    options = {"padding": {"x": 7}, "cut": {"y": {0: 3}}}
    outcomes = scheduler.run([item(1, 3, **options), item(2, 4, padding={"x": 7}), item(3, 5, padding={"x": 7})])
    assert [outcome["y"].tolist() for outcome in outcomes] == [[2, 2, 2], [4, 4, 4, 4], [6, 6, 6, 6, 6, 14, 14, 14]]
    sent = {name: array.tolist() for name, array in device.calls}
    assert sent == {"main-4-2.pt": [[1, 1, 1, 7], [2, 2, 2, 2]], "main-8-1.pt": [[3, 3, 3, 3, 3, 7, 7, 7]]}


def test_an_item_whose_cut_does_not_fit_the_outputs_fails_alone() -> None:
    wrong = dataclasses.replace(item(5), cut={"y": {0: "two"}})
    good, bad = DirectScheduler([graph(2)], Device()).run([item(1), wrong])
    assert good["y"].tolist() == [2, 2, 2]
    assert isinstance(bad, Internal)


def test_only_what_may_be_padded_is() -> None:
    for bad, part in (
        (item(1, 3), "takes x [4]"),
        (item(1, 9, padding={"x": 0}), "takes at most x [4] or x [8]"),
        (Item({"x": np.zeros((1, 1))}, padding={"x": 0}), "takes at most"),
        (Item({"z": np.zeros(1)}, padding={"z": 0}), "takes at most"),
    ):
        (outcome,) = DirectScheduler([graph(1, 4), graph(1, 8)], Device()).run([bad])
        assert isinstance(outcome, BadRequest)
        assert part in str(outcome)


@given(
    buckets=st.sets(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_the_smallest_bucket_that_holds_an_item_is_taken(buckets: set[tuple[int, int]], size: tuple[int, int]) -> None:
    graphs = [
        dataclasses.replace(
            graph(batch),
            file=f"{height}x{width}-{batch}",
            inputs=(TensorDescription("x", (batch, height, width), "float32"),),
        )
        for height, width in sorted(buckets)
        for batch in (4, 1)
    ]
    one = Item({"x": np.ones(size, np.float32)}, padding={"x": 0})
    holding = [bucket for bucket in buckets if size[0] <= bucket[0] and size[1] <= bucket[1]]
    if not holding:
        with pytest.raises(BadRequest):
            fitting(one, graphs)
        return
    found = fitting(one, graphs)
    assert [entry.batch_size for entry in found] == [1, 4]
    (shape,) = {entry.inputs[0].shape[1:] for entry in found}
    assert shape in holding
    assert shape[0] * shape[1] == min(height * width for height, width in holding)
