"""Sliding windows and sampling at positions that are data, against PyTorch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tests.compile.lowering.checks import agree, kinds, lowered, unsupported


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_columns_of_an_image(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(5, 7)), data.draw(st.integers(5, 7))
    kernel = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    dilation, padding, stride = (data.draw(st.integers(low, 2)) for low in (1, 0, 1))
    image = torch.randn(2, 3, height, width)

    def back(x: Tensor) -> Tensor:
        columns = functional.unfold(x, kernel, dilation, padding, stride) ** 2
        return functional.fold(columns, (height, width), kernel, dilation, padding, stride)

    result = agree(
        lambda x: functional.unfold(x, kernel, dilation, padding, stride), image, rewrite="windows", exact=0.0
    )
    assert unsupported(result.module, (image,)) == {}
    result = agree(back, image, rewrite="windows")
    assert unsupported(result.module, (image,)) == {}


@settings(max_examples=10, deadline=None)
@given(dim=st.integers(-3, 2), size=st.integers(1, 3), step=st.integers(1, 3))
def test_windows_of_an_axis(dim: int, size: int, step: int) -> None:
    x = torch.randn(4, 5, 6)
    result = agree(lambda x: x.unfold(dim, size, step), x, rewrite="windows", exact=0.0, single=0.0)
    assert unsupported(result.module, (x,)) == {}


def test_overlapping_chunks_by_strides() -> None:
    x = torch.randn(2, 8, 3)
    result = agree(lambda x: (x + 1).as_strided((2, 3, 4, 3), (24, 6, 3, 1)), x, rewrite="windows", exact=0.0)
    assert unsupported(result.module, (x,)) == {}
    agree(lambda x: (x * 2).transpose(0, 1).as_strided((2, 3), (1, 4)), x, rewrite="windows", exact=0.0)
    agree(lambda x: (x * 2)[1].as_strided((2, 3), (1, 4), 26), x, rewrite="windows", exact=0.0)
    for read, reason in (
        (lambda x: (x * 2)[:, ::2].as_strided((2, 2), (1, 3)), "between the elements"),
        (lambda x: (x * 2)[1].as_strided((2, 2), (1, 1), 0), "outside"),
    ):
        assert any(reason in one.reason for one in lowered(read, x).report.left)


@pytest.mark.parametrize("written", ["windows", "base"])
def test_windows_share_what_is_written(written: str) -> None:
    """In PyTorch both are the same memory."""

    def write(x: Tensor) -> Tensor:
        x = x * 2
        windows = x.unfold(1, 2, 2)
        if written == "base":
            x += 1
        else:
            windows += 1
        return x.sum() + windows.flatten()

    agree(write, torch.randn(3, 5), rewrite="windows")


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_sampling_at_positions_that_are_data(data: st.DataObject) -> None:
    height, width, rows, columns = (data.draw(st.integers(1, 5)) for _ in range(4))
    padding = data.draw(st.sampled_from(["zeros", "border"]))
    align = data.draw(st.booleans())
    seed = data.draw(st.integers(0, 99))
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, 3, height, width, generator=generator)
    grids = [torch.rand(2, rows, columns, 2, generator=generator) * 3 - 1.5 for _ in range(2)]
    assume(height * width > 1 or not align)

    def sample(image: Tensor, grid: Tensor) -> Tensor:
        return functional.grid_sample(image, grid, padding_mode=padding, align_corners=align)

    # A pixel's weight is found as a difference of positions: in float32 to a few units of the last place of the width.
    result = agree(sample, image, grids[0], fresh=(image, grids[1]), rewrite="grid_sample", single=1e-5)
    assert unsupported(result.module, (image, grids[0])) == {}


def test_sampling_that_is_left_alone() -> None:
    image, grid = torch.randn(1, 2, 4, 4), torch.rand(1, 3, 3, 2)
    result = lowered(lambda x, g: functional.grid_sample(x, g, mode="nearest", align_corners=False), image, grid)
    assert any("mode nearest" in one.reason for one in result.report.left)
    assert "aten::grid_sampler" in kinds(result.module, (image, grid))
    large, many = torch.randn(1, 64, 128, 128), torch.rand(1, 64, 64, 2)
    result = lowered(lambda x, g: functional.grid_sample(x, g, align_corners=False), large, many)
    assert any("cheaper on the host" in one.reason for one in result.report.left)
