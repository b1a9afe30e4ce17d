"""Half-done work lives in a folder of its own under build/, and takes its final name in one step at the end."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PREFIX = ".staging-"


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A new folder inside `folder`, removed on the way out.

    What a killed build left behind is removed by the next one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_PREFIX}*"):
        pid = left.name[len(_PREFIX) :].partition("-")[0]
        if pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    inside = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=folder))
    try:
        yield inside
    finally:
        shutil.rmtree(inside, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def place(pairs: list[tuple[Path, Path]]) -> None:
    """Moves finished files to their names, in order. Text for all of them is on the disk before the first moves."""
    for source, target in pairs:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)


def link(source: Path, target: Path) -> None:
    """The same file at another path; a copy where the disk has no links, or is another one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def shown(path: Path, root: Path) -> str:
    """A path as seen from the project, where it lies in it."""
    full, home = path.resolve(), root.resolve()
    return full.relative_to(home).as_posix() if full.is_relative_to(home) else str(path)


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """A name to write a file to, which gets the name `path` once it is whole; its folder is made where there is none.

    When the block raises, nothing is left and what stood at `path` stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a file with Unix line ends, as `drafted` does."""
    with drafted(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON with sorted keys, as `write_text` does. Raises ValueError for NaN and infinities."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def copy(source: Path, target: Path) -> None:
    """Copies a file's bytes into a folder that is made where there is none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
