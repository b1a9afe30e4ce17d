"""A process group below the server: it ends with its job, and with the server whatever ended that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from . import isolation

KEEPER = Path(__file__).with_name("keeper.py")
# between SIGTERM and SIGKILL,
# https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
KILL_AFTER_SECONDS = 30.0


class ProcessGroup:
    """One command in a session of its own, under the keeper; `output` is its standard output and error as lines."""

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], *, isolated: bool = False
    ) -> None:
        read_end, write_end = os.pipe()
        self._pipe: int | None = write_end
        wrapper = [sys.executable, "-I", str(Path(isolation.__file__))] if isolated else []
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the job's own command
                [sys.executable, "-I", str(KEEPER), str(read_end), *wrapper, *command],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                pass_fds=(read_end,),
                start_new_session=True,
            )
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        assert self._process.stdout is not None  # noqa: S101 - stdout=PIPE
        self.output: IO[str] = self._process.stdout

    @property
    def pid(self) -> int:
        """The process group."""
        return self._process.pid

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit code (128 + N after signal N), or None when it still runs after `seconds`, if given."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return code if code >= 0 else 128 - code

    def signal(self, number: signal.Signals) -> None:
        """A signal to everything in the group; nothing happens when it is gone."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def end(self, grace_seconds: float) -> None:
        """SIGTERM, then SIGKILL; returns when nothing of the group is left."""
        if grace_seconds > 0:
            self.signal(signal.SIGTERM)
            self.wait(grace_seconds)
        self.signal(signal.SIGKILL)
        self._process.wait()
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            os.close(pipe)


def basics(programs: Path, names: Sequence[str] = ("LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")) -> dict[str, str]:
    """The little of this machine's environment that a job sees; what is in the folder `programs` comes first on PATH.

    The server's PYTHONPATH is not among it: a job has the code that it was sent with.
    """
    inherited = {name: os.environ[name] for name in names if name in os.environ}
    path = os.pathsep.join([str(programs), os.environ.get("PATH", os.defpath)])
    return {**inherited, "PATH": path, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def write_program(path: Path, line: str) -> None:
    """A program of one shell line."""
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
