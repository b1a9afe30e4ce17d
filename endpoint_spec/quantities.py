"""Quantities with units, as a spec writes them: 250ms, 45min, 99.5%, 40M.

Each type takes text and gives a Python value; a fault is a pydantic error that says what to write instead.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, NoReturn

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

# Decimal, so that 0.1ms is exactly 100 microseconds.
_SECONDS = {
    "us": Decimal("0.000001"),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "min": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_MEANT = {"m": "min or ms", "sec": "s", "secs": "s", "seconds": "s", "mins": "min", "minutes": "min", "µs": "us"}
_LONGEST_DAYS = 1000
_MULTIPLES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([^\W\d_]+)")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%")
_GIGABYTES = re.compile(r"([0-9]{1,6}) ?(GB|TB)")
_COUNT = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([kKMG]?)")


def fault(problem: str, remedy: str) -> PydanticCustomError:
    """A pydantic error that carries our two sentences; endpoint_spec.validation reads them back."""
    return PydanticCustomError("spec", "{problem}. {remedy}", {"problem": problem, "remedy": remedy})


def duration(value: Any) -> timedelta:
    """Text such as 250ms, 45min or 1.5h; units us, ms, s, min, h, d.

    Raises PydanticCustomError for a bare number, an unknown unit, or less than a microsecond.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise fault("has no unit", f"Write {value}ms, {value}s or {value}min, whichever is meant.")
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found:
        raise fault("is not a duration", "Write a number and a unit, such as 250ms, 30s or 45min.")
    number, unit = found.groups()
    if unit not in _SECONDS:
        _unknown_unit(number, unit)
    microseconds = Decimal(number) * _SECONDS[unit] * 1_000_000
    if microseconds != int(microseconds):
        raise fault("is finer than a microsecond", "Write whole microseconds, such as 500us.")
    if microseconds > _LONGEST_DAYS * 86_400_000_000:
        raise fault(f"is longer than {_LONGEST_DAYS} days", "Write less.")
    return timedelta(microseconds=int(microseconds))


def _unknown_unit(number: str, unit: str) -> NoReturn:
    meant = _MEANT.get(unit)
    remedy = f"Write {number} with {meant}." if meant else f"Write one of {', '.join(_SECONDS)}, such as {number}ms."
    raise fault(f"has the unknown unit {unit}", remedy)


def ratio(value: Any) -> float:
    """Text such as 1% or 99.5%, as a fraction from 0 to 1. A bare number is refused: 1 could be 1% or 100%."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise fault("has no unit", f"Write a percentage: {value * 100:g}% for a fraction, {value:g}% for a percentage.")
    found = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found:
        raise fault("is not a percentage", "Write a number from 0 to 100 and a percent sign, such as 99.5%.")
    percent = Decimal(found.group(1))
    if percent > 100:
        raise fault("is more than 100%", "Write a percentage from 0% to 100%.")
    return float(percent / 100)


def count(value: Any) -> int:
    """A whole number, or text with a multiplier: 40M is 40 000 000 (k, M, G are thousand, million, milliard)."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise fault("is negative", "Write a number above zero, such as 16 or 40M.")
        return value
    found = _COUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found:
        raise fault("is not a count", "Write a whole number, or one with k, M or G, such as 16 or 40M.")
    number = Decimal(found.group(1)) * _MULTIPLES[found.group(2)]
    if number != int(number):
        raise fault("is not a whole number", "Write a whole number, or one with k, M or G, such as 16 or 40M.")
    return int(number)


def gigabytes(value: Any) -> int:
    """Whole gigabytes: a number, or text such as 100GB or 2TB."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _GIGABYTES.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found:
        raise fault("is not a size in gigabytes", "Write whole gigabytes, such as 100 or 100GB.")
    return int(found.group(1)) * (1000 if found.group(2) == "TB" else 1)


def format_duration(value: timedelta) -> str:
    """The shortest text that `duration` reads back as the same value."""
    microseconds = value // timedelta(microseconds=1)
    for unit in ("d", "h", "min", "s", "ms"):
        size = int(_SECONDS[unit] * 1_000_000)
        if microseconds and microseconds % size == 0:
            return f"{microseconds // size}{unit}"
    return f"{microseconds}us"


def format_ratio(value: float) -> str:
    """A fraction as a percentage that `ratio` reads back as the same value."""
    percent = Decimal(str(value)) * 100
    return f"{percent.normalize():f}%"


Duration = Annotated[
    timedelta,
    BeforeValidator(duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema(
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?(us|ms|s|min|h|d)$", "examples": ["250ms", "45min"]}
    ),
]
Ratio = Annotated[
    float,
    BeforeValidator(ratio),
    PlainSerializer(format_ratio, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?%$", "examples": ["1%", "99.5%"]}),
]
Count = Annotated[
    int,
    BeforeValidator(count),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?[kKMG]?$"}]}
    ),
]
Gigabytes = Annotated[
    int,
    BeforeValidator(gigabytes),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string", "pattern": r"^[0-9]+ ?(GB|TB)$"}]}),
]
