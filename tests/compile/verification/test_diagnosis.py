"""What a build says of an artifact that is not the model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from compile.errors import CompileError
from tests.compile.projects import ENTRY, rehearse, write_entry

ALLOWED = "compile: {accept: {findings: [data-dependent, state]}}\n"
FORWARD = "        return self.layer(x)\n"


def refused(tmp_path: Path, forward: str, more: str = ALLOWED) -> str:
    """The error of a build of the tiny model with this forward."""
    with pytest.raises(CompileError) as caught:
        rehearse(write_entry(tmp_path, ENTRY.replace(FORWARD, forward), more=more))
    return str(caught.value)


def test_nan_of_the_original_is_named_with_its_module_and_no_branch(tmp_path: Path) -> None:
    text = refused(tmp_path, "        return self.layer(torch.log(x) * 0 + x)\n")
    assert "output output is NaN" in text
    assert "the original itself answers NaN on reference input 0: first in forward (Net)" in text
    assert "decision" not in text


def test_a_decision_is_named_only_where_one_was_seen(tmp_path: Path) -> None:
    text = refused(tmp_path, "        return self.layer(x) * (2 if x.sum() > 0 else 1)\n")
    assert "a decision by the data, which the trace keeps as the example took it" in text
    assert "model.py:" in text


def test_a_model_that_casts_its_input_itself_gets_its_causes(tmp_path: Path) -> None:
    entry = ENTRY.replace("nn.Linear(8, 4)", "nn.GRU(8, 4)").replace(
        FORWARD, "        return self.layer(x.float())[0] * (2 if x.sum() > 0 else 1)\n"
    )
    with pytest.raises(CompileError, match="a decision by the data"):
        rehearse(write_entry(tmp_path, entry, more=ALLOWED))


WRONG = """
from torch import nn
from compile.lowering import ModuleRewrite

class Half(nn.Module):
    def forward(self, x):
        return x * 0.5

class Halved(ModuleRewrite):
    name, why, cost = "halved", "it is wrong", "nothing"

    def matches(self, module):
        return type(module) is nn.Sigmoid

    def replace(self, module):
        return Half()
"""


def test_the_first_module_that_differs_is_named_and_by_how_much(tmp_path: Path) -> None:
    """A rewrite of a user's own is wrong about one layer."""
    parts = "self.parts = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Tanh(), nn.Sigmoid())); self.layer = "
    entry = ENTRY.replace("self.layer = ", parts).replace(FORWARD, "        return self.layer(self.parts(x))\n")
    (tmp_path / "rewrites.py").write_text(WRONG)
    with pytest.raises(CompileError) as caught:
        rehearse(write_entry(tmp_path, entry, more="compile: {lowering: {rewrites: [rewrites.py]}}\n"))
    text = str(caught.value)
    assert re.search(r"the first module that differs by itself is parts\.1\.1 \(Sigmoid\), by \d\.\d+e", text), text
    assert "decision" not in text
