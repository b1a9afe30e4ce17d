"""What the smaller benchmarks share with the document; nothing is measured here."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psutil", reason="the benchmarks run in the project's own environment")
document = pytest.importorskip("benchmarks.document")
NAMES = ("workers", "asgi", "synth")


@pytest.mark.parametrize("name", NAMES)
def test_the_document_has_the_place_and_keeps_the_rest(name: str, tmp_path: Path) -> None:
    begin, end = document.marks(name)
    text = document.DOCUMENT.read_text()
    assert text.count(begin) == text.count(end) == 1
    assert f"python -m benchmarks.{name} --write" in begin
    copy = tmp_path / "benchmarks.md"
    shutil.copy(document.DOCUMENT, copy)
    document.put(name, "THE TABLE", copy)
    document.put(name, "THE NEXT", copy)
    changed = copy.read_text()
    assert "THE TABLE" not in changed
    assert changed.count("THE NEXT") == 1
    assert changed.split(begin)[0] == text.split(begin)[0]
    assert changed.split(end)[1] == text.split(end)[1]
    assert [path.name for path in tmp_path.iterdir()] == ["benchmarks.md"]


@pytest.mark.parametrize("name", NAMES)
def test_a_busy_machine_is_not_measured(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = importlib.import_module(f"benchmarks.{name}").main
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    for arguments, part in ((["--write"], "the machine is busy (load 1000.0)"), (["--busy", "--write"], "not busy")):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert part in capsys.readouterr().err


def test_the_table_names_what_was_left_out() -> None:
    serving: Any = importlib.import_module("benchmarks.serving")
    row = serving.Result("2 threads", "torch", 16, 100.0, 1.0, 2.0, 3, 4.0, 5.0, 6.0)
    text = document.table([row], "wrk", {"granian": "pip cannot install it"}, "layout")
    assert "| torch | 2 threads | 16 | 100 | 1.00 | 2.00 | 3 | 4.00 | 5 |" in text
    assert "Not measured: granian: pip cannot install it" in text
    assert serving.machine() in text
