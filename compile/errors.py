"""The one exception of this room whose text is meant for the person at the keyboard."""

from __future__ import annotations


class CompileError(Exception):
    """A build step could not be done.

    `problem` says what is wrong, where, and with which value; `remedy` says what to do next.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}\n  -> {self.remedy}" if self.remedy else self.problem


class UsageError(CompileError):
    """The command was used wrongly (exit code 2): nothing was tried."""
