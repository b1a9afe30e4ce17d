"""PARSeq: the text in a picture of one word or line.

Bautista and Atienza, Scene Text Recognition with Permuted Autoregressive Sequence Models, 2022: a vision transformer
and a two-stream decoder (positions ask, characters answer), first one character at a time, then once more over all.
Parameter names: the checkpoints of baudm/parseq (encoder.blocks.0.attn.qkv ..., decoder.layers.0.self_attn ..., head,
text_embed.embedding, pos_queries).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from compile.models.networks.attention import attend, split_heads

ENCODER_EPS = 1e-6  # timm's vision transformers


@dataclass(frozen=True)
class Sizes:
    """The numbers of a PARSeq. `characters` counts the charset without the three special tokens.

    decoding: "cached" (a step keeps keys and values) or "prefix" (it computes all places anew); see
    compile/analysis/decoding_cost.py.
    Tokens: 0 ends a text, 1 to characters are the charset, then the beginning and the padding; the head predicts all
    but the last two.
    """

    width: int = 384
    encoder_layers: int = 12
    encoder_heads: int = 6
    decoder_layers: int = 1
    decoder_heads: int = 12
    mlp_ratio: int = 4
    image: tuple[int, int] = (32, 128)
    patch: tuple[int, int] = (4, 8)
    characters: int = 94
    max_label_length: int = 25
    refinements: int = 1
    decoding: str = "cached"

    @property
    def end(self) -> int:
        """The token that ends a text."""
        return 0

    @property
    def beginning(self) -> int:
        """The token that every text starts with."""
        return self.characters + 1

    @property
    def padding(self) -> int:
        """The token of places that nothing was written to."""
        return self.characters + 2

    def cache_shape(self, batch: int, places: int) -> tuple[int, ...]:
        """(batch, layers, heads, places, width of a head) of keys or values in the decoder."""
        return batch, self.decoder_layers, self.decoder_heads, places, self.width // self.decoder_heads

    @property
    def steps(self) -> int:
        """Characters of the longest text and its end."""
        return self.max_label_length + 1


class Block(nn.Module):
    """A pre-norm transformer block of the encoder, with timm's names."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=ENCODER_EPS)
        self.attn = _EncoderAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=ENCODER_EPS)
        hidden = mlp_ratio * width
        dense = {"fc1": nn.Linear(width, hidden), "act": nn.GELU(), "fc2": nn.Linear(hidden, width)}
        self.mlp = nn.Sequential(OrderedDict(dense))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class _EncoderAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, keys, values = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        y: Tensor = self.proj(attend(query, keys, values))
        return y


class _PatchEmbedding(nn.Module):
    def __init__(self, width: int, patch: Sequence[int]) -> None:
        super().__init__()
        height, columns = patch
        self.proj = nn.Conv2d(3, width, (height, columns), stride=(height, columns))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return y


class Encoder(nn.Module):
    """(batch, 3, height, width) to the memory (batch, patches, width); no class token."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        patches = (sizes.image[0] // sizes.patch[0]) * (sizes.image[1] // sizes.patch[1])
        self.patch_embed = _PatchEmbedding(sizes.width, sizes.patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, patches, sizes.width))
        self.blocks = nn.Sequential(
            *(Block(sizes.width, sizes.encoder_heads, sizes.mlp_ratio) for _ in range(sizes.encoder_layers))
        )
        self.norm = nn.LayerNorm(sizes.width, eps=ENCODER_EPS)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.blocks(self.patch_embed(x) + self.pos_embed))
        return y


class Attention(nn.Module):
    """Multi-head attention in parts, so that keys and values can be computed once and kept.

    Names and layout of nn.MultiheadAttention: in_proj_weight (3 * width, width) holds query, key and value.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def query(self, x: Tensor) -> Tensor:
        """(batch, n, width) to (batch, heads, n, width / heads)."""
        return self._project(x, 0)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each (batch, heads, n, width / heads)."""
        return self._project(x, 1), self._project(x, 2)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """What `query` finds, (batch, n, width); `mask` is added to the scores."""
        y: Tensor = self.out_proj(attend(query, keys, values, mask))
        return y

    def _project(self, x: Tensor, part: int) -> Tensor:
        width = x.shape[-1]
        rows = slice(part * width, (part + 1) * width)
        return split_heads(functional.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows]), self.heads)


class DecoderLayer(nn.Module):
    """Both streams share one layer: attention to the characters so far, to the picture, and a dense part."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.cross_attn = Attention(width, heads)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm_q = nn.LayerNorm(width)
        self.norm_c = nn.LayerNorm(width)

    def stream(
        self,
        x: Tensor,
        x_norm: Tensor,
        characters: tuple[Tensor, Tensor],
        picture: tuple[Tensor, Tensor],
        mask: Tensor | None,
    ) -> Tensor:
        """One stream through the layer. characters, picture: keys and values of the two attentions."""
        x = x + self.self_attn(self.self_attn.query(x_norm), *characters, mask)
        x = x + self.cross_attn(self.cross_attn.query(self.norm1(x)), *picture)
        y: Tensor = x + self.linear2(functional.gelu(self.linear1(self.norm2(x))))
        return y


class _Decoder(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(sizes.width, sizes.decoder_heads, sizes.mlp_ratio * sizes.width)
            for _ in range(sizes.decoder_layers)
        )
        self.norm = nn.LayerNorm(sizes.width)

    def each(self) -> list[DecoderLayer]:
        """The layers, typed."""
        return [cast(DecoderLayer, layer) for layer in self.layers]


class _TextEmbedding(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.scale = math.sqrt(width)

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.scale * self.embedding(tokens)
        return y


class PARSeq(nn.Module):
    """(batch, 3, height, width) float32 to logits (batch, steps, characters + 1).

    The forward is the original's: one character at a time over a growing text, stopping when every text of the batch
    has ended, then the refinements. It is what the fixed-shape graphs are compared with; it is not made for a chip.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder = Encoder(sizes)
        self.decoder = _Decoder(sizes)
        self.head = nn.Linear(sizes.width, sizes.characters + 1)
        self.text_embed = _TextEmbedding(sizes.characters + 3, sizes.width)
        self.pos_queries = nn.Parameter(torch.zeros(1, sizes.steps, sizes.width))

    def forward(self, pixel_values: Tensor) -> Tensor:
        memory = self.encoder(pixel_values)
        logits = self.spell(memory)
        for _ in range(self.sizes.refinements):
            logits = self.refine(memory, logits)
        return logits

    def spell(self, memory: Tensor) -> Tensor:
        """Character by character: logits (batch, n, characters + 1), n up to `steps`."""
        text = memory.new_full((memory.shape[0], 1), self.sizes.beginning, dtype=torch.int64)
        logits: list[Tensor] = []
        for place in range(self.sizes.steps):
            causal = _future(place + 1, 1, memory)
            query = self.pos_queries[:, place : place + 1]
            logits.append(self.decode(text, memory, query, causal[place:], causal))
            text = torch.cat([text, logits[-1].argmax(-1)], 1)
            if place + 1 < self.sizes.steps and bool((text == self.sizes.end).any(-1).all()):
                break
        return torch.cat(logits, 1)

    def refine(self, memory: Tensor, logits: Tensor) -> Tensor:
        """Every place once more, seeing all characters but its own, up to the text's end."""
        beginning = logits.new_full((logits.shape[0], 1), self.sizes.beginning, dtype=torch.int64)
        text = torch.cat([beginning, logits[:, :-1].argmax(-1)], 1)
        after_end = ((text == self.sizes.end).int().cumsum(-1) > 0)[:, None, None, :]
        hidden = torch.zeros(after_end.shape, dtype=memory.dtype).masked_fill(after_end, -math.inf)
        steps, length = self.sizes.steps, text.shape[1]
        later = _future(steps, 2, memory)
        cloze = torch.where(later == 0, _future(steps, 1, memory), torch.zeros_like(later))
        # The original's causal mask is the same tensor as its cloze mask, so both streams see the future here.
        return self.decode(text, memory, self.pos_queries, cloze[:, :length] + hidden, cloze[:length, :length] + hidden)

    def decode(self, text: Tensor, memory: Tensor, query: Tensor, query_mask: Tensor, text_mask: Tensor) -> Tensor:
        """Logits (batch, queries, characters + 1) for a text (batch, n) that starts with the beginning token."""
        query = query.expand(text.shape[0], -1, -1)
        first, rest = self.text_embed(text[:, :1]), self.text_embed(text[:, 1:])
        content = torch.cat([first, rest + self.pos_queries[:, : text.shape[1] - 1]], 1)
        for index, layer in enumerate(self.decoder.each()):
            content_norm = layer.norm_c(content)
            characters = layer.self_attn.keys_values(content_norm)
            picture = layer.cross_attn.keys_values(memory)
            query = layer.stream(query, layer.norm_q(query), characters, picture, query_mask)
            if index + 1 < len(self.decoder.layers):
                content = layer.stream(content, content_norm, characters, picture, text_mask)
        logits: Tensor = self.head(self.decoder.norm(query))
        return logits


def _future(n: int, diagonal: int, like: Tensor) -> Tensor:
    """(n, n): -inf from the given diagonal upwards, 0 elsewhere."""
    return torch.full((n, n), -math.inf, dtype=like.dtype, device=like.device).triu(diagonal)
