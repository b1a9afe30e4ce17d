"""Operators that keep the items of a batch apart: functions and layers of x [batch, ...], by name.

Each takes and returns a float32 tensor with the batch first; one that does not fit a shape raises and is not drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]
Shape = Sequence[int]

FUNCTIONS: dict[str, Function] = {
    "relu": torch.relu,
    "relu6": F.relu6,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "elu": F.elu,
    "celu": F.celu,
    "selu": F.selu,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "leaky_relu": F.leaky_relu,
    "logsigmoid": F.logsigmoid,
    "tanhshrink": F.tanhshrink,
    "softshrink": F.softshrink,
    "hardshrink": F.hardshrink,
    "threshold": lambda x: F.threshold(x, 0.1, -1.0),
    "glu": lambda x: F.glu(torch.cat([x, x], -1), -1),
    "abs": torch.abs,
    "neg": torch.neg,
    "sin": torch.sin,
    "cos": torch.cos,
    "atan": torch.atan,
    "asinh": torch.asinh,
    "sinh": lambda x: torch.sinh(x.clamp(-2, 2)),
    "acos": lambda x: torch.acos(x.clamp(-0.9, 0.9)),
    "erf": torch.erf,
    "exp": lambda x: torch.exp(x.clamp(-2, 2)),
    "expm1": lambda x: torch.expm1(x.clamp(-2, 2)),
    "exp2": lambda x: torch.exp2(x.clamp(-2, 2)),
    "log": lambda x: torch.log(x.abs() + 1),
    "log1p": lambda x: torch.log1p(x.abs()),
    "log2": lambda x: torch.log2(x.abs() + 1),
    "sqrt": lambda x: torch.sqrt(x.abs() + 1),
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 1),
    "square": lambda x: torch.square(x.clamp(-9, 9)),
    "pow": lambda x: x.clamp(-4, 4) ** 3,
    "reciprocal": lambda x: torch.reciprocal(x.abs() + 1),
    "clamp": lambda x: x.clamp(-1, 2),
    "clamp_min": lambda x: x.clamp_min(-0.5),
    "nan_to_num": torch.nan_to_num,
    "where": lambda x: torch.where(x > 0, x, x * 0.1),
    "masked_fill": lambda x: x.masked_fill(x < 0, -1.0),
    "maximum": lambda x: torch.maximum(x, -x * 0.5),
    "minimum": lambda x: torch.minimum(x, x * 0.5),
    "lerp": lambda x: torch.lerp(x, x.tanh(), 0.3),
    "addcmul": lambda x: torch.addcmul(x, x.tanh(), x.sigmoid(), value=0.5),
    "addcdiv": lambda x: torch.addcdiv(x, x.tanh(), x.abs() + 1, value=0.5),
    "hypot": lambda x: torch.hypot(x, torch.ones_like(x)),
    "atan2": lambda x: torch.atan2(x, x.abs() + 1),
    "copysign": lambda x: torch.copysign(x.abs() + 1, x),
    "rsub": lambda x: 1 - x,
    "true_divide": lambda x: x / (x.abs().amax(-1, keepdim=True) + 1),
    "logaddexp": lambda x: torch.logaddexp(x, -x),
    "heaviside": lambda x: x * torch.heaviside(x, torch.zeros(())),
    "cumsum": lambda x: x.cumsum(-1),
    "cumprod": lambda x: x.tanh().cumprod(-1),
    "cummax": lambda x: x.cummax(-1).values,
    "logcumsumexp": lambda x: x.logcumsumexp(-1),
    "flip": lambda x: x.flip(-1),
    "roll": lambda x: x.roll(1, -1),
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "softmin": lambda x: F.softmin(x, -1),
    "logsumexp": lambda x: x - x.logsumexp(-1, keepdim=True),
    "mean": lambda x: x - x.mean(-1, keepdim=True),
    "sum": lambda x: x + x.sum(-1, keepdim=True),
    "prod": lambda x: x + x.tanh().prod(-1, keepdim=True),
    "var": lambda x: x / (x.var(-1, keepdim=True) + 1),
    "std": lambda x: x / (x.std(-1, keepdim=True, unbiased=False) + 1),
    "norm": lambda x: x / (x.norm(dim=-1, keepdim=True) + 1),
    "vector_norm": lambda x: x / (torch.linalg.vector_norm(x, 1, -1, keepdim=True) + 1),
    "normalize": lambda x: F.normalize(x, dim=-1),
    "amax": lambda x: x - x.amax(-1, keepdim=True),
    "amin": lambda x: x - x.amin(-1, keepdim=True),
    "max_dim": lambda x: x - x.max(-1, keepdim=True).values,
    "aminmax": lambda x: x - torch.aminmax(x, dim=-1, keepdim=True).min,
    "sort": lambda x: x.sort(-1).values,
    "topk": lambda x: x.topk(min(3, x.shape[-1]), -1).values,
    "argsort_gather": lambda x: x.gather(-1, x.argsort(-1)),
    "kthvalue": lambda x: x - x.kthvalue(1, -1, keepdim=True).values,
    "median": lambda x: x - x.median(-1, keepdim=True).values,
    "argmax_one_hot": lambda x: F.one_hot(x.argmax(-1), x.shape[-1]).float(),
    "any": lambda x: x * (x > 0).any(-1, keepdim=True),
    "all": lambda x: x * (x > 9).all(-1, keepdim=True).logical_not(),
    "logical": lambda x: x * ((x > 0) ^ (x > 1)),
    "cat": lambda x: torch.cat([x, x.tanh()], -1),
    "stack": lambda x: torch.stack([x, -x], -1).flatten(-2),
    "hstack": lambda x: torch.hstack([x, x]),
    "chunk": lambda x: torch.cat(x.chunk(2, -1)[::-1], -1),
    "split": lambda x: torch.cat(x.split([1, x.shape[-1] - 1], -1)[::-1], -1),
    "unbind": lambda x: torch.stack([part * 2 for part in x.unbind(-1)], -1),
    "tensor_split": lambda x: torch.cat(x.tensor_split(2, -1)[::-1], -1),
    "select": lambda x: x * x.select(-1, 0).unsqueeze(-1),
    "narrow": lambda x: x.narrow(-1, 1, x.shape[-1] - 1),
    "slice": lambda x: x[..., ::2],
    "negative_slice": lambda x: x[..., -3:-1],
    "ellipsis_none": lambda x: x[..., None, :].squeeze(-2),
    "index_list": lambda x: x[..., [0, -1]],
    "index_select": lambda x: x.index_select(-1, torch.tensor([1, 0, 1])),
    "gather": lambda x: x.gather(-1, torch.zeros_like(x, dtype=torch.int64)),
    "take_along_dim": lambda x: x.take_along_dim(x.argsort(-1), -1),
    "scatter": lambda x: torch.zeros_like(x).scatter(-1, x.argmax(-1, keepdim=True), 1.0) + x,
    "scatter_add": lambda x: torch.zeros_like(x).scatter_add(-1, x.argsort(-1), x),
    "index_add": lambda x: torch.zeros_like(x).index_add(-1, torch.arange(x.shape[-1]).flip(0), x),
    "index_fill": lambda x: x.index_fill(-1, torch.tensor([0]), 0.5),
    "index_copy": lambda x: x.index_copy(-1, torch.tensor([0]), x[..., -1:]),
    "slice_scatter": lambda x: x.slice_scatter(x[..., :1], -1, 1, 2),
    "select_scatter": lambda x: x.select_scatter(x[..., 0], -1, 1),
    "searchsorted": lambda x: torch.searchsorted(torch.linspace(-1, 1, 5), x.contiguous()).float(),
    "bucketize": lambda x: torch.bucketize(x, torch.linspace(-1, 1, 5)).float(),
    "expand": lambda x: x.unsqueeze(-1).expand(*x.shape, 2).sum(-1),
    "expand_as": lambda x: x[..., :1].expand_as(x) + x,
    "repeat": lambda x: x.repeat(*[1] * (x.dim() - 1), 2),
    "tile": lambda x: torch.tile(x, (2,)),
    "repeat_interleave": lambda x: x.repeat_interleave(2, -1),
    "transpose": lambda x: x.transpose(1, -1),
    "movedim": lambda x: x.movedim(-1, 1),
    "permute": lambda x: x.permute(0, *range(x.dim() - 1, 0, -1)),
    "swapaxes": lambda x: x.swapaxes(1, -1).contiguous(),
    "reshape": lambda x: x.reshape(x.shape[0], *x.shape[1:][::-1]),
    "view": lambda x: x.contiguous().view(x.shape[0], *x.shape[1:][::-1]),
    "view_as": lambda x: x.reshape(len(x), -1).view_as(x),
    "flatten_unflatten": lambda x: x.flatten(1).unflatten(1, x.shape[1:]),
    "squeeze": lambda x: x.unsqueeze(1).squeeze(1) * 2,
    "tril": lambda x: x.unsqueeze(-1).expand(*x.shape, x.shape[-1]).tril().sum(-1),
    "diagonal": lambda x: torch.diag_embed(x).diagonal(dim1=-2, dim2=-1),
    "pad": lambda x: F.pad(x, (1, 2), value=0.5),
    "pad_negative": lambda x: F.pad(x, (-1, 1)),
    "diff": lambda x: x.diff(dim=-1),
    "einsum": lambda x: torch.einsum("b...i,b...j->b...i", x, x),
    "outer_product": lambda x: (x.unsqueeze(-1) * x.unsqueeze(-2)).sum(-1),
    "cosine_similarity": lambda x: x * F.cosine_similarity(x, x + 1, -1).unsqueeze(-1),
    "type_round_trip": lambda x: (x > 0).to(torch.float32) + x.type_as(x),
    "clone": lambda x: x.clone().detach(),
    "arange_positions": lambda x: x + torch.arange(x.shape[-1]),
    "full_like": lambda x: x * torch.full_like(x, 0.5),
    "new_zeros": lambda x: torch.cat([x, x.new_zeros(*x.shape[:-1], 1)], -1),
    "linspace_weights": lambda x: x * torch.linspace(0, 1, x.shape[-1]),
    "round": lambda x: x + torch.round(x.detach() * 0),
    "sign": lambda x: torch.sign(x) + x,
    "frac": lambda x: x.clamp(0, 0.9).frac(),
    "fmod": lambda x: torch.fmod(x.clamp(0, 0.9), 1.0),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "rms_norm": lambda x: F.rms_norm(x, x.shape[-1:]),
    "dropout_off": lambda x: F.dropout(x, 0.5, training=False),
    # of sequences
    "matmul": lambda x: x @ x.transpose(-1, -2),
    "bmm": lambda x: torch.bmm(x, x.transpose(1, 2)),
    "baddbmm": lambda x: torch.baddbmm(x @ x.mT, x, x.mT),
    "attention": lambda x: torch.softmax(x @ x.transpose(1, 2) / 3, -1) @ x,
    "sdpa": lambda x: F.scaled_dot_product_attention(x.unsqueeze(1), x.unsqueeze(1), x.unsqueeze(1)).squeeze(1),
    "sdpa_causal": lambda x: F.scaled_dot_product_attention(*[x.unsqueeze(1)] * 3, is_causal=True).squeeze(1),
    "cdist": lambda x: torch.cdist(x, x + 0.5),
    "avg_pool1d": lambda x: F.avg_pool1d(x, 2),
    "max_pool1d": lambda x: F.max_pool1d(x, 2),
    "adaptive_avg_pool1d": lambda x: F.adaptive_avg_pool1d(x, 3),
    "interpolate_linear": lambda x: F.interpolate(x, scale_factor=2, mode="linear"),
    "first_step": lambda x: x[:, :1].expand_as(x) + x,
    "mean_steps": lambda x: x - x.mean(1, keepdim=True),
    "loop_steps": lambda x: torch.stack([x[:, step] * (step + 1) for step in range(x.shape[1])], 1),
    # of images
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2, 1, 1, count_include_pad=False),
    "max_pool2d": lambda x: F.max_pool2d(x, 3, 1, 1),
    "max_unpool2d": lambda x: F.max_unpool2d(*F.max_pool2d(x[..., :4, :4], 2, return_indices=True), 2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, (3, 5)),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, (4, 3)),
    "lp_pool2d": lambda x: F.lp_pool2d(x.abs() + 1, 2, 2),
    "interpolate_nearest": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "interpolate_bilinear": lambda x: F.interpolate(x, (7, 6), mode="bilinear", align_corners=False),
    "interpolate_bicubic": lambda x: F.interpolate(x, (5, 6), mode="bicubic", align_corners=True),
    "interpolate_area": lambda x: F.interpolate(x, (3, 3), mode="area"),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x.repeat(1, 4, 1, 1), 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x[..., :4, :4], 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x.repeat(1, 2, 1, 1), 2),
    "unfold_fold": lambda x: F.fold(F.unfold(x, 3, padding=1), x.shape[2:], 3, padding=1),
    "tensor_unfold": lambda x: x.unfold(-1, 2, 1).sum(-1),
    "pad_reflect": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "pad_replicate": lambda x: F.pad(x, (1, 1, 1, 1), mode="replicate"),
    "pad_circular": lambda x: F.pad(x, (1, 1, 1, 1), mode="circular"),
    "grid_sample": lambda x: F.grid_sample(x, torch.tanh(x[:, :2].permute(0, 2, 3, 1)), align_corners=False),
    "affine_grid": lambda x: F.grid_sample(x, F.affine_grid(torch.eye(2, 3).expand(len(x), 2, 3), x.shape, False)),
    "instance_norm": F.instance_norm,
    "local_response_norm": lambda x: F.local_response_norm(x, 3),
    "rot90": lambda x: x.rot90(1, (2, 3)),
    "global_pool": lambda x: x * x.mean((2, 3), keepdim=True),
}


class Embedded(nn.Module):
    """A look-up by what is made of x."""

    def __init__(self, width: int, *, bag: bool) -> None:
        super().__init__()
        self.table: nn.Module = nn.EmbeddingBag(8, width, mode="mean") if bag else nn.Embedding(8, width, padding_idx=0)

    def forward(self, x: Tensor) -> Tensor:
        index = (x.abs() * 3).long().clamp(0, 7)
        return self.table(index.flatten(1) if isinstance(self.table, nn.EmbeddingBag) else index[..., 0])  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """A recurrent layer's sequence, or its last state."""

    def __init__(self, cell: nn.RNNBase, *, last: bool) -> None:
        super().__init__()
        self.cell, self.last = cell, last

    def forward(self, x: Tensor) -> Tensor:
        steps, state = self.cell(x)
        state = state[0] if isinstance(state, tuple) else state
        return state.transpose(0, 1) if self.last else steps  # type: ignore[no-any-return]


class Stepwise(nn.Module):
    """A cell called in a loop."""

    def __init__(self, cell: nn.Module, size: int) -> None:
        super().__init__()
        self.cell, self.size = cell, size

    def forward(self, x: Tensor) -> Tensor:
        state, found = x.new_zeros(len(x), self.size), []
        memory = torch.zeros_like(state)
        for step in x.unbind(1):
            if isinstance(self.cell, nn.LSTMCell):
                state, memory = self.cell(step, (state, memory))
            else:
                state = self.cell(step, state)
            found.append(state)
        return torch.stack(found, 1)


class SelfAttention(nn.Module):
    """nn.MultiheadAttention of x with itself."""

    def __init__(self, width: int, *, weights: bool, masked: bool) -> None:
        super().__init__()
        self.attention, self.weights, self.masked = nn.MultiheadAttention(width, 1, batch_first=True), weights, masked

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.zeros(x.shape[:2], dtype=torch.bool) if self.masked else None
        return self.attention(x, x, x, key_padding_mask=hidden, need_weights=self.weights)[0]  # type: ignore[no-any-return]


def _last(shape: Shape) -> int:
    return int(shape[-1])


# By name, from the shape that goes in; layers that need three or four axes are named in RANKS.
LAYERS: dict[str, Callable[[Shape], nn.Module]] = {
    "Linear": lambda s: nn.Linear(_last(s), 5),
    "Linear_same": lambda s: nn.Linear(_last(s), _last(s)),
    "LayerNorm": lambda s: nn.LayerNorm(_last(s)),
    "PReLU": lambda _: nn.PReLU(),
    "RReLU": lambda _: nn.RReLU(),
    "Dropout": lambda _: nn.Dropout(0.3),
    "Identity": lambda _: nn.Identity(),
    "Embedding": lambda s: Embedded(_last(s), bag=False),
    "EmbeddingBag": lambda s: Embedded(_last(s), bag=True),
    "BatchNorm1d": lambda s: nn.BatchNorm1d(s[1]),
    "GroupNorm": lambda s: nn.GroupNorm(1, s[1]),
    "Flatten": lambda _: nn.Flatten(),
    "Conv1d": lambda s: nn.Conv1d(s[1], 4, 2, padding=1),
    "ConvTranspose1d": lambda s: nn.ConvTranspose1d(s[1], 3, 2),
    "RNN": lambda s: Recurrent(nn.RNN(_last(s), 4, batch_first=True), last=False),
    "LSTM": lambda s: Recurrent(nn.LSTM(_last(s), 4, 2, batch_first=True), last=False),
    "LSTM_both": lambda s: Recurrent(nn.LSTM(_last(s), 3, bidirectional=True, batch_first=True), last=False),
    "LSTM_state": lambda s: Recurrent(nn.LSTM(_last(s), 4, 2, batch_first=True), last=True),
    "LSTM_projected": lambda s: Recurrent(nn.LSTM(_last(s), 4, proj_size=2, batch_first=True), last=False),
    "GRU": lambda s: Recurrent(nn.GRU(_last(s), 4, batch_first=True), last=False),
    "GRU_state": lambda s: Recurrent(nn.GRU(_last(s), 4, 2, batch_first=True), last=True),
    "LSTMCell": lambda s: Stepwise(nn.LSTMCell(_last(s), 4), 4),
    "GRUCell": lambda s: Stepwise(nn.GRUCell(_last(s), 4), 4),
    "MultiheadAttention": lambda s: SelfAttention(_last(s), weights=False, masked=False),
    "MultiheadAttention_weights": lambda s: SelfAttention(_last(s), weights=True, masked=True),
    "TransformerEncoderLayer": lambda s: nn.TransformerEncoderLayer(_last(s), 1, 8, batch_first=True),
    "TransformerEncoderLayer_first": lambda s: nn.TransformerEncoderLayer(
        _last(s), 1, 8, batch_first=True, norm_first=True, activation="gelu"
    ),
    "TransformerEncoder": lambda s: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(_last(s), 1, 8, batch_first=True), 2
    ),
    "Conv2d": lambda s: nn.Conv2d(s[1], 4, 3, padding=1),
    "Conv2d_grouped": lambda s: nn.Conv2d(s[1], 2 * s[1], 3, padding=2, dilation=2, groups=s[1]),
    "Conv2d_same": lambda s: nn.Conv2d(s[1], 3, 3, padding="same", padding_mode="reflect"),
    "ConvTranspose2d": lambda s: nn.ConvTranspose2d(s[1], 2, 2, stride=2),
    "BatchNorm2d": lambda s: nn.BatchNorm2d(s[1]),
    "InstanceNorm2d": lambda s: nn.InstanceNorm2d(s[1], affine=True, track_running_stats=True),
    "Upsample": lambda _: nn.Upsample(scale_factor=1.5, mode="bilinear"),
    "AdaptiveAvgPool2d": lambda _: nn.AdaptiveAvgPool2d((2, None)),
    "ZeroPad2d": lambda _: nn.ZeroPad2d(1),
}
RANKS: dict[str, int] = {
    **dict.fromkeys(("Conv1d", "ConvTranspose1d", "RNN", "LSTM", "LSTM_both", "LSTM_state", "LSTM_projected"), 3),
    **dict.fromkeys(("GRU", "GRU_state", "LSTMCell", "GRUCell", "MultiheadAttention", "sdpa", "sdpa_causal"), 3),
    **dict.fromkeys(("MultiheadAttention_weights", "TransformerEncoderLayer", "TransformerEncoderLayer_first"), 3),
    **dict.fromkeys(("TransformerEncoder", "matmul", "bmm", "baddbmm", "attention", "cdist", "avg_pool1d"), 3),
    **dict.fromkeys(("max_pool1d", "adaptive_avg_pool1d", "interpolate_linear", "first_step", "mean_steps"), 3),
    **dict.fromkeys(("loop_steps",), 3),
    **dict.fromkeys(("Conv2d", "Conv2d_grouped", "Conv2d_same", "ConvTranspose2d", "BatchNorm2d"), 4),
    **dict.fromkeys(("InstanceNorm2d", "Upsample", "AdaptiveAvgPool2d", "ZeroPad2d", "avg_pool2d", "max_pool2d"), 4),
    **dict.fromkeys(("max_unpool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "lp_pool2d"), 4),
    **dict.fromkeys(("interpolate_nearest", "interpolate_bilinear", "interpolate_bicubic", "interpolate_area"), 4),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "unfold_fold", "pad_reflect"), 4),
    **dict.fromkeys(("pad_replicate", "pad_circular", "grid_sample", "affine_grid", "instance_norm"), 4),
    **dict.fromkeys(("local_response_norm", "rot90", "global_pool"), 4),
}
ALL = (*FUNCTIONS, *LAYERS)


class Op(nn.Module):
    """One function of x as a module."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        super().__init__()
        self.name, self.function = name, function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.name


def make(name: str, shape: Shape) -> nn.Module:
    """The operator for a tensor of this shape. Raises what torch raises where it does not fit."""
    if RANKS.get(name, len(shape)) != len(shape):
        raise ValueError(name)
    return LAYERS[name](shape) if name in LAYERS else Op(name, FUNCTIONS[name])
