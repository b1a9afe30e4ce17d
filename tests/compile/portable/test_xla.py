"""Graphs for Inf2 through torch-xla, what torch_neuronx traces with, on its CPU backend (long; its Python is named)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.compile.portable import captures, graph_files, xla_replays

PYTHON = os.environ.get("INFERENTIA_XLA_PYTHON", "")
FAMILIES = [
    ("bert", "base-uncased"),
    ("dinov2", "small"),
    ("resnet", "resnet50"),
    ("marian", "opus-mt-en-de"),
    ("yolov5", "yolov5s"),
]


@pytest.mark.slow
@pytest.mark.skipif(
    not PYTHON, reason="NOT TESTED: INFERENTIA_XLA_PYTHON names no Python with torch 2.5.1 and torch-xla 2.5.1"
)
def test_torch_xla_replays_what_was_recorded(tmp_path: Path) -> None:
    folders = [
        graph_files.written(tmp_path / f"{family}.graph", *captures.of_family((family, variant), "inf2"))
        for family, variant in FAMILIES
    ]
    done = subprocess.run(
        [PYTHON, xla_replays.__file__, *folders], capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert len(found) == len(FAMILIES)
    assert all(0 <= error < 1e-4 for error in found.values()), found
