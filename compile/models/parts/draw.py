"""Random weights with which outputs follow the input.

A library's default initialisation is made for the start of a training: small matrices, zero biases, zero last layers.
Signals fade from layer to layer, and an error of zero between two constant outputs proves nothing. Here every matrix
keeps the variance of what it gets, and biases, norms and running statistics are drawn too, so that a weight that went
to the wrong place shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
SPREAD = 0.1


def drawer(
    *, gain: float = 1.0, gains: Mapping[str, float] | None = None, embedding: float = 1.0
) -> Callable[[nn.Module, torch.Generator], None]:
    """An initialiser for ModelDefinition.

    gain: standard deviation of a matrix is gain / sqrt(fan in); sqrt(2) keeps the variance through a ReLU.
    gains: factors for parameters whose name ends with the key (the last norm of a residual branch, a last layer).
    embedding: standard deviation of embedding tables and of parameters that belong to no known layer.
    """

    def draw(module: nn.Module, generator: torch.Generator) -> None:
        with torch.no_grad():
            for name, owner in module.named_modules():
                for key, parameter in owner.named_parameters(recurse=False):
                    full = f"{name}.{key}".lstrip(".")
                    factor = math.prod(value for end, value in (gains or {}).items() if full.endswith(end))
                    centre, deviation = _distribution(owner, parameter, gain, embedding)
                    parameter.normal_(centre * factor, deviation * factor, generator=generator)
                if isinstance(owner, _BATCH_NORMS) and owner.running_mean is not None:
                    owner.get_buffer("running_mean").normal_(0.0, SPREAD, generator=generator)
                    owner.get_buffer("running_var").uniform_(0.8, 1.2, generator=generator)

    return draw


def _distribution(owner: nn.Module, parameter: Tensor, gain: float, embedding: float) -> tuple[float, float]:
    """Mean and standard deviation of one parameter, from the layer that owns it."""
    if isinstance(owner, (*_BATCH_NORMS, nn.LayerNorm, nn.GroupNorm)):
        return (1.0 if parameter is owner.weight else 0.0), SPREAD
    if isinstance(owner, (nn.Embedding, nn.EmbeddingBag)):
        return 0.0, embedding
    if isinstance(owner, nn.modules.conv._ConvNd) and parameter.dim() > 1:
        fan_in = parameter.shape[0] if owner.transposed else parameter[0].numel()
        return 0.0, gain / math.sqrt(fan_in)
    if isinstance(owner, (nn.Linear, nn.MultiheadAttention)) and parameter.dim() > 1:
        return 0.0, gain / math.sqrt(parameter.shape[1])
    return 0.0, SPREAD if parameter.dim() == 1 else embedding
