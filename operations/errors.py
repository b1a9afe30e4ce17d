"""The one error a user of operations sees."""

from __future__ import annotations


class OperationError(Exception):
    """Work that failed; the text says what was wrong, where, and what to do."""


class WrongUseError(Exception):
    """A command that cannot be meant: exit code 2."""
