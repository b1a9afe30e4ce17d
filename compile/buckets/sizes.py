"""The histogram of sizes: read from CSV, JSON or a plain list, with every faulty line in one message."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compile.errors import CompileError, UsageError

# A length (n,), or a picture (height, width).
Size = tuple[int, ...]

LARGEST = 1_000_000  # of one side, as in a spec's buckets
_MOST = 10**12  # of one line's count
_MOST_BYTES = 16 * 1024 * 1024
_SIZE = re.compile(r"([0-9]+)(?: ?[x×] ?([0-9]+))?")
_LENGTHS, _COUNTS = ("length", "tokens", "size"), ("count", "requests")
_FORMS = (
    "Write a size a line, with its count behind it if it is not 1: 128 or 128 4000 for lengths, 480x640 or 480x640 12 "
    "for pictures (height x width); CSV with a header (length,count or height,width,count); or JSON ([128, 256], "
    '{"480x640": 12}, [{"height": 480, "width": 640, "count": 12}]).'
)


class _FaultError(ValueError):
    """What is wrong with one line or entry."""


@dataclass(frozen=True)
class Histogram:
    """How often each size comes; sizes differ, are sorted, and have the same number of dimensions (1 or 2)."""

    counts: Mapping[Size, int]

    @property
    def dimensions(self) -> int:
        return len(next(iter(self.counts)))

    @property
    def items(self) -> int:
        return sum(self.counts.values())

    @property
    def largest(self) -> Size:
        """The largest of each side, whether or not one size has them all."""
        return tuple(max(sides) for sides in zip(*self.counts, strict=True))

    @property
    def smallest(self) -> Size:
        """The smallest of each side."""
        return tuple(min(sides) for sides in zip(*self.counts, strict=True))

    def mapped(self, sizes: Mapping[Size, Size]) -> Histogram:
        """Each size replaced by another; sizes that become one are counted together."""
        return collected((sizes[size], count) for size, count in self.counts.items())


def collected(entries: Iterable[tuple[Size, int]]) -> Histogram:
    """A histogram of (size, count)."""
    counts: Counter[Size] = Counter()
    for size, count in entries:
        counts[size] += count
    return Histogram(dict(sorted(counts.items())))


def rounded_up(size: Size, multiple: int) -> Size:
    """The smallest multiples of `multiple` that hold each side."""
    return tuple(-(-side // multiple) * multiple for side in size)


def read(path: Path) -> Histogram:
    """Raises UsageError for a file that cannot be read, CompileError naming every faulty line of one that can."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CompileError(f"{path}: is not UTF-8 text.", _FORMS) from None
    except OSError as error:
        raise UsageError(f"--sizes {path}: {error.strerror or error}.", "Name a file with sizes.") from None
    if len(data) > _MOST_BYTES:
        raise UsageError(
            f"--sizes {path}: has more than {_MOST_BYTES} bytes, which is what is read at most.",
            "Count equal sizes together: a size a line, with its count behind it.",
        )
    times: Counter[str] = Counter()
    found: dict[str, tuple[Size, int]] = {}
    problems: list[str] = []
    for where, entry in _entries(path, text):
        written = repr(entry)  # equal ones are checked once: a log of millions has few different sizes
        if written not in found:
            try:
                size, count = _entry(entry)
                found[written] = _checked(size, found), _whole(count, _MOST, "count")
            except _FaultError as fault:
                problems.append(f"{where}: {fault}")
        times[written] += 1
    if not found and not problems:
        problems.append("there is no size in it")
    if problems:
        raise CompileError(f"{path} is not a histogram of sizes:\n  " + "\n  ".join(problems), _FORMS)
    return collected((size, count * times[written]) for written, (size, count) in found.items())


def _entries(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """(where, entry) of everything that the file holds, in whichever of the three forms it is."""
    if path.suffix == ".json" or text.lstrip()[:1] in ("[", "{"):
        try:
            yield from _json_entries(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise CompileError(f"{path} is not JSON: {error}.", _FORMS) from None
    elif path.suffix == ".csv" or "," in text:
        yield from _csv_entries(text)
    else:
        for number, line in enumerate(text.splitlines(), 1):
            words = line.partition("#")[0].strip()
            if words:
                yield f"line {number}", words


def _json_entries(data: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict):
        for key, count in data.items():
            yield f"key {key!r}", (key, count)
    elif isinstance(data, list):
        for number, value in enumerate(data, 1):
            yield f"entry {number}", value
    else:
        yield "the file", data


def _csv_entries(text: str) -> Iterator[tuple[str, Any]]:
    """Rows by the header's names; without a header, rows of one column."""
    rows = csv.reader(io.StringIO(text))
    header: list[str] | None = None
    for row in rows:
        columns = [column.strip() for column in row]
        if not any(columns):
            continue
        where = f"line {rows.line_num}"
        if header is None and not (len(columns) == 1 and _SIZE.fullmatch(columns[0])):
            header = [column.lower() for column in columns]
            problem = _header_problem(header)
            if problem:
                yield where, _FaultError(problem)
                return
            continue
        header = header or ["length"]
        if len(columns) != len(header):
            yield where, _FaultError(f"has {len(columns)} columns, the header has {len(header)}")
        else:
            yield where, dict(zip(header, columns, strict=True))


def _header_problem(header: list[str]) -> str:
    known = {*_LENGTHS, *_COUNTS, "height", "width"}
    sizes = [name for name in header if name not in _COUNTS]
    once = set(header) <= known and len(set(header)) == len(header) <= len(sizes) + 1
    if once and (set(sizes) == {"height", "width"} or (len(sizes) == 1 and sizes[0] in _LENGTHS)):
        return ""
    return (
        f"the header is {', '.join(header)[:100]!r}; it is length,count or height,width,count (count may be left out)"
    )


def _entry(entry: Any) -> tuple[Any, Any]:
    """(size, count) of one entry, neither checked yet."""
    if isinstance(entry, _FaultError):
        raise entry
    if isinstance(entry, tuple):
        return entry
    if isinstance(entry, dict):
        return _from_names(entry)
    if isinstance(entry, str):
        size, _, count = entry.rpartition(" ")
        return (size.rstrip(" x×"), count) if size and _SIZE.fullmatch(size.strip()) else (entry, 1)
    return entry, 1


def _from_names(entry: dict[str, Any]) -> tuple[Any, Any]:
    problem = _header_problem(list(entry))
    if problem:
        raise _FaultError(f"has the names {', '.join(entry)[:100]}; they are length or height and width, and count")
    count = next((entry[name] for name in _COUNTS if name in entry), 1)
    if "height" in entry:
        return [entry["height"], entry["width"]], count
    return next(entry[name] for name in _LENGTHS if name in entry), count


def _checked(size: Any, before: Mapping[str, tuple[Size, int]]) -> Size:
    if isinstance(size, str):
        match = _SIZE.fullmatch(size.strip())
        sides: Any = [one for one in match.groups() if one is not None] if match else [size]
    else:
        sides = size if isinstance(size, list) else [size]
    if len(sides) not in (1, 2):
        raise _FaultError(f"{_shown(size)} is neither a length nor height and width")
    found = tuple(_whole(side, LARGEST, "size") for side in sides)
    first, _ = next(iter(before.values()), (found, 1))
    if len(first) != len(found):
        kinds = {1: "a length", 2: "a picture"}
        raise _FaultError(f"{_shown(size)} is {kinds[len(found)]}, the file begins with {kinds[len(first)]}")
    return found


def _whole(value: Any, most: int, what: str) -> int:
    text = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= 15 and 1 <= int(text) <= most):
        raise _FaultError(f"{_shown(value)} is no {what}; it is a whole number from 1 to {most}")
    return int(text)


def _shown(value: Any) -> str:
    return repr(value)[:60]
