"""Every operator of ATen's schemas that writes into its first argument is lowered, or named where it stays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from compile.analysis import analyze
from compile.lowering import lower
from compile.lowering.rewrites.in_place import STAYING

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="walks the schemas of the project's own torch")

X = torch.tensor([[0.3, -0.2, 0.9, 0.5], [0.1, 0.7, -0.6, 0.4], [0.8, 0.2, 0.6, -0.9], [0.5, -0.1, 0.3, 0.7]])
OTHER, PLACES = X.flip(0) * 0.5 + 0.1, torch.tensor([2, 0])
ROWS = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
# What follows the tensor that is written, where the types of the schema do not say enough.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "as_strided_": ([4, 4], [4, 1]),
    "addbmm_": (torch.stack([X, OTHER]), torch.stack([OTHER, X])),
    "baddbmm_": (X[None], OTHER[None]),
    "copy_": (OTHER,),
    "embedding_renorm_": (PLACES, 1.0, 2.0),
    "fill_diagonal_": (0.5,),
    "hardtanh_": (-0.5, 0.5),
    "index_add_": (0, PLACES, OTHER[:2]),
    "index_copy_": (0, PLACES, OTHER[:2]),
    "index_fill_": (0, PLACES, 0.5),
    "index_put_": ((PLACES,), OTHER[:2]),
    "index_reduce_": (0, PLACES, OTHER[:2], "amax"),
    "masked_fill_": (X > 0, 0.5),
    "masked_scatter_": (X > 0, OTHER),
    "put_": (PLACES, OTHER[0, :2]),
    "renorm_": (2.0, 0, 1.0),
    "resize_": ([2, 8],),
    "resize_as_": (X.reshape(2, 8),),
    "scatter_": (0, ROWS, OTHER[:2]),
    "scatter_add_": (0, ROWS, OTHER[:2]),
    "scatter_reduce_": (0, ROWS, OTHER[:2], "sum"),
    "squeeze_": (),
    "swapaxes_": (0, 1),
    "swapdims_": (0, 1),
    "transpose_": (0, 1),
    "unsqueeze_": (0,),
    "addr_": (X[0], X[1]),
    "addmv_": (OTHER, X[0]),
    "bernoulli_": (0.5,),
    "geometric_": (0.5,),
    "polygamma_": (1,),
    "mvlgamma_": (1,),
    "clamp_": (-0.5, 0.5),
    "clip_": (-0.5, 0.5),
    "ldexp_": (OTHER,),
    "dropout_": (0.5, False),
    "alpha_dropout_": (0.5, False),
    "feature_dropout_": (0.5, False),
    "feature_alpha_dropout_": (0.5, False),
    "rrelu_": (0.1, 0.3, False),
    "threshold_": (0.1, 0.2),
}
# Where x has another shape than 4 x 4.
SHAPED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "addmv_": lambda x: x.sum(0),
    "baddbmm_": lambda x: x.unsqueeze(0),
}
# Not for a dense tensor of numbers, or of an optimiser or a random generator's insides; PyTorch shows set_ to no mode,
# so only parity sees it.
NOT_HERE = frozenset(
    {
        *("_amp_foreach_non_finite_check_and_unscale_", "_amp_update_scale_", "_coalesced_", "_resize_output_"),
        *("_fill_mem_eff_dropout_mask_", "_fused_adagrad_", "_fused_adam_", "_fused_adamw_", "_fused_sgd_"),
        *("_mkldnn_transpose_", "_sobol_engine_ff_", "_sobol_engine_initialize_state_", "_sobol_engine_scramble_"),
        *("copy_sparse_to_sparse_", "resize_as_sparse_", "sparse_resize_", "sparse_resize_and_clear_"),
        *("_philox_normal_", "_philox_uniform_", "_index_put_impl_", "rrelu_with_noise_", "requires_grad_", "set_"),
        *("_no_grad_normal_", "_no_grad_uniform_"),
    }
)


def schemas() -> Iterator[str]:
    """Names of operators that write into their first argument and end in `_`."""
    for schema in torch._C._jit_get_all_schemas():
        kind, _, name = schema.name.partition("::")
        first = schema.arguments[0].alias_info if schema.arguments else None
        if kind == "aten" and name.endswith("_") and not name.endswith("__") and first is not None and first.is_write:
            yield name


WRITING = sorted(set(schemas()) - NOT_HERE) if sys.version_info >= (3, 11) else []


def function(name: str) -> Callable[..., Any]:
    """As a model calls it: a tensor's method, or a function."""
    for home in (torch.Tensor, torch, torch.nn.functional, torch._C._nn):
        if hasattr(home, name):
            return getattr(home, name)  # type: ignore[no-any-return]
    return getattr(torch.ops.aten, name)  # type: ignore[no-any-return]


def by_types(name: str) -> Iterator[tuple[Any, ...]]:
    """Arguments after the first that fit one of the operator's schemas."""
    values = {
        "Tensor": OTHER,
        "number": 0.5,
        "int": 1,
        "float": 0.5,
        "bool": False,
        "List[Tensor]": [OTHER],
        "List[int]": [4, 4],
    }
    for schema in torch._C._jit_get_all_schemas():
        if schema.name == f"aten::{name}":
            needed = [one for one in schema.arguments[1:] if not one.has_default_value() and not one.kwarg_only]
            yield tuple(values.get(str(one.type)) for one in needed)


class Writes(nn.Module):
    """x, written into between two other operators."""

    def __init__(self, name: str, arguments: tuple[Any, ...], dtype: torch.dtype) -> None:
        super().__init__()
        self.name, self.arguments, self.dtype = name, arguments, dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = SHAPED.get(self.name, lambda one: one)(x * 1.5).to(self.dtype)
        function(self.name)([y] if self.name.startswith("_foreach") else y, *self.arguments)
        return y + 1


def modules(name: str) -> Iterator[Writes]:
    """The first that the original itself runs, of several arguments and dtypes."""
    given = [ARGUMENTS[name]] if name in ARGUMENTS else list(by_types(name))
    for arguments in given:
        whole = tuple(
            (one * 10).long() if isinstance(one, torch.Tensor) and one.is_floating_point() else one for one in arguments
        )
        for dtype, values in (
            (torch.float32, arguments),
            (torch.int64, whole),
            (torch.bool, whole),
            (torch.float64, arguments),
        ):
            module = Writes(name, values, dtype).eval()
            try:
                with torch.no_grad():
                    module(X)
            except (RuntimeError, TypeError, IndexError, ValueError, NotImplementedError):
                continue
            yield module
            return


@pytest.mark.parametrize("name", WRITING)
def test_it_is_lowered_or_named(name: str) -> None:
    module = next(modules(name), None)
    assert module is not None, "give ARGUMENTS for it, or say in NOT_HERE why it has none"
    lowered = lower(module, (X,))
    traced = torch.jit.trace(lowered.module, (X,), check_trace=False)
    stays = {node.kind() for node in traced.inlined_graph.nodes()} & {f"aten::{name}"}
    if name in STAYING:
        assert [left.reason for left in lowered.report.left] == [STAYING[name]]
        return
    with torch.no_grad():
        expected, found = module(X), traced(X)
    found = found[0] if isinstance(found, tuple) else found
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    if stays:
        report = analyze(lowered.module, (X,))
        named = any(left.operator == name for left in lowered.report.left)
        assert named or not report.operators[f"aten::{name}"].supported


def test_the_walk_is_of_all_of_them() -> None:
    assert len(WRITING) > 200
    assert set(ARGUMENTS) <= set(WRITING)


def test_a_number_written_by_index_is_lowered() -> None:
    module = Writes("index_copy_", (0, torch.tensor([0]), OTHER[0, :1]), torch.float32).eval()
    with torch.no_grad():
        scalar = X[0, 0]
        assert torch.equal(lower(module, (scalar,)).module(scalar), module(scalar))
