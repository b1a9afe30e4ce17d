"""A family's numbers as a dataclass, changed by the spec's model.options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from compile.errors import CompileError

Sizes = TypeVar("Sizes")


def with_options(family: str, sizes: Sizes, options: Mapping[str, Any]) -> Sizes:
    """`sizes` (a dataclass) with `options` in place of its fields; lists become tuples.

    Raises CompileError naming every key that is no field and every value of another type than the field's default.
    """
    known = {field.name: getattr(sizes, field.name) for field in fields(sizes)}  # type: ignore[arg-type]
    values = {key: _frozen(value) for key, value in options.items()}
    problems = [f"{key}: there is no such option" for key in sorted(set(values) - set(known))]
    problems += [
        f"{key}: {options[key]!r} is {type(options[key]).__name__}, the default is {known[key]!r}"
        for key, value in values.items()
        if key in known and not _fits(value, known[key])
    ]
    if problems:
        raise CompileError(
            f"model.options of {family}:\n  " + "\n  ".join(problems), f"Options: {', '.join(sorted(known))}."
        )
    changed: Sizes = replace(sizes, **values)  # type: ignore[type-var]
    return changed


def require(family: str, *checks: tuple[bool, str]) -> None:
    """Raises one CompileError with the text of every check that does not hold."""
    problems = [text for holds, text in checks if not holds]
    if problems:
        raise CompileError(f"model.options of {family}:\n  " + "\n  ".join(problems))


def divides(sizes: Any, number: str, part: str) -> tuple[bool, str]:
    """The check, for `require`, that one size is a multiple of another."""
    whole, count = getattr(sizes, number), getattr(sizes, part)
    return whole % count == 0, f"{number} {whole} is no multiple of {part} {count}"


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    return isinstance(value, type(default))
