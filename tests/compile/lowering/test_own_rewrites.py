"""Rewrites of modules, and the worked example of docs/lowering.md as a reader would run it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compile.lowering import REWRITES, Left, LoweringError, ModuleRewrite, load_rewrites, lower
from tests.compile.lowering.checks import kinds

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "lowering.md").read_text(encoding="utf-8")
FILE, USE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


class Power(nn.Module):
    """x to a learned exponent."""

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(exponent))

    def forward(self, x: Tensor) -> Tensor:
        return torch.pow(x, self.exponent)


class Sincs(nn.Module):
    """torch.sinc as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sinc(x)


@pytest.fixture
def rewrites(tmp_path: Path) -> Path:
    path = tmp_path / "rewrites.py"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_the_example_of_the_page_runs(rewrites: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(rewrites.parent)
    example = torch.tensor([[0.0, 1.5, -0.25, 1e-3]])
    exec(USE, {"model": nn.Sequential(Power(2.0), Sincs()), "example": example})
    assert capsys.readouterr().out.strip() == "{'sinc': 1, 'squares': 1}"


def test_the_example_gives_supported_operators_and_says_what_it_leaves(rewrites: Path) -> None:
    model, example = nn.Sequential(Power(2.0), Sincs(), Power(3.0)).eval(), torch.randn(2, 3)
    result = lower(model, (example,), extra=load_rewrites(rewrites))
    found = kinds(result.module, (example,))
    assert "aten::sinc" not in found
    assert found["aten::pow"] == 1
    (left,) = [one for one in result.report.left if one.rewrite == "squares"]
    assert (left.operator, left.where, left.reason) == ("Power", "2", "its exponent is 3")
    assert result.report.uses["squares"].where == {"0": 1}
    assert result.report.uses["sinc"].flops == 5 * 6


def test_the_page_lists_every_rewrite() -> None:
    table = PAGE.partition("## The rewrites")[2].partition("##")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == [rewrite.name for rewrite in REWRITES]


class Doubled(ModuleRewrite):
    """Linear layers by ones of doubled weights."""

    name = "doubled"
    why = "a test"
    cost = "nothing"

    def matches(self, module: nn.Module) -> bool:
        return isinstance(module, nn.Linear)

    def replace(self, module: nn.Module) -> nn.Module | Left:
        assert isinstance(module, nn.Linear)
        with torch.no_grad():
            module.weight.mul_(2)
            module.bias.mul_(2)
        return module


def test_a_module_rewrite_changes_a_copy_and_a_shared_module_once() -> None:
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(3, 2)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(4, 3)
    result = lower(model, (x,), extra=[Doubled()])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        expected = 2 * model[3](2 * layer(torch.relu(2 * layer(x))))
        assert torch.allclose(result.module(x), expected, atol=1e-6)
    assert result.report.uses["doubled"].where == {"0": 1, "3": 1}


def test_the_module_that_is_given_may_itself_be_replaced() -> None:
    layer, x = nn.Linear(3, 2).eval(), torch.randn(1, 3)
    result = lower(layer, (x,), extra=[Doubled()])
    with torch.no_grad():
        assert torch.allclose(result.module(x), 2 * layer(x), atol=1e-6)
    assert result.report.uses["doubled"].where == {"": 1}


def test_a_module_rewrite_can_be_switched_off() -> None:
    layer, x = nn.Linear(3, 2).eval(), torch.randn(1, 3)
    result = lower(layer, (x,), extra=[Doubled()], disabled=["doubled"])
    with torch.no_grad():
        assert torch.equal(result.module(x), layer(x))
    assert "doubled" not in result.report.applied
    with pytest.raises(LoweringError, match="no rewrite is called trebled"):
        lower(layer, (x,), extra=[Doubled()], disabled=["trebled"])
