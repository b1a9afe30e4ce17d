"""Graph files for tests that also run on torch 1.13.1, where nothing is captured: the project's Python makes them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from compile.portable import file
from compile.portable.tensors import TensorStore
from endpoint_spec import archives

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv" / "bin" / "python"


def made(place: Path) -> dict[str, Path]:
    """Two graph files in a folder, unpacked: "bert" with a host part and "plain" without."""
    if sys.version_info >= (3, 11):
        from tests.compile.portable import captures  # noqa: PLC0415  (captures, which torch 1.13.1 is not asked to)

        captures.two(place)
    elif not PYTHON.is_file():
        pytest.skip(f"NOT TESTED: there is no {PYTHON} (make setup creates it)")
    else:
        command = [PYTHON, "-W", "ignore", "-m", "tests.compile.portable.captures", place]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return {name: unpacked(place / f"{name}.graph") for name in ("bert", "plain")}


def unpacked(path: Path) -> Path:
    folder = path.with_name(f"{path.name}.unpacked")
    archives.extract(path, folder, compressed=False)
    return folder


def stored(tensors: Mapping[str, torch.Tensor]) -> TensorStore:
    """What was read, to be written again."""
    store = TensorStore()
    for tensor in tensors.values():
        store.add(tensor)
    return store


def written(path: Path, graphs: list[file.PortableVariant], store: TensorStore) -> Path:
    """The folder that the written file unpacks to."""
    file.write(path, {"torch": str(torch.__version__)}, graphs, store)
    return unpacked(path)
