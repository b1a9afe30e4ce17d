"""The stand-ins for the Neuron SDK, put where an import finds them, for one test at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

STAND_IN = Path(__file__).parent / "stand_in"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes torch_neuron and torch_neuronx importable; call it with the scenario that the compiler shall play."""
    monkeypatch.syspath_prepend(str(STAND_IN))
    for package in ("torch_neuron", "torch_neuronx"):
        monkeypatch.delitem(sys.modules, package, raising=False)
    yield lambda scenario: monkeypatch.setenv("NEURON_STAND_IN", scenario)
    for package in ("torch_neuron", "torch_neuronx"):
        sys.modules.pop(package, None)
