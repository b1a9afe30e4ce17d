"""The host prologue: the same outputs, a device part that is whole, and a choice for each table with both costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compile.analysis import analyze
from compile.lowering import Budget, Prologue, lower, split
from tests.compile.lowering.checks import distance, whole

NO_PRODUCTS = Budget(flops=0)


class Reader(nn.Module):
    """Rows of one table at indices computed from ids, through a dense layer."""

    def __init__(self, rows: int = 40, width: int = 8, **options: Any) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, width, **options)
        self.dense = nn.Linear(width, width)
        self.eval()

    def index(self, ids: Tensor) -> Tensor:
        return ids

    def forward(self, ids: Tensor) -> Any:
        return torch.relu(self.dense(self.table(self.index(ids))))


def parted(module: nn.Module, *inputs: Tensor, budget: Budget | None = None) -> Prologue:
    """Lowered and split; equal on the example, eagerly and traced, with a device part of supported operators."""
    lowered = lower(module, inputs).module
    found = split(lowered, inputs, budget)
    assert found.host is not None, found.report.notes
    assert same(found, module, *inputs)
    assert whole(found.device, found.device_inputs)
    report = analyze(found.device, found.device_inputs)
    assert report.safe is not None
    assert report.safe.subgraphs == 1
    assert len(found.report.dense) == len(found.device_inputs)
    return found


def same(found: Prologue, module: nn.Module, *inputs: Tensor) -> bool:
    """Whether both parts together give exactly what the module gives, eagerly and traced."""
    with torch.no_grad():
        expected = module(*inputs)
        traced = torch.jit.trace(found.whole, inputs, check_trace=False)
        results = (found.whole(*inputs), traced(*inputs))
    if isinstance(expected, Tensor):
        return all(isinstance(result, Tensor) and torch.equal(result, expected) for result in results)
    return all(
        len(result) == len(expected) and all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))
        for result in results
    )


class Positions(Reader):
    """RoBERTa's: numbers of the tokens that are no padding."""

    def index(self, ids: Tensor) -> Tensor:
        mask = ids.ne(1).int()
        return (torch.cumsum(mask, 1).type_as(mask) * mask).long() + 1


class Hashed(Reader):
    """Ids folded into a smaller table."""

    def index(self, ids: Tensor) -> Tensor:
        return torch.remainder(ids * 31 + 7, self.table.num_embeddings)


class Clamped(Reader):
    """Whole numbers compared and chosen."""

    def index(self, ids: Tensor) -> Tensor:
        return torch.where(ids > 10, ids - 10, torch.zeros_like(ids)).clamp(max=self.table.num_embeddings - 1)


@pytest.mark.parametrize("kind", [Reader, Positions, Hashed, Clamped])
@settings(max_examples=4, deadline=None)
@given(batch=st.integers(1, 3), length=st.integers(1, 9), seed=st.integers(0, 99), product=st.booleans())
def test_index_arithmetic_goes_to_the_host(
    kind: type[Reader], batch: int, length: int, seed: int, product: bool
) -> None:
    torch.manual_seed(seed)
    module = kind(rows=20, width=32 if product else 8)
    ids = torch.randint(0, 20, (2, batch, length))
    found = parted(module, ids[0])
    assert [table.choice for table in found.report.tables] == ["product" if product else "host"]
    assert same(found, module, ids[1])
    assert not {"aten::cumsum", "aten::remainder", "aten::embedding"} & set(
        analyze(found.device, found.device_inputs).operators
    )


@pytest.mark.parametrize("budget", [Budget(), NO_PRODUCTS])
def test_the_padding_row_is_a_row_like_any_other(budget: Budget) -> None:
    module = Reader(rows=5, width=16, padding_idx=2)
    ids = torch.tensor([[0, 2, 4, 2]])
    found = parted(module, ids, budget=budget)
    assert found.report.tables[0].choice == ("product" if budget.flops else "host")
    assert same(found, module, torch.tensor([[2, 2, 1, 3]]))


class Tied(Reader):
    """The table is the output layer too."""

    def forward(self, ids: Tensor) -> Any:
        return nn.functional.linear(self.dense(self.table(ids)), self.table.weight)


def test_a_tied_table_is_read_by_both_parts() -> None:
    module = Tied(rows=40, width=8)
    ids = torch.randint(0, 40, (1, 6))
    found = parted(module, ids)
    (table,) = found.report.tables
    assert (table.name, table.choice, table.shared) == ("table", "host", True)
    assert found.host is not None
    (on_host,), on_device = list(found.host.parameters()), list(found.device.parameters())
    assert any(on_host is parameter for parameter in on_device)  # held once


class Twice(Reader):
    """One table, two look-ups."""

    def forward(self, ids: Tensor, others: Tensor) -> Any:
        return torch.cat([self.dense(self.table(ids)), self.table(others) * 2], 1), others


@pytest.mark.parametrize(("width", "choice"), [(8, "host"), (64, "product")])
def test_a_table_of_two_look_ups_is_chosen_once(width: int, choice: str) -> None:
    module = Twice(rows=20, width=width)
    ids = torch.randint(0, 20, (3, 1, 6))
    found = parted(module, ids[0], ids[1][:, :4])
    (table,) = found.report.tables
    assert (table.look_ups, table.positions, table.choice) == (2, 10, choice)
    assert table.product_flops == 2 * 10 * 20 * width
    assert (table.product_bytes, table.host_bytes) == (10 * 20 * 4, 10 * width * 4)
    assert found.report.crossing_bytes == 10 * 4 * min(20, width)
    assert same(found, module, ids[1], ids[2][:, :4])


class Bag(nn.Module):
    """Summed or averaged rows, two-dimensional or with offsets."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(6, 32, mode=mode)
        self.dense = nn.Linear(32, 3)
        self.eval()

    def forward(self, ids: Tensor, *offsets: Tensor) -> Any:
        return torch.relu(self.dense(self.bag(ids, *offsets)))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("with_offsets", [False, True])
def test_bags_stay_on_the_host(mode: str, with_offsets: bool) -> None:
    module = Bag(mode)
    ids = torch.randint(0, 6, (2, 12))
    rest = (torch.tensor([0, 3, 4]),) if with_offsets else ()
    first, second = (ids[0], ids[1]) if with_offsets else (ids[0].reshape(3, 4), ids[1].reshape(3, 4))
    found = parted(module, first, *rest)
    assert [(table.choice, table.sums, table.rows) for table in found.report.tables] == [("host", True, 6)]
    assert same(found, module, second, *(torch.tensor([0, 0, 9]) for _ in rest))


def test_an_index_outside_of_the_table_is_an_error_as_in_the_original() -> None:
    for width in (8, 64):
        found = parted(Reader(rows=20, width=width), torch.zeros(1, 4, dtype=torch.long))
        with pytest.raises((IndexError, RuntimeError)):
            found.whole(torch.full((1, 4), 20))


def test_a_table_that_is_not_finite_is_no_product() -> None:
    module = Reader(rows=4, width=32)
    with torch.no_grad():
        module.table.weight[3] = float("inf")
    found = parted(module, torch.tensor([[0, 1]]))
    assert found.report.tables[0].choice == "host"
    assert "not finite" in found.report.tables[0].reason


class Many(nn.Module):
    """Tables of several sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(rows, 64) for rows in (4, 8, 16, 500))
        self.eval()

    def forward(self, ids: Tensor) -> Any:
        return torch.relu(torch.cat([table(ids[:, number]) for number, table in enumerate(self.tables)], 1))


@pytest.mark.parametrize(
    ("budget", "choices"),
    [
        (Budget(), ["product", "product", "product", "host"]),
        (Budget(flops=2 * 64 * (4 + 8)), ["product", "product", "host", "host"]),
        (Budget(bytes=4 * 64 * 4), ["product", "host", "host", "host"]),
        (NO_PRODUCTS, ["host"] * 4),
    ],
)
def test_the_budget_decides(budget: Budget, choices: list[str]) -> None:
    found = parted(Many(), torch.tensor([[1, 2, 3, 4]]), budget=budget)
    assert [table.choice for table in found.report.tables] == choices
    assert all(table.reason for table in found.report.tables)
    assert all({"product_flops", "product_bytes", "host_bytes"} <= set(row) for row in found.report.to_json()["tables"])


class Masked(Reader):
    """A mask of whole numbers and one of booleans, and an output that only the host makes."""

    def forward(self, ids: Tensor, mask: Tensor) -> Any:
        rows = self.dense(self.table(ids)).masked_fill((ids == 3).unsqueeze(-1), 0.5)
        return rows * (1.0 - mask.to(rows.dtype)).unsqueeze(-1), mask.float(), ids


def test_only_dense_tensors_cross() -> None:
    module = Masked()
    ids, mask = torch.randint(0, 9, (2, 6)), torch.randint(0, 2, (2, 6))
    found = parted(module, ids, mask)
    assert {tensor.dtype for tensor in found.device_inputs} == {torch.float32}
    assert same(found, module, ids + 2, 1 - mask)


class Decoder(Reader):
    """Its second look-up reads what the first one led to."""

    def forward(self, ids: Tensor) -> Any:
        return self.table(self.dense(self.table(ids)).argmax(-1) * 2)


def test_indices_that_the_device_makes_are_compared_there_as_whole_numbers() -> None:
    module = Decoder(rows=300, width=8)
    ids = torch.randint(0, 300, (2, 1, 5))
    found = parted(module, ids[0])
    assert same(found, module, ids[1])
    assert any("one-hot product on the device" in note for note in found.report.notes)


class Codes(nn.Module):
    """Each position's nearest row of a codebook: no index is known before the device."""

    def __init__(self, single: bool) -> None:
        super().__init__()
        self.table, self.single = nn.Embedding(30, 8), single

    def forward(self, x: Tensor) -> Any:
        near = self.table(torch.cdist(x, self.table.weight).argmin(-1))
        return near if self.single else (x - near, near)


@pytest.mark.parametrize("single", [True, False])
def test_a_table_that_only_the_device_reads_needs_no_host_part(single: bool) -> None:
    module, x = Codes(single).eval(), torch.randn(2, 5, 8)
    found = split(lower(module, (x,)).module, (x,))
    assert found.host is None
    assert same(found, module, x)
    assert same(found, module, torch.randn(2, 5, 8))
    assert whole(found.device, found.device_inputs)


class Plain(nn.Module):
    """No whole numbers at all."""

    def forward(self, x: Tensor) -> Any:
        return torch.relu(x) * 2


class OnlyTable(nn.Module):
    """Nothing is left for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 4)

    def forward(self, ids: Tensor) -> Any:
        return self.table(ids)


class Writing(Reader):
    """max_norm changes the table while it is read."""

    def __init__(self) -> None:
        super().__init__(max_norm=1.0)


@pytest.mark.parametrize(
    ("module", "example", "note"),
    [
        (Plain(), torch.ones(1, 3), ""),
        (OnlyTable(), torch.ones(1, 3, dtype=torch.long), "everything belongs on the host"),
        (Writing(), torch.ones(1, 3, dtype=torch.long), "writing into what both parts may see"),
    ],
)
def test_what_cannot_be_split_stays_whole_and_says_so(module: nn.Module, example: Tensor, note: str) -> None:
    lowered = lower(module.eval(), (example,)).module
    found = split(lowered, (example,))
    assert found.host is None
    assert found.device is found.whole is lowered
    assert note in " ".join(found.report.notes)


class Encoded(nn.Module):
    """The hidden states of a network of transformers."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, ids: Tensor, mask: Tensor) -> Any:
        return self.model(input_ids=ids, attention_mask=mask)[0]


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("MPNet", SMALL),
        ("DebertaV2", SMALL | {"relative_attention": True}),
        ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "use_cache": False}),
    ],
)
def test_networks_that_no_family_has(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    configuration = getattr(transformers, f"{name}Config")(vocab_size=99, **options)
    module = Encoded(getattr(transformers, f"{name}Model")(configuration))
    ids = torch.randint(3, 99, (2, 2, 10))
    masks = (torch.arange(10) < torch.tensor([[[10], [6]], [[3], [10]]])).long()
    found = split(lower(module, (ids[0], masks[0])).module, (ids[0], masks[0]))
    report = analyze(found.device, found.device_inputs)
    assert found.host is not None
    assert report.supported == report.total
    assert report.safe is not None
    assert report.safe.subgraphs == 1
    with torch.no_grad():
        assert distance(found.whole(ids[1], masks[1]), module(ids[1], masks[1])) <= 2e-6
