"""The same artifact from another checkout, in another process, on another day."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compile.projects import ROOT, WITH_SAMPLE, write_entry

# Python runs this file before anything else, when its folder is on the path.
TOMORROW = """\
import time
_now = time.time
time.time = lambda: _now() + 86_400
"""


def checkout(source: Path, at: Path) -> None:
    """Copies the rooms that a build needs."""
    for room in ("compile", "endpoint_spec", "inference_code"):
        shutil.copytree(source / room, at / room, ignore=shutil.ignore_patterns("__pycache__"))
    write_entry(at, WITH_SAMPLE)


def build(at: Path, **environment: str) -> dict[str, object]:
    """Builds in a checkout, in a process of its own; returns the result as the command prints it."""
    command = [sys.executable, "-m", "compile", "build", "own", "--rehearse", "--json"]
    variables = {**os.environ, "PYTHONPATH": str(at), **environment}
    done = subprocess.run(command, cwd=at, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


@pytest.mark.slow
def test_two_checkouts_two_days_one_digest(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "a" / "much" / "longer" / "way" / "two"
    checkout(ROOT, one)
    checkout(one, two)
    (two / "sitecustomize.py").write_text(TOMORROW)
    here = build(one, PYTHONHASHSEED="1")
    there = build(two, PYTHONHASHSEED="2", TZ="Asia/Tokyo")
    assert here["lock"]["digests"] == there["lock"]["digests"]  # type: ignore[index]
    archive = Path(str(here["artifact"]))
    assert (one / archive).read_bytes() == (two / archive).read_bytes()
    # Not only the artifact: the whole lock could be committed from either machine.
    assert (one / str(here["lock_path"])).read_text() == (two / str(there["lock_path"])).read_text()
