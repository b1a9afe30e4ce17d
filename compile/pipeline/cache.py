"""Compiled variants that this machine keeps: build/cache/KEY/variant.tar. What is there is never compiled again."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from compile.definition import GraphVariant
from compile.errors import CompileError
from compile.pipeline.graph import CompiledVariant, Places
from compile.pipeline.graph_archive import pack, unpack
from endpoint_spec.jobs import SHA256_PATTERN, VARIANT, is_full

# When a new variant makes the cache larger than this, the variants that were not used for longest go.
LIMIT_BYTES = 20 * 10**9


@dataclass(frozen=True)
class Kept:
    """One variant of the cache: its key, its size, and when it was used last."""

    key: str
    bytes: int
    used: datetime


class Cache:
    """A folder of variants. `say` gets a line about each that is damaged or cannot be stored."""

    def __init__(self, folder: Path, say: Callable[[str], None], limit: int = LIMIT_BYTES) -> None:
        self.folder = folder
        self._say = say
        self._limit = limit

    def has(self, key: str) -> bool:
        """Whether a variant of this key is there, sound or not."""
        return self._file(key).is_file()

    def read(self, key: str, variant: GraphVariant, places: Places) -> CompiledVariant | None:
        """The variant, its graphs put into `places`; None, after saying so, when it is damaged: then it is removed."""
        file = self._file(key)
        try:
            compiled = unpack(file, key, variant, places)
        except CompileError as error:
            self._say(f"The compile cache is damaged, {variant} is compiled again: {error.problem}")
            shutil.rmtree(file.parent, ignore_errors=True)
            return None
        with contextlib.suppress(OSError):  # a cache that may only be read is one all the same
            os.utime(file)
        return compiled

    def write(self, compiled: CompiledVariant, places: Places) -> None:
        """Stores a variant whose graphs lie in `places`; where it cannot, reports so: the build continues without."""
        try:
            pack(compiled, places, self._file(compiled.key))
            self._shrink(compiled.key)
        except OSError as error:
            self._say(f"{compiled.variant} is not kept in the compile cache: {error.strerror or error}")

    def kept(self) -> list[Kept]:
        """What is there, used last first."""
        return sorted(self._all(), key=lambda kept: kept.used, reverse=True)

    def empty(self) -> int:
        """Removes everything; returns how many bytes that were."""
        freed = sum(kept.bytes for kept in self._all())
        for kept in self._all():
            shutil.rmtree(self._file(kept.key).parent)
        return freed

    def _shrink(self, newest: str) -> None:
        kept = self.kept()
        total = sum(compiled.bytes for compiled in kept)
        for compiled in reversed(kept):
            if total > self._limit and compiled.key != newest:
                shutil.rmtree(self._file(compiled.key).parent)
                total -= compiled.bytes

    def _all(self) -> Iterator[Kept]:
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            file = folder / VARIANT
            if is_full(SHA256_PATTERN, folder.name) and file.is_file():
                found = file.stat()
                used = datetime.fromtimestamp(found.st_mtime, tz=timezone.utc)
                yield Kept(folder.name, found.st_size, used)

    def _file(self, key: str) -> Path:
        return self.folder / key / VARIANT


def of_project(root: Path, say: Callable[[str], None]) -> Cache:
    """The cache of a project."""
    return Cache(root / "build" / "cache", say)
