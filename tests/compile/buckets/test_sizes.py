"""Histograms in their three forms, and what is said of bad ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compile.buckets import sizes
from compile.buckets.sizes import Size, read
from compile.errors import CompileError, UsageError

LENGTHS = {(3,): 2, (12,): 400}
PICTURES = {(480, 640): 7, (640, 480): 1}

GOOD: dict[str, tuple[str, str, dict[Size, int]]] = {
    "plain": ("txt", "12 400\n\n# comment\n3\n3  # again\n", LENGTHS),
    "plain pictures": ("txt", "480x640 5\n480 x 640 2\n640×480\n", PICTURES),
    "csv": ("csv", "length,count\n12,400\n3,2\n", LENGTHS),
    "csv by other names": ("csv", "requests,Tokens\n400,12\n2,3\n", LENGTHS),
    "csv without header": ("csv", "12\n" * 400 + "3\n3\n", LENGTHS),
    "csv pictures": ("csv", "height,width,count\n480,640,7\n640,480,1\n", PICTURES),
    "csv without counts": ("csv", "width,height\n" + "640,480\n" * 7 + "480,640\n", PICTURES),
    "csv in a text file": ("txt", "\ufefflength,count\r\n12,400\r\n3,2\r\n", LENGTHS),
    "json list": ("json", "[3, 3" + ", 12" * 400 + "]", LENGTHS),
    "json pairs": ("json", "[[480, 640]" + ", [480, 640]" * 6 + ", [640, 480]]", PICTURES),
    "json object": ("json", '{"12": 400, "3": 2}', LENGTHS),
    "json object of pictures": ("json", '{"480x640": 7, "640x480": 1}', PICTURES),
    "json entries": ("json", '[{"length": 12, "count": 400}, {"length": 3}, 3]', LENGTHS),
    "json entries of pictures": (
        "json", '[{"height": 480, "width": 640, "count": 7}, {"height": 640, "width": 480}]', PICTURES,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_each_form_is_read(tmp_path: Path, name: str) -> None:
    suffix, text, expected = GOOD[name]
    path = tmp_path / f"sizes.{suffix}"
    path.write_text(text, encoding="utf-8")
    assert dict(read(path).counts) == expected


BAD = {
    "every line": (
        "txt",
        "480x640 10\nabc\n7x7x7\n12 3\n480x640 -3\n0x5\n1000001x5\n480x640 1.5\n",
        (
            "line 2: 'abc'",
            "line 3: '7x7x7'",
            "line 4: '12' is a length, the file begins with a picture",
            "line 5: '-3' is no count",
            "line 6: '0'",
            "line 7: '1000001' is no size; it is a whole number from 1 to 1000000",
            "line 8: '1.5' is no count",
        ),
    ),
    "csv rows": ("csv", "length,count\n1,2,3\nx,4\n5,0\n", ("line 2: has 3 columns", "line 3: 'x'", "line 4: '0'")),
    "csv header": ("csv", "long,count\n1,2\n", ("line 1: the header is 'long, count'",)),
    "csv of two bare columns": ("csv", "480,640\n", ("line 1: the header is '480, 640'",)),
    "json entries": (
        "json",
        '[true, "x", [1, 2, 3], {"a": 1}, null, 5]',
        ("entry 1: True", "entry 2: 'x'", "entry 3: [1, 2, 3]", "entry 4: has the names a", "entry 5: None"),
    ),
    "json syntax": ("json", "[1, 2", ("is not JSON",)),
    "json number": ("json", '{"12": "many"}', ("key '12': 'many' is no count",)),
    "empty": ("txt", "\n# nothing\n", ("there is no size in it",)),
}


@pytest.mark.parametrize("name", BAD)
def test_all_that_is_wrong_is_said_at_once(tmp_path: Path, name: str) -> None:
    suffix, text, parts = BAD[name]
    path = tmp_path / f"sizes.{suffix}"
    path.write_text(text)
    with pytest.raises(CompileError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
    assert "Write a size a line" in caught.value.remedy


def one_by_one(path: Path, entries: list[tuple[str, object]]) -> dict[Size, int] | str:
    """The histogram of entries of which each is read from a file of its own, or the faults of all, in their order."""
    found: Counter[Size] = Counter()
    faults = []
    for where, entry in entries:
        path.write_text(json.dumps([entry]) if path.suffix == ".json" else f"{entry}\n")
        try:
            found.update(read(path).counts)
        except CompileError as error:
            faults.append(error.problem.split("\n")[1].replace("entry 1", where).replace("line 1", where))
    return "\n".join(faults) or dict(sorted(found.items()))


def together(path: Path, text: str) -> dict[Size, int] | str:
    path.write_text(text)
    try:
        return dict(read(path).counts)
    except CompileError as error:
        return error.problem.partition("\n")[2]


LINES = ("12", "12 400", " 12  400", "012", "7", "7 1  # again", "1", "x", "0", "1.5")
VALUES = (12, "12", [12], 7, 1, True, [True], 1.0, "1", {"length": 1}, {"length": 1, "count": True}, None, 0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(LINES), min_size=1, max_size=12))
def test_equal_lines_count_as_if_each_was_read_alone(tmp_path: Path, lines: list[str]) -> None:
    numbered = [(f"line {number}", line) for number, line in enumerate(lines, 1)]
    expected = one_by_one(tmp_path / "one.txt", numbered)
    assert together(tmp_path / "all.txt", "\n".join(lines)) == expected


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(VALUES), min_size=1, max_size=12))
def test_equal_values_count_as_if_each_was_read_alone(tmp_path: Path, values: list[object]) -> None:
    """In Python True equals 1 and 1.0, here only 1 is a size."""
    numbered = [(f"entry {number}", value) for number, value in enumerate(values, 1)]
    expected = one_by_one(tmp_path / "one.json", numbered)
    assert together(tmp_path / "all.json", json.dumps(values)) == expected


def test_a_file_without_end_is_read_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_MOST_BYTES", 1000)
    with pytest.raises(UsageError, match="has more than 1000 bytes"):
        read(Path("/dev/zero"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read(tmp_path / "none.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CompileError, match="not UTF-8"):
        read(tmp_path / "binary.txt")
