"""Capture: a lowered graph becomes operators that a graph file may hold, or one error names all that it may not."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compile.errors import CompileError
from compile.ir.flat_module import flat_module, signature
from compile.lowering.for_target import flattened, lowered
from compile.portable import capture as capturing
from compile.portable import check
from compile.portable import file as graph_file
from compile.portable.file import GraphFile, TensorEntry
from compile.portable.replay import GraphPart, Ref, Step, ValueType, Wiring
from compile.portable.tensors import TensorStore
from tests.compile.portable.captures import of_family

pytestmark = pytest.mark.skipif(
    torch.__version__.startswith("1."), reason="graphs are captured with the project's torch"
)


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any], layer: nn.Module | None = None) -> None:
        super().__init__()
        self.function, self.layer = function, layer
        self.weight = nn.Parameter(torch.linspace(-1, 1, 6))
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def captured(module: nn.Module, x: Tensor, target_torch: str = "1.13.1") -> GraphFile:
    example = {"x": x}
    flat = flat_module(module, example)
    parts = flattened(lowered(flat, (x,), "inf1"))
    found, store = signature(flat, example), TensorStore()
    entries = [
        [TensorEntry(one.name, ValueType(one.dtype, tuple(one.shape))) for one in some]
        for some in (found.inputs, found.outputs)
    ]
    subject = capturing.Subject("main", {}, len(x), *entries, found.structure)
    assert isinstance(parts.device, GraphPart)
    assert parts.host is None or isinstance(parts.host, GraphPart)
    assert parts.wiring is not None
    variant = capturing.capture(subject, parts.host, parts.device, parts.wiring, (x,), store, target_torch)
    graph = GraphFile({}, (variant,), store.tensors)
    check.require(graph, target_torch)
    with torch.no_grad():
        for one, other in zip(graph.whole(variant)(x), flat(x), strict=True):
            assert torch.equal(one, other)
    return graph


def operators(graph: GraphFile) -> list[str]:
    return [node.operator for node in graph.variants[0].device.nodes]


def test_weights_keep_their_names_and_stay_parameters() -> None:
    graph = captured(Function(lambda own, x: own.layer(x), nn.Linear(6, 6)), torch.randn(2, 6))
    kept = {one.name: one.parameter for one in graph.variants[0].device.state}
    assert kept == {"layer.weight": True, "layer.bias": True}


def test_a_number_of_python_is_a_number_and_what_nothing_reads_is_left_out() -> None:
    def forward(own: Any, x: Tensor) -> Tensor:
        (x * 7).sum()
        return x * 2.5 + own.weight

    (times, _) = captured(Function(forward), torch.randn(2, 6)).variants[0].device.nodes
    assert times.args[1] == 2.5


@pytest.mark.parametrize("cell", [nn.GRUCell(6, 6), nn.LSTMCell(6, 6)])
def test_writes_of_pytorchs_recurrent_cells_become_operators_that_make_new_tensors(cell: nn.Module) -> None:
    found = operators(captured(Function(lambda own, x: own.layer(x), cell), torch.randn(2, 6)))
    assert "aten::sigmoid" in found
    assert not any(name.partition(".")[0].endswith("_") for name in found)


def test_a_cast_that_names_a_device_is_the_cast_alone() -> None:
    def forward(_: Any, x: Tensor) -> Tensor:
        return (x * 2).to("cpu", torch.float64).to(torch.float32) + x.to(torch.device("cpu"))

    assert not any("device" in name for name in operators(captured(Function(forward), torch.randn(2, 6))))


def test_all_that_cannot_be_kept_is_named_at_once_with_its_line() -> None:
    def forward(_: Any, x: Tensor) -> Tensor:
        return x + torch.rand(6) + torch.special.i0(x)

    with pytest.raises(CompileError) as caught:
        captured(Function(forward), torch.randn(2, 6))
    lines = str(caught.value).splitlines()
    assert "cannot be captured for torch 1.13.1" in lines[0]
    here = Path(__file__).name
    assert any("aten::rand" in line and here in line and "draws random numbers" in line for line in lines)
    assert any("i0" in line and here in line for line in lines)


def test_a_write_that_another_value_shows_is_refused() -> None:
    step = torch.ops.aten.add_.Tensor
    x = torch.zeros(4, 6)
    view = x[:, 1:3]
    write = Step("aten::add_", step, (Ref(1), 1.0), {}, (2,))
    assert capturing._functional(write, {0: x, 1: view}, [1], []).function is step
    assert capturing._functional(write, {1: view}, [1], [x]).function is step
    apart = capturing._functional(write, {0: x[:, 3:], 1: view}, [1], [])
    assert apart.function is torch.ops.aten.add.Tensor


def test_intermediates_are_forgotten_after_their_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(own: Any, x: Tensor) -> Tensor:
        for _ in range(20):
            x = (x * own.weight).tanh()
        return x

    made: list[weakref.ref[Tensor]] = []
    alive: list[int] = []
    original = capturing.results

    def results(*given: Any) -> Any:
        alive.append(sum(one() is not None for one in made))
        found = original(*given)
        made.extend(map(weakref.ref, found))
        return found

    monkeypatch.setattr(capturing, "results", results)
    captured(Function(forward), torch.randn(2, 6))
    assert len(made) == 40
    assert max(alive) <= 3


def test_an_operator_that_the_targets_torch_lacks_is_refused() -> None:
    step = Step(
        "aten::squeeze", torch.ops.aten.squeeze.dims, (Ref(0), [1, 2]), {}, (1,), module="head", source="m.py:3"
    )
    part, x = GraphPart([step], [0], [1], {}), torch.zeros(2, 1, 1, 6)
    entries = [TensorEntry("x", ValueType("float32", (2, 1, 1, 6)))], [TensorEntry("y", ValueType("float32", (2, 6)))]
    wiring = Wiring((), (("input", 0),), (("device", 0),), single=False)
    subject = capturing.Subject("main", {}, 2, *entries, {})
    with pytest.raises(
        CompileError, match=r"aten::squeeze.dims in head, m.py:3: torch 1.13.1 has no aten::squeeze.dims"
    ):
        capturing.capture(subject, None, part, wiring, (x,), TensorStore(), "1.13.1")


def test_the_same_graph_has_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        torch.manual_seed(3)
        graph = captured(Function(lambda own, x: own.layer(x).relu(), nn.Linear(6, 6)), torch.ones(2, 6))
        store = TensorStore()
        for tensor in graph.tensors.values():
            store.add(tensor)
        graph_file.write(tmp_path / name, {"name": "one"}, graph.variants, store)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("target", ["inf1", "inf2"])
def test_every_node_of_a_bert_has_the_path_of_its_module(target: str) -> None:
    (graph,), _ = of_family(("bert", "base-uncased"), target)
    nodes = [node for part in (graph.host, graph.device) if part is not None for node in part.nodes]
    assert all(node.module and node.source for node in nodes)
    for layer in ("bert.encoder.layer.0", "bert.encoder.layer.1"):
        within = {node.module.removeprefix(f"{layer}."): node.operator for node in nodes if layer in node.module}
        assert within["attention.self.query"] == within["attention.output.dense"] == "aten::linear"
        # Of the attention function, which a rewrite replaces.
        assert [node.module for node in nodes if node.operator == "aten::softmax.int"].count(
            f"{layer}.attention.self"
        ) == 1
    made = [node for node in nodes if node.operator == "aten::one_hot"]  # by the split, for a table of two rows
    assert [node.module for node in made] == ["bert.embeddings.token_type_embeddings"] * len(made)
    assert bool(made) == (target == "inf1")


class Inner(nn.Module):
    def forward(self, x: Tensor, scale: float) -> Tensor:
        y = functional.silu(x * scale, inplace=True)
        y[:, 1] = 1
        return y


class Outer(nn.Module):
    """One module called twice, and operators of its own around."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"inner": Inner()})
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.block["inner"]
        return inner(torch.tanh(inner(x, 2.0)), 3.0).exp()


def test_what_rewrites_make_has_the_path_of_what_they_replace() -> None:
    nodes = captured(Outer(), torch.randn(2, 4)).variants[0].device.nodes
    assert {node.operator for node in nodes if not node.module} == {"aten::tanh", "aten::exp"}
    assert {node.module for node in nodes} == {"", "block.inner"}
    assert [node.module for node in nodes if node.operator in ("aten::cat", "aten::silu")] == ["block.inner"] * 4


def test_constants_of_the_same_content_are_one_and_can_be_traced() -> None:
    module = Function(lambda self, x: (x - self.mean) / self.spread + torch.where(x > 0, self.mean, self.spread))
    module.register_buffer("mean", torch.full((6,), 0.5))
    module.register_buffer("spread", torch.full((6,), 0.5))
    x = torch.randn(2, 6)
    graph = captured(module, x)
    whole = graph.whole(graph.variants[0])
    traced = torch.jit.trace(whole, (x,), check_trace=False)
    assert torch.equal(traced(x)[0], whole(x)[0])


class Near(nn.Module):
    """Two look-ups at indices that the device makes: each compares with the numbers of all rows."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(9, 6) for _ in range(2)])
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return sum(table((x @ table.weight.T).argmax(-1)) for table in self.tables)


def test_a_literal_is_kept_once() -> None:
    graph = captured(Near(), torch.randn(2, 6))
    names = [one.name for one in graph.variants[0].device.state]
    assert sum(name.startswith("constants.literal") for name in names) == 1
