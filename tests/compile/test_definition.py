"""What a ModelDefinition refuses, all at once and by name."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import compile  # noqa: A004  (the room)
from compile import GraphDefinition, ModelDefinition
from compile.definition import checked_inputs
from compile.errors import CompileError
from tests.compile.projects import ROOT


def graph(module: nn.Module | None = None, references: int = 5, **other: torch.Tensor) -> GraphDefinition:
    example = {"x": torch.zeros(1, 3)}
    return GraphDefinition(
        module or nn.Linear(3, 3).eval(), lambda _, __: example, lambda _, __: [{**example, **other}] * references
    )


def test_all_problems_come_together() -> None:
    with pytest.raises(CompileError) as caught:
        ModelDefinition({"main": graph(nn.Linear(3, 3).double())}, [], "")
    for said in ("buckets is empty", "task is empty", "training mode", "float64"):
        assert said in str(caught.value)


def test_several_graphs_need_the_module_that_holds_the_weights() -> None:
    with pytest.raises(CompileError, match="weights_module"):
        ModelDefinition({"encoder": graph(), "step": graph()}, [{"x": 3}], "tensor")


def test_fewer_than_five_references() -> None:
    with pytest.raises(CompileError, match="4 inputs: give at least 5"):
        checked_inputs(graph(references=4), "main", {"x": 3}, 1)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"x": torch.zeros(1, 4)}, r"is \(1, 4\)"),
        ({"x": torch.zeros(1, 3).int()}, "int32"),
        ({"y": torch.zeros(1)}, r"\['x', 'y'\]"),
    ],
)
def test_references_that_differ_from_the_example(other: dict[str, torch.Tensor], said: str) -> None:
    with pytest.raises(CompileError, match=said):
        checked_inputs(graph(**other), "main", {"x": 3}, 1)


def test_float64_inputs_are_refused_with_the_reason() -> None:
    wide = {"x": torch.zeros(1, 3, dtype=torch.float64)}
    with pytest.raises(CompileError, match="Inferentia has no float64"):
        checked_inputs(GraphDefinition(nn.Identity().eval(), lambda _, __: wide, lambda _, __: [wide] * 5), "m", {}, 1)


def test_the_version_is_that_of_the_project() -> None:
    stated = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert stated is not None
    assert compile.__version__ == stated.group(1)
