"""What every test shares: the project's own tools first on PATH, and shards of the long tests."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """--shard INDEX/COUNT runs one part of what is selected, the same parts every time."""
    parser.addoption("--shard", default=None, metavar="INDEX/COUNT", help="run one part of the selected tests")


def pytest_configure(config: pytest.Config) -> None:
    """Tools of `make setup` come first, also for subprocesses; processes share the cores; synths are short."""
    if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # torch, also in subprocesses, would start a thread a core in each
        os.environ["OMP_NUM_THREADS"] = str(
            max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
        )
    if sys.version_info >= (3, 11):  # the Python 3.10 lane deploys nothing
        os.environ["PATH"] = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    # The CDK's own rules for templates take 6 s to load; tests/cdk/test_app.py applies them, cfn-lint checks more.
    os.environ["CDK_VALIDATION"] = "false"


@pytest.fixture(autouse=True)
def _no_stand_in_stays_imported() -> Iterator[None]:
    """A test's stand-in for the Neuron SDK is no other test's, whichever ran before it in the process."""
    yield
    for name in ("torch_neuron", "torch_neuronx"):
        sys.modules.pop(name, None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep only the asked shard; a test's shard depends on its name alone."""
    shard = config.getoption("--shard")
    if shard is None:
        return
    index, count = map(int, shard.split("/"))
    kept = [item for item in items if zlib.crc32(item.nodeid.encode()) % count == index]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
