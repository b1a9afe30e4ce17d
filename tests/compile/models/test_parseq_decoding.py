"""The three fixed-shape graphs of PARSeq give the tokens of the original decoding."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from compile.definition import ModelDefinition
from compile.models import find
from compile.models.autoregression.parseq_graphs import empty_cache
from compile.models.autoregression.slots import HIDDEN, lower_triangle, one_hot, reached, written
from compile.models.networks.parseq import PARSeq, Sizes
from inference_code.generation.parseq import Alphabet, spell

TINY: dict[str, Any] = {"width": 48, "encoder_layers": 2, "encoder_heads": 3, "decoder_heads": 4}
RUNS = 64


def built(seed: int, **options: Any) -> tuple[ModelDefinition, PARSeq]:
    found, variant = find("parseq", "tiny")
    definition = found.build(variant, TINY | options)
    assert definition.initialise is not None
    definition.initialise(definition.weights, torch.Generator().manual_seed(seed))
    assert isinstance(definition.weights, PARSeq)
    return definition, definition.weights


def decode(definition: ModelDefinition, sizes: Sizes, pictures: torch.Tensor) -> torch.Tensor:
    alphabet = Alphabet(sizes.end, sizes.beginning, sizes.padding, sizes.steps, sizes.refinements)
    graphs = {role: graph.module for role, graph in definition.graphs.items()}
    with torch.no_grad():
        return spell(graphs, pictures, alphabet, cache=empty_cache(sizes, 1))


def text(logits: torch.Tensor, end: int) -> list[int]:
    """Tokens of one row up to and including the end."""
    tokens = logits.argmax(-1).tolist()
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


def margin(logits: torch.Tensor, length: int) -> float:
    """How decisive the first `length` tokens are: the smallest lead of the best logit."""
    best = logits[:length].topk(2, -1).values
    return float((best[:, 0] - best[:, 1]).min())


@functools.lru_cache(maxsize=1)
def runs() -> tuple[list[tuple[list[int], list[int], float, float, int]], list[int]]:
    """64 decisive runs: tokens of both, the margin, the logit error, and how many characters were spelt; the ties.

    A run is a network of its own seed and one picture, whose end is made likely enough to come early in most. Runs
    whose margin is below ten times the logit error are ties: another seed takes their place.
    """
    torch.set_num_threads(1)
    found, ties, seed = [], [], 0
    while len(found) < RUNS:
        seed += 1
        definition, model = built(seed)
        with torch.no_grad():
            model.head.bias[0] += 6.0
            pictures = torch.randn(1, 3, 32, 128, generator=torch.Generator().manual_seed(seed))
            expected = model(pictures)[0]
            spelt = model.spell(model.encoder(pictures)).shape[1]
        answer = decode(definition, model.sizes, pictures)[0]
        wanted, got = text(expected, model.sizes.end), text(answer, model.sizes.end)
        error = float((answer - expected)[: len(wanted)].abs().max())
        if margin(expected, len(wanted)) >= 10 * error:
            found.append((wanted, got, margin(expected, len(wanted)), error, spelt))
        else:
            ties.append(seed)
        assert seed < 4 * RUNS, f"most runs are ties: {ties}"
    return found, ties


def test_tokens_equal_the_original_decoding_in_64_runs(record_property: Callable[[str, object], None]) -> None:
    found, ties = runs()
    record_property("ties", ties)
    print(f"PARSeq: {len(found)} decisive runs; ties that were seeded anew: {ties or 'none'}")  # noqa: T201  (shown by -rP)
    assert [got for _, got, *_ in found] == [wanted for wanted, *_ in found]
    assert len(found) == RUNS
    assert all(lead >= 10 * error for _, _, lead, error, _ in found)


def test_the_runs_say_something() -> None:
    found, _ = runs()
    lengths = [spelt for *_, spelt in found]
    assert sum(length < 26 for length in lengths) >= RUNS // 4, "hardly any early stop"
    assert sum(length > 5 for length in lengths) >= RUNS // 4, "hardly any long text"
    assert len({tuple(wanted) for wanted, *_ in found}) > RUNS // 2


@pytest.mark.parametrize(
    "options", [{}, {"decoder_layers": 2}, {"refinements": 0}, {"refinements": 2}, {"decoding": "prefix"}]
)
def test_logits_equal_the_original_in_a_batch(options: dict[str, Any]) -> None:
    definition, model = built(3, **options)
    pictures = torch.randn(3, 3, 32, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.head.bias[0] -= 100.0  # no text ends: every place is compared
        expected = model(pictures)
    answer = decode(definition, model.sizes, pictures)
    assert answer.shape == expected.shape
    torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-3)


def test_without_masks_the_padding_would_be_read() -> None:
    definition, model = built(3)
    step = definition.graphs["step"]
    inputs = dict(step.example_inputs({"image": (32, 128)}, 1))
    assert model.sizes.steps > 2
    inputs["slot"] = one_hot(1, model.sizes.steps, 1)
    with torch.no_grad():
        clean = step.module(**inputs)["logits"]
        inputs["cache_keys"] = inputs["cache_keys"] + (1 - reached(inputs["slot"], lower_triangle(26)))[0, :, None]
        assert torch.equal(step.module(**inputs)["logits"], clean)
        getattr(step.module, "triangle").fill_(1.0)  # noqa: B009
        assert not torch.equal(step.module(**inputs)["logits"], clean)


def test_a_slot_is_written_and_nothing_else() -> None:
    cache = torch.randn(2, 3, 5, 4)
    new = torch.randn(2, 3, 1, 4)
    expected = cache.clone()
    expected[:, :, 2:3] = new
    assert torch.equal(written(cache, one_hot(2, 5, 2), new), expected)


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_the_finite_mask_equals_minus_infinity(scale: float) -> None:
    scores = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)) * scale
    hidden = torch.arange(9) > 5
    exact = torch.softmax(scores.masked_fill(hidden, -torch.inf), -1)
    assert torch.equal(torch.softmax(scores + hidden.float() * HIDDEN, -1), exact)
    assert torch.tensor(2 * HIDDEN, dtype=torch.float16).isfinite()  # two masks may add up
