"""What the tests of compile/ share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from compile.pipeline.build import Result


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
    # Here, because torch 1.13.1's lane has none of the libraries that a build needs.
    from tests.compile.projects import rehearse, write_spec  # noqa: PLC0415

    return rehearse(write_spec(tmp_path_factory.mktemp("project")))
