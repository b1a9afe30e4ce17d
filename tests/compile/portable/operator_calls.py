"""Calls of every operator that a graph file may hold, made from its schema, and what this torch answers.

`python -m tests.compile.portable.operator_calls ASKED FILE` writes the answers to the calls of a JSON file (labels by
overload) with torch.save; it needs torch and compile.portable alone. The inputs follow from Python's own random
numbers, so that they are the same in every release.
"""

from __future__ import annotations

import json
import math
import random
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from compile.portable.operators import CAPTURED_WITH, schema


class X(tuple[int, ...]):
    """The shape of a tensor that is drawn in each of KINDS; the other tensors of a call are what they are."""

    __slots__ = ()


def x(*shape: int) -> X:
    return X(shape)


Answer = Any  # nested lists of tensors, or a text that begins with "raises"
Draw = Callable[[random.Random], float]
SPECIAL = (math.nan, math.inf, -math.inf, 0.0, -0.0, 0.5, 1.5, -2.5, 1e30, -1e-30)


def _real(r: random.Random) -> float:
    return r.gauss(0, 1)


def _whole(r: random.Random) -> float:
    return r.choice((-7, -3, -2, -1, 1, 2, 3, 4, 9))  # no zero, so that it may divide


def _truth(r: random.Random) -> float:
    return r.random() < 0.5


# How the elements of a call's first tensor are drawn and their dtype, and those of its other tensors.
KINDS: dict[str, Sequence[tuple[Draw, torch.dtype]]] = {
    "float": [(_real, torch.float32)],
    "strided": [(_real, torch.float32)],
    "0-dim": [(_real, torch.float32)],
    "0-dim integer": [(_whole, torch.int64)],
    "integer": [(_whole, torch.int64)],
    "bool": [(_truth, torch.bool)],
    "special": [(lambda r: r.choice(SPECIAL), torch.float32)],
    "large": [(lambda r: 40 * r.gauss(0, 1), torch.float32), (_real, torch.float32)],
    "float with integer": [(_real, torch.float32), (_whole, torch.int64)],
    "integer with float": [(_whole, torch.int32), (_real, torch.float32)],
    "int32 with int64": [(_whole, torch.int32), (_whole, torch.int64)],
    "float64 with float": [(_real, torch.float64), (_real, torch.float32)],
    "bool with integer": [(_truth, torch.bool), (_whole, torch.int64)],
}
INDEX, MASK = torch.tensor([2, 0, 1]), torch.tensor([True, False, True, True])
ROWS = torch.tensor([[[2, 0, 1, 1], [1, 1, 0, 2], [0, 2, 2, 1]]] * 2)  # places along dimension 1 of [2, 3, 4]
SORTED = torch.tensor([-1.0, 0.0, 0.5, 2.0])
IMAGE, VOLUME = x(2, 4, 6, 5), x(2, 3, 4, 5, 6)

# The values of arguments: of a type; of a name; of one operator, as operator:name, which goes before. The first stands
# in every call, each other is tried once. What has a default is left out first.
TABLE = """
Tensor Optional[Tensor]            x(2, 3, 4)
List[Tensor]                       [x(2, 3, 4), x(2, 3, 4)]
number                             2, 0.5, -3, True
Optional[number]                   1, -0.5
bool                               False, True
int                                1
other                              x(2, 3, 4), x(3, 1), x(), 2, 0.5, True
dtype                              torch.float64, torch.int64, torch.bool
memory_format                      torch.contiguous_format, torch.preserve_format
generator path scale_factors       None
train training                     False, True
dim dim0 dim1 dim2 start_dim end_dim  1, -1, 0, -3
dims                               [0, -1], [1], [-2, 0, 1]
offset diagonal                    0, 1, -1
k                                  1, 2, 3
index                              INDEX
mask condition                     MASK
boundaries sorted_sequence         SORTED
min                                -0.5, 1, None
max                                0.5, 1
min_val                            -0.5, 0
max_val                            0.5, 6
nan posinf neginf                  1.5
p                                  2.0, 1.0, math.inf
eps                                1e-3
decimals                           2, -1
rounding_mode                      "floor", "trunc", None
approximate                        "none", "tanh"
side                               "left", "right"
sorter                             torch.arange(4)
start                              1, -2, None
end                                3, -1, 2**63 - 1
step upscale_factor                2
num_classes                        5
kernel_size                        [2, 3]
stride                             [1, 2], 2
padding                            [1, 0], 1
dilation                           [2, 1]
divisor_override                   3
output_size                        [3, 2]
pad                                [1, 2], [-1, 0, 0, 3]
repeats                            [2, 1, 3], [5, 1, 1, 2]
size                               [2, 3, 4], [5, 2, 3, 4], [2, -1, 4]
shape                              [4, 6], [2, -1], [3, 1, 8]
normalized_shape                   [4], [3, 4]
chunks sections split_size         2, 3
weight                             x(4), x(3, 4)
bias                               x(4)
__and__.Scalar:other               3, True
pow.Scalar:self                    2, 0.5, True
pow.Tensor_Scalar:exponent         2, 3, 0.5, -1, -2, 0, 2.5, True
to.dtype:dtype                     torch.float32, torch.int64, torch.bool, torch.uint8
amax:dim amin:dim logsumexp:dim squeeze.dims:dim  [1], [0, -1], []
mean.dim:dim sum.dim_IntList:dim var.dim:dim std.dim:dim  [1], [0, -1], [], None
rot90:dims                         [0, -1], [1, 2]
index_add:dim index_copy:dim gather:dim scatter_add:dim scatter.src:dim select_scatter:dim  1, -2
permute:dims                       [2, 0, 1], [-1, 0, 1]
movedim.int:source                 1, -1
movedim.int:destination            0, -1
movedim.intlist:source             [0, 1]
movedim.intlist:destination        [1, 2], [-1, 0]
squeeze:self squeeze.dim:self squeeze.dims:self  x(2, 1, 3, 1)
expand:self expand_as:self broadcast_to:self  x(2, 1, 4), x(3, 1), x()
expand:size                        [2, 3, 4], [5, 2, 3, 4], [-1, 3, -1]
view:size                          [6, 4], [2, -1], [2, 3, 2, 2]
view_as:other reshape_as:other     x(6, 4), x(24)
cat:tensors                        [x(2, 3, 4)] * 3
broadcast_tensors:tensors          [x(2, 1, 4), x(3, 1)]
meshgrid.indexing:tensors          [x(2), x(3)]
meshgrid.indexing:indexing         "ij", "xy"
diff:prepend diff:append           x(2, 3, 2)
repeat_interleave.self_int:repeats  2
repeat_interleave.self_int:output_size  48
slice.Tensor:dim                   1, -1, 0
select.int:index select_scatter:index  1, -1
select_scatter:src                 x(2, 4)
gather:index scatter_add:index scatter.src:index one_hot:self  ROWS
embedding:weight                   x(5, 3)
embedding:indices                  INDEX, ROWS
searchsorted.Tensor:self           x(2, 3)
masked_fill.Tensor:value           x()
where.self:other heaviside:values  x(2, 3, 4), x()
hardshrink:lambd softshrink:lambd  0.3
softplus:beta                      3, 0.5
prelu:weight                       x(3), x(1)
addmm:self                         x(3, 4), x(4), x()
addmm:mat1                         x(3, 5)
addmm:mat2                         x(5, 4)
baddbmm:self                       x(2, 3, 4), x(4), x()
baddbmm:batch1                     x(2, 3, 5)
baddbmm:batch2                     x(2, 5, 4)
bmm:mat2                           x(2, 4, 3)
matmul:other                       x(2, 4, 3), x(4, 5), x(4)
t:self                             x(3, 4), x(4)
mm:self mv:self                    x(3, 4)
mm:mat2                            x(4, 2)
mv:vec dot:self dot:tensor         x(4)
linear:weight                      x(5, 4)
linear:bias                        x(5)
tensordot:other                    x(3, 4, 5)
tensordot:dims_self                [1, 2], [1, -1]
tensordot:dims_other               [0, 1]
cdist:x2                           x(2, 5, 4)
cdist:compute_mode                 1, 2
_weight_norm:g                     x(1, 3, 1), x(2, 1, 1)
group_norm:input pixel_shuffle:self adaptive_avg_pool2d:self adaptive_max_pool2d:self  IMAGE
avg_pool2d:self max_pool2d:self max_pool2d_with_indices:self  IMAGE, x(4, 6, 5)
group_norm:num_groups              2
adaptive_avg_pool1d:output_size adaptive_max_pool1d:output_size  [3]
avg_pool3d:self                    VOLUME
avg_pool3d:kernel_size             [2, 2, 3]
avg_pool3d:stride                  [1, 2, 1]
avg_pool3d:padding                 [1, 0, 1]
adaptive_avg_pool3d:self adaptive_max_pool3d:self max_pool3d:self reflection_pad3d:self replication_pad3d:self  VOLUME
adaptive_avg_pool3d:output_size adaptive_max_pool3d:output_size  [2, 3, 2]
max_pool1d:kernel_size             [2]
max_pool3d:kernel_size             [2, 2, 3]
max_pool1d:stride                  [1]
max_pool3d:stride                  [1, 2, 1]
max_pool1d:padding                 [1]
max_pool3d:padding                 [1, 0, 1]
max_pool1d:dilation                [2]
max_pool3d:dilation                [1, 2, 1]
reflection_pad2d:padding replication_pad2d:padding  [1, 2, 0, 1]
reflection_pad3d:padding replication_pad3d:padding  [1, 2, 0, 1, 1, 0]
outer:self outer:vec2 addmv:vec    x(4)
addmv:self                         x(3), x()
addmv:mat                          x(3, 4)
huber_loss:delta smooth_l1_loss:beta isclose:rtol isclose:atol  0.5, 1.0
sort.stable:stable                 True
"""
VALUES: dict[str, list[Any]] = {
    name: eval(f"[{values}]")
    for names, values in (re.split(r"  +", line, maxsplit=1) for line in TABLE.strip().splitlines())
    for name in names.split()
}
_MEAN, _SPREAD = torch.tensor([0.1, -0.2, 0.3, 0.0]), torch.tensor([1.0, 0.5, 2.0, 0.1])
_LAYER, _PROJECTED = [x(15, 4), x(15, 5), x(15), x(15)], [x(20, 4), x(20, 2), x(20), x(20), x(2, 5)]
# Operators whose arguments belong together: whole calls.
CALLS: dict[str, list[tuple[Any, ...]]] = {
    "_convolution": [
        (IMAGE, x(4, 2, 3, 3), x(4), [2, 1], [1, 2], [1, 1], False, [0, 0], 2, False, False, True, True),
        (IMAGE, x(4, 2, 3, 3), x(4), [2, 1], [1, 2], [1, 1], True, [1, 0], 2, False, False, True, True),
        (x(2, 4, 9), x(6, 4, 3), None, [1], [2], [2], False, [0], 1, False, False, True, True),
        (VOLUME, x(2, 3, 2, 2, 2), x(2), [1, 2, 1], [0] * 3, [1] * 3, False, [0] * 3, 1, False, False, True, True),
    ],
    "_convolution_mode": [(IMAGE, x(6, 4, 3, 3), x(6), [1, 1], mode, [1, 1], 1) for mode in ("same", "valid")],
    "batch_norm": [
        (IMAGE, x(4), x(4), _MEAN, _SPREAD, False, 0.1, 1e-5, True),
        (x(2, 4), None, None, _MEAN, _SPREAD, False, 0.1, 1e-5, True),
        (x(2, 4), None, None, _MEAN.clone(), _SPREAD.clone(), True, 0.1, 1e-5, True),
    ],
    "instance_norm": [
        (IMAGE, x(4), x(4), None, None, True, 0.1, 1e-5, True),
        (IMAGE, None, None, _MEAN, _SPREAD, False, 0.1, 1e-5, True),
        (IMAGE, None, None, _MEAN.clone(), _SPREAD.clone(), True, 0.1, 1e-5, True),
    ],
    "dropout": [(x(2, 3), 0.5, train) for train in (False, True)],
    "einsum": [("bij,bjk->bik", [x(2, 3, 4), x(2, 4, 2)]), ("b...i,b...j->b...ij", [x(2, 3, 4), x(2, 3, 2)])],
    "embedding_bag.padding_idx": [
        (x(6, 3), torch.tensor([0, 2, 1, 5, 5]), torch.tensor([0, 2]), False, mode, False, None, False, padding)
        for mode in (0, 1, 2)
        for padding in (None, 5)
    ],
    "grid_sampler": [(IMAGE, x(2, 3, 4, 2), mode, 0, corners) for mode in (0, 1, 2) for corners in (False, True)]
    + [(IMAGE, x(2, 3, 4, 2), 0, padding, False) for padding in (1, 2)],
    "gru.input": [
        (x(2, 3, 4), x(2, 2, 5), [*_LAYER, x(15, 5), x(15, 5), x(15), x(15)], True, 2, 0.5, train, False, True)
        for train in (False, True)
    ],
    "rnn_tanh.input": [
        (x(2, 3, 4), x(2, 2, 4), [x(4, 4), x(4, 4), x(4), x(4)] * 2, True, layers, 0.5, train, layers == 1, True)
        for layers, train in ((1, False), (2, False), (2, True))
    ],
    "lstm.input": [
        (x(3, 2, 4), [x(2, 2, 4), x(2, 2, 4)], [x(16, 4), x(16, 4)] * 2, False, 2, 0.5, train, False, False)
        for train in (False, True)
    ]
    + [(x(2, 3, 4), [x(1, 2, 2), x(1, 2, 5)], _PROJECTED, True, 1, 0.0, False, False, True)],
    "where.Scalar": [(MASK, one, other) for one in (True, 2, 0.5) for other in (False, 3, 1.5)],
    "roll": [(x(2, 3, 4), [1]), (x(2, 3, 4), [1, 2], [0, -1]), (x(2, 3, 4), [-1], [1])],
    "split_with_sizes": [(x(2, 3, 4), [1, 1]), (x(2, 3, 4), [1, 2], 1), (x(2, 3, 4), [3, 1], -1)],
    "slice_scatter": [
        (x(2, 3, 4), x(2, 3, 4)),
        (x(2, 3, 4), x(2, 3, 2), -1, 1, 3),
        (x(2, 3, 4), x(1, 3, 4), 0, -1),
        (x(2, 3, 4), x(2, 2, 4), 1, 0, 2**63 - 1, 2),
    ],
    "max_unpool2d": [(x(1, 1, 2, 2), torch.tensor([[[[0, 3], [8, 11]]]]), [4, 4])],
    "upsample_bilinear2d.vec": [
        (IMAGE, size, corners, scale)
        for corners in (False, True)
        for size, scale in (([7, 9], None), (None, [2.0, 1.5]))
    ],
    "upsample_bilinear2d": [(IMAGE, [7, 9], False), (IMAGE, [7, 9], True), (IMAGE, [8, 10], False, 2.0, 2.0)],
    "upsample_linear1d": [(x(2, 3, 7), [5], False), (x(2, 3, 7), [9], True), (x(2, 3, 7), [14], False, 2.0)],
    "upsample_linear1d.vec": [(x(2, 3, 7), [5], False, None), (x(2, 3, 7), None, True, [1.7])],
    "upsample_nearest1d": [(x(2, 3, 7), [5]), (x(2, 3, 7), [11], 1.7)],
    "upsample_nearest2d": [(IMAGE, [7, 9]), (IMAGE, [12, 10], 2.0, 2.0)],
    "upsample_nearest3d": [(VOLUME, [5, 4, 9]), (VOLUME, [8, 10, 12], 2.0, 2.0, 2.0)],
    "_upsample_nearest_exact1d.vec": [(x(2, 3, 7), [5], None), (x(2, 3, 7), None, [1.7])],
    "_upsample_nearest_exact2d.vec": [(IMAGE, [7, 9], None), (IMAGE, None, [1.7, 0.6])],
    "upsample_nearest1d.vec": [(x(2, 3, 7), [5], None), (x(2, 3, 7), None, [1.7])],
    "upsample_nearest2d.vec": [(IMAGE, [7, 9], None), (IMAGE, None, [2.0, 2.0]), (IMAGE, None, [1.7, 0.6])],
}


def calls(overload: str) -> Iterator[tuple[str, list[Any], dict[str, Any]]]:
    """Every call of an operator that is tried, of which some raise: a label, "NUMBER KIND", and the arguments."""
    name = overload.removeprefix("aten::")
    for number, (args, kwargs) in enumerate([(list(args), {}) for args in CALLS.get(name, [])] or _varied(overload)):
        for kind in KINDS:
            draw = _Drawing(kind, f"{name} {number} {kind}")
            yield f"{number} {kind}", draw.value(args), {key: draw.value(value) for key, value in kwargs.items()}


def _varied(overload: str) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Shapes and arguments by the schema: with nothing that has a default, each other value, all that has a default."""
    arguments = torch._C.parse_schema(schema(CAPTURED_WITH, overload) or "").arguments
    values = {argument.name: _values(overload, argument) for argument in arguments}
    least = {a.name: values[a.name][0] for a in arguments if not a.has_default_value()}
    yield _placed(arguments, least)
    for name, tried in values.items():
        for value in tried[name in least :]:
            yield _placed(arguments, {**least, name: value})
    yield _placed(arguments, {**{a.name: a.default_value for a in arguments}, **least})


def _placed(arguments: Sequence[Any], given: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """By place up to the first that is left out or by name alone."""
    first = next((n for n, a in enumerate(arguments) if a.kwarg_only or a.name not in given), len(arguments))
    places = [a.name for a in arguments[:first]]
    return [given[name] for name in places], {name: value for name, value in given.items() if name not in places}


def _values(overload: str, argument: Any) -> list[Any]:
    kind, name = str(argument.type), argument.name
    found = VALUES.get(f"{overload.removeprefix('aten::')}:{name}")
    if (
        found is None
        and name in VALUES
        and kind.endswith(("Tensor", "Tensor]")) == isinstance(VALUES[name][0], Tensor | X)
    ):
        found = VALUES[name]
    return VALUES[kind] if found is None else found


class _Drawing:
    """Draws the tensors of one call."""

    def __init__(self, kind: str, seed: str) -> None:
        self.kind, self.random, self.count = kind, random.Random(seed), 0

    def value(self, template: Any) -> Any:
        if isinstance(template, X):
            return self.tensor(template)
        if isinstance(template, Tensor):
            return template.clone()  # some operators write into it
        return [self.value(each) for each in template] if isinstance(template, list) else template

    def tensor(self, shape: Sequence[int]) -> Tensor:
        draw, dtype = KINDS[self.kind][min(self.count, len(KINDS[self.kind]) - 1)]
        self.count += 1
        shape = () if self.kind.startswith("0-dim") else tuple(shape)
        flat = torch.tensor([draw(self.random) for _ in range(math.prod(shape))], dtype=dtype)
        if self.kind == "strided":
            return flat.reshape(shape[::-1]).permute(list(range(len(shape)))[::-1])
        return flat.reshape(shape)


def answers(overload: str, wanted: Collection[str]) -> dict[str, Answer]:
    """What the calls with these labels give. Raises AssertionError for one that writes into its arguments."""
    name, _, which = overload.removeprefix("aten::").partition(".")
    function = getattr(getattr(torch.ops.aten, name), which or "default")
    found: dict[str, Answer] = {}
    for label, args, kwargs in calls(overload):
        if label in wanted:
            tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
            before = [tensor.clone() for tensor in tensors]
            try:
                found[label] = function(*args, **kwargs)
            except Exception as error:  # an input that the operator does not take
                found[label] = f"raises {type(error).__name__}: {str(error).splitlines()[0][:200]}"
            unchanged = [((one == other) | one.isnan()).all() for one, other in zip(tensors, before, strict=True)]
            assert all(unchanged), f"{overload} {label} writes into its arguments"
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with torch.no_grad():
        asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        torch.save({overload: answers(overload, labels) for overload, labels in asked.items()}, sys.argv[2])
