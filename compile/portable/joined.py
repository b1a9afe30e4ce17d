"""A host part and a compiled device part as one TorchScript module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from compile.portable.replay import Wiring


class _Empty(nn.Module):
    """What becomes the joined module."""


def joined(host: nn.Module, device: torch.jit.ScriptModule, wiring: Wiring, example: tuple[Tensor, ...]) -> Any:
    """A host part, traced for `example`, in front of a compiled device part, which is not run here.

    A trace would run the device part, which only its own hardware can; so the two calls are written as TorchScript.
    """
    with torch.no_grad():
        given = tuple(example[number] for number in wiring.host)
        traced = torch.jit.trace(host, given, check_trace=False)  # type: ignore[no-untyped-call]
        frozen = torch.jit.freeze(traced.eval(), optimize_numerics=False)
    module = torch.jit.script(_Empty().eval())
    for name, part in (("host", frozen), ("device", device)):
        module._c._register_attribute(name, part._c._type(), part._c)
    source = _source(wiring, len(example))
    kind = torch._C.ConcreteModuleType.from_jit_type(module._c._type())
    module._c._define(kind, source, lambda _: None)
    return torch.jit._recursive.wrap_cpp_module(module._c)  # type: ignore[no-untyped-call]


def _source(wiring: Wiring, count: int) -> str:
    """TorchScript of the joined forward: host, device, and the outputs in the model's order."""
    names = [f"x{number}" for number in range(count)]

    def tensor(source: str, number: int) -> str:
        return names[number] if source == "input" else f"{source}[{number}]"

    outputs = ", ".join(tensor(*place) for place in wiring.outputs)
    return "\n".join(
        [
            f"def forward(self, {', '.join(f'{name}: Tensor' for name in names)}):",
            f"    host = self.host({', '.join(names[number] for number in wiring.host)})",
            f"    device = self.device({', '.join(tensor(*place) for place in wiring.device)})",
            f"    return {outputs}" if wiring.single else f"    return ({outputs},)",
            "",
        ]
    )
