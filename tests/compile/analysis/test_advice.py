"""What the report tells the reader to do is true: operators that it says `build` lowers are gone after lowering."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from compile.analysis import analyze
from compile.analysis.operators import data
from compile.analysis.rewrite_hints import removed_by
from compile.lowering import lower

X = torch.rand(2, 4, 8, 8) + 0.1
PROMISE = "`compile build` lowers it"


def in_place(name, *arguments):
    def function(x):
        y = x * 1.0
        getattr(y, name)(*arguments)
        return y + 0

    return function


def assigned(x):
    y = x * 0
    y[:, :2] = x[:, :2]
    return y


def assigned_by_index(x):
    y = x * 1
    y[torch.tensor([0, 1]), torch.tensor([1, 2])] = 5.0
    return y


def interpolated(mode, **options):
    return lambda x: functional.interpolate(x, scale_factor=2, mode=mode, **options)


CASES = {
    "aten::pad": (lambda x: functional.pad(x, (1, 1)), X),
    "aten::scaled_dot_product_attention": (lambda x: functional.scaled_dot_product_attention(x, x, x), X),
    "aten::upsample_bilinear2d": (interpolated("bilinear", align_corners=True), X),
    "aten::upsample_bicubic2d": (interpolated("bicubic"), X),
    "aten::upsample_linear1d": (interpolated("linear"), X[0]),
    "aten::upsample_trilinear3d": (interpolated("trilinear"), X[None]),
    "aten::silu_": (lambda x: functional.silu(x * 1, inplace=True), X),
    "aten::leaky_relu_": (lambda x: functional.leaky_relu(x * 1, inplace=True), X),
    "aten::hardswish_": (lambda x: functional.hardswish(x * 1, inplace=True), X),
    "aten::hardsigmoid_": (lambda x: functional.hardsigmoid(x * 1, inplace=True), X),
    "aten::elu_": (lambda x: functional.elu(x * 1, inplace=True), X),
    "aten::mish_": (lambda x: functional.mish(x * 1, inplace=True), X),
    "aten::mul_": (in_place("mul_", 2.0), X),
    "aten::sub_": (in_place("sub_", 2.0), X),
    "aten::div_": (in_place("div_", 2.0), X),
    "aten::pow_": (in_place("pow_", 2.0), X),
    "aten::sigmoid_": (in_place("sigmoid_"), X),
    "aten::tanh_": (in_place("tanh_"), X),
    "aten::clamp_": (in_place("clamp_", 0.0, 1.0), X),
    "aten::copy_": (assigned, X),
    "aten::index_put_": (assigned_by_index, X),
    "aten::unflatten": (lambda x: x.unflatten(-1, (2, 4)) * 1, X),
    "aten::mish": (functional.mish, X),
    "aten::elu": (functional.elu, X),
    "aten::linalg_vector_norm": (lambda x: functional.normalize(x, dim=1), X),
    "aten::square": (torch.square, X),
    "aten::maximum": (lambda x: torch.maximum(x, x * 2), X),
    "aten::minimum": (lambda x: torch.minimum(x, x * 2), X),
    "aten::var": (lambda x: x.var(-1), X),
    "aten::std": (lambda x: x.std(-1), X),
    "aten::__or__": (lambda x: ((x > 0) | (x < 1)).float(), X),
    "aten::bitwise_not": (lambda x: (~(x > 0.5)).float(), X),
    "aten::bitwise_and": (lambda x: torch.bitwise_and(x > 0, x < 1).float(), X),
    "aten::bitwise_or": (lambda x: torch.bitwise_or(x > 0, x < 1).float(), X),
    "aten::index": (lambda x: x[:, torch.tensor([0, 1])], X),
    "aten::gather": (lambda x: x.gather(1, torch.zeros_like(x).long()), X),
    "aten::_transformer_encoder_layer_fwd": (
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        torch.rand(2, 3, 8),
    ),
    "aten::_scaled_dot_product_flash_attention_for_cpu": (None, X),  # PyTorch's own inside of the operator above
    "aten::_native_multi_head_attention": (nn.MultiheadAttention(8, 2, batch_first=True), torch.rand(2, 3, 8)),
}


class Model(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        if isinstance(self.function, nn.MultiheadAttention):
            return self.function(x, x, x, need_weights=False)[0]
        return self.function(x)


@pytest.mark.parametrize("kind", sorted(kind for kind, text in data()["advice"].items() if PROMISE in text))
def test_what_build_is_said_to_lower(kind):
    torch.set_num_threads(1)
    function, x = CASES[kind]
    if function is None:
        return
    if kind.startswith("aten::scaled") and not hasattr(functional, "scaled_dot_product_attention"):
        pytest.skip("this torch has no scaled_dot_product_attention")
    lowered = lower(Model(function).eval(), (x,)).module
    report = analyze(lowered, (x,))
    assert report.percent == 100.0, {name for name, found in report.operators.items() if not found.supported}


@pytest.mark.parametrize(
    "kind",
    ["aten::upsample_bicubic2d", "aten::pad", "aten::mish", "aten::index", "aten::copy_", "aten::mul_", "aten::var"],
)
def test_the_named_rewrite_is_the_one_that_removes_it(kind):
    """Without it the operator, or one of its kind, is still there."""
    torch.set_num_threads(1)
    function, x = CASES[kind]
    rewrite = removed_by(kind)
    assert rewrite
    report = analyze(lower(Model(function).eval(), (x,), disabled=[rewrite]).module, (x,))
    left = {name for name, found in report.operators.items() if not found.supported}
    assert {removed_by(name) for name in left} == {rewrite}


def test_what_no_rewrite_removes_names_none():
    assert removed_by("aten::erfinv") == ""
    assert removed_by("aten::linear") == ""


def test_unlisted_kinds_get_advice_too():
    report = analyze(lambda x: torch.erfinv(x).erfc_(), (X,))
    for found in report.operators.values():
        assert found.supported or "--lowered" in found.advice
