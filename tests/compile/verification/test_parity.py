"""The rule that decides whether an artifact is the model."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from compile.errors import CompileError
from compile.verification.parity import compare

REFERENCES = [{"x": torch.randn(2, 16, generator=torch.Generator().manual_seed(i))} for i in range(5)]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values = self.layers(x)
        return values, values.argmax(-1)


NAMES = ["values", "best"]


def test_the_model_itself_passes_with_error_zero() -> None:
    net = Net().eval()
    parity = compare(net, net, REFERENCES, NAMES)
    assert parity.passed
    assert parity.inputs == 5
    values, best = parity.outputs
    assert values.error == 0.0
    assert 0 < values.eager_distance < 1e-5
    assert values.bound == max(2 * values.eager_distance, 1e-6 * values.maximum)
    assert best.bound == 0.0


@pytest.mark.parametrize(("share", "passes"), [(0.9, True), (1.2, False)])
def test_the_bound_is_twice_the_distance_from_float64_or_a_millionth(share: float, passes: bool) -> None:
    net = Net().eval()
    bound = compare(net, net, REFERENCES, NAMES).outputs[0].bound

    def shifted(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, best = net(x)
        # in one place of one input only: the largest error counts, not the mean
        if torch.equal(x, REFERENCES[3]["x"]):
            values = values.clone()
            values[0, 0] = values[0, 0].double() + share * bound
        return values, best

    assert compare(net, shifted, REFERENCES, NAMES).passed is passes


def test_nan_never_passes() -> None:
    net = Net().eval()
    parity = compare(net, lambda x: (net(x)[0] * float("nan"), net(x)[1]), REFERENCES, NAMES)
    assert not parity.passed
    assert math.isnan(parity.worst.error)


def test_one_other_integer_fails() -> None:
    net = Net().eval()
    parity = compare(net, lambda x: (net(x)[0], net(x)[1] + (x[:, 0] > 0)), REFERENCES, NAMES)
    assert parity.worst.name == "best"
    assert not parity.passed


def test_another_shape_or_dtype_is_an_error() -> None:
    net = Net().eval()
    with pytest.raises(CompileError, match="Output best"):
        compare(net, lambda x: (net(x)[0], net(x)[1].int()), REFERENCES, NAMES)
    with pytest.raises(CompileError, match="Output values"):
        compare(net, lambda x: (net(x)[0][:1], net(x)[1]), REFERENCES, NAMES)


def test_an_output_that_ignores_the_input_is_noted() -> None:
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (x * 0 + 0.5,)

    parity = compare(Constant(), Constant(), REFERENCES, ["alpha"])
    assert parity.passed
    assert "alpha hardly depends on the input" in parity.notes[0]


def test_a_model_that_cannot_run_in_float64_is_said_and_held_to_a_millionth() -> None:
    class Single(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (x @ torch.ones(16, 4),)

    parity = compare(Single(), Single(), REFERENCES, ["y"])
    assert parity.outputs[0].eager_distance is None
    assert parity.outputs[0].bound == pytest.approx(1e-6 * parity.outputs[0].maximum)
    assert "does not run in float64" in parity.notes[0]


def test_a_nan_of_float64_alone_says_nothing_about_the_artifact() -> None:
    """As a mask in float32 that is multiplied with float64's smallest number."""

    class Overflowing(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (x + torch.zeros(4) * torch.finfo(x.dtype).min,)

    parity = compare(Overflowing(), Overflowing(), [{"x": torch.randn(1, 4)}] * 2, ["y"])
    assert parity.passed
    assert "it answers NaN" in parity.notes[0]
    assert parity.outputs[0].bound == pytest.approx(1e-6 * parity.outputs[0].maximum)


def test_infinities_in_the_same_places_are_equal() -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (x.masked_fill(x > 0, float("-inf")),)

    parity = compare(Masked(), Masked(), REFERENCES, ["scores"])
    assert parity.outputs[0].error == 0.0


class Overflowing(nn.Module):
    """Infinite in float32 where the input is above 0, finite in float64."""

    def __init__(self, share: float = 0.0) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.where(x > 0, x * 1e38 * 1e38, x * (1 + self.share)),)


def test_infinities_do_not_stretch_the_bound() -> None:
    good = compare(Overflowing(), Overflowing(), REFERENCES, ["y"])
    assert good.passed
    assert 0 < good.outputs[0].bound < 1e-4
    assert not compare(Overflowing(), Overflowing(0.01), REFERENCES, ["y"]).passed


def test_an_infinity_of_the_artifact_alone_fails() -> None:
    class Plain(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (x,)

    assert not compare(Plain(), Overflowing(), REFERENCES, ["y"]).passed
    assert not compare(Overflowing(), Plain(), REFERENCES, ["y"]).passed


def test_fewer_inputs_in_float64_make_no_larger_bound_and_leave_no_input_out() -> None:
    net = Net().eval()
    everywhere, once = compare(net, net, REFERENCES, NAMES), compare(net, net, REFERENCES, NAMES, doubles=1)
    assert once.inputs == 5
    assert 0 < once.outputs[0].eager_distance <= everywhere.outputs[0].eager_distance
    assert once.outputs[0].maximum == everywhere.outputs[0].maximum
    seen: list[int] = []

    def wrong_at_last(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(len(seen))
        values, best = net(x)
        return values + (seen[-1] == 4), best

    assert not compare(net, wrong_at_last, REFERENCES, NAMES, doubles=1).passed


class Moody(nn.Module):
    """Answers with another shape every time, or fails on other inputs."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__()
        self.fails, self.calls = fails, 0

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.calls += 1
        if self.fails and float(x[0, 0]) > 1:
            raise KeyError("too large")
        return (x if self.fails else x[:, : self.calls],)


@pytest.mark.parametrize(
    ("fails", "message"),
    [(True, "forward on reference input 1 failed: KeyError"), (False, "answers the same input twice")],
)
def test_an_original_that_fails_or_changes_its_shape_is_named(fails: bool, message: str) -> None:
    inputs = [{"x": torch.full((1, 8), float(n * 2))} for n in range(3)]
    with pytest.raises(CompileError, match=message) as caught:
        compare(Moody(fails=fails), lambda x: (x,), inputs, ["y"])
    assert caught.value.remedy


def test_the_imaginary_part_counts() -> None:
    class Waves(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (torch.complex(x, x),)

    inputs = [{"x": torch.randn(2, 3)} for _ in range(5)]
    assert not compare(Waves(), lambda x: (torch.complex(x, -x),), inputs, ["y"]).passed
