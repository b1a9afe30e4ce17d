"""AWS Inferentia (first generation), through torch_neuron."""

from __future__ import annotations

import torch
from torch import nn

from compile.targets.base import CompiledGraph
from compile.targets.neuron import not_yet, require


class Inf1:
    """Refuses clearly where the SDK is missing; compiling itself is not in this version."""

    name = "inf1"
    rehearsal = False
    stand_in = False

    def check(self) -> None:
        require("torch_neuron", self.name)
        raise not_yet(self.name)

    def versions(self) -> dict[str, str]:
        raise not_yet(self.name)

    def compile(self, module: nn.Module, example: tuple[torch.Tensor, ...], names: list[str]) -> CompiledGraph:  # noqa: ARG002
        raise not_yet(self.name)
