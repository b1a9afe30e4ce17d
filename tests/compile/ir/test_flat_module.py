"""Named inputs and nested outputs as a flat function."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from compile.errors import CompileError
from compile.ir.flat_module import flat_module, signature
from compile.targets import trace_for_cpu
from inference_code.artifact.manifest import restore


@dataclass
class Box:
    corners: torch.Tensor
    labels: list[torch.Tensor]


class Nested(nn.Module):
    def forward(self, image: torch.Tensor, hint: torch.Tensor, scale: float = 2.0) -> dict[str, object]:
        return {"box": Box(image * scale, [image.sum(-1), image.amax(-1)]), "pair": (image - 1, None), "kind": "boxes"}


INPUTS = {"hint": torch.zeros(1, 2), "image": torch.randn(1, 3)}


def test_outputs_are_named_by_their_path_and_restored() -> None:
    flat = flat_module(Nested().eval(), INPUTS)
    found = signature(flat, INPUTS)
    assert [t.name for t in found.inputs] == ["hint", "image"]
    assert [t.name for t in found.outputs] == ["box.corners", "box.labels.0", "box.labels.1", "pair.0"]
    assert [t.shape for t in found.outputs] == [(1, 3), (1,), (1,), (1, 3)]
    restored = restore(found.structure, flat(*INPUTS.values()))
    assert torch.equal(restored["box"].corners, INPUTS["image"] * 2)
    assert restored["pair"][1] is None
    assert restored["kind"] == "boxes"


def test_a_model_output_of_transformers() -> None:
    class Classifier(nn.Module):
        def forward(self, x: torch.Tensor) -> SequenceClassifierOutput:
            return SequenceClassifierOutput(logits=x * 2)

    flat = flat_module(Classifier(), {"x": torch.ones(1, 2)})
    found = signature(flat, {"x": torch.ones(1, 2)})
    assert [t.name for t in found.outputs] == ["logits"]
    assert torch.equal(restore(found.structure, flat(torch.ones(1, 2))).logits, torch.full((1, 2), 2.0))


def test_a_lone_tensor_and_its_unused_input() -> None:
    class Ignores(nn.Module):
        def forward(self, used: torch.Tensor, ignored: torch.Tensor) -> torch.Tensor:
            return used + 1

    inputs = {"used": torch.ones(1), "ignored": torch.ones(1)}
    flat = flat_module(Ignores().eval(), inputs)
    assert [t.name for t in signature(flat, inputs).outputs] == ["output"]
    _, unused = trace_for_cpu(flat, tuple(inputs.values()), list(inputs))
    assert unused == ["ignored"]


def test_inputs_that_forward_does_not_know_are_named() -> None:
    with pytest.raises(CompileError, match=r"no parameter picture; it has image, hint, scale"):
        flat_module(Nested(), {"picture": torch.ones(1)})


def test_an_output_that_cannot_be_described_is_named() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, object]:
            return {"fine": x, "odd": {1, 2}}

    flat = flat_module(Odd(), {"x": torch.ones(1)})
    with pytest.raises(CompileError, match="odd is a set"):
        signature(flat, {"x": torch.ones(1)})


class Returns(nn.Module):
    """Another kind of tensor than an artifact can hold."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "nested":
            return torch.nested.nested_tensor(list(x))
        if self.kind == "quantized":
            return torch.quantize_per_tensor(x, 0.1, 0, torch.quint8)
        return x.to("meta")


@pytest.mark.parametrize("kind", ["nested", "quantized", "meta"])
def test_a_tensor_that_no_artifact_holds_is_named_with_its_output(kind: str) -> None:
    inputs = {"x": torch.ones(2, 3)}
    with pytest.raises(CompileError, match=f"Output output is .*{kind}") as caught:
        signature(flat_module(Returns(kind), inputs), inputs)
    assert caught.value.remedy
