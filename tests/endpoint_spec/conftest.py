"""Fixtures: a user's project, and a way to load a spec in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from endpoint_spec import EndpointSpec, load
from tests.endpoint_spec.projects import Loader, fill


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The root of a user's project."""
    return fill(tmp_path / "project")


@pytest.fixture
def read(project: Path) -> Loader:
    """Write a spec into the project and load it."""

    def write(text: str, name: str = "depth") -> EndpointSpec:
        path = project / "endpoints" / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path)

    return write
