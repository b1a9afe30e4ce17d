"""The whole-prefix form equals the cached step, and the plan weighs the two."""

from __future__ import annotations

import pytest
import torch

from compile.definition import ModelDefinition
from compile.errors import CompileError
from compile.models import find
from compile.models.autoregression.plan import Cost, DecodingPlan, plan, whole_prefix
from compile.models.autoregression.slots import one_hot
from tests.compile.models.tiny import TINY

KEYS = [("parseq", "tiny"), ("marian", "opus-mt-en-de"), ("bart", "base"), ("pegasus", "xsum")]


def built(key: tuple[str, str], **options: int) -> ModelDefinition:
    found, variant = find(*key)
    definition = found.build(variant, TINY[key][0] | options)
    assert definition.initialise is not None
    definition.initialise(definition.weights, torch.Generator().manual_seed(0))
    return definition


@pytest.mark.parametrize("key", KEYS, ids=":".join)
def test_the_whole_prefix_gives_the_logits_of_the_cached_steps(key: tuple[str, str]) -> None:
    definition = built(key)
    step = definition.graphs["step"]
    inputs = dict(step.example_inputs(TINY[key][1], 2))
    places = inputs["slot"].shape[1]
    prefix, whole = whole_prefix(step.module, inputs)
    tokens = torch.randint(3, 40, (2, places), generator=torch.Generator().manual_seed(4))
    cache = {name: torch.zeros_like(inputs[name]) for name in ("cache_keys", "cache_values")}
    with torch.no_grad():
        for place in range(places):
            slot = one_hot(place, places, 2)
            inputs |= {"token": tokens[:, place : place + 1], "slot": slot, **cache}
            answer = dict(step.module(**inputs))
            expected = answer.pop("logits")
            cache = answer
            found = prefix(**{**whole, "tokens": tokens, "slot": slot})["logits"]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("key", KEYS, ids=":".join)
def test_the_plan_counts_more_work_for_the_prefix_and_more_bytes_for_the_cache(key: tuple[str, str]) -> None:
    weighed = plan(built(key), TINY[key][1])
    assert weighed.prefix.flops > 2 * weighed.cached.flops
    assert weighed.cached.transfer_bytes > weighed.prefix.transfer_bytes
    assert weighed.choice in str(weighed)
    assert weighed.to_json()["predicted"] is True


def test_the_choice_is_the_cheaper_one() -> None:
    cheap, dear = Cost(1, 1, 1, 1.0), Cost(1, 1, 1, 2.0)
    assert DecodingPlan("inf1", 1, cheap, dear).choice == "cached"
    assert DecodingPlan("inf1", 1, dear, cheap).choice == "prefix"
    assert DecodingPlan("inf1", 1, cheap, cheap).choice == "cached"


def test_only_a_cached_step_is_weighed() -> None:
    found, variant = find(*KEYS[1])
    definition = found.build(variant, TINY[KEYS[1]][0] | {"decoding": "prefix"})
    with pytest.raises(CompileError, match=r"PrefixGraph.*\n.*decoding: cached"):
        plan(definition, TINY[KEYS[1]][1])


def test_a_model_without_a_step_is_refused() -> None:
    with pytest.raises(CompileError, match="no graph of the role step"):
        plan(built(("resnet", "resnet50")), {"image": (64, 64)})
