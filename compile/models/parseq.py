"""PARSeq: the text in a picture of one word or line.

Network: our own (networks/parseq.py). Files of baudm/parseq load (parseq-bb5792a6.pt and the like: encoder.blocks.0
..., decoder.layers.0 ..., head, text_embed.embedding, pos_queries), with or without the training's "model.". The
original decodes with shapes that
grow; here it is three graphs of fixed shape with the same tokens (autoregression/parseq_graphs.py).
"""

from __future__ import annotations

import string

import torch
from torch import Tensor

from compile.definition import Bucket, Inputs, ModelDefinition, SampleRequest
from compile.models import family
from compile.models.autoregression.parseq_graphs import (
    EncoderGraph,
    PrefixGraph,
    RefineGraph,
    StepGraph,
)
from compile.models.autoregression.seq2seq import DECODINGS, prefix_inputs
from compile.models.autoregression.slots import cache, one_hot
from compile.models.networks.parseq import PARSeq, Sizes
from compile.models.parts.draw import drawer
from compile.models.parts.drawn import drawn
from compile.models.parts.options import divides, require
from compile.models.parts.pictures import Pictures, png

CHARSET = string.digits + string.ascii_letters + string.punctuation
VARIANTS = {"base": Sizes(), "tiny": Sizes(width=192, encoder_heads=3, decoder_heads=6)}


@family(name="parseq", variants=VARIANTS, task="image-to-text", source="https://github.com/baudm/parseq")
def build(sizes: Sizes) -> ModelDefinition:
    """Graphs encoder, step and refine; pictures are float32 (batch, 3, 32, 128) in -1..1. Options: see `Sizes`."""
    require(
        "parseq",
        divides(sizes, "width", "encoder_heads"),
        divides(sizes, "width", "decoder_heads"),
        (sizes.decoder_layers > 0, "decoder_layers must be at least 1"),
        (sizes.decoding in DECODINGS, f"decoding {sizes.decoding!r} is none of {', '.join(DECODINGS)}"),
        (sizes.max_label_length > 0, "max_label_length must be at least 1"),
    )
    model = PARSeq(sizes).eval()
    inputs = _Inputs(sizes, Pictures("parseq", fixed=sizes.image, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
    step = StepGraph(model)
    graphs = {
        "encoder": drawn(EncoderGraph(model), inputs.pictures.batch),
        "step": drawn(step if sizes.decoding == "cached" else PrefixGraph(step), inputs.step),
    }
    if sizes.refinements:
        graphs["refine"] = drawn(RefineGraph(model), inputs.refine)
    return ModelDefinition(
        graphs=graphs,
        buckets=[{"image": sizes.image}],
        task="image-to-text",
        sample=_sample,
        task_settings={"charset": charset(sizes), "refinements": sizes.refinements},
        weights_module=model,
        checkpoint_keys=without_lightning_prefix,
        initialise=draw,
    )


def charset(sizes: Sizes) -> str:
    """The characters of tokens 1 to n, in the order of baudm/parseq's released models; a shorter one is its beginning.

    Raises CompileError for a model of more characters, whose charset cannot be known.
    """
    require("parseq", (sizes.characters <= len(CHARSET), f"characters {sizes.characters} is above {len(CHARSET)}"))
    return CHARSET[: sizes.characters]


def draw(module: torch.nn.Module, generator: torch.Generator) -> None:
    """Random weights with decisive logits. Token embeddings are scaled by sqrt(width) when they are read."""
    width = module.get_parameter("pos_queries").shape[-1]
    gains = {"text_embed.embedding.weight": float(width) ** -0.5, "head.weight": 4.0}
    drawer(gains=gains)(module, generator)


def without_lightning_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Checkpoints of newer training runs hold the network as "model."; the released files do not."""
    if not all(key.startswith("model.") for key in state):
        return state
    return {key[len("model.") :]: value for key, value in state.items()}


def _sample(_: Bucket) -> SampleRequest:
    return SampleRequest(png(7, 24, 80), "image/png", "application/json", png(8, 24, 80))


class _Inputs:
    """Made-up inputs of the three graphs; those that another graph would give are drawn."""

    def __init__(self, sizes: Sizes, pictures: Pictures) -> None:
        self.sizes = sizes
        self.pictures = pictures

    def step(self, seed: int, bucket: Bucket, batch: int) -> Inputs:
        """A step in the middle of a text: the cache is filled before the slot and empty from there."""
        self.pictures.size(bucket)
        generator = torch.Generator().manual_seed(seed)
        place = (3 * seed) % self.sizes.steps
        filled = cache(self.sizes.cache_shape(batch, self.sizes.steps), place, generator)
        token = torch.randint(1, self.sizes.beginning, (batch, 1), generator=generator)
        slot = one_hot(place, self.sizes.steps, batch)
        inputs = {"token": token, "slot": slot, **self._cross(generator, batch), **filled}
        return inputs if self.sizes.decoding == "cached" else prefix_inputs(inputs, self.sizes.steps)

    def refine(self, seed: int, bucket: Bucket, batch: int) -> dict[str, Tensor]:
        self.pictures.size(bucket)
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(1, self.sizes.beginning, (batch, self.sizes.steps), generator=generator)
        tokens[:, 0] = self.sizes.beginning
        lengths = torch.randint(1, self.sizes.steps + 1, (batch, 1), generator=generator)
        visible = (torch.arange(self.sizes.steps)[None, :] < lengths).float()
        return {"tokens": tokens, "visible": visible, **self._cross(generator, batch)}

    def _cross(self, generator: torch.Generator, batch: int) -> dict[str, Tensor]:
        sizes = self.sizes
        patches = (sizes.image[0] // sizes.patch[0]) * (sizes.image[1] // sizes.patch[1])
        shape = sizes.cache_shape(batch, patches)
        return {name: torch.randn(shape, generator=generator) for name in ("cross_keys", "cross_values")}
