"""How close is close: the worst of all inputs counts, and a NaN stays."""

from __future__ import annotations

import dataclasses
import math

import torch

from compile.verification.tolerance import Closeness


def test_the_worst_input_counts() -> None:
    found = Closeness()
    found.add(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]))
    assert found.shortfalls({"cosine": 0.999999, "absolute": 0.0, "relative": 0.0}) == []
    found.add(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    found.add(torch.tensor([40.0]), torch.tensor([44.0]))
    assert dataclasses.asdict(found) == {"cosine": 0.0, "absolute": 4.0, "relative": 1.0}
    (line,) = found.shortfalls({"cosine": 0.5, "absolute": 4.0})
    assert line == "cosine is 0, at least 0.5 is asked for"


def test_a_nan_is_never_close_again() -> None:
    found = Closeness()
    found.add(torch.tensor([math.nan]), torch.tensor([1.0]))
    found.add(torch.tensor([1.0]), torch.tensor([1.0]))
    assert len(found.shortfalls({"cosine": 0.0, "absolute": 9.0, "relative": 9.0})) == 3


def test_nothing_to_compare_changes_nothing() -> None:
    found = Closeness()
    found.add(torch.zeros(0, 3), torch.zeros(0, 3))
    assert found == Closeness()
