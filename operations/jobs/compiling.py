"""The room compile, asked through its command line: operations itself needs no torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from endpoint_spec.places import INSTALLED
from operations.errors import OperationError, WrongUseError


def compile_command(root: Path, *arguments: str) -> str:
    """Run `python -m compile ...` for the project in `root`; return its standard output.

    Raises:
        WrongUseError: when it ended with 2, with its own words.
        OperationError: when it failed, with its own words.
    """
    command = [sys.executable, "-m", "compile", *arguments, "--root", str(root)]
    path = os.pathsep.join(filter(None, (str(INSTALLED), os.environ.get("PYTHONPATH"))))
    ended = subprocess.run(  # noqa: S603  (our own module, arguments as a list)
        command,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode == 0:
        return ended.stdout
    said = ended.stderr.strip().removeprefix("error ") or f"ended with {ended.returncode} and said nothing"
    kind = WrongUseError if ended.returncode == 2 else OperationError
    raise kind(f"python -m compile {' '.join(arguments)}: {said}")
