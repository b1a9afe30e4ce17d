"""Interpolation as matrix products against PyTorch's kernels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from compile.lowering import lower
from tests.compile.lowering.checks import agree, kinds, lowered, whole

sizes = st.integers(1, 9)


@st.composite
def images(draw: st.DrawFn, axes: int) -> torch.Tensor:
    """[N, C, ...], sometimes with strides of its own."""
    shape = [draw(st.integers(1, 2)), draw(st.integers(1, 3)), *(draw(sizes) for _ in range(axes))]
    image = torch.randn(shape)
    return image.flip(-1).transpose(0, 1).contiguous().transpose(0, 1) if draw(st.booleans()) else image


MODES = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_given_sizes(mode: str, data: st.DataObject) -> None:
    image = data.draw(images(MODES[mode]))
    size = tuple(data.draw(sizes) for _ in range(MODES[mode]))
    corners = data.draw(st.booleans())

    def resize(x: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(x, size=size, mode=mode, align_corners=corners)

    result = agree(resize, image, rewrite="interpolate")
    assert whole(result.module, (image,))


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_given_scales(mode: str, data: st.DataObject) -> None:
    image = data.draw(images(MODES[mode]))
    scale = tuple(data.draw(st.sampled_from([0.5, 0.7, 1.0, 1.3, 2.0, 2.5])) for _ in range(MODES[mode]))
    recompute = data.draw(st.sampled_from([None, False, True]))
    corners = data.draw(st.booleans())
    if any(int(length * factor) == 0 for length, factor in zip(image.shape[2:], scale, strict=True)):
        return

    def resize(x: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(
            x, scale_factor=scale, mode=mode, align_corners=corners, recompute_scale_factor=recompute
        )

    agree(resize, image, rewrite="interpolate")


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(3, 4), (20, 9), (7, 31)])
def test_antialias(mode: str, size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, 14, 17)
    agree(lambda x: functional.interpolate(x, size=size, mode=mode, antialias=True), image, rewrite="interpolate")


def test_area_becomes_average_pooling() -> None:
    image = torch.randn(2, 3, 9, 12)
    result = agree(lambda x: functional.interpolate(x, size=(4, 5), mode="area"), image)
    assert set(kinds(result.module, (image,))) == {"aten::adaptive_avg_pool2d"}


def test_nearest_is_left_alone() -> None:
    image = torch.randn(2, 3, 9, 12)
    result = agree(lambda x: functional.interpolate(x, size=(13, 7), mode="nearest"), image)
    assert set(kinds(result.module, (image,))) == {"aten::upsample_nearest2d"}
    assert "interpolate" not in result.report.applied


def test_a_size_that_depends_on_the_data_is_left_alone_and_reported() -> None:
    def resize(x: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(x, size=(size[0], size[1]), mode="bilinear")

    image, size = torch.randn(1, 2, 4, 4), torch.tensor([6, 7])
    result = lowered(resize, image, size)
    assert "interpolate" not in result.report.applied
    assert [left.reason for left in result.report.left] == ["its size depends on the data"]


def test_what_is_added_is_reported() -> None:
    result = lowered(lambda x: functional.interpolate(x, size=(8, 6), mode="bilinear"), torch.randn(1, 2, 4, 3))
    # columns: 2 x 4 rows x 3 -> 6; rows: 2 x 6 columns x 4 -> 8; a multiply-add is two
    assert result.report.flops_added in (2 * 2 * 4 * 3 * 6 + 2 * 2 * 6 * 4 * 8, 2 * 2 * 3 * 4 * 8 + 2 * 2 * 8 * 3 * 6)
    assert result.report.bytes_added == (8 * 4 + 6 * 3) * 4
    assert result.report.constants == 2


def test_the_resizing_of_a_weight_is_folded_exactly() -> None:
    class Positions(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Parameter(torch.randn(1, 4, 3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            height, width = x.shape[-2:]
            resized = functional.interpolate(self.embedding, size=(height, width), mode="bicubic", align_corners=False)
            return x + resized

    module, image = Positions().eval(), torch.randn(1, 4, 5, 6)
    result = lower(module, (image,))
    assert set(kinds(result.module, (image,))) == {"aten::add"}
    assert torch.equal(result.module(image), module(image))
