"""What models do that a trace, a batch or a chip does not take: each a module, or something done to one, by name."""

from __future__ import annotations

import dataclasses
import math
import random
import threading
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint

from tests.compile.fuzz.operators import Op

Pair = namedtuple("Pair", "first second")


class Subclass(Tensor):
    """A tensor with code of its own."""


@dataclasses.dataclass
class Answer:
    """What a model returns."""

    scores: Tensor
    more: Any = None


class Doubled(nn.Module):
    """A parametrization."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2


class Halve(torch.autograd.Function):
    """A function with a backward of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        del ctx
        return x / 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        del ctx
        return gradients[0] / 2


def scaled(x: Tensor, by: float) -> Tensor:
    """By a number that stays within bounds for any input."""
    return x * (1 + math.tanh(by))


@torch.jit.script
def _scripted(x: Tensor) -> Tensor:
    return x.tanh() * 2


@torch.jit.script
def _scripted_loop(x: Tensor) -> Tensor:
    steps = 0
    while steps < 9 and bool(x.abs().max() > 0.5):
        x = x / 2
        steps += 1
    return x


# -- functions of x: anything that keeps its shape, or nearly


def _while(x: Tensor) -> Tensor:
    steps = 0
    while x.abs().max() > 0.5 and steps < 9:  # an infinity is never small enough
        x, steps = x / 2, steps + 1
    return x


def _until_nothing(x: Tensor) -> Tensor:
    left, kept = x.flatten(), []
    while left.numel() > 0 and len(kept) < 3:
        kept.append(left[0])
        left = left[left > left[0]]
    return x + torch.stack(kept).mean()


def _tries(x: Tensor) -> Tensor:
    try:
        return x * 1 if bool((x > 0).any()) else x[10_000_000]
    except IndexError:
        return x * 3


def _views(x: Tensor) -> Tensor:
    y = x.clone()
    flat, turned = y.view(-1), y.transpose(0, -1)
    flat[::2].mul_(2)
    turned[0] += 1
    y[:, :1].copy_(y[:, -1:])
    return y + flat.sum() * 0


def _chained(x: Tensor) -> Tensor:
    y = x * 1
    for part in y.unbind(1):
        part.add_(1).mul_(0.5).clamp_(-1, 1)
    y[..., 0][y[..., 0] > 0] = 0.25
    return y


def _swapped(x: Tensor) -> Tensor:
    y = x.clone()
    y[..., 0], y[..., -1] = y[..., -1].clone(), y[..., 0].clone()
    return y


def _set_default(x: Tensor) -> Tensor:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return (x * torch.ones(1)).float()
    finally:
        torch.set_default_dtype(before)


def _autocast(x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return (x.flatten(1) @ torch.ones(x[0].numel(), 1)).float().view(-1, *[1] * (x.dim() - 1)) + x


def _inference(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x * 2


def _with_grad(x: Tensor) -> Tensor:
    with torch.enable_grad():
        y = x.detach().clone().requires_grad_()
        (found,) = torch.autograd.grad((y.tanh() ** 2).sum(), y)
    return found


def _raises(x: Tensor) -> Tensor:
    raise KeyError("scores")


def _exits(x: Tensor) -> Tensor:
    raise SystemExit(3)


def _recurses(x: Tensor) -> Tensor:
    return _recurses(x)


def _two_sizes(x: Tensor) -> list[Tensor]:
    size = (x.flatten()[0] > 0).long() + 1
    return [size, x[0].numel() - size]


def _mask_write(x: Tensor) -> Tensor:
    y = x.clone()
    y[y < 0] = 0
    y[x > 1] += 5
    return y


def _mask_add(x: Tensor) -> Tensor:
    y = x * 1
    y[x > 1] += 5
    return y


def _mask_write_rows(x: Tensor) -> Tensor:
    y, mask = x * 1, x.flatten(1).sum(1) > 0
    y[mask] = (y[mask] * 2).tanh() + x[mask]
    return y


def _mask_write_of_all(x: Tensor) -> Tensor:
    y, mask = x * 1, x > 0
    y[mask] = y[mask].softmax(0)
    return y


def _index_write(x: Tensor) -> Tensor:
    x[:, 0] = 0
    x[..., -1:] *= 2
    return x + 1


def _data_write(x: Tensor) -> Tensor:
    x.data[:, 0] = 3
    return x


def _filled(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    for column in range(x.shape[1]):
        y[:, column] = x[:, column] * column
    return y


def _steps_written(x: Tensor) -> Tensor:
    y = x.new_zeros(x.shape)
    y[..., ::2] = x[..., ::2]
    y[..., 1::2] = -x[..., 1::2]
    return y


DECISIONS: dict[str, Callable[[Tensor], Any]] = {
    "bool": lambda x: x * 2 if x.sum() > 0 else x,
    "bool_same_for_all": lambda x: x * 2 if x.mean() > -50 else x,
    "item": lambda x: scaled(x, x.mean().item()),
    "item_on_cpu": lambda x: scaled(x, x.detach().cpu().mean().item()),
    "float": lambda x: scaled(x, float(x.flatten()[0])),
    "int": lambda x: x * (int(x.abs().max()) + 1),
    "complex_number": lambda x: x * (1 + abs(complex(x.flatten()[0].tanh()))),
    "format": lambda x: x * (2 if f"{x.sum():.3f}".startswith("-") else 1),
    "repr": lambda x: x * (2 if "-" in repr(x.flatten()[0]) else 1),
    "tolist": lambda x: scaled(x, max(x.flatten().tolist())),
    "max_of_list": lambda x: scaled(x, max(list(x.flatten()))),
    "index": lambda x: x + list(range(100))[(x.flatten()[0] > 0).long()],
    "range": lambda x: sum((x for _ in range(int((x.flatten()[0] > 0).long()) + 1)), torch.zeros_like(x)),
    "numpy": lambda x: x * (2 if x.detach().numpy().sum() > 0 else 1),
    "asarray": lambda x: x * (2 if np.asarray(x).mean() > -50 else 1),
    "from_numpy": lambda x: torch.from_numpy(np.tanh(x.numpy())),
    "equal": lambda x: x * 2 if torch.equal(x, x.abs()) else x,
    "allclose": lambda x: x * 2 if torch.allclose(x, x.abs()) else x,
    "is_nonzero": lambda x: x * 2 if torch.is_nonzero((x.flatten()[0] > 0).long()) else x,
    "contains": lambda x: x * 2 if 7.25 in x else x + 1,
    "rounds": lambda x: x * (1 + abs(round(float(x.tanh().flatten()[0])))),
    "floor": lambda x: x + math.floor(x.tanh().flatten()[0]),
    "while": _while,
    "until_nothing": _until_nothing,
    "try": _tries,
    "assert": lambda x: x if x.abs().sum() >= 0 else _raises(x),
    "mask_index": lambda x: x + x[x > 0].sum() * 0.1,
    "mask_rows": lambda x: x[x.flatten(1).sum(1) > 0],
    "mask_write": _mask_write,
    "mask_add": _mask_add,
    "mask_write_rows": _mask_write_rows,
    "mask_write_of_all": _mask_write_of_all,
    "masked_select": lambda x: x + x.masked_select(x > 0).mean(),
    "nonzero": lambda x: x + len((x > 0).nonzero()),
    "nonzero_tuple": lambda x: x + x[(x > 0).nonzero(as_tuple=True)].sum(),
    "argwhere": lambda x: x + torch.argwhere(x > 0).shape[0],
    "where_single": lambda x: x + torch.where(x > 0)[0].sum(),
    "unique": lambda x: x + x.round().unique().numel(),
    "unique_consecutive": lambda x: x + torch.unique_consecutive(x.sign()).sum(),
    "bincount": lambda x: x + torch.bincount((x.flatten() > 0).long(), minlength=2).max(),
    "split_by_data": lambda x: x.flatten(1).split([int(n) for n in _two_sizes(x)], 1)[0],
    "slice_by_data": lambda x: x.flatten(1)[:, : int(x.abs().max()) + 1],
    "arange_by_data": lambda x: x + torch.arange(int((x > 0).sum()) + 1).sum(),
    "zeros_by_data": lambda x: x + torch.zeros(int((x > 0).sum()) + 1).sum(),
    "repeat_by_data": lambda x: x.repeat_interleave((x.flatten(1).sum(1) > 0).long() + 1, 0),
    "masked_scatter": lambda x: x.masked_scatter(x > 0, x.flatten().flip(0)),
    "histc": lambda x: x + torch.histc(x, 4)[0],
    "histogram": lambda x: x + torch.histogram(x, 4)[0][0],
    "apply": lambda x: x.clone().apply_(lambda value: value + 1),
    "new_tensor": lambda x: x + torch.tensor([row.sum().item() for row in x]).view(-1, *[1] * (x.dim() - 1)),
    "as_tensor": lambda x: x + torch.as_tensor(x.tolist()),
    "data": lambda x: x + x.data * 2,
    "match": lambda x: {True: x, False: x * 2}[bool(x.flatten()[0] > 0)],
}


MIXING: dict[str, Callable[[Tensor], Any]] = {
    "softmax_batch": lambda x: x.softmax(0),
    "mean_batch": lambda x: x - x.mean(0),
    "std_batch": lambda x: x / (x.std(0, keepdim=True, unbiased=False) + 1),
    "flip_batch": lambda x: x.flip(0),
    "roll_batch": lambda x: x.roll(1, 0),
    "cumsum_batch": lambda x: x.cumsum(0),
    "sort_batch": lambda x: x.sort(0).values,
    "share_of_max": lambda x: x / (x.abs().max() + 1),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "gram": lambda x: (x.flatten(1) @ x.flatten(1).T) @ x.flatten(1),
    "first_item": lambda x: x + x[:1],
    "last_item": lambda x: x + x[-1:],
    "position": lambda x: x + torch.arange(len(x)).view(-1, *[1] * (x.dim() - 1)),
    "reshaped": lambda x: x.reshape(*x.shape[1:], x.shape[0]).movedim(-1, 0),
    "norm_of_all": lambda x: x / (x.norm() + 1),
    "count": lambda x: x * len(x),
    "dot_neighbours": lambda x: x * (x * x.roll(1, 0)).sum(tuple(range(1, x.dim())), keepdim=True).tanh(),
    "only_large": lambda x: x * (x.abs().max() < 50),
    "only_last_two": lambda x: torch.cat([x[:-2], x[-2:].mean(0, keepdim=True).expand_as(x[-2:])]),
}
NUMBERS: dict[str, Callable[[Tensor], Any]] = {
    "double_inside": lambda x: (x.double() - x.double().mean(-1, keepdim=True)).float(),
    "double_constant": lambda x: (x * torch.ones(1, dtype=torch.float64)).float(),
    "numpy_constant": lambda x: (x * torch.from_numpy(np.ones(1))).float(),
    "half_inside": lambda x: x.clamp(-9, 9).half().float(),
    "half_linear": lambda x: (x.half() * 2).float(),
    "bfloat16_inside": lambda x: (x.bfloat16() + 1).float(),
    "int8_inside": lambda x: (x * 10).clamp(-100, 100).to(torch.int8).float(),
    "uint8_inside": lambda x: (x.abs() * 10).clamp(0, 200).to(torch.uint8).float(),
    "int32_inside": lambda x: x.clamp(-9, 9).int().float(),
    "bool_inside": lambda x: (x > 0).float() + (~(x > 0)).sum(-1, keepdim=True),
    "complex_inside": lambda x: torch.fft.fft(x).real,
    "rfft": lambda x: torch.fft.irfft(torch.fft.rfft(x), x.shape[-1]),
    "complex_product": lambda x: torch.view_as_real(torch.complex(x, x) * 1j).flatten(-2),
    "polar": lambda x: torch.polar(torch.ones_like(x), x).imag,
    "floor_divide": lambda x: (x * 4 + 0.3).floor().long().div(3, rounding_mode="floor").float(),
    "fake_quantize": lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127),
    "quantize_inside": lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8).dequantize(),
    "log_of_negative": torch.log,
    "log_of_zero": lambda x: torch.log(x.relu()),
    "zero_over_zero": lambda x: x.relu() / x.relu(),
    "over_zero": lambda x: 1 / x.relu(),
    "sqrt_of_negative": torch.sqrt,
    "infinite_fill": lambda x: x.masked_fill(x < 0, float("-inf")),
    "infinite_softmax": lambda x: x.masked_fill(x < 0, float("-inf")).softmax(-1),
    "nan_constant": lambda x: x + float("nan"),
    "overflow": lambda x: torch.exp(x * 1000),
    "none_kept": lambda x: x[:, :0],
    "cat_nothing": lambda x: torch.cat([x[:, :0], x], 1),
    "mean_of_nothing": lambda x: x + x[:, :0].mean(),
    "max_of_nothing": lambda x: x + x[:, :0].max(),
    "sparse_inside": lambda x: x.to_sparse().to_dense(),
    "nested_inside": lambda x: torch.nested.nested_tensor(list(x)).to_padded_tensor(0.0),
}
WRITES: dict[str, Callable[[Tensor], Any]] = {
    "input_add": lambda x: x.add_(1),
    "input_clamp": lambda x: x.clamp_(-1, 1) * 2,
    "input_index": _index_write,
    "input_relu": lambda x: F.relu(x, inplace=True),
    "input_view": lambda x: x.view(-1).mul_(2).view_as(x),
    "input_out": lambda x: torch.mul(x, 2, out=x),
    "input_swap": lambda x: x.t_() if x.dim() == 2 and x.shape[0] == x.shape[1] else x.unsqueeze_(1).squeeze_(1),
    "input_set": lambda x: x.set_(x * 2),
    "input_data": _data_write,
    "input_resize": lambda x: x.resize_(x.shape[0], x[0].numel()),
    "views": _views,
    "chained_views": _chained,
    "swapped": _swapped,
    "fill_diagonal": lambda x: x.clone().fill_diagonal_(0) if x.dim() == 2 else x.clone().zero_(),
    "index_put": lambda x: x.clone().index_put_((torch.arange(len(x)),), torch.ones(()), accumulate=True),
    "index_put_twice": lambda x: x.clone().index_put_((torch.zeros(3, dtype=torch.int64),), torch.ones(()), True),
    "scatter_": lambda x: x.clone().scatter_(-1, x.argmax(-1, keepdim=True), 9.0),
    "as_strided": lambda x: x.contiguous().as_strided((len(x), 2), (x[0].numel(), 1)),
    "masked_fill_": lambda x: (x * 1).masked_fill_(x > 0, 0.5),
    "empty_filled": lambda x: torch.empty_like(x).copy_(x).sub_(1),
    "zeros_filled": _filled,
    "out_argument": lambda x: torch.add(x, 1, out=torch.empty_like(x)),
    "expanded_write": lambda x: x[:, :1].clone().expand_as(x).clone().add_(x),
    "step_slices": _steps_written,
}


RANDOM: dict[str, Callable[[Tensor], Any]] = {
    "dropout_on": lambda x: F.dropout(x, 0.5, training=True),
    "noise": lambda x: x + torch.randn_like(x),
    "rand": lambda x: x * torch.rand(x.shape[-1]),
    "randperm": lambda x: x[..., torch.randperm(x.shape[-1])],
    "bernoulli": lambda x: x * torch.bernoulli(torch.full_like(x, 0.5)),
    "multinomial": lambda x: x + torch.multinomial(x.flatten(1).softmax(-1), 1).view(-1, *[1] * (x.dim() - 1)),
    "normal_": lambda x: x + torch.empty_like(x).normal_(),
    "python_random": lambda x: x * random.random(),
    "numpy_random": lambda x: x * float(np.random.default_rng().random()),
    "gumbel": lambda x: F.gumbel_softmax(x, hard=True),
    "seeded": lambda x: x + torch.randn(x.shape[-1], generator=torch.Generator().manual_seed(3)),
    "manual_seed": lambda x: (torch.manual_seed(1), x + torch.randn_like(x))[1],
}
CONTEXTS: dict[str, Callable[[Tensor], Any]] = {
    "default_dtype": _set_default,
    "autocast": _autocast,
    "inference_mode": _inference,
    "raises": _raises,
    "exits": _exits,
    "recurses": _recurses,
    "autograd_function": Halve.apply,
    "checkpoint": lambda x: checkpoint(torch.tanh, x, use_reentrant=False),
    "vmap": torch.vmap(lambda item: item.tanh() * 2),
    "vmap_batch": lambda x: torch.vmap(lambda item, first: item + first, in_dims=(0, None))(x, x[0]),
    "grad_inside": torch.func.grad(lambda y: (y**2).sum()),
    "scripted_function": _scripted,
    "scripted_loop": _scripted_loop,
    "subclass_inside": lambda x: x.as_subclass(Subclass) * 2,
    "meta_inside": lambda x: x + torch.empty(2, device="meta").shape[0],
    "grad_enabled": _with_grad,
}


# -- modules that keep something


class Keeps(nn.Module):
    """What one run leaves for the next; `way` is how."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.calls = way, 0
        self.seen: list[Any] = []
        self.cache: dict[Any, Any] = {}
        self.last: Any = None
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("table", torch.ones(64), persistent=False)
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Any:
        return getattr(self, "_" + self.way)(x)

    def _count(self, x: Tensor) -> Tensor:
        return x + self.count.add_(1)

    def _count_unread(self, x: Tensor) -> Tensor:
        self.count += 1
        return x

    def _assign(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        return x * self.count

    def _assign_attribute(self, x: Tensor) -> Tensor:
        found = x if self.last is None else x + self.last
        self.last = x.tanh()
        return found

    def _assign_unread(self, x: Tensor) -> Tensor:
        self.last = x
        return x * 2

    def _number(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls

    def _first_call(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * (2 if self.calls == 1 else 1)

    def _growing(self, x: Tensor) -> Tensor:
        self.seen.append(x.tanh())
        return x + torch.stack(self.seen).sum(0)

    def _cached(self, x: Tensor) -> Tensor:
        key = (x.shape, x.dtype)
        if key not in self.cache:
            self.cache[key] = torch.arange(x.shape[-1], dtype=x.dtype)
        return x + self.cache[key]

    def _cached_data(self, x: Tensor) -> Tensor:
        if "mean" not in self.cache:
            self.cache["mean"] = x.mean()
        return x - self.cache["mean"]

    def _table_written(self, x: Tensor) -> Tensor:
        self.table[: x.shape[-1]] = x.flatten(0, -2).mean(0)
        return x + self.table[: x.shape[-1]]

    def _weight_written(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.weight.mul_(0.5)
        return x * self.weight

    def _data_replaced(self, x: Tensor) -> Tensor:
        self.count.data = self.count + 1
        return x + self.count

    def _registered(self, x: Tensor) -> Tensor:
        self.register_buffer("late", x.mean())
        return x + self.late

    def _made_later(self, x: Tensor) -> Tensor:
        if not hasattr(self, "layer"):
            self.layer = nn.Linear(x.shape[-1], x.shape[-1])
        return self.layer(x)  # type: ignore[no-any-return]

    def _trains(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, training=not self.calls)


STATE = tuple(name[1:] for name in vars(Keeps) if name.startswith("_") and not name.startswith("__"))


class Reads(nn.Module):
    """Computes with an attribute that is no parameter: `kind` says what it is."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        plain = torch.linspace(0, 1, width)
        double, half = plain.double(), plain.half()
        if kind == "lock":
            self.value: Any = threading.Lock()
        elif kind == "generator":
            self.value = (n for n in range(3))
        elif kind == "random_generator":
            self.value = torch.Generator()
        elif kind == "function":
            self.value = lambda x: x + plain
        elif kind == "module_in_list":
            self.value = [nn.Linear(width, width).eval()]
        elif kind == "training_in_list":
            self.value = [nn.Dropout(0.5)]
        elif kind == "graph_tensor":
            self.value = nn.Parameter(plain) * 2
        elif kind == "refuses_copies":
            self.value = NoCopies()
        else:
            made = {"plain": plain, "double": double, "half": half, "complex": plain.to(torch.complex64)}
            made |= {"subclass": plain.as_subclass(Subclass), "meta": plain.to("meta"), "sparse": plain.to_sparse()}
            made |= {"numpy": np.linspace(0, 1, width), "dict": {"a": plain}, "conj": (plain * (1 + 1j)).conj()}
            made |= {"lazy": nn.LazyLinear(width), "inference": _made_in_inference(width), "int8": plain.char()}
            self.value = made[kind]

    def forward(self, x: Tensor) -> Any:  # noqa: PLR0911 (one a kind)
        value: Any = self.value
        if self.kind in ("lock", "refuses_copies"):
            with value:
                return x * 2
        if self.kind in ("generator", "random_generator"):
            return x * 2
        if self.kind in ("module_in_list", "training_in_list"):
            return value[0](x)
        if self.kind in ("function", "lazy"):
            return value(x)
        if self.kind == "numpy":
            value = torch.from_numpy(value)
        if self.kind == "dict":
            value = value["a"]
        if self.kind == "meta":
            return x + value.shape[0]
        if self.kind == "sparse":
            return x + value.to_dense()
        found = x * value
        return (found.real if found.is_complex() else found).float()


class NoCopies:
    """Refuses to be copied, as handles of other libraries do."""

    def __enter__(self) -> NoCopies:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __deepcopy__(self, _: Any) -> NoCopies:
        raise NotImplementedError("cannot be copied")


def _made_in_inference(width: int) -> Tensor:
    with torch.inference_mode():
        return torch.linspace(0, 1, width)


KINDS = ("plain", "double", "half", "complex", "subclass", "meta", "sparse", "numpy", "dict", "conj", "lazy")
ATTRIBUTES = (
    *KINDS,
    *("inference", "int8", "lock", "generator", "random_generator", "function", "module_in_list"),
    *("training_in_list", "graph_tensor", "refuses_copies"),
)


# -- done to a module


class Training(nn.Module):
    """In training mode after .eval()."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def train(self, mode: bool = True) -> Training:
        del mode
        return super().train(True)

    def forward(self, x: Tensor) -> Any:
        return F.dropout(self.part(x), 0.3, training=self.training)


class Twice(nn.Module):
    """One module at two places, and one of its weights a third time."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.first, self.second = part, part
        self.again = next(part.parameters(), None)

    def forward(self, x: Tensor) -> Any:
        return self.first(x) + self.second(x.flip(-1))


class Ones(nn.Module):
    """No __init__ of nn.Module before attributes are set is one mistake; this is a forward with odd parameters."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor, *more: Any, scale: float = 1.0, **options: Any) -> Any:
        return self.part(x) * scale * (1 + len(more) + len(options))


def _with_linear(part: nn.Module, x: Tensor) -> nn.Sequential:
    return nn.Sequential(part, nn.Linear(x.shape[-1], 4))


def _quantized(part: nn.Module, x: Tensor) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(_with_linear(part, x), {nn.Linear})  # type: ignore[no-any-return]


def _on_layer(change: Callable[[nn.Linear], Any]) -> Callable[[nn.Module, Tensor], nn.Module]:
    def changed(part: nn.Module, x: Tensor) -> nn.Module:
        whole = _with_linear(part, x)
        replaced = change(whole[1])
        if isinstance(replaced, nn.Module):
            whole[1] = replaced
        return whole

    return changed


def _parametrized_twice(layer: nn.Linear) -> None:
    parametrize.register_parametrization(layer, "weight", Doubled())
    parametrize.register_parametrization(layer, "weight", Doubled())


def _replace_bias(layer: nn.Linear, value: Tensor) -> None:
    layer.bias = nn.Parameter(value, requires_grad=value.is_floating_point())


def _fill_bias(layer: nn.Linear, value: float) -> None:
    nn.init.constant_(layer.bias, value)


def _meta(layer: nn.Linear) -> nn.Module:
    return layer.to("meta")


def _hook(layer: nn.Linear) -> None:
    layer.register_forward_hook(lambda _module, _given, answered: answered + 1)


def _hook_that_keeps(layer: nn.Linear) -> None:
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _given: Any, answered: Tensor) -> None:
        kept.append(answered.detach())

    layer.register_forward_hook(keep)


def _hook_by_data(layer: nn.Linear) -> None:
    layer.register_forward_hook(lambda _module, _given, answered: answered * (2 if answered.sum() > 0 else 1))


def _pre_hook(layer: nn.Linear) -> None:
    layer.register_forward_pre_hook(lambda _module, given: (given[0] * 2,))


def _shared(layer: nn.Linear) -> nn.Module:
    other = nn.Linear(layer.in_features, layer.out_features)
    other.weight = layer.weight
    return nn.Sequential(layer, nn.ReLU(), nn.Linear(layer.out_features, layer.in_features), other)


WRAPPERS: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {
    "scripted": lambda part, x: torch.jit.script(_with_linear(nn.Tanh(), x)),
    "traced": lambda part, x: torch.jit.trace(part.eval(), x, check_trace=False),
    "quantized": _quantized,
    "lazy": lambda part, x: nn.Sequential(part, nn.LazyLinear(4)),
    "meta": _on_layer(_meta),
    "training": lambda part, x: Training(part),
    "hook": _on_layer(_hook),
    "hook_keeps": _on_layer(_hook_that_keeps),
    "hook_by_data": _on_layer(_hook_by_data),
    "pre_hook": _on_layer(_pre_hook),
    "backward_hook": _on_layer(lambda layer: layer.register_full_backward_hook(lambda *_: None) and None),
    "data_parallel": lambda part, x: nn.DataParallel(part),
    "compiled": lambda part, x: torch.compile(part),
    "weight_norm_old": _on_layer(nn.utils.weight_norm),
    "weight_norm": _on_layer(parametrizations.weight_norm),
    "spectral_norm": _on_layer(parametrizations.spectral_norm),
    "spectral_norm_old": _on_layer(nn.utils.spectral_norm),
    "orthogonal": _on_layer(parametrizations.orthogonal),
    "parametrized": _on_layer(_parametrized_twice),
    "pruned": _on_layer(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
    "shared": lambda part, x: Twice(part),
    "tied": _on_layer(_shared),
    "half_weight": _on_layer(lambda layer: layer.half()),
    "half_buffer": _on_layer(lambda layer: layer.register_buffer("scale", torch.ones(2, dtype=torch.float16))),
    "double_weight": _on_layer(lambda layer: layer.double()),
    "int_bias": _on_layer(lambda layer: _replace_bias(layer, torch.ones(4, dtype=torch.int64))),
    "complex_buffer": _on_layer(lambda layer: layer.register_buffer("waves", torch.ones(2, dtype=torch.complex64))),
    "subclass_weight": _on_layer(lambda layer: _replace_bias(layer, torch.ones(4).as_subclass(Subclass))),
    "nan_weight": _on_layer(lambda layer: _fill_bias(layer, float("nan"))),
    "infinite_weight": _on_layer(lambda layer: _fill_bias(layer, float("inf"))),
    "empty_weight": _on_layer(lambda layer: layer.register_parameter("none", nn.Parameter(torch.zeros(0, 3)))),
    "odd_forward": lambda part, x: Ones(part),
}

# -- what a model returns, from its last x

OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "none": lambda x: None,
    "none_inside": lambda x: {"a": x, "b": None},
    "number": lambda x: {"a": x, "b": 3.5},
    "text": lambda x: (x, "label"),
    "item": lambda x: x.sum().item(),
    "size": lambda x: (x, x.shape),
    "nothing": lambda x: (),
    "empty_dict": lambda x: {},
    "integer_keys": lambda x: {0: x, 1: -x},
    "dotted_keys": lambda x: {"a.b": x, "a": {"b": -x}},
    "same_twice": lambda x: [x, x, x.view_as(x)],
    "ragged": lambda x: [x, (x * 2, {"deep": [x + 1]}), None],
    "named_tuple": lambda x: Pair(x, -x),
    "ordered": lambda x: OrderedDict(b=x, a=x.sum(-1)),
    "data_class": lambda x: Answer(x, {"n": x.argmax(-1)}),
    "nested_class": lambda x: Answer(x, Answer(-x, [x])),
    "set": lambda x: {x},
    "iterator": lambda x: (part for part in [x]),
    "zip": lambda x: zip([x], [x], strict=True),
    "scalar": lambda x: x.mean(),
    "mean_of_batch": lambda x: {"x": x, "mean": x.mean(0)},
    "folded": lambda x: x.flatten(0, 1),
    "batch_last": lambda x: x.movedim(0, -1),
    "batch_second": lambda x: x.transpose(0, 1),
    "squeezed": lambda x: x.flatten(1).sum(1).squeeze(),
    "list_of_items": list,
    "list_by_data": lambda x: [row for row in x if row.sum() > -1e9],
    "double": lambda x: x.double(),
    "half": lambda x: x.clamp(-9, 9).half(),
    "bfloat16": lambda x: x.clamp(-9, 9).bfloat16(),
    "complex": torch.fft.fft,
    "int8": lambda x: x.clamp(-1, 1).mul(9).to(torch.int8),
    "uint8": lambda x: x.sigmoid().mul(200).to(torch.uint8),
    "int64": lambda x: x.argmax(-1),
    "int32": lambda x: (x > 0).int(),
    "bool": lambda x: x > 0,
    "sparse": lambda x: x.to_sparse(),
    "subclass": lambda x: x.as_subclass(Subclass),
    "meta": lambda x: x.to("meta"),
    "quantized": lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.quint8),
    "numpy": lambda x: x.numpy(),
    "empty": lambda x: {"x": x, "none": x[:, :0]},
    "expanded": lambda x: x[:, :1].expand_as(x),
    "transposed": lambda x: x.transpose(1, -1),
    "conjugate": lambda x: torch.complex(x, x).conj(),
    "negative_view": lambda x: torch.complex(x, x).conj().imag,
    "shared_constant": lambda x: {"x": x, "anchors": torch.arange(5.0)},
    "constant_like_batch": lambda x: {"x": x, "anchors": torch.rand(len(x), 3, generator=torch.Generator())},
    "nested_tensor": lambda x: torch.nested.nested_tensor(list(x)),
    "nan": lambda x: x * float("nan"),
    "infinite": lambda x: x / torch.zeros_like(x[..., :1]),
    "by_data": lambda x: {"x": x, "found": x[x > 0]},
    "topk": lambda x: x.topk(1, -1),
    "unbound": lambda x: x.unbind(1),
    "input_and_view": lambda x: (x, x[:, 0], x.T if x.dim() == 2 else x.mT),
}

# -- what goes in

INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "float16": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "float64": lambda x: x.double(),
    "complex64": lambda x: x.to(torch.complex64),
    "int8": lambda x: (x * 9).to(torch.int8),
    "uint8": lambda x: (x.abs() * 9).to(torch.uint8),
    "int16": lambda x: (x * 9).to(torch.int16),
    "int32": lambda x: (x * 9).to(torch.int32),
    "int64": lambda x: (x * 9).to(torch.int64),
    "bool": lambda x: x > 0,
    "transposed": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "subclass": lambda x: x.as_subclass(Subclass),
    "zero_width": lambda x: x[:, :0],
    "nan": lambda x: x.masked_fill(x > 1, float("nan")),
    "infinite": lambda x: x.masked_fill(x > 1, float("inf")),
    "parameter": nn.Parameter,
    "shared": lambda x: x[:1].expand_as(x),
}


def hazards() -> list[str]:
    """Every hazard as kind:name."""
    kinds = {**{kind: list(table) for kind, table in FUNCTIONS.items()}, "state": STATE, "attribute": ATTRIBUTES}
    kinds |= {"wrapper": list(WRAPPERS), "output": list(OUTPUTS), "input": list(INPUTS)}
    return [f"{kind}:{name}" for kind, names in kinds.items() for name in names]


FUNCTIONS: dict[str, dict[str, Callable[[Tensor], Any]]] = {
    "decision": DECISIONS,
    "mixing": MIXING,
    "numbers": NUMBERS,
    "writes": WRITES,
    "random": RANDOM,
    "context": CONTEXTS,
}


def inside(hazard: str, part: nn.Module, x: Tensor) -> nn.Module:
    """The hazard around or after `part`, which answers x."""
    kind, name = hazard.split(":")
    if kind == "wrapper":
        return WRAPPERS[name](part, x)
    if kind == "state":
        return nn.Sequential(part, Keeps(name))
    if kind == "attribute":
        return nn.Sequential(part, Reads(name, x.shape[-1]))
    return nn.Sequential(part, Op(hazard, FUNCTIONS[kind][name]))
