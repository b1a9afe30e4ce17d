"""The whole-prefix form equals the cached step, and the plan weighs the two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from compile.analysis.decoding_cost import Cost, DecodingPlan, forms, plan, plans
from compile.definition import ModelDefinition
from compile.errors import CompileError
from compile.ir.flat_module import flat_module
from compile.lowering.for_target import lowered
from compile.models import find
from compile.models.autoregression.slots import one_hot
from tests.compile.models.tiny import TINY
from tests.compile.projects import run

KEYS = [("parseq", "tiny"), ("marian", "opus-mt-en-de"), ("bart", "base"), ("pegasus", "xsum")]


def built(key: tuple[str, str], **options: Any) -> ModelDefinition:
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
    _, (prefix, whole) = forms(step.module, inputs)
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
    (weighed,) = plans(built(key), [TINY[key][1]], [1], "inf1")
    assert weighed.prefix.flops > 2 * weighed.cached.flops
    assert weighed.cached.transfer_bytes > weighed.prefix.transfer_bytes
    assert weighed.verdict in str(weighed)
    assert weighed.to_json()["predicted"] is True
    assert weighed.variant.startswith("step")


@pytest.mark.parametrize("key", [KEYS[0], KEYS[2]], ids=":".join)
def test_the_plan_is_of_what_the_device_runs(key: tuple[str, str]) -> None:
    """BART's words are looked up on the host: neither the table nor the ids are the device's, the rows that cross are.

    The step gives logits and two caches and takes a row, a slot, the encoder's tensors and two caches.
    """
    definition = built(key)
    step = definition.graphs["step"]
    inputs = step.example_inputs(TINY[key][1], 1)
    with torch.no_grad():
        outputs = step.module(**inputs)
    parts = lowered(flat_module(step.module, inputs), tuple(inputs.values()), "inf1")
    found = plan(step.module, inputs).cached
    given = sum(tensor.numel() * tensor.element_size() for tensor in parts.device_inputs)
    assert parts.host is not None
    assert found.transfer_bytes == given + sum(tensor.numel() * 4 for tensor in outputs.values())
    assert found.weight_bytes < sum(p.numel() for p in step.module.parameters()) * 2 + 4 * 1024
    whole = plan(step.module, inputs, "inf2").cached
    assert whole.weight_bytes >= found.weight_bytes


@pytest.mark.parametrize("key", [KEYS[0], KEYS[1]], ids=":".join)
def test_either_form_gives_the_same_plan(key: tuple[str, str]) -> None:
    (one,), (other,) = (
        plans(built(key, decoding=decoding), [TINY[key][1]], [1], "inf1") for decoding in ("cached", "prefix")
    )
    assert (one.built, other.built) == ("cached", "prefix")
    assert one.prefix == other.prefix
    assert one.cached.flops == other.cached.flops
    assert one.cached.transfer_bytes == other.cached.transfer_bytes
    assert "decoding: " in (one if one.choice == "prefix" else other).verdict


def test_the_choice_is_the_cheaper_one() -> None:
    cheap, dear = Cost(1, 1, 1, 1.0), Cost(1, 1, 1, 2.0)
    assert DecodingPlan("step", "inf1", 1, cheap, dear).choice == "cached"
    assert DecodingPlan("step", "inf1", 1, dear, cheap).choice == "prefix"
    assert DecodingPlan("step", "inf1", 1, cheap, cheap).choice == "cached"
    assert "model.options {decoding: prefix}" in DecodingPlan("step", "inf1", 1, dear, cheap).verdict
    assert "options" not in DecodingPlan("step", "inf1", 1, cheap, dear).verdict


def test_what_has_no_built_in_step_is_not_weighed() -> None:
    assert plans(built(("resnet", "resnet50")), [{"image": (64, 64)}], [1], "inf1") == []
    with pytest.raises(CompileError, match="is Linear, not that of a built-in family"):
        plan(torch.nn.Linear(1, 1), {"slot": torch.zeros(1, 3)})


@pytest.mark.slow
def test_the_commands_show_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = KEYS[0]
    options = yaml.safe_dump(TINY[key][0], default_flow_style=True).strip()
    path = tmp_path / "endpoints" / "words.yaml"
    path.parent.mkdir()
    path.write_text(f'name: words\nmodel: {{family: parseq, variant: tiny, weights: "random:0", options: {options}}}\n')
    where = ("--root", str(tmp_path))

    def shown(*arguments: str) -> str:
        assert run(monkeypatch, *arguments, *where) == 0
        captured = capsys.readouterr()
        return captured.out if "--json" in arguments or "--plan" in arguments else captured.out + captured.err

    (one,) = json.loads(shown("build", "words", "--plan", "--rehearse", "--json"))["decoding"]
    assert one["choice"] in ("cached", "prefix")
    assert one["cached"]["transfer_bytes"] > one["prefix"]["transfer_bytes"]
    lowered = json.loads(shown("analyze", "words", "--lowered", "--json", "-"))["lowered"]
    (step,) = [graph for graph in lowered["graphs"] if "step" in graph["name"]]
    assert step["decoding"]["cached"] == one["cached"]
    assert all("decoding" not in graph for graph in lowered["graphs"] if graph is not step)
    for command in (("build", "words", "--plan", "--rehearse"), ("analyze", "words", "--lowered")):
        assert "One step of decoding" in shown(*command)
    plan = shown("build", "words", "--rehearse")
    assert "decoding" in plan
    assert "costs less on inf1" in " ".join(plan.split())
