"""The room compile as a command of its own process: what it says reaches the user while it works."""

from __future__ import annotations

import codecs
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import IO

from endpoint_spec.places import INSTALLED

from ..errors import OperationError, WrongUseError

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colours and cursor movements of a terminal
_ERROR = re.compile(rf"^(?:{_CONTROL.pattern})*error(?:{_CONTROL.pattern})* ", re.MULTILINE)  # begins its last message


def compile_command(root: Path, *arguments: str) -> None:
    """Run `python -m compile ...` for the project in `root`; its progress goes to standard error as it comes.

    Raises:
        WrongUseError: when it ended with 2, with its message.
        OperationError: when it failed, with its message.
    """
    path = os.pathsep.join(filter(None, (str(INSTALLED), os.environ.get("PYTHONPATH"))))
    shown = {"COLUMNS": "200"}
    if sys.stderr.isatty():  # its bars move only where it takes the pipe for the terminal that is behind it
        shown = {"COLUMNS": str(os.get_terminal_size(sys.stderr.fileno()).columns or 80), "FORCE_COLOR": "1"}
    with subprocess.Popen(  # noqa: S603  (our own module, arguments as a list)
        [sys.executable, "-m", "compile", *arguments, "--root", str(root)],
        env={**os.environ, "PYTHONPATH": path, **shown},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stderr is not None  # noqa: S101  (stderr=PIPE)
            said = _shown(process.stderr)
        except BaseException:
            process.terminate()  # it takes its half-done work away
            raise
    if process.returncode == 0:
        return
    message = _CONTROL.sub("", said).strip() or f"ended with {process.returncode} and said no more"
    kind = WrongUseError if process.returncode == 2 else OperationError
    raise kind(f"inferentia {' '.join(arguments)}: {message}")


def _shown(stream: IO[bytes]) -> str:
    """Copies a stream to standard error up to an error's message, which is returned: it is shown by who raises it."""
    decoder, held = codecs.getincrementaldecoder("utf-8")("replace"), ""
    while block := os.read(stream.fileno(), 65536):
        text = decoder.decode(block)
        if not held:
            found = _ERROR.search(text)
            sys.stderr.write(text[: found.start()] if found else text)
            sys.stderr.flush()
            text = text[found.end() :] if found else ""
        held += text
    return held
