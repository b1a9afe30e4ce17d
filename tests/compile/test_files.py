"""Files appear whole under their names, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from compile.files import drafted, write_json, write_text


def test_a_file_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "page.md"
    with drafted(path) as draft:
        draft.write_text("half")
        assert not path.exists()
    assert [(one.name, one.read_text()) for one in path.parent.iterdir()] == [("page.md", "half")]


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    write_text(path, "before\n")

    def fill(draft: Path) -> None:
        draft.write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"), drafted(path) as draft:
        fill(draft)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("page.md", "before\n")]


def test_json_has_sorted_keys_and_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    write_json(path, {"b": 1, "a": [0.5]})
    assert path.read_bytes() == b'{\n  "a": [\n    0.5\n  ],\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
