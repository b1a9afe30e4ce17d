"""`verify --precision`: what the emulation rounds, what it leaves alone, and what is recommended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compile.definition import Inputs
from compile.ir.flat_module import flat_module
from compile.verification.inputs import VerifiedVariant
from compile.verification.precision import GraphPrecision, class_metrics, depth_metrics, emulate, recommended
from compile.verification.precision_emulation import MODES, Emulation, Mode
from endpoint_spec.endpoint import Accept
from tests.compile.projects import ENTRY, run, write_entry, write_spec

BY_NAME = {mode.name: mode for mode in MODES}


def under(mode: Mode, function: nn.Module, *inputs: Tensor) -> Tensor:
    with torch.no_grad(), Emulation(mode):
        result: Tensor = function(*inputs)
    return result


class Function(nn.Module):
    """A function as a module in eval mode."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function
        self.training = False

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        return self.function(*inputs, **named)  # type: ignore[operator,no-any-return]


def bf16(tensor: Tensor) -> Tensor:
    return tensor.to(torch.bfloat16).float()


def test_products_alone_are_rounded_and_their_sums_are_not() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 8), torch.randn(3, 64)
    expected = functional.linear(bf16(x), bf16(layer.weight), layer.bias)
    with torch.no_grad():
        assert torch.equal(under(BY_NAME["bf16-matmult"], layer, x), expected)
        assert not torch.equal(under(BY_NAME["bf16-matmult"], layer, x), layer(x))
        assert torch.equal(under(BY_NAME["fp32"], layer, x), layer(x))
    convolution, picture = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8)
    expected = functional.conv2d(bf16(picture), bf16(convolution.weight), convolution.bias)
    assert torch.equal(under(BY_NAME["bf16-matmult"], convolution, picture), expected)
    product = Function(torch.matmul)
    one, other = torch.randn(2, 3, 4), torch.randn(2, 4, 5)
    assert torch.equal(under(BY_NAME["bf16-matmult"], product, one, other), bf16(one) @ bf16(other))
    tanh = Function(torch.tanh)
    assert torch.equal(under(BY_NAME["bf16-matmult"], tanh, one), one.tanh())


def test_everything_is_rounded_in_the_other_modes() -> None:
    x = torch.linspace(-3, 3, 101)
    assert torch.equal(under(BY_NAME["bf16-all"], Function(torch.tanh), x), bf16(bf16(x).tanh()))
    assert torch.equal(under(BY_NAME["fp16"], Function(torch.tanh), x), x.half().float().tanh().half().float())


def test_what_is_written_in_place_is_rounded_where_it_stands() -> None:
    def write(x: Tensor) -> Tensor:
        y = x.clone()
        y[1:].mul_(3.0001)
        return y

    x = torch.linspace(0.1, 1.0, 7)
    found = under(BY_NAME["bf16-all"], Function(write), x)
    assert torch.equal(found, bf16(found))
    assert torch.equal(found[1:], bf16(bf16(x)[1:] * 3.0001))


@pytest.mark.parametrize(("index", "hits"), [(300, 3), (30000, 129)])
def test_integers_compare_exactly_and_floats_do_not(index: int, hits: int) -> None:
    """The reason why lowering keeps comparisons of indices integer: in bfloat16 one index equals its neighbours."""

    def one_hot(ids: Tensor) -> Tensor:
        return (ids[:, None] == torch.arange(40000)).float().sum(1)

    def one_hot_of_floats(ids: Tensor) -> Tensor:
        return (ids[:, None].float() == torch.arange(40000).float()).float().sum(1)

    ids = torch.tensor([index])
    for mode in MODES:
        assert under(mode, Function(one_hot), ids).item() == 1
    assert under(BY_NAME["bf16-all"], Function(one_hot_of_floats), ids).item() == hits


class Masked(nn.Module):
    """Attention over three places, the last one hidden by an additive mask."""

    def __init__(self, hidden: float) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor([0.0, 0.0, hidden]))
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        scores = x * 3.0 + self.mask
        return scores.softmax(-1) @ x.transpose(-1, -2) + scores * 0.0


def trial(module: nn.Module, references: list[Inputs], *, task: str = "tensor", **tolerance: float) -> VerifiedVariant:
    flat = flat_module(module, references[0])
    accept = Accept(device_tolerance=tolerance or {"cosine": 0.999})  # type: ignore[arg-type]
    return VerifiedVariant("it", flat, references[0], references, ("output",), task, {}, accept)


def inputs(*shape: int) -> list[Inputs]:
    return [{"x": torch.randn(*shape, generator=torch.Generator().manual_seed(seed))} for seed in range(5)]


def passed(found: GraphPrecision) -> dict[str, bool]:
    return {result.mode.name: result.passed for result in found.modes}


def test_a_mask_that_fp16_cannot_hold_fails_and_one_that_it_holds_passes() -> None:
    """-1e9 becomes minus infinity in float16, and times zero that is not a number."""
    large, fits = (emulate(trial(Masked(hidden), inputs(3, 3))) for hidden in (-1e9, -3e4))
    assert passed(large) == {"bf16-all": True, "fp16": False, "bf16-matmult": True, "fp32": True}
    (result,) = (result for result in large.modes if result.mode.name == "fp16")
    assert result.shortfalls == ("output: values that are not finite",)
    assert all(passed(fits).values())


def test_the_fastest_mode_within_the_tolerance_is_recommended() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 8)).eval()
    references: list[Inputs] = [{"input": reference["x"]} for reference in inputs(4, 32)]
    chosen = {}
    for bound in (0.1, 1e-3, 1e-6, 1e-12):
        best = recommended([emulate(trial(module, references, relative=bound))])
        chosen[bound] = best.name if best else None
    # Lowering leaves this model as it is, so float32 is exact.
    assert chosen == {0.1: "bf16-all", 1e-3: "fp16", 1e-6: "fp32", 1e-12: "fp32"}


def test_no_mode_is_recommended_when_lowering_itself_is_beyond_the_tolerance() -> None:
    class Resized(nn.Module):
        """Resizing becomes a product, which is not equal to the last bit."""

        def forward(self, x: Tensor) -> Tensor:
            return functional.interpolate(x, size=(7, 9), mode="bilinear", align_corners=True)

    assert recommended([emulate(trial(Resized().eval(), inputs(1, 2, 5, 4), absolute=0.0))]) is None


def test_the_metrics_of_tasks() -> None:
    expected = torch.tensor([[1.0, 2.0, 0.0, 4.0]])
    found = torch.tensor([[1.1, 3.0, 9.0, 4.0]])
    metrics = depth_metrics(found, expected)  # zero is no depth
    assert metrics["AbsRel"] == pytest.approx((0.1 + 0.5 + 0.0) / 3)
    assert metrics["delta1"] == pytest.approx(2 / 3)
    logits = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    assert class_metrics(logits.flip(-1), logits)["top-1 agreement"] == 0.0
    assert class_metrics(logits + 1, logits)["top-1 agreement"] == 1.0


def test_the_command_with_depth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_spec(tmp_path)
    where = ("--root", str(tmp_path))
    assert run(monkeypatch, "verify", "tiny", "--precision", "bf16-matmult", "--json", *where) == 0
    found = json.loads(capsys.readouterr().out)["precision"]
    assert found["emulation"]
    assert found["asked"] == "bf16-matmult"
    assert found["recommended"] in BY_NAME
    (graph,) = found["graphs"]
    for mode in graph["modes"]:
        (output,) = mode["outputs"]
        assert output["output"] == "predicted_depth"
        assert output["metrics"]["delta1"] > 0.9
        assert output["metrics"]["AbsRel"] < 0.1
    errors = {mode["mode"]: mode["outputs"][0]["relative"] for mode in graph["modes"]}
    assert errors["fp32"] < 1e-5 < errors["fp16"] < errors["bf16-all"]


def test_what_is_not_finite_is_null_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_entry(tmp_path, ENTRY.replace("self.layer(x)", "(self.layer(x) * 1e6 + 1e6).sin()"))
    assert run(monkeypatch, "verify", "own", "--precision", "fp16", "--json", "--root", str(tmp_path)) == 1

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)["precision"]
    (output,) = next(mode["outputs"] for mode in found["graphs"][0]["modes"] if mode["mode"] == "fp16")
    assert not output["finite"]
    assert output["cosine"] is None


def test_the_command_fails_when_the_mode_asked_for_is_too_coarse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_entry(tmp_path, more="compile: {accept: {device_tolerance: {relative: 1.0e-6}}}\n")
    where = ("--root", str(tmp_path))
    assert run(monkeypatch, "verify", "own", "--precision", "bf16-all", *where) == 1
    shown = capsys.readouterr().out
    assert "An emulation" in shown
    assert "fp32 (compile.fast_math: none)" in shown
    assert run(monkeypatch, "verify", "own", "--precision", "fp32", "--per-module", *where) == 0
