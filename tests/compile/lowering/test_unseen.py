"""What Python cannot see: scripted functions and modules, cached constants, data in Python; and what is written into
constants."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compile.lowering import LoweringError, load_rewrites, lower
from tests.compile.lowering.checks import agree, distance, kinds, lowered


@torch.jit.script
def scripted(x: Tensor) -> Tensor:
    """Opaque to a function mode."""
    return torch.where(x > 0, x, x * 0.1)


@torch.jit.script_if_tracing
def scripted_if_tracing(x: Tensor, size: int) -> Tensor:
    """A helper that is scripted only in a trace, as VitDet's relative positions are."""
    if x.shape[0] != size:
        x = nn.functional.interpolate(x[None, None], size=(size, x.shape[1]), mode="bilinear")[0, 0]
    return x


def test_script_if_tracing_runs_as_python() -> None:
    table = torch.randn(5, 3)
    result = agree(lambda x: x + scripted_if_tracing(table.to(x.dtype), x.shape[0]), torch.randn(9, 3))
    assert set(kinds(result.module, (torch.randn(9, 3),))) == {"aten::add"}


def test_a_scripted_function_stays_and_is_reported() -> None:
    x = torch.randn(3, 4)
    result = agree(lambda x: scripted(x * 2) + x[:, :1], x)
    assert any("scripted" in note for note in result.report.notes)


def test_a_warm_scripted_function_is_no_constant() -> None:
    """After some calls TorchScript fuses its kernels, which compute past everything that could watch them."""
    curve = torch.jit.script(curved)
    for _ in range(5):
        curve(torch.randn(3, 4))
    x = torch.randn(3, 4)
    result = agree(lambda x: curve(x * 2) + 1, x)
    assert any("scripted" in note for note in result.report.notes)


def curved(x: Tensor, alpha: float = 300.0) -> Tensor:
    """Scripted by the test, so that no other test has called it."""
    return x.div(1 + alpha * x.pow(2))


def test_a_scripted_submodule_stays_and_is_reported() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Hardswish()))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.mish(self.inner(x))

    torch.manual_seed(0)
    module, x, fresh = Outer().eval(), torch.randn(2, 4), torch.randn(2, 4)
    result = lower(module, (x,))
    traced = torch.jit.trace(result.module, (x,), check_trace=False)
    with torch.no_grad():
        assert distance(traced(fresh), module(fresh)) <= 1e-6
    assert any("scripted" in note for note in result.report.notes)
    assert result.report.applied["activations"] == 1


def test_cached_constants_stay_constants() -> None:
    @functools.lru_cache(maxsize=1)
    def positions(length: int) -> Tensor:
        return torch.arange(length).flip(0)

    positions(6)  # made before, unseen by any recorder
    x = torch.randn(6, 2)
    result = agree(lambda x: x[positions(x.shape[0])], x, rewrite="indexed_reads")
    assert set(kinds(result.module, (x,))) <= {"aten::index_select", "aten::reshape"}


def test_a_value_that_python_reads_is_reported() -> None:
    result = lowered(lambda x: x * float(x.max()), torch.randn(3))
    assert any("reads a value that depends on the inputs" in note for note in result.report.notes)


def test_reading_a_value_leaves_no_operator_behind() -> None:
    x = torch.randn(2, 3)
    result = lowered(lambda x: x * 2 if bool((x > 0).any()) else x * 3, x)
    assert set(kinds(result.module, (x,))) <= {"aten::gt", "aten::any", "aten::mul"}


def test_a_branch_on_data_is_told_that_it_is_traced() -> None:
    """As transformers does: without tracing a mask of ones is dropped, which would be wrong for other masks."""

    def masked(x: Tensor, mask: Tensor) -> Tensor:
        if not torch.jit.is_tracing() and bool(mask.all()):
            return x
        return x * mask

    x, ones, other = torch.randn(2, 3), torch.ones(2, 3), torch.tensor([[1.0, 0, 1], [0, 1, 1]])
    agree(masked, x, ones, fresh=(x, other))


def test_a_constant_that_cannot_stay_one_is_written_truly() -> None:
    def scatter(x: Tensor, index: Tensor) -> Tensor:
        buffer = torch.zeros(4, 3, dtype=x.dtype)
        buffer.scatter_(0, index, x)
        return buffer * 2

    x, index = torch.randn(2, 3), torch.tensor([[0, 1, 2], [3, 2, 1]])
    agree(scatter, x, index, fresh=(torch.randn(2, 3), torch.tensor([[1, 0, 0], [2, 3, 3]])))


def test_size_arithmetic_folds() -> None:
    def windows(x: Tensor) -> Tensor:
        batch, height, width = x.size(0), x.shape[1], x.shape[-1]
        padded = nn.functional.pad(x, (0, -width % 4, 0, -height % 4))
        tiles = padded.view(batch, -(-height // 4), 4, padded.shape[2] // 4, 4).permute(0, 1, 3, 2, 4)
        return tiles.reshape(-1, 16) + torch.arange(16, dtype=x.dtype)

    x = torch.randn(2, 6, 5)
    result = agree(windows, x)
    assert "aten::size" not in kinds(result.module, (x,))
    assert "aten::Int" not in kinds(result.module, (x,))


def test_sizes_that_are_tensors_fold() -> None:
    """As Longformer computes the number of its chunks."""

    def chunks(x: Tensor) -> Tensor:
        count = torch.div(torch.tensor(x.shape[1]), 2, rounding_mode="trunc")
        x = x.view(x.shape[0], count, 2)
        return x[:, : count - 1].as_strided((2, 2, 2), (6, count - 1, 1)) + x[:, count - 1 :, :1]

    x = torch.randn(2, 6)
    result = agree(chunks, x)
    assert "aten::Int" not in kinds(result.module, (x,))


def test_a_tensor_of_sizes_that_are_tensors() -> None:
    """As TAPAS makes the shape of its segments; on 1.13 a tensor without dimensions is no sequence."""

    def segments(x: Tensor) -> Tensor:
        count = torch.tensor(x.shape[0]) * 2
        return x * torch.as_tensor([count, count + 1], dtype=x.dtype).reshape(-1, 1)

    agree(segments, torch.randn(2, 3))


def test_report_is_json_and_names_the_modules() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Mish()).eval()
    report = lower(module, (torch.randn(1, 3, 4, 4),)).report.to_json()
    found = json.loads(json.dumps(report))
    assert {use["name"]: use["where"] for use in found["rewrites"]} == {
        "interpolate": {"1": 1},
        "activations": {"2": 1},
    }
    assert found["constants"] >= 1
    assert all(use["why"] and use["cost"] and use["mechanism"] for use in found["rewrites"])


def test_a_users_rewrite_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\n"
        "from compile.lowering import FunctionRewrite\n"
        "class Cosh(FunctionRewrite):\n"
        "    name = 'cosh'\n"
        "    operators = frozenset({'cosh'})\n"
        "    why = 'aten::cosh is not supported'\n"
        "    cost = 'two exponentials'\n"
        "    def apply(self, call, input):\n"
        "        return (torch.exp(input) + torch.exp(-input)) / 2\n"
    )
    result = agree(torch.cosh, torch.randn(3), rewrite="cosh", extra=load_rewrites(path))
    assert set(kinds(result.module, (torch.randn(3),))) == {"aten::exp", "aten::neg", "aten::add", "aten::div"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no Python file"),
        ("x = 1\n", "defines no subclass"),
        ("raise ValueError('broken')\n", "cannot be run: ValueError: broken"),
        (
            "from compile.lowering import FunctionRewrite\nclass Mine(FunctionRewrite):\n    name = 'mine'\n",
            "Mine does not define its why, cost, operators",
        ),
    ],
)
def test_a_bad_file_of_rewrites(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "bad.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(LoweringError, match=message):
        load_rewrites(path)
