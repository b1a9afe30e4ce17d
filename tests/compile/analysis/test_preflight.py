"""What stands in a model's way: each kind of finding, wherever in the model it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import equal, nn

from compile.analysis.preflight import ACCEPTABLE, of_module, require
from compile.analysis.variant import AnalyzedVariant, analyzed, examined
from compile.definition import GraphDefinition, GraphVariant
from compile.errors import CompileError
from compile.ir.flat_module import flat_module
from compile.lowering.config import ALL
from compile.progress import Silent

X = torch.linspace(-1, 1, 12).reshape(3, 4)


class Subclass(torch.Tensor):
    """A tensor with code of its own."""


def meta() -> nn.Module:
    return nn.Linear(4, 4, device="meta")


def with_attribute(name: str, value: Any) -> nn.Module:
    part = nn.Linear(4, 4)
    part.register_buffer(name, value)
    return part


def hooked() -> nn.Module:
    part = nn.Linear(4, 4)
    part.register_forward_hook(lambda _module, _given, answered: answered + 1)
    return part


def quantized() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear})


IN_A_MODULE: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "scripted": ("torchscript", lambda: torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))),
    "traced": ("torchscript", lambda: torch.jit.trace(nn.Linear(4, 4), X)),
    "quantized": ("quantized", quantized),
    "lazy": ("lazy", lambda: nn.LazyLinear(4)),
    "meta": ("meta", meta),
    "training": ("training", lambda: nn.Dropout(0.5).train()),
    "data parallel": ("wrapper", lambda: nn.DataParallel(nn.Linear(4, 4))),
    "a subclass of tensors": ("tensor-subclass", lambda: with_attribute("own", torch.ones(2).as_subclass(Subclass))),
    "sparse": ("layout", lambda: with_attribute("sparse", torch.eye(3).to_sparse())),
    "half": ("dtype", lambda: with_attribute("reduced", torch.ones(2, dtype=torch.float16))),
    "a hook": ("hook", hooked),
}


def around(part: nn.Module, depth: int) -> nn.Module:
    """The part inside containers, in evaluation mode but for itself."""
    for level in range(depth):
        part = nn.Sequential(nn.Identity().eval(), part) if level % 2 else nn.ModuleDict({"part": part})
        part.training = False
    return part


@pytest.mark.parametrize("name", IN_A_MODULE)
@pytest.mark.parametrize("depth", [0, 3])
def test_each_kind_is_found_with_its_path(name: str, depth: int) -> None:
    kind, make = IN_A_MODULE[name]
    part = make()
    part = part if kind == "training" or isinstance(part, torch.jit.ScriptModule) else part.eval()
    found = [finding for finding in of_module(around(part, depth)) if finding.kind == kind]
    assert found
    assert all(finding.where.startswith("part.1.part" if depth else "") for finding in found)
    if kind != "hook":
        with pytest.raises(CompileError, match=kind):
            require(found, ACCEPTABLE, "m")


def test_a_plain_model_has_none() -> None:
    assert of_module(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.LSTM(4, 4)).eval()) == []


class Runs(nn.Module):
    """Forward is a function of the module and its input."""

    def __init__(self, forward: Callable[[nn.Module, torch.Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.run = nn.Linear(4, 4), forward
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("window", torch.zeros(3, 4), persistent=False)

    def forward(self, x: torch.Tensor) -> Any:
        return self.run(self, self.layer(x) if x.is_leaf else x)


def kinds(forward: Callable[[Any, torch.Tensor], Any]) -> list[tuple[str, str]]:
    """Kind and place of what one run shows."""
    flat = flat_module(Runs(forward).eval(), {"x": X})
    before = X.clone()
    found = examined(flat, {"x": X})[2]
    assert torch.equal(X, before)
    return [(finding.kind, finding.where.rpartition("/")[2].partition(":")[0]) for finding in found]


HERE = "test_preflight.py"


def assigns(module: Any, x: torch.Tensor) -> torch.Tensor:
    module.count = module.count + 1
    return x * module.count


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (lambda _, x: x.relu(), []),
        (lambda _, x: x * 2 if x.sum() > 0 else x, [("data-dependent", HERE)]),
        (lambda _, x: x * x.max().item(), [("data-dependent", HERE)]),
        (lambda _, x: x[:, : int(x.argmax())], [("data-dependent", HERE)]),
        (lambda _, x: torch.stack([x[:, n] for n in x.argmax(1).tolist()]), [("data-dependent", HERE)]),
        (lambda _, x: torch.from_numpy(x.numpy() + 1) + x, [("data-dependent", HERE)]),
        (lambda _, x: x * 2 if x.equal(x.abs()) else x, [("data-dependent", HERE)]),
        (lambda _, x: x * abs(complex(x.sum())), [("data-dependent", HERE)]),
        (lambda _, x: x + (x > 0).nonzero().shape[0], [("data-dependent", HERE)]),
        (lambda _, x: x + x.round().unique().numel(), [("data-dependent", HERE)]),
        (lambda _, x: x / x[x > 0].shape[0], [("data-dependent", HERE)]),
        (lambda _, x: x * 2 if torch.equal(x, x.abs()) else x, [("data-dependent", HERE)]),
        (lambda m, x: x * 2 if torch.equal(m.window, x) else x, [("data-dependent", HERE)]),
        (lambda _, x: x * 2 if torch.allclose(input=x.abs(), other=x) else x, [("data-dependent", HERE)]),
        (lambda _, x: x * 2 if torch.is_nonzero(x.argmax()) else x, [("data-dependent", HERE)]),
        (lambda _, x: x * 2 if equal(x, x.abs()) else x, [("data-dependent", HERE)]),
        (lambda m, x: x * 2 if torch.equal(m.window, m.window.abs()) else x, []),
        (lambda _, x: x + torch.from_dlpack(x.detach().abs()), [("data-dependent", HERE)]),
        (lambda _, x: x / len(x[x > 0]), [("data-dependent", HERE)]),
        (lambda _, x: x / len(x[x.sum(1) > 0].relu() + 1), [("data-dependent", HERE)]),
        (lambda _, x: x + len((x > 0).nonzero()), [("data-dependent", HERE)]),
        (lambda _, x: x + len(x.round().unique()), [("data-dependent", HERE)]),
        (lambda _, x: x * 2 if x[x > 0].numel() > 3 else x, [("data-dependent", HERE)]),
        (lambda _, x: x * 2 if x[x > 0].shape[0] > 3 else x, [("data-dependent", HERE)]),
        (lambda _, x: x * 2 if x.numel() > 3 and x[:, 1:].shape[0] > 1 else x, []),
        (lambda _, x: x * 2 if x[x > 0].dim() == 1 else x, []),
        (lambda _, x: x + len(x[x > 0].sum() + x) + len(x[:, 1:]) + len(x[torch.arange(2)]), []),
        (lambda m, x: x + len(m.window[torch.ones_like(m.window, dtype=torch.bool)]), []),
        (lambda _, x: x + x[x > 0].sum(), []),
        (lambda _, x: x + x.shape[0] * x[:, 1:].numel(), []),
        (lambda m, x: x + m.count.add_(1), [("state", "count")]),
        (lambda m, x: m.window.copy_(x) * 2, [("state", "window")]),
        (assigns, [("state", "count")]),
    ],
)
def test_what_a_run_shows(forward: Any, expected: list[tuple[str, str]]) -> None:
    assert kinds(forward) == expected


class Writes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.clamp_(0, 1)
        return x * 2


def test_an_input_that_is_written_is_noted_and_stays_as_it_was() -> None:
    before = X.clone()
    found = examined(flat_module(Writes().eval(), {"x": X}), {"x": X})[2]
    assert [(finding.kind, finding.where) for finding in found] == [("input-written", "x")]
    assert torch.equal(X, before)
    require(found, (), "m")


def test_a_spec_accepts_kinds_by_name() -> None:
    found = examined(flat_module(Runs(lambda _, x: x if x.sum() > 0 else -x).eval(), {"x": X}), {"x": X})[2]
    with pytest.raises(CompileError, match=r"findings: \[data-dependent\]"):
        require(found, ("float64",), "m")
    require(found, ("data-dependent",), "m")


class Deep(nn.Module):
    """A function of x two modules deep, beside a look-up that Inf1 leaves to the host."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], *, of_ids: bool) -> None:
        super().__init__()
        self.table, self.of_ids = nn.Embedding(9, 4), of_ids
        self.head = nn.Sequential(nn.Linear(4, 4), Runs(lambda _, x: function(x)))

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> Any:
        ids = self.head[1].run(None, ids) if self.of_ids else ids
        return self.head[0](x) + self.table(ids) if self.of_ids else self.head(x + self.table(ids))


def lowered(function: Callable[[torch.Tensor], torch.Tensor], target: str, *, of_ids: bool = False) -> AnalyzedVariant:
    def references(_bucket: Any, _batch: int) -> list[dict[str, torch.Tensor]]:
        generators = [torch.Generator().manual_seed(seed) for seed in range(5)]
        ids = torch.tensor([1, 2, 3])
        return [{"x": torch.randn(3, 4, generator=one), "ids": ids} for one in generators]

    module = Deep(function, of_ids=of_ids).eval()
    graph = GraphDefinition(module, lambda bucket, batch: references(bucket, batch)[0], references)
    return analyzed(GraphVariant("main", {"size": 4}, 3), graph, target, ALL, (), Silent())


SIZED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "index": lambda x: x + x[x > 0].sum(),
    "index ": lambda x: x + x[:, x[0] > 0].sum(),  # beside another index
    "masked_select": lambda x: x + x.masked_select(x > 0).mean(),
    "nonzero": lambda x: x + (x > 0).nonzero().sum(),
    "nonzero_numpy": lambda x: x + x[(x > 0).nonzero(as_tuple=True)].sum(),
    "where": lambda x: x + torch.where(x > 0)[0].sum(),
    "argwhere": lambda x: x + torch.argwhere(x > 0).sum(),
    "_unique2": lambda x: x + x.round().unique().sum(),
    "unique_consecutive": lambda x: x + torch.unique_consecutive(x.sign()).sum(),
    "bincount": lambda x: x + torch.bincount((x.flatten() > 0).long(), minlength=2).max(),
    "repeat_interleave": lambda x: x + x.repeat_interleave((x[:, 0] > 0).long() + 1, 0).sum(),
    "one_hot": lambda x: x + nn.functional.one_hot(x.argmax(1)).sum(),
    "tensor_split": lambda x: x + torch.tensor_split(x, (x[0, :1] > 0).long() + 1)[0].sum(),
}


@pytest.mark.parametrize("target", ["inf1", "inf2"])
@pytest.mark.parametrize("kind", SIZED)
def test_what_data_decides_the_size_of_is_named_with_module_and_line(kind: str, target: str) -> None:
    with pytest.raises(CompileError) as refused:
        lowered(SIZED[kind], target)
    (line,) = [line for line in refused.value.problem.splitlines() if "data-sized, " in line]
    assert f"data-sized, head.1, tests/compile/analysis/{HERE}:" in line
    assert f": aten::{kind.strip()} makes as many entries as the data says" in line
    assert "torch.where" in refused.value.remedy


def test_it_is_named_in_the_host_part_as_well() -> None:
    with pytest.raises(CompileError, match=rf"data-sized, .*{HERE}:\d+: aten::index"):
        lowered(lambda ids: ids + ids[ids > 1].sum().clamp(max=2), "inf1", of_ids=True)


def add_where(x: torch.Tensor) -> torch.Tensor:
    y = x * 1
    y[x > 1] += 5
    return y


def fill_where(x: torch.Tensor) -> torch.Tensor:
    y = x * 1
    y[y < 0] = 0
    y[x > 1] += 5
    y[torch.arange(x.shape[0]), 1] = 3.0
    y[x.sum(1) > 0] *= 2
    return torch.where(y > 2, y, torch.tensor(-1.0)).masked_fill(x > 0, 0.5)


SIZE_KEPT: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "add": add_where,
    "fill": fill_where,
    "one_hot": lambda x: x + nn.functional.one_hot(x.argmax(1), 4),
    "repeats": lambda x: x + x.repeat_interleave(torch.tensor([1, 2, 3]), 0).sum(),
    "a constant mask": lambda x: x + x[:, torch.tensor([True, False, True, False])].sum(),
}


@pytest.mark.parametrize("target", ["inf1", "inf2"])
@pytest.mark.parametrize("name", SIZE_KEPT)
def test_what_keeps_its_size_is_none(name: str, target: str) -> None:
    found = lowered(SIZE_KEPT[name], target)
    assert found.findings == []
    assert "aten::index" not in found.report.operators
