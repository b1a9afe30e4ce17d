"""Padding, activations, norms, indices and other names against PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tests.compile.fuzz.operators import FUNCTIONS, make
from tests.compile.lowering.checks import agree, distance, kinds, lowered, unsupported


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_pad(mode: str, data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 3))
    lengths = [data.draw(st.integers(3, 6)) for _ in range(axes)]
    low = -1 if mode == "constant" else 0
    widths = [data.draw(st.integers(low, 2)) for _ in range(2 * axes)]
    image = torch.randn(2, 3, *lengths)
    result = agree(lambda x: functional.pad(x, widths, mode=mode), image, rewrite="pad")
    assert unsupported(result.module, (image,)) == {}


def test_pad_with_a_value() -> None:
    image = torch.randn(2, 3, 4)
    agree(lambda x: functional.pad(x, (1, 2), value=-3.5), image, rewrite="pad")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mish": functional.mish,
    "elu": lambda x: functional.elu(x, 0.7),
    "celu": lambda x: functional.celu(x, 1.3),
    "selu": functional.selu,
    "relu6": lambda x: functional.relu6(x * 4),
    "logsigmoid": functional.logsigmoid,
    "glu": lambda x: functional.glu(x, 1),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
def test_activations(name: str, spread: float) -> None:
    x = torch.randn(3, 8) * spread
    fresh = torch.cat([torch.randn(2, 8) * spread, torch.zeros(1, 8)])
    result = agree(ACTIVATIONS[name], x, fresh=(fresh,), rewrite="activations", single=1e-6)
    assert unsupported(result.module, (x,)) == {}


@settings(max_examples=12, deadline=None)
@given(
    order=st.sampled_from([1, 2, 2.0, 3.0, float("inf"), float("-inf"), "fro", None]),
    dim=st.sampled_from([0, 1, -1, (0, 2), None]),
    keepdim=st.booleans(),
)
def test_norms(order: object, dim: object, keepdim: bool) -> None:
    if order is None or order == "fro":
        dim = (1, 2) if order == "fro" else dim
    x = torch.randn(3, 4, 5)

    def norm(x: Tensor) -> Tensor:
        return (
            torch.norm(x, 2 if order is None else order, dim=dim, keepdim=keepdim) if dim is not None else torch.norm(x)
        )

    result = agree(norm, x, rewrite="vector_norms")
    assert unsupported(result.module, (x,)) == {}


@pytest.mark.parametrize("p", [1.0, 2.0, 4.0])
def test_normalize(p: float) -> None:
    x = torch.randn(3, 4, 5)
    fresh = torch.randn(3, 4, 5)
    fresh[0] = 0
    result = agree(lambda x: functional.normalize(x, p=p, dim=-1), x, fresh=(fresh,), rewrite="vector_norms")
    assert unsupported(result.module, (x,)) == {}


def test_linalg_norm_of_vectors_and_of_matrices() -> None:
    x = torch.randn(3, 4, 5)
    agree(lambda x: torch.linalg.vector_norm(x, 3, dim=1), x, rewrite="vector_norms")
    agree(lambda x: torch.linalg.norm(x, dim=-1), x, rewrite="vector_norms")
    result = lowered(lambda x: torch.linalg.norm(x, ord=2, dim=(1, 2)), x)
    assert any("matrix norm" in left.reason for left in result.report.left)


def odd(x: torch.Tensor) -> torch.Tensor:
    """NaN below -1, minus infinity up to 0, then numbers."""
    return x / x.relu() + torch.log(x + 1)


NAMES: dict[str, Callable[[Tensor], Tensor]] = {
    "unflatten": lambda x: x.unflatten(1, (2, 3)),
    "unflatten_negative": lambda x: x.unflatten(-1, (2, -1)),
    "reshape_as": lambda x: x[:, :2].reshape_as(x[:, 2:4]),
    "swapaxes": lambda x: x.swapaxes(0, 2),
    "moveaxis": lambda x: torch.moveaxis(x, 0, -1),
    "mT": lambda x: x.mT,
    "T": lambda x: x[0].T,
    "narrow": lambda x: x.narrow(1, 2, 3),
    "not": lambda x: torch.where(~(x > 0), x, -x),
    "and_or": lambda x: torch.where(((x > 0) & (x < 1)) | (x < -1), x, -x),
    "square": torch.square,
    "var": lambda x: x.var(1),
    "var_all": lambda x: torch.var(x, unbiased=False),
    "std": lambda x: x.std(dim=(1, 2), keepdim=True),
    "concat": lambda x: torch.concat([x, x + 1], 1),
    "tile": lambda x: x.tile(2, 1),
    "addcmul": lambda x: torch.addcmul(x, x, x + 1, value=0.5),
    "lerp": lambda x: torch.lerp(x, x * 2, 0.3),
    "pixel_unshuffle": lambda x: functional.pixel_unshuffle(x, 2),
    "logsumexp": lambda x: torch.logsumexp(x, 1),
    "nan_to_num": lambda x: torch.nan_to_num(odd(x)),
    "nan_to_num with its numbers": lambda x: (-odd(x)).nan_to_num(1.0, posinf=2.0, neginf=-3.0),
    "nan_to_num_": lambda x: (odd(x) * 1).nan_to_num_(),
    "isinf": lambda x: x * torch.isinf(odd(x)) + torch.isfinite(odd(x)) * 2.0,
    "cdist": lambda x: torch.cdist(x.flatten(1), x.flatten(1) + 1),
    "cdist of many": lambda x: torch.cdist(x.reshape(-1, 2), x.reshape(-1, 2) + 1),
    "max_pool1d": lambda x: functional.max_pool1d(x, 2, 2, 1),
    "avg_pool1d": lambda x: functional.avg_pool1d(x, 3, 1, 1),
    "maximum": lambda x: torch.maximum(x, x.flip(0)),
    "subtract": lambda x: torch.subtract(x, x.flip(0), alpha=2),
}


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    x = torch.randn(2, 6, 4)
    result = agree(NAMES[name], x, rewrite="names")
    assert unsupported(result.module, (x,)) == {}


def test_whole_numbers_keep_bitwise_operators() -> None:
    x = torch.arange(6)
    result = lowered(lambda x: ~x, x)
    assert torch.equal(result.module(x), ~x)


READS: dict[str, Callable[[Tensor], Tensor]] = {
    "rows": lambda x: x[torch.tensor([2, 0, -1])],
    "middle": lambda x: x[:, torch.tensor([[0, 1], [3, 1]])],
    "pairs": lambda x: x[torch.tensor([0, 1]), torch.tensor([2, 3])],
    "mixed": lambda x: x[1:, [0, 2], None, ..., 1],
    "boolean": lambda x: x[:, torch.tensor([True, False, True, True])],
    "gather": lambda x: x.gather(1, torch.tensor([[[0] * 5, [3] * 5]] * 3)),
    "index_select": lambda x: x.index_select(2, torch.tensor([4, 4, 0])),
    "take_along_dim": lambda x: torch.take_along_dim(x, torch.tensor([[[1], [0], [2], [1]]]), 2),
}


@pytest.mark.parametrize("name", READS)
def test_known_positions(name: str) -> None:
    x = torch.randn(3, 4, 5)
    result = agree(READS[name], x, exact=0.0, single=0.0)
    assert unsupported(result.module, (x,)) == {}


DATA_READS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "one": lambda x, i: x[:, i[0, 0]],
    "several": lambda x, i: x[:, i],
    "behind": lambda x, i: x[1, :, i[0]],
    "index_select": lambda x, i: x.index_select(1, i[0]),
    "gather": lambda x, i: x.gather(1, i.reshape(1, 2, 2).expand(3, 2, 2)),
}


@pytest.mark.parametrize("name", DATA_READS)
def test_positions_that_are_data(name: str) -> None:
    x, index = torch.randn(3, 4, 5), torch.tensor([[0, 1], [2, 3]])
    fresh = (torch.randn(3, 4, 5), torch.tensor([[3, 3], [0, 1]]))
    result = agree(DATA_READS[name], x, index, fresh=fresh, rewrite="indexed_reads")
    assert unsupported(result.module, (x, index)) == {}


def test_one_position_of_each_row() -> None:
    """As CLIP takes the features at each text's last token; and several indices at once."""
    x, index = torch.randn(3, 4, 5), torch.tensor([0, 3, 1])
    fresh = (torch.randn(3, 4, 5), torch.tensor([2, 0, -1]))
    result = agree(lambda x, i: x[torch.arange(3), i], x, index, fresh=fresh, rewrite="indexed_reads")
    assert unsupported(result.module, (x, index)) == {}
    result = agree(lambda x, i: x[:, i, i + 1], x, index, fresh=fresh, rewrite="indexed_reads")
    assert unsupported(result.module, (x, index)) == {}
    for read in (
        lambda x, i: x[i % 3, :, i],
        lambda x, i: x[i % 3, 1:, i],
        lambda x, i: x[..., i],
        lambda x, i: x[0, i, i],
    ):
        result = agree(read, x, index, fresh=fresh, rewrite="indexed_reads")
        assert unsupported(result.module, (x, index)) == {}


def test_a_read_that_is_too_dear_for_a_product_is_a_look_up() -> None:
    """A graph file holds aten::embedding, and not aten::index."""
    x, index = torch.randn(2, 500, 3), torch.randint(0, 500, (2, 40000))
    fresh = (torch.randn(2, 500, 3), torch.randint(-500, 500, (2, 40000)))
    result = agree(lambda x, i: x[torch.arange(2)[:, None], i], x, index, fresh=fresh, exact=0.0)
    assert unsupported(result.module, (x, index)) == {"aten::embedding": 1}


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_whole_numbers_at_positions_that_are_data(dtype: torch.dtype) -> None:
    """No product: numbers above 2^24 would not survive one in float32."""
    x, index = torch.randint(0, 2**40, (3, 4)).to(dtype), torch.tensor([[0, 1], [3, 2], [1, 1]])
    fresh = (torch.randint(0, 2**40, (3, 4)).to(dtype), torch.tensor([[3, 3], [0, 2], [1, 0]]))
    for read in (lambda x, i: x.gather(1, i), lambda x, i: x[:, i[0]]):
        result = lowered(read, x, index)
        assert torch.equal(result.module(*fresh), read(*fresh))
        assert result.report.applied["indexed_reads"] == 1
        assert not {"aten::gather", "aten::index"} & set(kinds(result.module, (x, index)))


def test_dropout_of_channels_is_nothing_at_inference() -> None:
    x = torch.randn(2, 3, 4, 4)
    result = agree(lambda x: functional.dropout2d(x * 2, 0.3, training=False), x, rewrite="dropout_off", exact=0.0)
    assert set(kinds(result.module, (x,))) == {"aten::mul"}
    result = lowered(lambda x: functional.dropout2d(x, 0.3, training=True), x)
    assert any("random draw" in left.reason for left in result.report.left)


def _with_cache(x: Tensor) -> Tensor:
    """What transformers' DynamicCache does at its first call; the result is a copy."""
    keys = torch.cat([torch.tensor([]), x * 2], dim=-2)
    keys += 1
    return torch.cat([torch.zeros(2, 0, 4), keys, x], dim=1)


def test_an_empty_cache_leaves_no_constant() -> None:
    x = torch.randn(2, 3, 4)
    result = agree(_with_cache, x, rewrite="empty_parts", exact=0.0)
    assert result.report.applied["empty_parts"] == 2
    assert not list(result.module.buffers())
    whole = lowered(lambda x: torch.cat([torch.tensor([], dtype=torch.float64), x]), torch.randn(3))
    assert whole.report.applied.get("empty_parts") is None, "the result is another dtype"
    assert whole.module(torch.ones(3)).dtype == torch.float64


def _indexed(x: Tensor) -> Tensor:
    return x[..., x[0].flatten()[:0].long()]


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 4), (2, 4, 6, 6)])
def test_a_tensor_without_entries_is_lowered_as_any_other(shape: tuple[int, ...]) -> None:
    compared = 0
    x = torch.randn(shape)
    for name in FUNCTIONS:
        try:
            module = make(name, (*shape[:-1], 0))
            expected = module(x[..., :0])
        except (RuntimeError, ValueError, IndexError):  # PyTorch takes none here
            continue
        found = lowered(lambda x: module(x[..., :0]), x).module(x)  # noqa: B023
        assert distance(found, expected) <= 1e-6, name
        compared += 1
    assert compared > 50
    assert lowered(_indexed, x[..., :0]).module(x[..., :0]).shape == _indexed(x[..., :0]).shape


def test_a_read_whose_size_is_data_is_left_alone_and_reported() -> None:
    x = torch.randn(3, 4)
    result = lowered(lambda x: x[:, x[0] > 0].sum(), x)
    assert any("size of its result" in left.reason for left in result.report.left)


ANGLES = torch.polar(torch.ones(6, 2), torch.randn(6, 2))
COMPLEX: dict[str, Callable[[Tensor], Tensor]] = {
    "a rotary embedding": lambda x: torch.view_as_real(torch.view_as_complex(x.reshape(2, 6, 2, 2)) * ANGLES).flatten(
        2
    ),
    "a constant first": lambda x: torch.view_as_real(ANGLES * torch.view_as_complex(x.reshape(2, 6, 2, 2))),
    "two of the data": lambda x: torch.view_as_real(
        torch.view_as_complex(x.reshape(2, 6, 2, 2)) * torch.view_as_complex(x.reshape(2, 6, 2, 2) + 1)
    ),
    "real factors": lambda x: torch.view_as_real(torch.view_as_complex(x.reshape(2, 6, 2, 2)) * x[..., :2] * 2.0),
    "a conjugate": lambda x: torch.view_as_real(torch.view_as_complex(x.reshape(2, 6, 2, 2)) * ANGLES.conj()),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_products_of_complex_numbers(name: str) -> None:
    x = torch.randn(2, 6, 4)
    result = agree(COMPLEX[name], x, rewrite="complex_products")
    assert unsupported(result.module, (x,)) == {}


def test_other_complex_numbers_stay() -> None:
    x = torch.randn(2, 6, 4)
    agree(lambda x: torch.fft.rfft(x).mul(1j).abs(), x)
    agree(lambda x: torch.view_as_complex(x.reshape(2, 6, 2, 2)).abs() * 2, x)


@pytest.mark.parametrize(
    ("function", "kept"),
    [
        (lambda x: functional.interpolate(x, scale_factor=2.0, mode="bilinear"), "aten::upsample_bilinear2d"),
        (lambda x: functional.interpolate(x, (7, 9), None, "bilinear", True), "aten::upsample_bilinear2d"),
        (lambda x: functional.interpolate(x, size=(7, 9), mode="bicubic"), None),
        (lambda x: functional.interpolate(x, size=(3, 3), mode="bilinear", antialias=True), None),
        (functional.mish, "aten::mish"),
        (functional.logsigmoid, "aten::log_sigmoid"),
        (functional.elu, None),
        (lambda x: functional.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), align_corners=False), "aten::grid_sampler"),
    ],
)
def test_for_a_processor_stays_what_a_graph_file_holds(function: Callable[..., Tensor], kept: str | None) -> None:
    x = torch.rand(2, 3, 6, 6) * 2 - 1
    for chip in (True, False):
        result = lowered(function, x, chip=chip)
        assert distance(result.module(x), function(x)) <= 1e-5
        stays = kept is not None and not chip
        assert (kept in kinds(result.module, (x,))) == stays
        assert bool(sum(result.report.applied.values())) != stays
