"""What a build does once: hash the weights, make the keys, lower each variant."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import endpoint_spec as specs
from compile.analysis import variant
from compile.pipeline import plan as plans
from compile.pipeline.build import build
from compile.pipeline.cache import Cache
from compile.pipeline.plan import plan, resolve
from compile.progress import Silent
from endpoint_spec import digests
from tests.compile.projects import write_entry

TWO = "compile: {batch_sizes: [1, 4]}\n"


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> collections.Counter[str]:
    """How often each happened."""
    seen: collections.Counter[str] = collections.Counter()

    def count(place: Any, name: str, what: str) -> None:
        original = getattr(place, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            seen[what.format(*arguments)] += 1
            return original(*arguments, **named)

        monkeypatch.setattr(place, name, counted)

    count(digests, "file_digest", "hash {0.name}")
    count(plans, "key", "key of {1}")
    count(variant, "lowered", "lower")
    return seen


@pytest.mark.parametrize("cached", [True, False])
def test_a_build_hashes_weights_makes_keys_and_lowers_once(
    tmp_path: Path, counts: collections.Counter[str], cached: bool
) -> None:
    definition = plan(specs.load(write_entry(tmp_path)), rehearse=True).definition
    state = {name: torch.ones_like(value) for name, value in definition.weights.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    path = write_entry(tmp_path, more=TWO, weights="{file: w.safetensors}")
    counts.clear()
    resolved = resolve(plan(specs.load(path), rehearse=True), Silent())
    build(resolved, Silent(), Cache(tmp_path / "cache", print, 10**9) if cached else None)
    assert counts["hash w.safetensors"] == 1
    assert {what: n for what, n in counts.items() if what.startswith("key")} == {
        "key of main, x 8, batch 1": 1,
        "key of main, x 8, batch 4": 1,
    }
    assert counts["lower"] == 2
