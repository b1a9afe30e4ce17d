"""An encoder-decoder of transformers (Marian, BART, Pegasus) as an encoder graph and a step graph of fixed shape.

The encoder is the library's. The step is written here over the library's weights, because the library's cache grows.
What differs between the three is read off the model: where layers are normalised, how positions are embedded, whether
embeddings are scaled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from compile.definition import Bucket, Inputs, ModelDefinition
from compile.models.autoregression.slots import HIDDEN, cache, hidden_unless, lower_triangle, one_hot, reached, written
from compile.models.networks.attention import attend, split_heads
from compile.models.parts.drawn import drawn
from compile.models.parts.options import divides, require
from compile.models.parts.tokens import Tokens

Initialiser = Callable[[nn.Module, torch.Generator], None]
Renaming = Callable[[dict[str, Tensor]], dict[str, Tensor]]
DECODINGS = ("cached", "prefix")


@dataclass(frozen=True)
class Sizes:
    """The numbers of an encoder-decoder. `target` is the cache's length: the longest answer without its last token.

    decoding: "cached" (the step keeps keys and values) or "prefix" (it computes all places anew); see
    compile/analysis/decoding_cost.py.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    intermediate_size: int
    positions: int
    tokens: int = 128
    target: int = 128
    decoding: str = "cached"

    def check(self, family: str) -> None:
        """Raises CompileError naming what does not fit together."""
        require(
            family,
            divides(self, "width", "heads"),
            (0 < self.target <= self.positions, f"target {self.target} is not within positions {self.positions}"),
            (self.decoding in DECODINGS, f"decoding {self.decoding!r} is none of {', '.join(DECODINGS)}"),
            (0 < self.tokens <= self.positions, f"tokens {self.tokens} is not within positions {self.positions}"),
        )

    def cache_shape(self, batch: int) -> tuple[int, ...]:
        """(batch, layers, heads, places, width of a head)."""
        return batch, self.layers, self.heads, self.target, self.width // self.heads

    def configuration(self) -> dict[str, Any]:
        """The part of a transformers configuration that the three families share."""
        return {
            "vocab_size": self.vocabulary,
            "d_model": self.width,
            "encoder_layers": self.layers,
            "decoder_layers": self.layers,
            "encoder_attention_heads": self.heads,
            "decoder_attention_heads": self.heads,
            "encoder_ffn_dim": self.intermediate_size,
            "decoder_ffn_dim": self.intermediate_size,
            "max_position_embeddings": self.positions,
            "attn_implementation": "eager",
        }


class EncoderGraph(nn.Module):
    """input_ids, attention_mask int64 (batch, tokens) to what every step reads.

    cross_keys, cross_values (batch, layers, heads, tokens, width / heads); cross_visible float32 (batch, tokens), 1
    where there is a token.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.model.encoder
        self.heads = model.config.decoder_attention_heads
        attentions = [layer.encoder_attn for layer in model.model.decoder.layers]
        self.keys = nn.ModuleList(attention.k_proj for attention in attentions)
        self.values = nn.ModuleList(attention.v_proj for attention in attentions)
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        memory = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        return {
            "cross_keys": torch.stack([split_heads(project(memory), self.heads) for project in self.keys], 1),
            "cross_values": torch.stack([split_heads(project(memory), self.heads) for project in self.values], 1),
            "cross_visible": attention_mask.to(memory.dtype),
        }


class StepLayer(nn.Module):
    """One layer of a decoder for one token. Holds the library's modules, without the projections that it never uses."""

    def __init__(self, layer: Any, *, normalise_first: bool) -> None:
        super().__init__()
        self.normalise_first = normalise_first
        self.heads = layer.self_attn.num_heads
        self.query, self.key = layer.self_attn.q_proj, layer.self_attn.k_proj
        self.value, self.out = layer.self_attn.v_proj, layer.self_attn.out_proj
        self.self_norm = layer.self_attn_layer_norm
        self.cross_query, self.cross_out = layer.encoder_attn.q_proj, layer.encoder_attn.out_proj
        self.cross_norm = layer.encoder_attn_layer_norm
        self.fc1, self.fc2, self.final_norm = layer.fc1, layer.fc2, layer.final_layer_norm
        self.activation = layer.activation_fn

    def forward(
        self,
        x: Tensor,
        slot: Tensor,
        cache: tuple[Tensor, Tensor],
        cross: tuple[Tensor, Tensor],
        masks: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (batch, 1, width) behind the layer, and the two caches (batch, heads, places, width / heads) written."""
        y = self._before(x, self.self_norm)
        keys = written(cache[0], slot, split_heads(self.key(y), self.heads))
        values = written(cache[1], slot, split_heads(self.value(y), self.heads))
        return self._rest(x, y, (keys, values), cross, masks), keys, values

    def whole(self, x: Tensor, cross: tuple[Tensor, Tensor], masks: tuple[Tensor, Tensor]) -> Tensor:
        """All tokens (batch, n, width) at once, without a cache."""
        y = self._before(x, self.self_norm)
        own = (split_heads(self.key(y), self.heads), split_heads(self.value(y), self.heads))
        return self._rest(x, y, own, cross, masks)

    def _rest(
        self,
        x: Tensor,
        y: Tensor,
        own: tuple[Tensor, Tensor],
        cross: tuple[Tensor, Tensor],
        masks: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Everything behind the keys and values; y is what self-attention reads of x."""
        found = attend(split_heads(self.query(y), self.heads), *own, masks[0])
        x = self._after(x + self.out(found), self.self_norm)
        query = split_heads(self.cross_query(self._before(x, self.cross_norm)), self.heads)
        x = self._after(x + self.cross_out(attend(query, *cross, masks[1])), self.cross_norm)
        dense = self.fc2(self.activation(self.fc1(self._before(x, self.final_norm))))
        return self._after(x + dense, self.final_norm)

    def _before(self, x: Tensor, norm: nn.Module) -> Tensor:
        y: Tensor = norm(x) if self.normalise_first else x
        return y

    def _after(self, x: Tensor, norm: nn.Module) -> Tensor:
        y: Tensor = x if self.normalise_first else norm(x)
        return y


class StepGraph(nn.Module):
    """One token: token int64 (batch, 1), slot float32 (batch, target), the encoder's three, cache_keys and cache_values
    (batch, layers, heads, target, width / heads) to logits (batch, vocabulary) and the new caches.

    normalise_first: whether layers normalise what they read (Pegasus) or what they leave (Marian, BART).
    """

    triangle: Tensor
    bias: Tensor

    def __init__(self, model: Any, target: int, *, normalise_first: bool) -> None:
        super().__init__()
        decoder = model.model.decoder
        self.target = target
        self.scale = math.sqrt(model.config.d_model) if model.config.scale_embedding else 1.0
        self.embed_tokens = decoder.embed_tokens
        self.embed_positions = decoder.embed_positions
        self.offset = getattr(decoder.embed_positions, "offset", 0)  # BART's first two rows are unused
        self.first_norm = getattr(decoder, "layernorm_embedding", nn.Identity())
        self.layers = nn.ModuleList(StepLayer(layer, normalise_first=normalise_first) for layer in decoder.layers)
        self.last_norm = getattr(decoder, "layer_norm", nn.Identity())
        self.head = model.lm_head
        self.register_buffer("bias", model.final_logits_bias)
        self.register_buffer("triangle", lower_triangle(target), persistent=False)
        self.eval()

    def forward(
        self,
        token: Tensor,
        slot: Tensor,
        cross_keys: Tensor,
        cross_values: Tensor,
        cross_visible: Tensor,
        cache_keys: Tensor,
        cache_values: Tensor,
    ) -> dict[str, Tensor]:
        x = self.first_norm(self.embedded(token) + torch.matmul(slot, self.table())[:, None, :])
        masks = (hidden_unless(reached(slot, self.triangle)), hidden_unless(cross_visible))
        keys, values = [], []
        for index, layer in enumerate(self.layers):
            cache = (cache_keys[:, index], cache_values[:, index])
            cross = (cross_keys[:, index], cross_values[:, index])
            x, new_keys, new_values = layer(x, slot, cache, cross, masks)
            keys.append(new_keys)
            values.append(new_values)
        return {
            "logits": (self.head(self.last_norm(x)) + self.bias)[:, 0],
            "cache_keys": torch.stack(keys, 1),
            "cache_values": torch.stack(values, 1),
        }

    def embedded(self, tokens: Tensor) -> Tensor:
        """Embeddings of tokens (batch, n, width), without positions."""
        return functional.embedding(tokens, self.embed_tokens.weight) * self.scale

    def table(self) -> Tensor:
        """The embeddings of all places, (target, width)."""
        rows: Tensor = self.embed_positions.weight
        return rows[self.offset : self.offset + self.target]


class PrefixGraph(nn.Module):
    """A step's logits without a cache: tokens int64 (batch, target), padded by anything, slot, and the encoder's three.

    It computes every place anew at each step. `plan` weighs it against the step, whose weights it uses.
    """

    def __init__(self, step: StepGraph) -> None:
        super().__init__()
        self.step = step
        self.eval()

    def forward(
        self, tokens: Tensor, slot: Tensor, cross_keys: Tensor, cross_values: Tensor, cross_visible: Tensor
    ) -> dict[str, Tensor]:
        step = self.step
        x = step.first_norm(step.embedded(tokens) + step.table())
        masks = ((1 - step.triangle) * HIDDEN, hidden_unless(cross_visible))
        for index, layer in enumerate(step.layers):
            x = cast(StepLayer, layer).whole(x, (cross_keys[:, index], cross_values[:, index]), masks)
        here = torch.matmul(slot[:, None, :], x)
        return {"logits": (step.head(step.last_norm(here)) + step.bias)[:, 0]}


def prefix_inputs(step: Inputs, target: int) -> Inputs:
    """The prefix graph's inputs from the step's: the token at every place."""
    kept = {name: value for name, value in step.items() if not name.startswith(("cache", "token"))}
    return {"tokens": step["token"].expand(-1, target).contiguous(), **kept}


def definition(  # noqa: PLR0913 - all by name
    sizes: Sizes,
    tokens: Tokens,
    network: Any,
    configuration: Any,
    *,
    start: int,
    end: int,
    draw: Initialiser,
    normalise_first: bool = False,
    bad_words: Sequence[int] = (),
    names: Renaming = dict,
    **constants: Any,
) -> ModelDefinition:
    """Graphs encoder and step over the weights of one model, with made-up inputs; a text ends at the longest.

    network, configuration: transformers' classes; constants: further keys of the configuration. draw: of the weights
    that are learned. names: of published checkpoints, to the library's.
    """
    sizes.check(tokens.family)
    special = {"pad_token_id": tokens.padding, "decoder_start_token_id": start, "eos_token_id": end}
    configured = configuration(**sizes.configuration(), **special, forced_eos_token_id=end, **constants)
    model = network(configured).eval()
    step: nn.Module = StepGraph(model, sizes.target, normalise_first=normalise_first)
    if sizes.decoding == "prefix":
        step = PrefixGraph(cast(StepGraph, step))

    def initialise(module: nn.Module, generator: torch.Generator) -> None:
        kept = {name: value.clone() for name, value in _computed(module).items()}
        draw(module, generator)
        with torch.no_grad():
            for name, value in kept.items():
                module.get_parameter(name).copy_(value)

    return ModelDefinition(
        graphs={
            "encoder": drawn(EncoderGraph(model), tokens.batch, {"input_ids": tokens.padding, "attention_mask": 0}),
            "step": drawn(step, _StepInputs(sizes, tokens).draw),
        },
        buckets=[{"tokens": sizes.tokens}],
        task="text2text-generation",
        sample=tokens.sample,
        task_settings={
            **{"vocabulary": sizes.vocabulary, "start": start, "end": end, "padding": tokens.padding},
            **{"forced_eos": end, "bad_words": list(bad_words)},
        },
        weights_module=model,
        checkpoint_keys=lambda state: {**_computed(model), **names(state)},
        initialise=initialise,
    )


def _computed(module: nn.Module) -> dict[str, Tensor]:
    """Tables that are computed and not learned, sinusoidal positions: published files leave them out."""
    return {name: value.detach() for name, value in module.named_parameters() if not value.requires_grad}


def empty_cache(sizes: Sizes, batch: int) -> dict[str, Tensor]:
    """cache_keys and cache_values before the first step; nothing where every step computes the whole prefix."""
    return {} if sizes.decoding == "prefix" else cache(sizes.cache_shape(batch))


@dataclass(frozen=True)
class _StepInputs:
    """Inputs of the step in the middle of a text; what the encoder or an earlier step would give is drawn."""

    sizes: Sizes
    tokens: Tokens

    def draw(self, seed: int, bucket: Bucket, batch: int) -> Inputs:
        sizes, generator = self.sizes, torch.Generator().manual_seed(seed)
        place = (7 * seed) % sizes.target
        text = self.tokens.batch(seed, bucket, batch)
        shape = (batch, sizes.layers, sizes.heads, self.tokens.length(bucket), sizes.width // sizes.heads)
        filled = cache(sizes.cache_shape(batch), place, generator)
        inputs = {
            "token": text["input_ids"][:, :1],
            "slot": one_hot(place, sizes.target, batch),
            "cross_keys": torch.randn(shape, generator=generator),
            "cross_values": torch.randn(shape, generator=generator),
            "cross_visible": text["attention_mask"].float(),
            **filled,
        }
        return inputs if sizes.decoding == "cached" else prefix_inputs(inputs, sizes.target)
