"""Every item's answer is its own: modules that keep items apart, and modules that do not, at every place of a nest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compile.definition import GraphDefinition, GraphVariant, Inputs, ModelDefinition
from compile.errors import CompileError
from compile.ir.flat_module import described, flat_module
from compile.verification.items import (
    Items,
    padding_problems,
    remembering,
    require_own_answers,
    try_artifact,
    try_original,
    try_padding,
)
from compile.verification.parity import compare, run

FEATURES, STEPS = 6, 3


class Recurrent(nn.Module):
    """The state of an LSTM or GRU: its items are along the second axis, and the first can be as long as the batch."""

    def __init__(self, cell: type[nn.RNNBase], layers: int, both: bool) -> None:
        super().__init__()
        self.cell = cell(FEATURES, 4, layers, batch_first=True, bidirectional=both)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = self.cell(x)[1]
        return state[0] if isinstance(state, tuple) else state


class Function(nn.Module):
    """A layer, then a function of x [batch, steps, features]."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(FEATURES, FEATURES), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.layer(x))


class Statistics(nn.Module):
    """Batch normalisation by the statistics of this very batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(STEPS, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


class AcrossBatch(nn.Module):
    """Attention whose sequence axis is the batch: batch_first forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(FEATURES, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


# With the axis that counts the items.
OWN: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "lstm, 2 layers, both": (lambda: Recurrent(nn.LSTM, 2, True), 1),
    "gru, 3 layers": (lambda: Recurrent(nn.GRU, 3, False), 1),
    "rnn": (lambda: Recurrent(nn.RNN, 1, False), 1),
    "linear": (lambda: Function(lambda x: x), 0),
    "one number": (lambda: Function(lambda x: x.sum((1, 2))), 0),
    "batch last": (lambda: Function(lambda x: x.permute(1, 2, 0)), 2),
    "batch second": (lambda: Function(lambda x: x.transpose(0, 1)), 1),
    "attention over time": (lambda: Function(lambda x: torch.softmax(x @ x.transpose(1, 2), -1) @ x), 0),
    "whole numbers": (lambda: Function(lambda x: x.argmax(-1)), 0),
    "booleans": (lambda: Function(lambda x: x > 0), 0),
    "infinite": (lambda: Function(lambda x: x.masked_fill(x < 0, float("-inf"))), 0),
    "squeezed": (lambda: Function(lambda x: x.sum(1).squeeze()), 0),
}
MIXING: dict[str, Callable[[], nn.Module]] = {
    "batch statistics": Statistics,
    "attention over the batch": AcrossBatch,
    "softmax": lambda: Function(lambda x: x.softmax(0)),
    "sum so far": lambda: Function(lambda x: x.cumsum(0)),
    "less the mean": lambda: Function(lambda x: x - x.mean(0)),
    "share of the largest": lambda: Function(lambda x: x / x.abs().max()),
    "sorted": lambda: Function(lambda x: x.sort(0).values),
    "upside down": lambda: Function(lambda x: x.flip(0)),
    "shifted": lambda: Function(lambda x: x.roll(1, 0)),
    "only the last two": lambda: Function(
        lambda x: torch.cat([x[:-2], x[-2:].mean(0, keepdim=True).expand(2, -1, -1)])
    ),
    "a scalar": lambda: Function(lambda x: x.mean()),
    "a mean": lambda: Function(lambda x: x.mean(0)),
    "a matrix of pairs": lambda: Function(lambda x: x.flatten(1) @ x.flatten(1).T),
    "folded into steps": lambda: Function(lambda x: x.flatten(0, 1)),
    "one of all": lambda: Function(lambda x: x.flatten().argmax()),
    "a position": lambda: Function(lambda x: x + torch.arange(len(x)).view(-1, 1, 1)),
    "a number in it": lambda: Function(lambda x: x * float(x.abs().max())),
}


class Nest(nn.Module):
    """Several of them in a ragged nest."""

    def __init__(self, parts: Sequence[nn.Module], shape: Callable[[list[Any]], Any]) -> None:
        super().__init__()
        self.parts, self.shape = nn.ModuleList(parts), shape

    def forward(self, x: torch.Tensor) -> Any:
        return self.shape([part(x) for part in self.parts])


NESTS: list[Callable[[list[Any]], Any]] = [
    lambda values: {f"part{index}": value for index, value in enumerate(values)},
    lambda values: [values[0], tuple(values[1:]), None] if values[1:] else values,
    lambda values: {"first": values[0], "rest": {"deep": values[1:]}} if values[1:] else {"only": values},
]


def references(batch: int) -> list[Inputs]:
    """Six, of items that all differ."""
    return [
        {"x": torch.randn(batch, STEPS, FEATURES, generator=torch.Generator().manual_seed(seed))} for seed in range(6)
    ]


def tried(module: nn.Module, batch: int, shared: Sequence[str] = ()) -> Items:
    """As a build tries them: the original, then the traced graph."""
    flat = flat_module(module.eval(), references(batch)[0])
    signature, first = described(flat, references(batch)[0])
    names = [output.name for output in signature.outputs]
    items, exact = try_original(flat, references(batch), names, first, shared)
    if not items.problems:
        traced, together = remembering(torch.jit.trace(flat, tuple(references(batch)[0].values()), check_trace=False))
        parity = compare(flat, traced, references(batch), names, seen=first, exact=exact)
        assert parity.passed
        try_artifact(traced, references(batch)[0], together, items, parity.bounds)
    return items


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(list(OWN)), min_size=1, max_size=3), st.sampled_from(NESTS), st.integers(1, 5))
def test_what_keeps_items_apart_passes_with_its_axis(kinds: list[str], nest: Any, batch: int) -> None:
    torch.manual_seed(len(kinds))
    items = tried(Nest([OWN[kind][0]() for kind in kinds], nest), batch)
    assert items.problems == []
    if batch > 1:
        assert [output.axis for output in items.outputs] == [OWN[kind][1] for kind in kinds]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(list(OWN)), max_size=2),
    st.sampled_from(list(MIXING)),
    st.integers(0, 2),
    st.sampled_from(NESTS),
    st.integers(2, 5),
)
def test_what_mixes_items_is_found_wherever_it_is(
    kinds: list[str], mixing: str, place: int, nest: Any, batch: int
) -> None:
    torch.manual_seed(place)
    parts = [OWN[kind][0]() for kind in kinds]
    place = min(place, len(parts))
    parts.insert(place, MIXING[mixing]())
    items = tried(Nest(parts, nest), batch)
    assert [index for index, output in enumerate(items.outputs) if output.problem] == [place]


@pytest.mark.parametrize("mixing", MIXING)
@pytest.mark.parametrize("batch", [2, 4])
def test_each_that_mixes_is_refused_with_the_remedy(mixing: str, batch: int) -> None:
    torch.manual_seed(0)
    with pytest.raises(CompileError, match=r"main: output output .*\n.*batch_sizes: \[1\]"):
        require_own_answers("main", tried(MIXING[mixing](), batch))


@pytest.mark.parametrize("mixing", sorted(set(MIXING) - {"a number in it"}))
def test_a_batch_of_one_mixes_nothing(mixing: str) -> None:
    assert tried(MIXING[mixing](), 1).problems == []


class WithAnchors(nn.Module):
    """Boxes for each item, and anchors that are the same for all: as many as items."""

    def __init__(self, batch: int, *, moved: bool = False) -> None:
        super().__init__()
        self.layer, self.moved = nn.Linear(FEATURES, 4), moved
        self.register_buffer("anchors", torch.rand(batch, 4))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"boxes": self.layer(x), "anchors": self.anchors + (x.mean() if self.moved else 0)}


def test_what_no_item_owns_must_be_named() -> None:
    (problem,) = tried(WithAnchors(3), 3).problems
    assert problem.startswith("output anchors [3, 4] has no axis that counts the items")
    assert 'shared_outputs=("anchors",)' in problem
    items = tried(WithAnchors(3), 3, shared=("anchors",))
    assert (items.problems, [output.axis for output in items.outputs]) == ([], [0, None])


def test_what_is_called_shared_must_be_the_same_for_all() -> None:
    (problem,) = tried(WithAnchors(3, moved=True), 3, shared=("anchors",)).problems
    assert problem.startswith("output anchors an item among other items differs")
    (problem,) = tried(WithAnchors(3), 3, shared=("anchors", "boxes")).problems
    assert "shape follows the batch" in problem


def test_a_shared_output_that_is_none_is_named() -> None:
    with pytest.raises(CompileError, match=r"shared_outputs names anchor, .*\n.*outputs are boxes, anchors"):
        tried(WithAnchors(1), 1, shared=("anchor",))


class OneSize(nn.Module):
    """Runs for four items only, as a traced module of others does."""

    def __init__(self, *, mixes: bool) -> None:
        super().__init__()
        self.layer, self.mixes = nn.Linear(FEATURES, 2), mixes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.layer(x).reshape(4, STEPS * 2)
        return found - found.mean(0) if self.mixes else found


def test_a_model_of_one_batch_size_is_tried_filled_up() -> None:
    items = tried(OneSize(mixes=False), 4)
    assert (items.problems, items.outputs[0].axis) == ([], 0)
    assert items.notes[0].startswith("the model runs at batch size 4 only")
    assert tried(OneSize(mixes=True), 4).problems


class Counting(nn.Module):
    """Counts the items that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, 2)
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        return self.layer(x)


@pytest.mark.parametrize("batch", [2, 4])
def test_the_proof_takes_two_batches_of_the_graph(batch: int) -> None:
    module = Counting()
    names, given = ["output"], references(batch)
    flat = flat_module(module, given[0])
    artifact, together = remembering(flat)
    with torch.no_grad():
        first = artifact(given[0]["x"])
    items, _ = try_original(flat, given, names, first)
    parity = compare(flat, flat, given, names)
    module.seen.clear()
    try_artifact(artifact, given[0], together, items, parity.bounds)
    assert sum(module.seen) == 2 * batch


class Texts(nn.Module):
    """Attention over tokens; `masked` says whether what fills a text up is left out."""

    def __init__(self, *, masked: bool) -> None:
        super().__init__()
        self.words, self.attention = nn.Embedding(50, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.masked = masked

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        x, hidden = self.words(ids), mask == 0
        x = self.attention(x, x, x, key_padding_mask=hidden if self.masked else None, need_weights=False)[0]
        kept = mask.unsqueeze(-1).to(x.dtype) if self.masked else torch.ones_like(x[..., :1])
        return {"tokens": x, "mean": (x * kept).sum(1) / kept.sum(1)}


def texts(bucket: Any, batch: int, seed: int = 1) -> Inputs:
    """Whole texts of the bucket's length."""
    shape = (batch, bucket["tokens"])
    ids = torch.randint(1, 50, shape, generator=torch.Generator().manual_seed(seed))
    return {"ids": ids, "mask": torch.ones(shape, dtype=torch.int64)}


def padded(module: nn.Module, allowed: float | None, batch: int) -> tuple[Items, list[str]]:
    """A definition whose texts are filled up, tried as a build does."""
    torch.manual_seed(3)
    graph = GraphDefinition(module.eval(), texts, lambda bucket, batch: [texts(bucket, batch, n) for n in range(5)])
    settings = {"padding": {"ids": 0, "mask": 0}}
    definition = ModelDefinition({"main": graph}, [{"tokens": 12}], task="tensor", task_settings=settings)
    variant = GraphVariant("main", {"tokens": 12}, batch)
    given = graph.reference_inputs(variant.bucket, batch)
    flat = flat_module(module, given[0])
    names = ["tokens", "mean"]
    first = run(flat, given[0].values())
    items, exact = try_original(flat, given, names, first)
    parity = compare(flat, flat, given, names, seen=first, exact=exact)
    try_padding(flat, definition, variant, items)
    return items, padding_problems(items, parity.outputs, allowed)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_masked_text_is_not_moved_by_what_fills_it_up(batch: int) -> None:
    items, problems = padded(Texts(masked=True), None, batch)
    assert problems == items.problems == []
    assert all(output.padding is not None and output.padding < 1e-6 for output in items.outputs)
    assert items.notes == ["an item of {'tokens': 6} was tried, filled up to {'tokens': 12}"]


def test_one_that_is_not_masked_is_refused_unless_that_much_is_allowed() -> None:
    _, problems = padded(Texts(masked=False), None, 2)
    assert [problem.partition(" of an item that is filled up")[0] for problem in problems] == [
        "output tokens",
        "output mean",
    ]
    assert "compile.accept.padding" in problems[0]
    assert padded(Texts(masked=False), 10.0, 2)[1] == []
    assert padded(Texts(masked=False), 1e-4, 2)[1]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: [*x], r"returns 3 tensors .*, and 1 for one item alone"),
        (lambda x: x[x.sum((1, 2)) > 0], r"its shape follows the data|no axis"),
    ],
)
def test_what_follows_the_batch_or_the_data_is_named(function: Callable[[torch.Tensor], Any], message: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(CompileError, match=message):
        require_own_answers("main", tried(Function(function), 3))


class CastsItself(nn.Module):
    """Casts its input to float32, so that its weights in float64 do not fit: a ValueError."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(FEATURES, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cell(x.float())[0]


def test_a_model_that_does_not_run_in_float64_is_tried_in_float32() -> None:
    items = tried(CastsItself(), 3)
    assert items.problems == []
    assert items.notes[0].startswith("items were compared in float32")
