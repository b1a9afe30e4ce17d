"""model.tar.gz: the same content is the same bytes."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import time
from pathlib import Path

import pytest

from compile.errors import CompileError
from compile.packaging import archive


def folder(at: Path, order: list[str]) -> Path:
    for name in order:
        path = at / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name * 100)
    return at


NAMES = ["manifest.json", "graphs/a.pt", "code/inference.py", "code/inference_code/handler.py"]


def test_other_place_time_order_and_modes_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = folder(tmp_path / "one", NAMES)
    two = folder(tmp_path / "a" / "longer" / "path", NAMES[::-1])
    for path in two.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
        path.chmod(0o700)
    first = archive.write_archive(one, tmp_path / "one.tar.gz")
    tomorrow = time.time() + 86_400
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    second = archive.write_archive(two, tmp_path / "other-name.tar.gz")
    assert first == second
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "other-name.tar.gz").read_bytes()


def test_other_content_gives_another_digest(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one", NAMES), folder(tmp_path / "two", NAMES)
    (two / "graphs" / "a.pt").write_text("other")
    assert archive.write_archive(one, tmp_path / "1") != archive.write_archive(two, tmp_path / "2")


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", NAMES)
    done = []
    archive.write_archive(source, tmp_path / "a.tar.gz", done.append)
    archive.extract(tmp_path / "a.tar.gz", tmp_path / "out")
    for name in NAMES:
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    assert sum(done) == sum(path.stat().st_size for path in source.rglob("*") if path.is_file())


def test_a_cut_or_foreign_archive_is_refused(tmp_path: Path) -> None:
    archive.write_archive(folder(tmp_path / "in", NAMES), tmp_path / "a.tar.gz")
    whole = (tmp_path / "a.tar.gz").read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive"):
        (tmp_path / "b.tar.gz").write_bytes(content)
        with pytest.raises(CompileError, match="damaged"):
            archive.extract(tmp_path / "b.tar.gz", tmp_path / "out")


@pytest.mark.parametrize("name", ["../outside", "/outside"])
def test_a_member_that_leaves_the_folder_stays_inside(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    with contextlib.suppress(CompileError):
        archive.extract(tmp_path / "a.tar.gz", tmp_path / "out" / "deep")
    assert not (tmp_path / "out" / "outside").exists()
    assert not Path("/outside").exists()
