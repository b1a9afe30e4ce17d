"""Activations that Neuron does not list, made of those that it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from compile.lowering.rewrite import NOT_MINE, Call, FunctionRewrite


def exp_minus_one(x: Tensor) -> Tensor:
    """exp(x) - 1 without the cancellation near 0: tanh(x/2) (exp(x) + 1)."""
    return torch.tanh(x * 0.5) * (torch.exp(x) + 1.0)


def _elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    return scale * (torch.relu(x) + alpha * exp_minus_one(torch.clamp(x, max=0.0) * input_scale))


def _celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    return torch.relu(x) + alpha * exp_minus_one(torch.clamp(x, max=0.0) / alpha)


def _log_sigmoid(x: Tensor) -> Tensor:
    return torch.clamp(x, max=0.0) - torch.log(torch.exp(-torch.abs(x)) + 1.0)


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    value, gate = torch.chunk(x, 2, dim)
    return value * torch.sigmoid(gate)


class Activations(FunctionRewrite):
    """Mish, ELU, CELU, SELU, ReLU6, log-sigmoid and GLU; in-place forms arrive here through the rewrite
    ``in_place``."""

    name = "activations"
    forms: ClassVar[dict[str, Callable[..., Any]]] = {
        "mish": lambda x: x * torch.tanh(functional.softplus(x)),
        "elu": _elu,
        "celu": _celu,
        # The constants of the paper (Klambauer et al. 2017) as PyTorch writes them.
        "selu": lambda x: _elu(x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946),
        "relu6": lambda x: functional.hardtanh(x, 0.0, 6.0),
        "logsigmoid": _log_sigmoid,
        "log_sigmoid": _log_sigmoid,
        "glu": _glu,
    }
    operators = frozenset(forms)
    held = frozenset({"mish", "relu6", "logsigmoid", "log_sigmoid"})
    why = "these activations are not in the operator table; tanh, softplus, exp, log, relu, clamp are"
    cost = "two to five element-wise operators for one"

    def apply(self, call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
        """The composite form, in the input's dtype."""
        if kwargs.pop("inplace", False) or (args and args[-1] is True):
            return NOT_MINE  # comes again as the operator that writes, which the rewrite in_place takes
        return self.forms[call.operator](input, *args, **kwargs)
