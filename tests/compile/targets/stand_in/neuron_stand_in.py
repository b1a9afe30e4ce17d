"""What both stand-ins share: an operator neuron::forward_v2_1 that runs the model on the CPU, and scenarios.

The scenario comes from NEURON_STAND_IN; it says how the compiler behaves. Nothing here is the Neuron SDK: it enforces
the documented signatures, shapes and log grammar, so that the code that calls the SDK can be tested without it.
"""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import torch

LIBRARY = torch.library.Library("neuron", "DEF")
LIBRARY.define("forward_v2_1(Tensor[] inputs, Tensor program) -> Tensor[]")
_LOADED: dict[int, torch.jit.ScriptModule] = {}


def _forward(inputs, program):
    key = hash(bytes(program[-4096:].tolist())) ^ program.numel()
    if key not in _LOADED:
        _LOADED[key] = torch.jit.load(io.BytesIO(bytes(program.tolist())))
    with torch.no_grad():
        found = _LOADED[key](*inputs)
    return list(found) if isinstance(found, (tuple, list)) else [found]


LIBRARY.impl("forward_v2_1", _forward, "CPU")


class Compiled(torch.nn.Module):
    """The whole model as one fused operator."""

    def __init__(self, program: bytes) -> None:
        super().__init__()
        self.register_buffer("program", torch.frombuffer(bytearray(program), dtype=torch.uint8))

    def forward(self, *inputs):
        return tuple(torch.ops.neuron.forward_v2_1(list(inputs), self.program))


class Twice(Compiled):
    """The same with a second call: two subgraphs."""

    def forward(self, *inputs):
        first = torch.ops.neuron.forward_v2_1(list(inputs), self.program)
        again = torch.ops.neuron.forward_v2_1(list(inputs), self.program)
        return tuple((one + other) / 2 for one, other in zip(first, again, strict=True))


def scenario() -> str:
    return os.environ.get("NEURON_STAND_IN", "success")


def checked_inputs(function: str, module, example):
    """The example inputs as a tuple of tensors that the chip has a type for."""
    tensors = (example,) if isinstance(example, torch.Tensor) else example
    if not isinstance(tensors, tuple) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        raise TypeError(f"{function}: example_inputs must be a tensor or a tuple of tensors")
    if any(tensor.dtype == torch.float64 for tensor in tensors):
        raise RuntimeError("expected scalar type Double but found Float")
    if not callable(module):
        raise TypeError(f"{function}: the model is not callable")
    return tensors


def cpu_graph(module, tensors):
    with torch.no_grad():
        return torch.jit.trace(module, tensors, check_trace=False)


def fused(module, tensors, kind=Compiled):
    """A ScriptModule whose only work is neuron::forward_v2_1."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.freeze(cpu_graph(module, tensors).eval()), buffer)
    return cpu_graph(kind(buffer.getvalue()), tensors)


def operators(module, tensors) -> Counter:
    """Nodes by kind, as torch-neuron counts them."""
    graph, _ = torch.jit._get_trace_graph(module, tensors)[:2]
    return Counter(node.kind() for node in graph.nodes() if not node.kind().startswith("prim::"))


def remember(workdir, **said) -> None:
    """Leaves what was asked for in the work directory, for the tests to read."""
    Path(workdir).mkdir(parents=True, exist_ok=True)
    (Path(workdir) / "called.json").write_text(json.dumps(said, default=str))


def misbehave() -> None:
    """Scenarios in which the process itself is hit."""
    if scenario() == "self_killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if scenario() == "hang":
        time.sleep(600)
