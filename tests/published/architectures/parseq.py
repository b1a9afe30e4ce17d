"""PARSeq (Bautista and Atienza, 2022): a ViT encoder and one decoder layer, decoded token by token, then refined once.

Masks are additive (-inf), as in the model code of 2023. The number of steps is fixed, as for a trace.
"""

from __future__ import annotations

import math

import torch
from torch import nn

END, START, PAD = 0, 95, 96


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.scale = self.head_width**-0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.attn_drop, self.proj_drop = nn.Dropout(0.0), nn.Dropout(0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        weights = self.attn_drop(((query @ key.transpose(-2, -1)) * self.scale).softmax(dim=-1))
        x = (weights @ value).transpose(1, 2).reshape(batch, length, width)
        return self.proj_drop(self.proj(x))


class _EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = _Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.0), nn.Linear(4 * width, width), nn.Dropout(0.0)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _Encoder(nn.Module):
    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, (4, 8), (4, 8))
        self.position = nn.Parameter(0.02 * torch.randn(1, 128, width))
        self.drop = nn.Dropout(0.0)
        self.layers = nn.Sequential(*(_EncoderLayer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patch(image).flatten(2).transpose(1, 2)
        return self.norm(self.layers(self.drop(x + self.position)))


class _DecoderLayer(nn.Module):
    """Two-stream attention of which inference needs the query stream alone."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(width, heads, dropout=0.1, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(width, heads, dropout=0.1, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm_query, self.norm_content = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drops = nn.ModuleList(nn.Dropout(0.1) for _ in range(4))

    def forward(self, query, content, memory, query_mask, padding):
        content = self.norm_content(content)
        mixed, _ = self.self_attention(
            self.norm_query(query), content, content, attn_mask=query_mask, key_padding_mask=padding
        )
        query = query + self.drops[0](mixed)
        mixed, _ = self.cross_attention(self.norm1(query), memory, memory)
        query = query + self.drops[1](mixed)
        hidden = self.drops[2](nn.functional.gelu(self.linear1(self.norm2(query))))
        return query + self.drops[3](self.linear2(hidden))


class Parseq(nn.Module):
    """image [N, 3, 32, 128] -> logits [N, max_label_length + 1, 95]."""

    def __init__(self, max_label_length: int = 50, width: int = 384, depth: int = 12) -> None:
        super().__init__()
        self.steps = max_label_length + 1
        self.width = width
        self.encoder = _Encoder(width, depth, width // 64)
        self.decoder = _DecoderLayer(width, width // 32)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 95)
        self.embedding = nn.Embedding(97, width)
        self.positions = nn.Parameter(0.02 * torch.randn(1, self.steps, width))
        self.drop = nn.Dropout(0.1)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return math.sqrt(self.width) * self.embedding(tokens)

    def decode(self, tokens, memory, query, query_mask, padding=None):
        _, length = tokens.shape
        start = self.embed(tokens[:, :1])
        rest = self.positions[:, : length - 1] + self.embed(tokens[:, 1:])
        content = self.drop(torch.cat([start, rest], dim=1))
        return self.head(self.norm(self.decoder(self.drop(query), content, memory, query_mask, padding)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        batch = image.shape[0]
        memory = self.encoder(image)
        queries = self.positions[:, : self.steps].expand(batch, -1, -1)
        mask = torch.triu(torch.full((self.steps, self.steps), float("-inf")), 1)
        tokens = torch.full((batch, self.steps), PAD, dtype=torch.long)
        tokens[:, 0] = START
        steps = []
        for i in range(self.steps):
            j = i + 1
            steps.append(self.decode(tokens[:, :j], memory, queries[:, i:j], mask[i:j, :j]))
            if j < self.steps:
                tokens[:, j] = steps[-1].squeeze().argmax(-1)
        return self.refine(torch.cat(steps, dim=1), memory, queries, mask, batch)

    def refine(self, logits, memory, queries, mask, batch):
        """Every position sees all others: the mask is opened behind the next token, in place."""
        mask[torch.triu(torch.ones(self.steps, self.steps, dtype=torch.bool), 2)] = 0
        start = torch.full((batch, 1), START, dtype=torch.long)
        tokens = torch.cat([start, logits[:, :-1].argmax(-1)], dim=1)
        padding = (tokens == END).int().cumsum(-1) > 0
        return self.decode(tokens, memory, queries, mask[:, : tokens.shape[1]], padding)
