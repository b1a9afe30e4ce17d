"""A graph as the compiler of a target gets it: lowered, and for Inf1 with its look-ups in a host part in front."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from compile.errors import CompileError
from compile.ir.graph import trace
from compile.lowering import Prologue, PrologueReport, split
from compile.lowering.config import ALL, Rewriting
from compile.lowering.graph_module import UnplayableError, read
from compile.portable.replay import GraphPart, Wiring


def lowered(
    flat: nn.Module, example: tuple[Tensor, ...], target: str, rewriting: Rewriting = ALL, what: str = "The model"
) -> Prologue:
    """The lowered graph as `build` compiles it: for inf1 with its look-ups in a host part in front.

    Raises CompileError when it cannot be lowered, or a rewrite of the user's own fails.
    """
    return parted(rewriting.lower(flat, example, what).module, example, target, rewriting)


def parted(module: nn.Module, example: tuple[Tensor, ...], target: str, rewriting: Rewriting = ALL) -> Prologue:
    """A lowered module in its host part and the part that is compiled; on Inf2 all of it is compiled."""
    if target != "inf1":
        return Prologue(None, module, example, PrologueReport())
    with rewriting.guarded():
        return split(module, example)


def flattened(parts: Prologue) -> Prologue:
    """The same in lists of operators, as a graph file holds them; for a module that returns a tuple.

    Raises CompileError for control flow, and for what only TorchScript can run.
    """
    if parts.host is not None:
        return parts
    inputs = parts.device_inputs
    with torch.no_grad():
        graph = trace(parts.device, inputs, grad=False)
    state = torch.jit._unique_state_dict(parts.device, keep_vars=True)  # type: ignore[attr-defined,no-untyped-call]
    tensors = {value: (name, state[name]) for value, name in graph.parameters.items()}
    try:
        steps, outputs = read(graph)
    except UnplayableError as error:
        raise CompileError(
            f"The graph has {error}: it cannot be captured as a list of operators.",
            "Write that part in Python that PyTorch can trace, or split the model there.",
        ) from None
    everything = tuple(("input", number) for number in range(len(inputs)))
    wiring = Wiring((), everything, tuple(("device", number) for number in range(len(outputs))), single=False)
    return replace(parts, device=GraphPart(steps, graph.inputs, outputs, tensors), wiring=wiring)
