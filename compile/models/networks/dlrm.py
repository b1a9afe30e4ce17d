"""DLRM: what a person clicks, from numbers and categories.

Naumov et al., Deep Learning Recommendation Model for Personalization and Recommendation Systems, 2019.
Parameter names: facebookresearch/dlrm (emb_l.0.weight ..., bot_l.0.weight, bot_l.2.weight ..., top_l.0.weight ...).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class DLRM(nn.Module):
    """dense (batch, numbers) float32 and sparse (batch, tables) int64 to the click's probability (batch, 1).

    One category a table, as in the Criteo data sets (so the original's embedding bags are plain look-ups).
    rows: of each table. bottom, top: widths of the dense layers; bottom ends with the embeddings' width.
    """

    def __init__(self, numbers: int, rows: Sequence[int], bottom: Sequence[int], top: Sequence[int]) -> None:
        super().__init__()
        width = bottom[-1]
        vectors = len(rows) + 1
        self.emb_l = nn.ModuleList(nn.Embedding(count, width) for count in rows)
        self.bot_l = _dense([numbers, *bottom], last=nn.ReLU())
        self.top_l = _dense([width + vectors * (vectors - 1) // 2, *top], last=nn.Sigmoid())

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        x = self.bot_l(dense)
        looked_up = [table(sparse[:, index]) for index, table in enumerate(self.emb_l)]
        probability: Tensor = self.top_l(torch.cat([x, interactions([x, *looked_up])], 1))
        return probability


def interactions(vectors: Sequence[Tensor]) -> Tensor:
    """Dot products of every two of n vectors (batch, width): (batch, n * (n - 1) / 2), the lower triangle row by row.

    Row i is taken as a slice, since gathering by an index tensor is no operator of Neuron's.
    """
    stacked = torch.stack(list(vectors), 1)
    products = torch.bmm(stacked, stacked.transpose(1, 2))
    return torch.cat([products[:, row, :row] for row in range(1, len(vectors))], 1)


def _dense(widths: Sequence[int], last: nn.Module) -> nn.Sequential:
    """Linear layers with ReLU between and `last` at the end; linear layers have the even indices."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    layers[-1] = last
    return nn.Sequential(*layers)
