"""The operator table: its counts, its history, and the conditions, judged by a node's own arguments."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from compile.analysis import analyze
from compile.analysis.operators import UnknownReleaseError, data, table


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def listed(sdk=None):
    """Kinds that AWS's list page gives as supported without the heading "limited"."""
    rows = {row["kind"]: row for row in data()["operators"]}
    operators = table(sdk).operators.values()
    return [
        operator.kind
        for operator in operators
        if operator.status == "added" and rows[operator.kind]["events"][0]["source"] == "list"
    ]


def test_counts_of_the_list_page():
    """158 aten and 9 prim operators, every release applied in order."""
    kinds = listed()
    assert sum(kind.startswith("aten::") for kind in kinds) == 158
    assert sum(kind.startswith("prim::") for kind in kinds) == 9


def test_every_row_has_its_source_and_release():
    releases = {row["package"] for row in data()["releases"]}
    for row in data()["operators"]:
        assert row["events"], row["kind"]
        for event in row["events"]:
            assert event["release"] in releases, row
            assert event["change"] in ("added", "limited", "removed", "widened"), row
            assert event["source"] in data()["sources"], row
        assert row.get("condition") is None or row["condition"] in data()["conditions"], row


def test_releases_are_in_order():
    dates = [row["date"] for row in data()["releases"] if row["date"]]
    assert dates == sorted(dates)


@pytest.mark.parametrize(
    ("sdk", "kind", "listed"),
    [
        ("2.13.0", "aten::clamp_min", True),
        ("2.12", "aten::clamp_min", False),
        ("2.9.0", "aten::baddbmm", True),
        ("2.5.0", "aten::baddbmm", False),
        ("1.13.1.2.9.1.0", "aten::clamp_min", True),
        ("1.0.763.0", "aten::embedding", True),
        ("2.20.0", "aten::embedding", False),
        ("1.14.0", "aten::erf", False),
        ("1.14.1", "aten::erf", True),
        ("1.16.2", "aten::cumsum", True),
        ("1.16.1", "aten::cumsum", False),
        ("2.14", "aten::triu", True),
    ],
)
def test_operators_as_of_a_release(sdk, kind, listed):
    operator = table(sdk).get(kind)
    assert (operator is not None and operator.listed) is listed


@pytest.mark.parametrize("sdk", ["0.1.0", "latest", "1.2.3.4.5.x", ""])
def test_unknown_release(sdk):
    with pytest.raises(UnknownReleaseError, match="not a Neuron release"):
        table(sdk)


def verdict(function, *inputs, sdk=None):
    """Whether every node of a small function is supported, and the reasons of those that are not."""
    report = analyze(function, inputs, sdk=sdk, grad=False)
    return {kind: found.reason for kind, found in report.operators.items() if not found.supported}


IMAGE = torch.rand(1, 2, 8, 8)
INTEGERS = torch.arange(6).view(2, 3)


@pytest.mark.parametrize(
    ("function", "inputs", "kind"),
    [
        (lambda x: functional.interpolate(x, size=(4, 4), mode="bilinear", align_corners=True), (IMAGE,), "up"),
        (lambda x: functional.interpolate(x, size=(4, 4), mode="bilinear", align_corners=False), (IMAGE,), ""),
        (lambda x: torch.norm(x, p=3), (IMAGE,), "norm"),
        (lambda x: torch.where(x > 0, x, -x), (IMAGE,), ""),
        (lambda x: torch.where(x > 0)[0] * 2, (IMAGE,), "where"),
        (lambda x: functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True), (IMAGE,), "avg_pool2d"),
        (lambda x: functional.avg_pool2d(x, 3, 2, ceil_mode=True), (IMAGE,), ""),
        (lambda x: functional.one_hot(x, 6), (INTEGERS,), ""),
        (lambda x: x.max(dim=0).values, (INTEGERS,), "max"),
        (lambda x: x.max(dim=1).values, (INTEGERS,), ""),
        (lambda x: x.float().max(dim=0).values, (INTEGERS,), ""),
        (lambda x: functional.max_pool3d(x, 2), (torch.rand(1, 2, 4, 4, 4),), "max_pool3d"),
        (lambda x: functional.max_pool3d(x, 2, return_indices=True)[0], (torch.rand(1, 2, 4, 4, 4),), ""),
        (lambda x: functional.max_pool3d(x, 2, return_indices=True)[1], (torch.rand(1, 2, 4, 4, 4),), "indices"),
    ],
)
def test_supported_by_its_own_arguments(function, inputs, kind):
    refused = verdict(function, *inputs)
    if not kind:
        assert refused == {}
    else:
        assert any(kind in name for name in refused), refused


def test_the_name_alone_stands_beside():
    report = analyze(lambda x: functional.interpolate(x, size=(4, 4), mode="bilinear", align_corners=True), (IMAGE,))
    found = report.operators["aten::upsample_bilinear2d"]
    assert (found.supported, found.supported_by_name) == (False, True)
    assert report.supported == report.total - 1
    assert report.supported_by_name == report.total
    assert "align_corners" in found.reason
    assert found.advice


def test_lstm_is_supported_with_limits():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 7)

        def forward(self, x):
            return self.lstm(x)[0]

    assert "aten::lstm" not in verdict(Model(), torch.rand(5, 2, 3))


def test_average_pooling_with_ceil_mode_needs_release_2_5():
    def pool(x):
        return functional.avg_pool2d(x, 3, 2, ceil_mode=True)

    assert verdict(pool, IMAGE, sdk="1.19.0")
    assert not verdict(pool, IMAGE, sdk="2.5.0")
