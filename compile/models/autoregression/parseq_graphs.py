"""PARSeq as three graphs of fixed shape: encoder, step, refine; inference_code.generation.parseq is the loop over them.

They share the weights of one networks.parseq.PARSeq, whose own forward is the original decoding.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from compile.models.autoregression.slots import HIDDEN, cache, hidden_unless, lower_triangle, reached, written
from compile.models.networks.parseq import Attention, DecoderLayer, PARSeq, Sizes


class EncoderGraph(nn.Module):
    """pixel_values to cross_keys and cross_values, each (batch, layers, heads, patches, width / heads)."""

    def __init__(self, model: PARSeq) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.attentions = nn.ModuleList(layer.cross_attn for layer in model.decoder.each())
        self.eval()

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        memory = self.encoder(pixel_values)
        pairs = [cast(Attention, attention).keys_values(memory) for attention in self.attentions]
        return {
            "cross_keys": torch.stack([keys for keys, _ in pairs], 1),
            "cross_values": torch.stack([values for _, values in pairs], 1),
        }


class _Decoding(nn.Module):
    """What the step and the refinement share: the decoder's layers, its embeddings and its head."""

    def __init__(self, model: PARSeq) -> None:
        super().__init__()
        self.sizes = model.sizes
        self.decoder = model.decoder
        self.head = model.head
        self.text_embed = model.text_embed
        self.pos_queries = model.pos_queries

    def content(self, tokens: Tensor) -> Tensor:
        """A text (batch, places) with its positions, (batch, places, width); its beginning has none."""
        embedded = self.text_embed(tokens)
        return torch.cat([embedded[:, :1], embedded[:, 1:] + self.pos_queries[:, :-1]], 1)

    def through(
        self,
        layer: DecoderLayer,
        streams: tuple[Tensor, Tensor, Tensor],
        characters: tuple[Tensor, Tensor],
        picture: tuple[Tensor, Tensor],
        mask: Tensor,
        content_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One layer for both streams; streams are query, content and the normalised content.

        content_mask: where the content sees something else than the query.
        """
        query, content, content_norm = streams
        query = layer.stream(query, layer.norm_q(query), characters, picture, mask)
        if layer is not self.decoder.layers[-1]:  # nobody reads the last layer's content
            content = layer.stream(
                content, content_norm, characters, picture, mask if content_mask is None else content_mask
            )
        return query, content

    def whole(self, query: Tensor, content: Tensor, cross: tuple[Tensor, Tensor], *masks: Tensor) -> Tensor:
        """Logits of the queries with all of the content at hand; cross: keys and values of the picture."""
        for index, layer in enumerate(self.decoder.each()):
            content_norm = layer.norm_c(content)
            characters = layer.self_attn.keys_values(content_norm)
            picture = (cross[0][:, index], cross[1][:, index])
            query, content = self.through(layer, (query, content, content_norm), characters, picture, *masks)
        logits: Tensor = self.head(self.decoder.norm(query))
        return logits


class StepGraph(_Decoding):
    """One character: token int64 (batch, 1), slot float32 (batch, places), cross_keys, cross_values, cache_keys and
    cache_values (batch, layers, heads, places, width / heads) to logits (batch, characters + 1) and the new caches.
    """

    triangle: Tensor

    def __init__(self, model: PARSeq) -> None:
        super().__init__(model)
        self.register_buffer("triangle", lower_triangle(model.sizes.steps), persistent=False)
        self.eval()

    def forward(
        self,
        token: Tensor,
        slot: Tensor,
        cross_keys: Tensor,
        cross_values: Tensor,
        cache_keys: Tensor,
        cache_values: Tensor,
    ) -> dict[str, Tensor]:
        positions = self.pos_queries[0]
        query = torch.matmul(slot, positions)[:, None, :]
        # The first token, the beginning, has no position; the one in slot n has that of query n - 1.
        content = self.text_embed(token) + torch.matmul(slot[:, 1:], positions[:-1])[:, None, :]
        mask = hidden_unless(reached(slot, self.triangle))
        keys, values = [], []
        for index, layer in enumerate(self.decoder.each()):
            content_norm = layer.norm_c(content)
            new_keys, new_values = layer.self_attn.keys_values(content_norm)
            keys.append(written(cache_keys[:, index], slot, new_keys))
            values.append(written(cache_values[:, index], slot, new_values))
            picture = (cross_keys[:, index], cross_values[:, index])
            streams = (query, content, content_norm)
            query, content = self.through(layer, streams, (keys[-1], values[-1]), picture, mask)
        return {
            "logits": self.head(self.decoder.norm(query))[:, 0],
            "cache_keys": torch.stack(keys, 1),
            "cache_values": torch.stack(values, 1),
        }


class PrefixGraph(nn.Module):
    """A step's logits without a cache: tokens int64 (batch, places) that start with the beginning and are padded by
    anything, slot, cross_keys and cross_values. It computes every place anew; `plan` weighs it against the step.
    """

    def __init__(self, step: StepGraph) -> None:
        super().__init__()
        self.step = step
        self.eval()

    def forward(self, tokens: Tensor, slot: Tensor, cross_keys: Tensor, cross_values: Tensor) -> dict[str, Tensor]:
        step = self.step
        query = torch.matmul(slot, step.pos_queries[0])[:, None, :]
        content = step.content(tokens)
        masks = (hidden_unless(reached(slot, step.triangle)), (1 - step.triangle) * HIDDEN)
        return {"logits": step.whole(query, content, (cross_keys, cross_values), *masks)[:, 0]}


class RefineGraph(_Decoding):
    """All characters once more: tokens int64 (batch, places) that start with the beginning, visible float32 (batch,
    places), 1 up to the text's end, cross_keys and cross_values to logits (batch, places, characters + 1).
    """

    cloze: Tensor

    def __init__(self, model: PARSeq) -> None:
        super().__init__(model)
        steps = model.sizes.steps
        # A place sees every character but its own, which stands one further: the text starts with the beginning.
        own = torch.ones(steps, steps).triu(1) - torch.ones(steps, steps).triu(2)
        self.register_buffer("cloze", own * HIDDEN, persistent=False)
        self.eval()

    def forward(self, tokens: Tensor, visible: Tensor, cross_keys: Tensor, cross_values: Tensor) -> dict[str, Tensor]:
        content = self.content(tokens)
        query = self.pos_queries.expand(tokens.shape[0], -1, -1)
        mask = self.cloze + hidden_unless(visible)
        return {"logits": self.whole(query, content, (cross_keys, cross_values), mask)}


def empty_cache(sizes: Sizes, batch: int) -> dict[str, Tensor]:
    """cache_keys and cache_values before the first step; nothing where every step computes the whole prefix."""
    return {} if sizes.decoding == "prefix" else cache(sizes.cache_shape(batch, sizes.steps))
