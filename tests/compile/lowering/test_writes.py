"""Writing in place and by index: new values instead, views included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from compile.lowering import lower
from tests.compile.lowering.checks import agree, kinds, lowered, unsupported

IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "add_": lambda x: (x * 2).add_(1.5, alpha=2) + x,
    "augmented": lambda x: _augmented(x) * 1,
    "silu": lambda x: functional.silu(x * 1, inplace=True),
    "mish": lambda x: functional.mish(x * 1, inplace=True),
    "leaky_relu": lambda x: functional.leaky_relu(x * 1, 0.1, inplace=True),
    "hardswish": lambda x: functional.hardswish(x * 1, inplace=True),
    "relu6": lambda x: functional.relu6(x * 1, inplace=True),
    "elu": lambda x: functional.elu(x * 1, inplace=True),
    "clamp_": lambda x: (x * 1).clamp_(-0.5, 0.5),
    "masked_fill_": lambda x: (x * 1).masked_fill_(x > 0, 3.0),
    "copy_": lambda x: torch.zeros(x.shape, dtype=x.dtype).copy_(x),
    "fill_": lambda x: (x * 1).fill_(2.0) + x,
    "zero_": lambda x: (x * 1).zero_() + x,
    "data": lambda x: _through_data(x * 2),
    "chain": lambda x: (x * 1).add_(1).mul_(2).div_(3).sub_(x),
}


def _through_data(x: Tensor) -> Tensor:
    x.data[:, 0] = 3
    x.data.mul_(2)
    return x + 1


def _augmented(x: Tensor) -> Tensor:
    y = x + 1
    same = y
    y *= 3
    y -= x
    return same + y


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place(name: str) -> None:
    x = torch.randn(3, 4)
    result = agree(IN_PLACE[name], x, rewrite="in_place")
    assert not [kind for kind in kinds(result.module, (x,)) if kind.endswith("_")]
    assert unsupported(result.module, (x,)) == {}


def test_the_callers_input_is_not_written_into() -> None:
    x = torch.randn(3)
    kept = x.clone()
    result = lowered(lambda x: x.add_(1) * 2, x)
    assert torch.equal(x, kept)
    assert torch.equal(result.module(x), (kept + 1) * 2)
    assert torch.equal(x, kept)


def _slice_of_buffer(x: Tensor) -> Tensor:
    buffer = torch.zeros(x.shape[0], 5, x.shape[1], dtype=x.dtype)
    for step in range(0, 5, 2):
        buffer[:, step] = x * (step + 1)
    return buffer.sum(1) + buffer[:, 2]


def _view_then_write(x: Tensor) -> Tensor:
    y = x * 2
    row = y[0]
    y.add_(1)  # the row sees it
    row.mul_(3)  # and y sees this
    return y + row


def _view_of_view(x: Tensor) -> Tensor:
    y = x * 1
    inner = y.transpose(0, 1)[1:].unsqueeze(0)
    inner.zero_()
    return y


def _fill_of_slice(x: Tensor) -> Tensor:
    y = x + 0
    y[:, 1:3].fill_(7.0)
    y[..., -1] += 5
    return y


def _parts(x: Tensor) -> Tensor:
    y = x * 1
    left, right = y.chunk(2, 1)
    left.mul_(2)
    right[:, 0] = left[:, 0]
    return y


def _stepped(x: Tensor) -> Tensor:
    y = x * 1
    y[::2, 1::2] = -1.0
    return y


def _by_list(x: Tensor) -> Tensor:
    y = x * 1
    y[[0, 2], :2] = x[1, :2]
    return y


def _masked(x: Tensor) -> Tensor:
    y = x * 1
    y[y > 0] = 0.25
    return y


def _windows(x: Tensor) -> Tensor:
    mask = torch.zeros(4, 4)
    count = 0
    for rows in (slice(0, 2), slice(2, None)):
        for columns in (slice(0, -1), slice(-1, None)):
            mask[rows, columns] = count
            count += 1
    return x[:4, :4] * mask.to(x.dtype)


FORMS = {
    form.__name__.strip("_"): form
    for form in (
        _slice_of_buffer,
        _view_then_write,
        _view_of_view,
        _fill_of_slice,
        _parts,
        _stepped,
        _by_list,
        _masked,
        _windows,
    )
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_writing(name: str) -> None:
    x = torch.randn(4, 6)
    result = agree(FORMS[name], x)
    assert unsupported(result.module, (x,)) == {}


def _masked_sum(x: Tensor) -> Tensor:
    y = x * 1
    y[y < 0] = 0
    y[x > 1] += 5
    y[x.sum(1) > 0] *= x[0] + 1  # a mask of the first dimension
    return y


def _masked_chain(x: Tensor) -> Tensor:
    y, mask = x * 1, x.abs() > 0.3
    y[mask] = torch.sigmoid(2 - x[mask] / y[mask]).clamp(max=0.6)
    part = y[mask]
    part.mul_(3)
    y[mask] = part
    return y


SELECTIONS = {form.__name__.strip("_"): form for form in (_masked_sum, _masked_chain)}


@pytest.mark.parametrize("name", SELECTIONS)
def test_what_a_mask_selects_is_written_back(name: str) -> None:
    x = torch.randn(4, 6)
    result = agree(SELECTIONS[name], x, fresh=[torch.randn(4, 6) * 2], rewrite="indexed_writes")
    assert unsupported(result.module, (x,)) == {}


def _by_another_mask(x: Tensor) -> Tensor:
    y = x * 1
    y[x > 0] = x[x.flip(0).flip(0) > 0] * 2
    return y


def _read_before_a_write(x: Tensor) -> Tensor:
    y, mask = x * 1, x > 0
    before = y[mask]
    y.mul_(2)
    y[mask] = before + y[mask]
    return y


def _of_all(x: Tensor) -> Tensor:
    y, mask = x * 1, x > 0
    y[mask] = y[mask].softmax(0)
    return y


def _of_whole_numbers(x: Tensor) -> Tensor:
    y, mask = (x * 9).long(), (x * 9).long() != 0
    y[mask] = 60 // y[mask]
    return y


STAYING = {
    form.__name__.strip("_"): form for form in (_by_another_mask, _read_before_a_write, _of_all, _of_whole_numbers)
}


@pytest.mark.parametrize("name", STAYING)
def test_what_is_not_computed_entry_by_entry_of_one_mask_stays(name: str) -> None:
    x = torch.tensor([[-1.0, 0.0, 2.0], [1.0, -3.0, 0.5]])
    result = lowered(STAYING[name], x)
    assert torch.equal(result.module(x), STAYING[name](x))
    assert "aten::index_put_" in kinds(result.module, (x,))


indices = st.one_of(
    st.integers(-4, 3),
    st.builds(slice, st.one_of(st.none(), st.integers(-5, 5)), st.one_of(st.none(), st.integers(-5, 5))),
    st.builds(slice, st.none(), st.none(), st.integers(1, 3)),
    st.just(Ellipsis),
    st.none(),
    st.lists(st.integers(-4, 3), min_size=1, max_size=3, unique_by=lambda number: number % 4),
)


@settings(max_examples=30, deadline=None)
@example(index=(Ellipsis, Ellipsis))
@example(index=(Ellipsis, 0, Ellipsis))
@example(index=(Ellipsis, Ellipsis, slice(None, 0)))  # PyTorch takes it for the whole tensor
@given(index=st.lists(indices, min_size=1, max_size=3).map(tuple))
def test_any_index_writes_what_pytorch_writes(index: tuple[object, ...]) -> None:
    probe = torch.zeros(4, 4, 4)
    try:
        shape = probe[index].shape
    except (IndexError, ValueError, TypeError, RuntimeError):
        return  # not an index

    def write(x: Tensor, value: Tensor) -> Tensor:
        y = x * 1
        y[index] = value
        return y

    x, value = torch.randn(4, 4, 4), torch.randn(shape)
    result = agree(write, x, value, rewrite="indexed_writes")
    assert unsupported(result.module, (x, value)) == {}


@pytest.mark.parametrize("position", [0, 3, 4])
def test_a_cache_is_written_at_a_position_that_is_data(position: int) -> None:
    def step(cache: Tensor, value: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        cache = cache * 1
        cache[:, :, at] = value
        other = cache.clone()
        other.index_copy_(2, at.reshape(1), value.unsqueeze(2) * 2)
        return cache, other

    cache, value = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 4)
    result = agree(step, cache, value, torch.tensor(1), fresh=(cache, value, torch.tensor(position)))
    assert unsupported(result.module, (cache, value, torch.tensor(1))) == {}


def test_a_write_into_a_parameter_is_left_alone_and_reported() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add_(x.sum())
            return x + self.seen

    module = Counter().eval()
    result = lower(module, (torch.ones(2),))
    assert torch.equal(module.seen, torch.zeros(1))
    assert any("parameter or buffer" in left.reason for left in result.report.left)


def test_modules_with_inplace_activations() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(inplace=True), nn.Conv2d(4, 4, 1), nn.Mish(inplace=True)
    ).eval()
    x = torch.randn(1, 3, 8, 8)
    result = lower(module, (x,))
    fresh = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(result.module(fresh), module(fresh), atol=1e-6)
    assert unsupported(result.module, (x,)) == {}


def test_one_value_at_several_positions_that_are_data() -> None:
    """As Wav2Vec2 marks each recording's last frame."""

    def mark(x: Tensor, ends: Tensor) -> Tensor:
        mask = torch.zeros_like(x)
        mask[torch.arange(x.shape[0]), ends] = 1
        return mask * x

    x, ends = torch.randn(3, 4), torch.tensor([0, 3, 2])
    result = agree(mark, x, ends, fresh=(torch.randn(3, 4), torch.tensor([1, -1, 1])), rewrite="indexed_writes")
    assert unsupported(result.module, (x, ends)) == {}


@pytest.mark.parametrize("form", ["value", "source", "in place"])
def test_scatter(form: str) -> None:
    """As a hard assignment makes one-hot rows of an argmax."""

    def scatter(x: Tensor, index: Tensor) -> Tensor:
        if form == "value":
            return torch.zeros_like(x).scatter(1, index, 1.0) * x
        if form == "source":
            return x.scatter(1, index[:, :1], x[:, :1] * 2)
        return (x + 1).scatter_(-1, index, 0.5)

    x, index = torch.randn(3, 4), torch.tensor([[0, 1], [3, 3], [2, 0]])
    fresh = (torch.randn(3, 4), torch.tensor([[3, 2], [0, 1], [1, 1]]))
    result = agree(scatter, x, index, fresh=fresh, rewrite="indexed_writes")
    assert unsupported(result.module, (x, index)) == {}


def test_scatter_of_several_values_is_left_alone() -> None:
    x, index = torch.randn(3, 4), torch.tensor([[0, 1], [3, 3], [2, 0]])
    left = lowered(lambda x, i: x.scatter(1, i, x * 2), x, index).report.left
    assert any("the last one wins" in one.reason for one in left)


def test_shapes_that_change_in_place() -> None:
    def reshape(x: Tensor) -> Tensor:
        x = x + 1
        x.unsqueeze_(1)
        x.transpose_(0, 1)
        x[:, 0] += 2
        assert x.shape == (1, 3, 4)
        return x * 3

    result = agree(reshape, torch.randn(3, 4), rewrite="in_place")
    assert unsupported(result.module, (torch.randn(3, 4),)) == {}

    def shared(x: Tensor) -> Tensor:
        x = x + 1
        other = x.view(12)
        x.unsqueeze_(0)
        return x * other[0]

    assert any("changes the shape" in one.reason for one in lowered(shared, torch.randn(3, 4)).report.left)
