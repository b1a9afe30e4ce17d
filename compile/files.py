"""Half-done work lives in a folder of its own under build/, and takes its final name in one step at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = ".staging-"


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A new folder inside `folder`, removed on the way out.

    What a killed build left behind is removed by the next one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    inside = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=folder))
    try:
        yield inside
    finally:
        shutil.rmtree(inside, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    for left in folder.glob(f"{_PREFIX}*"):
        pid = left.name[len(_PREFIX) :].partition("-")[0]
        if pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def place(pairs: list[tuple[Path, Path]]) -> None:
    """Moves finished files to their names, in order. Text for all of them is on the disk before the first moves."""
    for source, target in pairs:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
