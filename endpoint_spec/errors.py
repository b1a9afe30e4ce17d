"""One form for everything that can be wrong in a file: where, which key, its value, why, and the way out."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_SHOWN = 60  # characters of a value that a message shows


@dataclass(frozen=True)
class SpecError:
    """One fault of a file. `key` is dotted (`scale.min`, `compile.buckets[0].image`), empty for the file as a whole."""

    file: str
    key: str
    value: str
    problem: str
    remedy: str
    line: int = 0

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        text = " ".join(part for part in (self.value, self.problem) if part)
        key = f"{self.key}: " if self.key else ""
        return f"{where}: {key}{text}. {self.remedy}"


class SpecErrors(ValueError):  # noqa: N818  (it holds several)
    """All faults of one or more files, in the order of the files and their lines."""

    def __init__(self, errors: Iterable[SpecError]) -> None:
        self.errors: tuple[SpecError, ...] = tuple(errors)
        super().__init__("\n".join(str(error) for error in self.errors))


class ProjectError(SpecErrors):
    """No project, or no endpoint of that name: a command was used wrongly, no file is faulty."""


def fault_of(file: str, problem: str, remedy: str, line: int = 0) -> SpecErrors:
    """One fault of a file as a whole."""
    return SpecErrors([SpecError(file, "", "", problem, remedy, line)])


def near(word: str, words: Iterable[str]) -> str:
    """A sentence that names what was probably meant, or nothing."""
    found = difflib.get_close_matches(word, list(words), 1, 0.6)
    return f"Did you mean {found[0]}? " if found else ""


def shown(value: Any) -> str:
    """A value as a message shows it: short, on one line, strings as they were written when they are plain."""
    if isinstance(value, str):
        plain = bool(value) and value == value.strip() and value.isprintable()
        text = value if plain else json.dumps(value, ensure_ascii=True)
    elif value is None:
        text = "null"
    else:
        text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def dotted(path: Iterable[str | int]) -> str:
    """("compile", "buckets", 0, "image") as compile.buckets[0].image."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if part.isprintable() else json.dumps(part)
            text += f".{name}" if text else name
    return text
