from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
import torch

from tests.inference_code.artifacts import Server, depth_artifact


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a loaded handler leaves in this process is taken back; the environment's own settings do not count."""
    for name in list(os.environ):
        if name.startswith(("ENDPOINT_", "NEURON_RT_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and "code/handler" in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture(scope="session")
def depth_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The native server on a depth model of 28 x 28, with small limits."""
    folder = tmp_path_factory.mktemp("depth")
    limits = {
        "ENDPOINT_MAX_PIXELS": "1000000",
        "ENDPOINT_MAX_ITEMS": "3",
        "ENDPOINT_REQUEST_BYTES": "2000000",
        "ENDPOINT_RESPONSE_BYTES": "1000000",
        "ENDPOINT_ALLOWED_HOSTS": "x",  # in tests that write their HTTP by hand
    }
    server = Server(depth_artifact(folder / "artifact"), folder / "log", limits)
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()
