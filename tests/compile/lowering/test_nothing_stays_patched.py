"""A lowering leaves PyTorch and the user's module as they were: afterwards, after an error, and for other threads
meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compile.lowering import LoweringError, lower
from tests.compile.lowering.checks import Function, kinds, lowered


def watched() -> list[Any]:
    """The functions that a lowering might replace."""
    return [
        torch.jit.is_tracing,
        torch.autograd.Function.__dict__.get("apply"),
        torch.Tensor.__dict__.get("__getitem__"),
        torch.Tensor.__dict__.get("__setitem__"),
        torch.Tensor.__getitem__,
        functional.interpolate,
        functional.pad,
        torch._C._get_tracing_state(),
        torch.is_grad_enabled(),
    ]


@pytest.fixture(autouse=True)
def _unchanged() -> Iterator[None]:
    before = watched()
    yield
    assert watched() == before


class Resizing(nn.Module):
    """A convolution, an interpolation, an index and a write."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        x = functional.interpolate(self.convolution(x), scale_factor=2.0, mode="bilinear", align_corners=True)
        x[:, 0] = functional.pad(x[:, 1], (1, 0))[..., 1:]
        return x


class Failing(Resizing):
    """Fails in the middle, while the mode is open."""

    def forward(self, x: Tensor) -> Tensor:
        x = functional.interpolate(x, scale_factor=2.0, mode="bilinear")
        assert torch.jit.is_tracing is not None
        raise KeyError("in the model")


def test_after_success() -> None:
    module, image = Resizing().eval(), torch.randn(1, 3, 6, 5)
    result = lower(module, (image,))
    torch.jit.trace(result.module, (image,), check_trace=False)


def test_after_an_exception() -> None:
    with pytest.raises(KeyError, match="in the model"):
        lower(Failing().eval(), (torch.randn(1, 3, 6, 5),))


def test_after_an_exception_while_tracing() -> None:
    fails = [False]

    def sometimes(x: Tensor) -> Tensor:
        if fails[0]:
            raise KeyError("later")
        return x[:1] * 2

    result = lowered(sometimes, torch.randn(2, 3))
    fails[0] = True
    with pytest.raises(KeyError, match="later"):
        torch.jit.trace(result.module, (torch.randn(2, 3),))


def test_the_users_module_is_not_changed() -> None:
    module, image = Resizing().eval(), torch.randn(1, 3, 6, 5)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    hooks = [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in module.modules()]
    original = kinds(module, (image,))
    lower(module, (image,))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in module.modules()] == hooks
    assert kinds(module, (image,)) == original


def test_a_module_that_keeps_a_tensor_with_gradients() -> None:
    """As ``nn.utils.weight_norm`` does with the weight that it computed."""

    class Keeping(Resizing):
        def forward(self, x: Tensor) -> Tensor:
            self.scale = self.convolution.weight.sum() * 2
            return super().forward(x) * self.scale

    module, image = Keeping().eval(), torch.randn(1, 3, 6, 5)
    expected = module(image)
    scale = module.scale
    result = lower(module, (image,))
    assert module.scale is scale
    assert torch.allclose(result.module(image), expected, atol=1e-5)


def test_a_tensor_never_becomes_a_sequence() -> None:
    """Replacing ``__getitem__`` on 1.13 makes it one for CPython, with which tensors cannot be made of numbers."""

    def numbers(x: Tensor) -> Tensor:
        made = torch.tensor([torch.tensor(2), nn.Parameter(torch.tensor(3.0))])
        return x[:2] * made

    x = torch.randn(3, 2)
    assert torch.allclose(lowered(numbers, x).module(x), numbers(x))
    assert torch.tensor([torch.tensor(1), torch.tensor(2)]).tolist() == [1, 2]


def test_another_thread_traces_unlowered_meanwhile() -> None:
    """While this thread is inside a lowered forward, another traces a plain module and gets the plain graph."""
    inside, go_on = threading.Event(), threading.Event()
    plain, image = Resizing().eval(), torch.randn(1, 3, 6, 5)
    expected = kinds(plain, (image,))
    seen: dict[str, Any] = {}

    def waiting(x: Tensor) -> Tensor:
        inside.set()
        assert go_on.wait(60)
        return functional.interpolate(x, size=(8, 8), mode="bilinear")

    def trace_plain() -> None:
        try:
            assert inside.wait(60)
            seen["kinds"] = kinds(plain, (image,))
            seen["tracing"] = torch.jit.is_tracing()
            seen["item"] = torch.arange(5)[2].item()
        finally:
            go_on.set()

    thread = threading.Thread(target=trace_plain)
    thread.start()
    result = lowered(waiting, torch.randn(1, 2, 4, 4))
    thread.join(60)
    assert seen == {"kinds": expected, "tracing": False, "item": 2}
    assert set(kinds(result.module, (torch.randn(1, 2, 4, 4),))) == {"aten::matmul"}


def test_several_threads_lower_and_trace_at_the_same_time() -> None:
    modules = [Resizing().eval() for _ in range(4)]
    images = [torch.randn(1, 3, 5 + number, 6) for number in range(4)]
    expected = [kinds(lower(module, (image,)).module, (image,)) for module, image in zip(modules, images, strict=True)]
    found: list[Any] = [None] * 4

    def work(number: int) -> None:
        result = lower(modules[number], (images[number],))
        traced = torch.jit.trace(result.module, (images[number],), check_trace=False)
        close = torch.allclose(traced(images[number]), modules[number](images[number]), atol=1e-5)
        found[number] = (kinds(result.module, (images[number],)), close)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found == [(counts, True) for counts in expected]


def test_wrong_use_is_one_clear_error() -> None:
    with pytest.raises(LoweringError, match=r"training mode; call \.eval\(\)"):
        lower(Resizing().train(), (torch.randn(1, 3, 4, 4),))
    with pytest.raises(LoweringError, match="no rewrite is called nonsense; known are activations"):
        lowered(torch.relu, torch.randn(2), disabled=["nonsense"])
    with pytest.raises(LoweringError, match="returns dict; wrap it"):
        lowered(lambda x: {"out": x}, torch.randn(2))
    result = lowered(torch.relu, torch.randn(2, 3))
    with pytest.raises(LoweringError, match=r"lowered for inputs float32\[2, 3\] and called with float32\[2, 4\]"):
        result.module(torch.randn(2, 4))


def test_a_disabled_rewrite_leaves_its_operator() -> None:
    image = torch.randn(1, 2, 4, 4)
    module = Function(lambda x: functional.interpolate(x, size=(8, 8), mode="bilinear", align_corners=True))
    result = lower(module, (image,), disabled=["interpolate"])
    assert "aten::upsample_bilinear2d" in kinds(result.module, (image,))
    assert result.report.to_json()["disabled"] == ["interpolate"]
