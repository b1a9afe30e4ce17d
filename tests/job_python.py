"""The Python of a compile job: torch 1.13.1 and what that needs itself, nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OLD = ROOT / ".venv310"
# torch imports numpy where it is there; typing_extensions is what its metadata asks for.
_PACKAGES = ("torch", "torchgen", "functorch", "torch-1.13.1*.dist-info", "typing_extensions.py", "typing_extensions-*")

needs_old = pytest.mark.skipif(
    not (OLD / "bin" / "python").is_file(), reason="SKIPPED: there is no .venv310; make test-python310 installs it"
)


def bare(folder: Path) -> Path:
    """An interpreter of an environment in `folder` that has links to these packages of .venv310."""
    subprocess.run([OLD / "bin" / "python", "-m", "venv", "--without-pip", folder], check=True)
    (site,) = (folder / "lib").glob("python3.*/site-packages")
    for pattern in _PACKAGES:
        for source in (OLD / "lib" / "python3.10" / "site-packages").glob(pattern):
            (site / source.name).symlink_to(source)
    return folder / "bin" / "python"
