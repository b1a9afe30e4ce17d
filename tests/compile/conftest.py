"""What the tests of compile/ share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from compile.pipeline.build import Result
from tests.compile.projects import rehearse, write_spec


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny models are slower on several threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _one_thread_in_workers() -> Iterator[None]:
    """The same for the worker processes that builds start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """One rehearsal of the tiny depth network; tests must not change it."""
    return rehearse(write_spec(tmp_path_factory.mktemp("project")))
