"""The one exception of this room whose text is meant for the person at the keyboard."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOM = str(Path(__file__).resolve().parent)
SIGTERM_CODE = 128 + signal.SIGTERM  # as shells report it
_NOT_THE_USERS = (_ROOM, "<")


class CompileError(Exception):
    """A build step could not be done.

    problem: what is wrong, where, and with which value. remedy: what to do next.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}\n  -> {self.remedy}" if self.remedy else self.problem


class UsageError(CompileError):
    """The command was used wrongly (exit code 2): nothing was tried."""


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """Runs code that a user brought: whatever it raises, even an exit, becomes a CompileError with file and line."""
    try:
        yield
    except CompileError:
        raise
    except (Exception, SystemExit) as error:
        if is_sigterm(error):
            raise
        raise CompileError(f"{what} failed: {described(error)}.", "Correct it there; nothing was written.") from error


def is_sigterm(error: BaseException) -> bool:
    """Whether this ends the process by SIGTERM (__main__.py), and is not the doing of the code that it came through."""
    return isinstance(error, SystemExit) and error.code == SIGTERM_CODE


def one_line(error: BaseException) -> str:
    """The last line of an exception's text, where torch and the Neuron SDK put the reason; its type without a text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def described(error: BaseException) -> str:
    """An exception in one line: its type, the first line of its text, and the last line of a user's file it passed."""
    text = (str(error).strip().splitlines() or [""])[0][:300].rstrip(".")
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "site-packages" not in f.filename and not f.filename.startswith(_NOT_THE_USERS)]
    where = [f"{Path(frame.filename).name}, line {frame.lineno}" for frame in (own or frames)[-1:]]
    return f"{type(error).__name__}{': ' if text else ''}{text}" + "".join(f" ({place})" for place in where)
