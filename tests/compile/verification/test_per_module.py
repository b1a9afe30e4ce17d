"""`verify --per-module`: every block is compared and timed, and the first that diverges is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compile.ir.flat_module import flat_module
from compile.lowering import Call, FunctionRewrite
from compile.lowering.config import Rewriting
from compile.models import find
from compile.verification.inputs import VerifiedVariant
from compile.verification.per_module import PerModule, Row, per_module
from endpoint_spec.endpoint import Accept
from tests.compile.models.tiny import TINY
from tests.compile.projects import ENTRY, run, write_entry


def tried(module: nn.Module, *, leaves: bool = False, extra: Any = (), **inputs: Tensor) -> PerModule:
    """The table of a module for these inputs."""
    flat, own = flat_module(module.eval(), inputs), Rewriting(own=tuple(extra))
    accept = Accept(lowering_tolerance=1e-5)
    return per_module(
        VerifiedVariant("it", flat, inputs, [inputs], (), "tensor", {}, accept, rewriting=own), leaves=leaves
    )


def by_name(table: PerModule) -> dict[str, Row]:
    return {row.module: row for row in table.rows}


def test_vitmatte_block_by_block() -> None:
    options, bucket = TINY["vitmatte", "small"]
    family, variant = find("vitmatte", "small")
    definition = family.build(variant, options)
    assert definition.initialise is not None
    definition.initialise(definition.weights, torch.Generator().manual_seed(0))
    graph = definition.graphs["main"]
    table = tried(graph.module, **graph.reference_inputs(bucket, 1)[0])
    rows = by_name(table)
    kinds = [row.kind for row in table.rows]
    assert kinds.count("VitDetLayer") == options["layers"]
    assert {"VitMatteDetailCaptureModule", "VitMatteConvStream", "VitMatteFusionBlock", "VitMatteHead"} <= set(kinds)
    assert table.first is None
    for row in table.rows:
        assert row.note == ""
        assert row.relative is not None
        assert row.relative < 1e-6
        assert row.in_place_relative is not None
        assert row.in_place_relative < 1e-5
        assert row.original_ms
        assert row.lowered_ms
    # Resizing became matrix products: equal, but not to the last bit. So a block's error is really looked at.
    assert rows["decoder.fusion_blocks.0"].error
    assert all("forward" not in vars(part) and not part._forward_hooks for part in graph.module.modules())


class Three(nn.Module):
    """Three blocks; the second has a tanh between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
        self.two = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
        self.three = nn.Sequential(nn.Linear(6, 6), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.three(self.two(self.one(x)))


class WrongTanh(FunctionRewrite):
    """Not the same function."""

    name = "wrong_tanh"
    why = cost = "a test"
    operators = frozenset({"tanh"})

    def apply(self, call: Call, input: Tensor) -> Tensor:  # noqa: A002
        return input * 0.9


class Wider(WrongTanh):
    """Not even the same shape."""

    name = "wider"

    def apply(self, call: Call, input: Tensor) -> Tensor:  # noqa: A002
        return torch.cat([input, input], 0)


def test_the_first_module_that_diverges_is_named_down_to_the_layer() -> None:
    torch.manual_seed(0)
    table = tried(Three(), extra=[WrongTanh()], x=torch.randn(3, 6))
    rows = by_name(table)
    assert table.first == "two.1"
    assert rows["two"].diverges
    assert not rows["one"].diverges_in_place
    # Alone the third block is right; behind the second one it is not.
    assert not rows["three"].diverges
    assert rows["three"].diverges_in_place
    assert rows["three"].error == 0.0


def test_another_shape_is_a_divergence() -> None:
    table = tried(Three(), extra=[Wider()], x=torch.randn(3, 6))
    assert table.first == "two.1"
    assert "(6, 6)" in by_name(table)["two"].note
    assert by_name(table)["two"].error is None


def test_a_right_rewrite_diverges_nowhere_and_leaves_can_be_asked_for() -> None:
    table = tried(Three(), leaves=True, x=torch.randn(3, 6))
    assert table.first is None
    assert [row.module for row in table.rows] == [
        *("(whole model)", "one", "one.0", "one.1", "two", "two.0", "two.1", "two.2", "three", "three.0", "three.1")
    ]


class Odd(nn.Module):
    """Keywords, numbers and dictionaries in calls, one block called twice, one that writes into what it gets."""

    class Part(nn.Module):
        """Scales, in place if asked to."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, *, scale: dict[str, Any], write: bool = False) -> dict[str, Tensor]:
            y = self.layer(x) * scale["by"]
            if write:
                x += y
                return {"y": x}
            return {"y": y}

    def __init__(self) -> None:
        super().__init__()
        self.part = Odd.Part()

    def forward(self, x: Tensor) -> Tensor:
        by = x.abs().mean()
        y: Tensor = self.part(x, scale={"by": by, "unit": None})["y"]
        return self.part(y, scale={"by": 2}, write=True)["y"]


def test_keywords_second_calls_and_writes() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4)
    before = x.clone()
    table = tried(Odd(), x=x)
    assert [row.module for row in table.rows] == ["(whole model)", "part", "part#2"]
    assert [row.note for row in table.rows] == ["", "", ""]
    assert table.first is None
    assert torch.equal(x, before)


REWRITE = """\
from compile.lowering import FunctionRewrite

class Wrong(FunctionRewrite):
    name = "wrong"
    why = cost = "a test"
    operators = frozenset({"linear"})

    def apply(self, call, input, weight, bias=None):
        return input @ weight.T
"""


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_entry(tmp_path)
    where = ("--root", str(tmp_path))
    assert run(monkeypatch, "verify", "own", "--per-module", "--json", *where) == 0
    found = json.loads(capsys.readouterr().out)
    (graph,) = found["per_module"]
    assert graph["first_divergence"] is None
    assert [row["module"] for row in graph["modules"]] == ["(whole model)"]
    assert found["machine"]["torch"] == torch.__version__
    (tmp_path / "wrong.py").write_text(REWRITE)
    rewrites = ("--rewrites", str(tmp_path / "wrong.py"))
    assert run(monkeypatch, "verify", "own", "--per-module", *rewrites, *where) == 1
    assert "The first module that diverges: layer" in capsys.readouterr().out


ERFINV = ENTRY.replace("self.layer(x)", "torch.erfinv(self.layer(x).clamp(-0.5, 0.5))")


SERIES = """
from compile.lowering import FunctionRewrite


class Erfinv(FunctionRewrite):
    name = "erfinv"
    why = "torch-neuron has no erfinv"
    cost = "eight operations an element"
    operators = frozenset({"erfinv"})

    def apply(self, call, input):
        square = input * input
        return 0.886227 * input * (1 + 0.261799 * square * (1 + 0.549777 * square))
"""


def test_a_rewrite_for_small_arguments_lowers_the_model_and_is_found_wrong_for_larger_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rewrites.py").write_text(SERIES)
    write_entry(tmp_path, ERFINV)
    own = ("--rewrites", str(tmp_path / "rewrites.py"), "--root", str(tmp_path))
    assert run(monkeypatch, "analyze", "own", "--lowered", *own, "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert "aten::erfinv" in found["original"]["operators"]
    assert found["lowered"]["percent"] == 100.0
    assert run(monkeypatch, "verify", "own", "--per-module", "--json", *own) == 1
    (graph,) = json.loads(capsys.readouterr().out)["per_module"]
    assert graph["first_divergence"] == "(whole model)"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("verify", "bert:nothing", "--per-module"), 2, "Variants: base-uncased"),
        (("verify", "nothing:base", "--per-module"), 2, "Families: bart"),
        (("verify", "bert:base-uncased"), 2, "has no artifact"),
        (("verify", "own", "--leaves"), 2, "belong to --per-module"),
        (("verify", "own", "--precision", "fp8"), 2, "fp8"),
        (("verify", "own", "--per-module", "--rewrites", "none.py"), 1, "none.py"),
    ],
)
def test_wrong_use(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    write_entry(tmp_path)
    assert run(monkeypatch, *arguments, "--root", str(tmp_path)) == code
    assert said in capsys.readouterr().err
