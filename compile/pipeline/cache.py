"""What this machine keeps of builds: build/cache/KEY/captured.tar or variant.tar. What is there is not made again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from compile.errors import CompileError
from compile.portable.kept import FILES, pack
from endpoint_spec import archives
from endpoint_spec.jobs import SHA256_PATTERN, VARIANT, is_full, tree_digests

# When a new file makes the cache larger than this, those that were not used for longest go.
LIMIT_BYTES = 20 * 10**9
CAPTURED = "captured.tar"


@dataclass(frozen=True)
class Kept:
    """One file of the cache: what it is ("captured" or "compiled"), its key, its size, and when it was used last."""

    kind: str
    key: str
    bytes: int
    used: datetime


class Cache:
    """A folder of captured and compiled variants. `say` gets a line about each that is damaged or cannot be stored."""

    def __init__(self, folder: Path, say: Callable[[str], None], limit: int = LIMIT_BYTES) -> None:
        self.folder = folder
        self._say = say
        self._limit = limit

    def has(self, key: str, name: str = CAPTURED) -> bool:
        """Whether a file of this key is there, sound or not."""
        return (self.folder / key / name).is_file()

    def read(self, key: str, name: str, to: Path, variant: str) -> bool:
        """Puts what is kept into the folder `to`, which becomes new. False where there is nothing; False, after saying
        so, when it is damaged: then it is removed."""
        file = self.folder / key / name
        if not file.is_file():
            return False
        try:
            unpack(file, key, to)
        except CompileError as error:
            self._say(f"The compile cache is damaged, {variant} is made again: {error.problem}")
            shutil.rmtree(file.parent, ignore_errors=True)
            return False
        with contextlib.suppress(OSError):  # a cache that may only be read is one all the same
            os.utime(file)
        return True

    def write(self, key: str, name: str, folder: Path, files: Sequence[str]) -> None:
        """Stores files of a folder; where it cannot, reports so: the build continues without."""
        try:
            pack(folder, files, key, self.folder / key / name)
            self._shrink(key)
        except OSError as error:
            self._say(f"{name} of {key} is not kept in the compile cache: {error.strerror or error}")

    def kept(self) -> list[Kept]:
        """What is there, used last first."""
        return sorted(self._all(), key=lambda kept: kept.used, reverse=True)

    def empty(self) -> int:
        """Removes everything; returns how many bytes that were."""
        kept = self.kept()
        for one in kept:
            shutil.rmtree(self.folder / one.key)
        return sum(one.bytes for one in kept)

    def _shrink(self, newest: str) -> None:
        kept = self.kept()
        total = sum(one.bytes for one in kept)
        for one in reversed(kept):
            if total > self._limit and one.key != newest:
                shutil.rmtree(self.folder / one.key)
                total -= one.bytes

    def _all(self) -> Iterator[Kept]:
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            for kind, name in (("captured", CAPTURED), ("compiled", VARIANT)):
                file = folder / name
                if is_full(SHA256_PATTERN, folder.name) and file.is_file():
                    found = file.stat()
                    used = datetime.fromtimestamp(found.st_mtime, tz=timezone.utc)
                    yield Kept(kind, folder.name, found.st_size, used)


def unpack(file: Path, key: str, to: Path) -> None:
    """The files of captured.tar or variant.tar, each with the sha256 that files.json states, in a new folder.

    Raises CompileError in one line when the file is missing, damaged, or of another key.
    """
    shutil.rmtree(to, ignore_errors=True)
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        archives.extract(file, to, compressed=False)
        listed = json.loads((to / FILES).read_text(encoding="utf-8"))
        (to / FILES).unlink()
        if listed["key"] != key:
            raise CompileError(f"{file} has the key {listed['key']}, not {key}.")
        wrong = sorted({*tree_digests(to).items()} ^ {*listed["files"].items()})
        if wrong:
            raise CompileError(f"{file} is damaged: {wrong[0][0]} is missing, unexpected, or has another sha256.")
    except FileNotFoundError as error:
        raise CompileError(f"{file} cannot be read: {Path(str(error.filename)).name} is not there.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, archives.ArchiveError) as error:
        raise CompileError(f"{file} is damaged: {' '.join(str(error).split())}.") from None


def of_project(root: Path, say: Callable[[str], None]) -> Cache:
    """The cache of a project."""
    return Cache(root / "build" / "cache", say)
