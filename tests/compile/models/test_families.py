"""Every family, small: it builds, runs, follows its input, and draws the same weights from the same seed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from compile.definition import Bucket, ModelDefinition, checked_inputs
from compile.errors import CompileError
from compile.frontend.weights import load
from compile.ir.flat_module import flatten_outputs
from compile.models import families, find
from compile.verification.parity import FAINT
from tests.compile.models.tiny import TINY

CASES = [pytest.param(key, id=f"{key[0]}:{key[1]}") for key in TINY]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def built(key: tuple[str, str], seed: int = 0) -> tuple[ModelDefinition, Bucket]:
    """The tiny definition with weights drawn from a seed."""
    options, bucket = TINY[key]
    found, variant = find(*key)
    definition = found.build(variant, options)
    assert definition.initialise is not None
    definition.initialise(definition.weights, torch.Generator().manual_seed(seed))
    return definition, bucket


def test_every_family_is_tried() -> None:
    assert {key[0] for key in TINY} | {"depth_anything_v2"} == set(families())


@pytest.mark.parametrize("key", CASES)
def test_outputs_are_finite_and_follow_the_input(key: tuple[str, str]) -> None:
    definition, bucket = built(key)
    for role, graph in definition.graphs.items():
        example, references = checked_inputs(graph, role, bucket, 2)
        with torch.no_grad():
            answers = [flatten_outputs(graph.module(**inputs)) for inputs in (example, *references)]
        for place, name in enumerate(answers[0].names):
            values = [answer.leaves[place] for answer in answers]
            assert all(bool(torch.isfinite(value).all()) for value in values), f"{role}.{name}"
            assert values[0].shape[0] == 2, f"{role}.{name} has no batch axis"
            largest = max(float(value.abs().max()) for value in values)
            moved = max(float((value - values[0]).abs().max()) for value in values[1:])
            assert moved > 10 * FAINT * largest, f"{role}.{name} hardly depends on the input"


@pytest.mark.parametrize("key", CASES)
def test_one_of_a_batch_does_not_change_another(key: tuple[str, str]) -> None:
    definition, bucket = built(key)
    graph = next(iter(definition.graphs.values()))
    inputs = graph.example_inputs(bucket, 2)
    with torch.no_grad():
        both = flatten_outputs(graph.module(**inputs)).leaves
        first = flatten_outputs(graph.module(**{name: value[:1] for name, value in inputs.items()})).leaves
    for one, other in zip(first, both, strict=True):
        # float32 kernels round by the batch's size, and differently on each processor; another item would be far off
        torch.testing.assert_close(one, other[:1], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("key", CASES)
def test_weights_of_a_seed_are_always_the_same(key: tuple[str, str]) -> None:
    one, two, other = (built(key, seed)[0].weights.state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], two[name]) for name in one)
    differing = [name for name in one if not torch.equal(one[name], other[name])]
    # Sinusoidal positions take no gradient: they are computed, not drawn.
    learned = {name for name, value in built(key)[0].weights.named_parameters() if value.requires_grad}
    assert learned <= set(differing), f"not drawn from the seed: {sorted(learned - set(differing))}"


@pytest.mark.parametrize("key", CASES)
def test_a_checkpoint_of_its_own_weights_loads(key: tuple[str, str]) -> None:
    source, bucket = built(key, seed=5)
    target, _ = built(key, seed=6)
    load(target, {name: value.clone() for name, value in source.weights.state_dict().items()}, "a file")
    graph, same = (next(iter(definition.graphs.values())) for definition in (source, target))
    inputs = graph.example_inputs(bucket, 1)
    with torch.no_grad():
        expected, found = (flatten_outputs(g.module(**inputs)).leaves for g in (graph, same))
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


@pytest.mark.parametrize("key", CASES)
def test_unknown_and_mistyped_options_are_named_together(key: tuple[str, str]) -> None:
    found, variant = find(*key)
    option = next(iter(TINY[key][0]))
    with pytest.raises(CompileError) as caught:
        found.build(variant, {"colour": 1, option: None})
    assert "colour" in str(caught.value)
    assert option in str(caught.value)


@pytest.mark.parametrize("key", CASES)
def test_a_bucket_that_does_not_fit_is_refused(key: tuple[str, str]) -> None:
    definition, bucket = built(key)
    if "tables" in bucket:
        pytest.skip("its sizes are the network's")
    graph = next(iter(definition.graphs.values()))
    wrong = {"image": (33, 7)} if "image" in bucket else {"tokens": 10_000}
    if key[0] == "resnet":
        wrong = {"tokens": 5}  # it takes a picture of any size
    with pytest.raises(CompileError, match=r"compile\.buckets"):
        graph.example_inputs(wrong, 1)
