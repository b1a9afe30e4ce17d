"""Make a set of wheels with the user's own pip: the project's part by its hashes, the compiler by its version."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from endpoint_spec import platforms
from endpoint_spec.places import INSTALLED
from operations.errors import OperationError, WrongUseError
from operations.jobs import wheels

# What the images' Linux takes: Ubuntu 20.04 has glibc 2.31, 24.04 has 2.39. Neuron's wheels say linux_x86_64.
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "linux_x86_64")


def requirements(target: str) -> Path:
    """The locked requirements of a job for a target, besides what its image has."""
    return INSTALLED / "requirements" / f"job-{target}.txt"


def download(target: str, folder: Path, packages: Sequence[str]) -> int:
    """Fill an empty folder with wheels and their requirements.txt; return how many wheels there are.

    packages: further requirements such as "neuron-cc==1.24.0.0", which no hash of ours covers: what pip's configuration
    leads to is taken, and its hash is written down, so that every job installs that very file.

    Raises:
        WrongUseError: a folder that is not empty.
        OperationError: what pip said.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise WrongUseError(f"{folder} is not empty. Name a folder that is, or that does not exist.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = requirements(target)
    python = platforms.image(target, "torchserve").python
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        part = Path(scratch) / "wheels"
        _pip(python, part, "--require-hashes", "--no-deps", "-r", str(file))
        if packages:
            constraints = Path(scratch) / "constraints.txt"
            pins = wheels.pins(file.read_text(encoding="utf-8"), str(file))
            constraints.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in pins), encoding="utf-8")
            _pip(python, part, "--find-links", str(part), "--constraint", str(constraints), *packages)
        count = wheels.write_requirements(part)
        wheels.read(part)
        if folder.is_dir():
            folder.rmdir()
        part.replace(folder)
    return count


def _pip(python: str, folder: Path, *arguments: str) -> None:
    folder.mkdir(exist_ok=True)
    tags = [word for tag in _PLATFORMS for word in ("--platform", tag)]
    fixed = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp", *tags, "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *fixed, *arguments]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
    if ended.returncode != 0:
        last = "\n".join(line for line in ended.stderr.strip().splitlines() if not line.startswith("WARNING"))[-1500:]
        raise OperationError(f"pip download of {' '.join(arguments[-1:])} failed:\n{last}")
