"""Models that cannot be analyzed, or not without a remark: each has its own message with the way out."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from compile.analysis import analyze
from compile.analysis import trace_checks as module_under_test
from compile.errors import CompileError

X = torch.rand(2, 4)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@dataclasses.dataclass
class Answer:
    scores: torch.Tensor


class Returns(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(torch.relu(x) + 1)


def refusal(module, inputs) -> CompileError:
    with pytest.raises(CompileError) as caught:
        analyze(module, inputs)
    assert caught.value.remedy, "no way out is named"
    assert "Traceback" not in str(caught.value)
    return caught.value


def test_float64_input():
    error = refusal(nn.Linear(4, 4), (X.double(),))
    assert "input[0] is float64 (2, 4)" in error.problem
    assert ".float()" in error.remedy


def test_float64_weights():
    error = refusal(nn.Linear(4, 4).double(), (X,))
    assert "weight and 1 more: the weights are float64" in error.problem


def test_all_problems_of_the_inputs_come_together():
    error = refusal(nn.Linear(4, 4), (X.double(), "text", torch.rand(2).to(torch.complex64)))
    for part in ("input[0] is float64", "input[1] is str ('text')", "input[2] is torch.complex64"):
        assert part in error.problem


def test_no_tensor_at_all():
    assert "no tensor" in refusal(nn.Linear(4, 4), ()).problem


@pytest.mark.parametrize("make", [Answer, lambda y: {1, 2}, lambda y: object()])
def test_unsupported_structures(make):
    error = refusal(Returns(make), (X,))
    assert "structure that cannot be traced" in error.problem
    assert "tuple of tensors" in error.remedy
    assert "strict=False" in error.remedy


def test_a_dict_needs_strict_false():
    report = analyze(Returns(lambda y: {"scores": y}), (X,))
    assert report.total == 2
    assert any("strict=False" in note for note in report.notes)


def test_wrong_number_of_inputs():
    error = refusal(nn.Linear(4, 4), (X, X))
    assert "does not take 2 example inputs" in error.problem
    assert "wrap" in error.remedy


def test_a_model_that_fails():
    class Fails(nn.Module):
        def forward(self, x):
            raise RuntimeError("the table is empty")

    error = refusal(Fails(), (X,))
    assert "RuntimeError: the table is empty" in error.problem
    assert "test_trace_checks.py:" in error.problem


def test_a_model_that_is_scripted_already():
    assert "already TorchScript" in refusal(torch.jit.script(nn.Linear(4, 4)), (X,)).problem


def test_something_else():
    assert "got int" in refusal(3, (X,)).problem


class Decides(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return torch.relu(x)
        return x - 1


class ComparesSizes(nn.Module):
    def forward(self, x):
        if x.shape[0] > 1 and x.shape[1] == x.size(1):
            return torch.relu(x)
        return x - 1


def test_data_dependent_control_flow_is_named_with_its_line():
    (finding,) = analyze(Decides(), (X,)).findings
    assert (finding.kind, "test_trace_checks.py:" in finding.where) == ("data-dependent", True)
    assert "mask" in finding.remedy


class Asserts(nn.Module):
    def forward(self, x):
        assert x.max() < 1e9
        return torch.relu(x)


def test_an_assertion_decides_nothing():
    assert analyze(Asserts(), (X,)).findings == ()


def test_comparing_sizes_is_harmless():
    assert analyze(ComparesSizes(), (X,)).findings == ()


def test_watching_decisions_leaves_tensors_as_they_were():
    analyze(Decides(), (X,))
    for name in ("__bool__", "item", "tolist", "__float__"):
        assert name not in torch.Tensor.__dict__


def test_decision_that_has_no_one_answer():
    class Ambiguous(nn.Module):
        def forward(self, x):
            return torch.relu(x) if x > 0 else x

    error = refusal(Ambiguous(), (X,))
    assert "decides by the data" in error.problem
    assert "mask" in error.remedy


def test_integer_data_that_would_enter_a_subgraph():
    class Masked(nn.Module):
        def forward(self, x, mask):
            return torch.relu(x) * (1 - mask[:, None]) + x

    report = analyze(Masked(), (X, torch.ones(2, dtype=torch.long)))
    assert any("Integer data would enter" in note and "int64 [2]" in note for note in report.notes)
    assert not any(t.dtype == "int64" for part in report.safe.details if part.compiled for t in part.inputs)


def test_more_constants_than_a_graph_holds(monkeypatch):
    monkeypatch.setattr(module_under_test, "CONSTANT_LIMIT", 4 * 4 * 4)
    notes = analyze(nn.Linear(4, 4), (X,)).notes
    assert any("separate_weights=True" in note and "1.9 GB" in note for note in notes)
    monkeypatch.setattr(module_under_test, "CONSTANT_LIMIT", 4 * 4 * 4 + 16)
    assert not any("separate_weights" in note for note in analyze(nn.Linear(4, 4), (X,)).notes)


def test_training_mode_is_said_and_kept():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    model.train()
    report = analyze(model, (X,))
    assert any("training mode" in note for note in report.notes)
    assert model.training
    assert all(part.training for part in model.modules())


def test_example_inputs_are_not_changed():
    x = X.clone()
    analyze(lambda y: y.add_(1).relu(), (x,))
    assert torch.equal(x, X)


def test_fused_inference_path_is_named():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.rand(1, 3, 8)
    fused, plain = analyze(layer, (x,), grad=False), analyze(layer, (x,), grad=True)
    assert fused.total < plain.total
    assert any("fused inference path" in note and "--grad" in note for note in fused.notes)
    assert not any("fused inference path" in note for note in plain.notes)
    assert fused.environment["grad"] is False
    assert plain.environment["grad"] is True
    assert not fused.operators["aten::_transformer_encoder_layer_fwd"].supported


def test_another_torch_than_the_containers_is_explained():
    notes = analyze(nn.Linear(4, 4), (X,)).notes
    explained = any("Inf1 container has torch 1.13.1" in note for note in notes)
    assert explained is not torch.__version__.startswith("1.13.")


@torch.jit.script
def scripted_helper(x: torch.Tensor, n: int):
    return torch.relu(x) * 2 + n


@torch.jit.script
def scripted_decision(x: torch.Tensor):
    if bool(x.sum() > 0):
        x.add_(1)
    for _ in range(int(x.size(0))):
        x = x * 2
    return torch.relu(x)


def test_scripted_helpers_are_inlined():
    report = analyze(lambda x: scripted_helper(x, 3) + 1, (X,))
    assert {kind: found.count for kind, found in report.operators.items()} == {
        "aten::add": 2,
        "aten::mul": 1,
        "aten::relu": 1,
    }


def test_scripted_control_flow_runs_on_the_host():
    def model(x):
        y = x * 1
        return torch.tanh(scripted_decision(y) + y)

    report = analyze(model, (X,))
    assert report.control_flow == {"prim::If": 1, "prim::Loop": 1}
    inside = report.operators["aten::add_"]
    assert not inside.supported
    assert "control flow" in inside.reason
    assert inside.supported_by_name
    # The branch writes into y, which is read again afterwards: what reads it cannot be in one subgraph with its maker.
    assert any("prim::If" in line and "test_trace_checks.py:" in line for line in report.as_logged.unsafe)
    assert report.safe.candidates == 2


def test_autograd_functions_run_on_the_host():
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    report = analyze(lambda x: torch.relu(Double.apply(torch.relu(x)) + 1), (X,))
    assert report.total >= 3


def test_work_and_bytes_of_a_subgraph():
    report = analyze(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), (X,))
    (part,) = report.safe.details
    assert report.flops == 2 * 2 * 4 * 8 + 2 * 8 + 2 * 2 * 8 * 2
    assert part.flops == report.flops
    assert (part.bytes_in, part.bytes_out) == (2 * 4 * 4, 2 * 2 * 4)
    assert part.weight_bytes == 4 * (4 * 8 + 8 + 8 * 2 + 2)
    assert part.inputs[0].shape == (2, 4)
    assert part.roofline.estimate
    assert part.roofline.bound in ("compute", "weights", "transfers")


@pytest.mark.parametrize(
    ("function", "inputs", "work"),
    [
        (functional.conv2d, ((1, 2, 5, 5), (3, 2, 3, 3)), 2 * 3 * 9 * 2 * 9),
        (lambda x, w: functional.conv_transpose2d(x, w, stride=2), ((1, 2, 4, 4), (2, 3, 2, 2)), 2 * 2 * 16 * 3 * 4),
        (lambda a, b: a @ b, ((5, 2, 3), (5, 3, 4)), 2 * 5 * 2 * 4 * 3),
        (lambda a, b: torch.einsum("bij,bjk->bik", a, b), ((5, 2, 3), (5, 3, 4)), 2 * 5 * 2 * 4 * 3),
        (lambda a, b: torch.addmm(b, a, a), ((3, 3), (3, 3)), 2 * 27),
    ],
)
def test_work_of_products(function, inputs, work):
    assert analyze(function, tuple(torch.rand(shape) for shape in inputs)).flops == work
