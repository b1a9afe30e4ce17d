"""How PyTorch calls its functions by name, and which of them need no data of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# What these return follows from shape, dtype and device alone.
METADATA = frozenset(
    {
        *("shape", "size", "dim", "ndim", "dtype", "device", "numel", "nelement", "stride", "is_contiguous"),
        *("__len__", "layout", "requires_grad", "element_size", "get_device", "is_floating_point", "is_complex"),
        *("is_signed", "storage_offset", "data_ptr", "is_sparse", "is_quantized", "is_nested", "names", "itemsize"),
        *("nbytes", "is_mkldnn", "is_meta", "is_cuda", "is_cpu", "is_mps", "is_xpu", "is_xla", "grad", "grad_fn"),
        *("is_leaf", "__hash__", "is_inference", "_version", "untyped_storage", "storage", "result_type", "can_cast"),
        *("is_tensor", "ndimension", "is_conj", "is_neg", "is_same_size", "retains_grad", "is_nonzero_static"),
        *("is_shared", "is_pinned", "is_sparse_csr", "is_vulkan", "is_ipu", "is_hpu", "is_mtia", "is_maia"),
        *("output_nr", "_is_view", "_base"),
    }
)

# Tensors that take only metadata of their first argument.
LIKE = frozenset(
    {
        *("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"),
        *("new_tensor", "new_empty_strided", "_shape_as_tensor"),
    }
)

# Tensors that take only metadata of their second argument.
AS_OTHER = frozenset(["type_as", "expand_as", "view_as", "reshape_as", "to"])

# A new draw in every inference: never a constant.
RANDOM = frozenset(
    {
        *("rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal", "poisson", "rand_like"),
        *("randn_like", "randint_like", "bernoulli_", "normal_", "uniform_", "random_", "exponential_", "geometric_"),
        *("log_normal_", "cauchy_", "dropout", "dropout_", "feature_dropout", "alpha_dropout", "alpha_dropout_"),
        *("feature_dropout_", "feature_alpha_dropout", "feature_alpha_dropout_", "rrelu_with_noise"),
        "gumbel_softmax",
    }
)

# Their whole numbers behind the tensor are sizes, steps and positions.
TAKES_SIZES = frozenset(
    {
        *("view", "reshape", "expand", "repeat", "as_strided", "narrow", "select", "split", "split_with_sizes"),
        *("chunk", "unflatten", "unfold", "roll", "tile", "new_zeros", "new_ones", "new_empty", "__getitem__"),
        "__setitem__",
    }
)

# Names that end in an underscore, or take the augmented form, and write nothing.
WRITES_NOTHING = frozenset(["requires_grad_", "detach_", "_assert_", "retain_grad_", "share_memory_", "pin_memory_"])


def operator_name(function: Callable[..., Any]) -> str:
    """The plain name of a PyTorch function, method or property as a function mode sees it (``shape``, ``add_`` ...)."""
    name = getattr(function, "__name__", str(function))
    if name in ("__get__", "__set__"):
        attribute = getattr(getattr(function, "__self__", None), "__name__", name)
        return attribute if name == "__get__" else f"{attribute}.__set__"
    return str(name)


AUGMENTED = {
    f"__i{name}__": f"__{name}__"
    for name in [
        *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift", "matmul"),
        "div",
    ]
}


def writes(name: str) -> bool:
    """Whether an operator of this name writes into its first argument."""
    if name in WRITES_NOTHING or name.endswith(".__set__"):
        return False
    return name in AUGMENTED or name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples, dicts and slices."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, slice):
        yield from tensors((value.start, value.stop, value.step))


def bound(args: Sequence[Any], kwargs: Mapping[str, Any], *names: str) -> list[Any]:
    """The first arguments, of these names, whether they are given by place or by name; None for one that is not."""
    return [args[place] if place < len(args) else kwargs.get(name) for place, name in enumerate(names)]


def is_whole(index: Any) -> bool:
    """Whether an index takes all of its dimension."""
    return isinstance(index, slice) and index == slice(None)


def places_of(x: Tensor) -> Tensor:
    """Of each element of a tensor its place in the flattened one."""
    return torch.arange(x.numel()).reshape(x.shape)


def as_tensor(value: Any, dtype: torch.dtype) -> Tensor:
    """A value that is written, as a tensor of the target's dtype."""
    return value.to(dtype) if isinstance(value, Tensor) else torch.full((), value, dtype=dtype)


def map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same nested value with every tensor replaced by ``change(tensor)``; named tuples and torch.Size keep their
    type."""
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (list, tuple):
        return type(value)(map_tensors(part, change) for part in value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(part, change) for part in value))
    if type(value) is dict:
        return {key: map_tensors(part, change) for key, part in value.items()}
    if isinstance(value, slice):
        return slice(*(map_tensors(part, change) for part in (value.start, value.stop, value.step)))
    return value
