"""Ctrl-C before a command runs: at whichever import it comes, no traceback, and 130 as a shell has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tools import demo, install

# Stands for a package while it is imported; it swallows the exception of Ctrl-C, as the C++ of torch may.
IMPORTED = """\
import time
print("importing", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    pass
"""


def interrupted(folder: Path, command: list[str], module: str) -> tuple[int, str, str]:
    """Exit code (128 + N after signal N), output and errors of a command interrupted while it imports `module`."""
    (folder / f"{module}.py").write_text(IMPORTED)
    path = os.pathsep.join([str(folder), str(demo.ROOT)])
    with subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode, output, errors


@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        ("cli --help", "typer"),
        ("cli --help", "rich"),
        ("cli build depth", "typer"),
        ("cli build depth", "torch"),
        ("cli build depth", "pydantic"),
        ("cli analyze depth", "torch"),
        ("cli verify depth", "torch"),
        ("cli check", "pydantic"),
        ("cli status --offline", "boto3"),
        ("cli rehearsal env", "psutil"),
        ("compile build depth", "torch"),
        ("compile build depth", "pydantic"),
        ("operations status", "typer"),
        ("operations status", "boto3"),
        ("endpoint_spec check", "pydantic"),
        ("embedded_aws env", "psutil"),
    ],
)
def test_at_an_import_nothing_is_said_and_nothing_goes_on(tmp_path: Path, arguments: str, module: str) -> None:
    assert interrupted(tmp_path, [sys.executable, "-m", *arguments.split()], module) == (130, "", "")
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {f"{module}.py"}


def test_the_installed_command_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "activate").touch()
    monkeypatch.setattr(install, "VENV", tmp_path)
    install.install_command(Path(sys.executable))
    (tmp_path / "modules").mkdir()
    command = [str(tmp_path / "bin" / "inferentia"), "build", "depth"]
    assert interrupted(tmp_path / "modules", command, "torch") == (130, "", "")
