"""Nothing a model can do ends in "unexpected ...", or in an artifact that answers otherwise than the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from compile.analysis import preflight
from compile.pipeline import graph as pipeline
from compile.verification.items import Items, OutputItems
from compile.verification.parity import OutputParity, Parity
from tests.compile.fuzz.generate import Case, case, single
from tests.compile.fuzz.hazards import hazards
from tests.compile.fuzz.judge import FaultError, line, outcome
from tests.compile.fuzz.operators import ALL

QUICK, LONG = 60, 500


def fuzz(seeds: range) -> list[Case]:
    """Builds every seed's module; prints how each ended. Raises FaultError naming all seeds whose end was none."""
    cases, faults = [], []
    for seed in seeds:
        drawn = case(seed)
        cases.append(drawn)
        try:
            print(f"seed {seed}: {', '.join(drawn.hazards) or 'no hazard'}: {outcome(drawn).splitlines()[0]}")  # noqa: T201
        except FaultError as fault:
            faults.append(f"seed {seed} ({', '.join(drawn.hazards)}; batch {drawn.batch}, {drawn.target}): {fault}")
    assert not faults, "\n\n".join(faults)
    return cases


@pytest.mark.parametrize("first", range(0, QUICK, 20))
def test_each_module_is_built_or_refused_with_a_remedy(first: int) -> None:
    fuzz(range(first, first + 20))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(QUICK, LONG, 40))
def test_each_of_many_modules_is_built_or_refused_with_a_remedy(first: int) -> None:
    fuzz(range(first, first + 40))


def test_what_is_drawn() -> None:
    cases = [case(seed) for seed in range(120)]
    assert len(ALL) >= 120
    assert len({name for drawn in cases for name in drawn.operators}) >= 120
    assert len({name for drawn in cases for name in drawn.hazards}) >= 0.6 * len(hazards())
    assert 2 * sum(len(drawn.hazards) >= 3 for drawn in cases) >= len(cases)


def nothing(*_: Any, **__: Any) -> list[Any]:
    return []


def every_item_its_own(_flat: Any, _references: Any, names: list[str], *_: Any) -> tuple[Items, None]:
    return Items([OutputItems(name, 0, bound=float("inf")) for name in names]), None


def equal(_eager: Any, artifact: Callable[..., Any], references: list[Any], names: list[str], **_: Any) -> Parity:
    with torch.no_grad():
        artifact(*references[0].values())
    return Parity(len(references), [OutputParity(name) for name in names])


@contextmanager
def unwatched(
    _flat: Any, inputs: Mapping[str, torch.Tensor], _found: list[Any]
) -> Iterator[Mapping[str, torch.Tensor]]:
    yield {name: tensor.clone() for name, tensor in inputs.items()}


# The check that is switched off, by the seams that a build calls it through, and a model that only it refuses.
OFF: dict[str, tuple[list[tuple[Any, str, Any]], str]] = {
    "of_module": ([(preflight, "of_module", nothing)], "wrapper:scripted"),
    "of_code": ([(preflight, "of_code", nothing)], "decision:bool_same_for_all"),
    "of_graph": ([(preflight, "of_graph", nothing)], "numbers:double_inside"),
    "watched": ([(preflight, "watched", unwatched)], "state:count_unread"),
    "the item proof": (
        [(pipeline, "try_original", every_item_its_own), (pipeline, "try_artifact", nothing)],
        "mixing:flip_batch",
    ),
    "parity": (
        [(pipeline, "compare", equal), (pipeline, "try_artifact", nothing), (preflight, "of_code", nothing)],
        "decision:bool",
    ),
}


@pytest.mark.parametrize("check", OFF)
def test_without_a_check_the_fuzz_fails(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    off, hazard = OFF[check]
    assert outcome(single(hazard)) != "built"
    for owner, name, replaced in off:
        monkeypatch.setattr(owner, name, replaced)
    with pytest.raises(FaultError):
        outcome(single(hazard))


# A hazard of each kind of finding that can refuse a module.
KINDS = {
    "torchscript": "wrapper:traced",
    "wrapper": "wrapper:data_parallel",
    "quantized": "wrapper:quantized",
    "lazy": "wrapper:lazy",
    "meta": "wrapper:meta",
    "training": "wrapper:training",
    "dtype": "wrapper:half_buffer",
    "tensor-subclass": "wrapper:subclass_weight",
    "data-dependent": "decision:bool_same_for_all",
    "data-sized": "decision:mask_index",
    "state": "state:weight_written",
    "float64": "numbers:double_inside",
}


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_kind_of_finding_the_fuzz_fails(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert line(kind) in outcome(single(KINDS[kind]))
    refused = preflight.refused
    monkeypatch.setattr(preflight, "refused", lambda found, accepted: refused(found, {*accepted, kind}))
    with pytest.raises(FaultError):
        outcome(single(KINDS[kind]))


@pytest.mark.parametrize("hazard", hazards())
def test_each_hazard_alone_is_built_or_refused_with_a_remedy(hazard: str) -> None:
    outcome(single(hazard))
