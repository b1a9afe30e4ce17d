"""The room compile as a command: what it says is passed on while it works, its error is said once, by who called it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from operations.errors import OperationError, WrongUseError
from operations.jobs.compiling import compile_command
from tests.conftest import ROOT

SAYS = "import pathlib, sys, time\nsay = lambda text: (sys.stderr.write(text), sys.stderr.flush())\n"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `python -m compile` runs."""
    (tmp_path / "compile").mkdir()
    (tmp_path / "compile" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "compile" / "__main__.py"


def test_progress_is_passed_on_while_it_works(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It waits until its first line was seen."""
    program.write_text(
        SAYS + f"seen = pathlib.Path({str(tmp_path / 'seen')!r})\nsay('capture \u2713')\nprint('a table')\n"
        "while not seen.exists(): time.sleep(0.01)\nsay(' ... done')\n"
    )
    ended: list[str] = []

    def call() -> None:
        compile_command(tmp_path, "bundle", "depth")
        ended.append("well")

    thread = threading.Thread(target=call)
    thread.start()
    said = ""
    while "capture \u2713" not in said:
        assert thread.is_alive()
        said += capsys.readouterr().err
    (tmp_path / "seen").touch()
    thread.join(20)
    assert ended == ["well"]
    assert capsys.readouterr() == ("", " ... done")


@pytest.mark.parametrize(("code", "kind"), [(1, OperationError), (2, WrongUseError)])
def test_an_error_is_raised_and_not_shown_twice(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int, kind: type[Exception]
) -> None:
    program.write_text(
        SAYS + "say('an error message is fine here\\n')\nsay('\\x1b[1;31merror\\x1b[0m the disk is full.\\n')\n"
        f"say('-> Free some.\\n')\nsys.exit({code})\n"
    )
    with pytest.raises(kind) as caught:
        compile_command(tmp_path, "adopt", "depth")
    assert str(caught.value) == "inferentia adopt depth: the disk is full.\n-> Free some."
    assert capsys.readouterr().err == "an error message is fine here\n"


def test_a_terminal_gets_what_moves(program: Path, tmp_path: Path) -> None:
    program.write_text(
        SAYS + "import os\nsay('colour ' + os.environ['FORCE_COLOR'] + ' of ' + os.environ['COLUMNS'])\n"
    )
    call = "import pathlib; from operations.jobs.compiling import compile_command; compile_command(pathlib.Path(), 'x')"
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", call], stderr=theirs, cwd=tmp_path, env=environment, check=True)
    os.close(theirs)
    assert os.read(ours, 100) == b"colour 1 of 80"  # this terminal has no size
    os.close(ours)


def test_one_that_is_killed_says_so(program: Path, tmp_path: Path) -> None:
    program.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(OperationError, match="inferentia bundle depth: ended with -9 and said no more"):
        compile_command(tmp_path, "bundle", "depth")
