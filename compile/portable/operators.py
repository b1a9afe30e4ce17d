"""Which operators a graph file may hold, and whether a release of torch has a call as torch 2.13 captured it.

The rules are data: operators.json, and schemas/ as each release gives them (tools/operator_schemas.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

CAPTURED_WITH = "2.13.0"
_HERE = Path(__file__).parent


def allowed() -> frozenset[str]:
    """The overloads that a graph file may hold, such as aten::add.Tensor; the rule stands in operators.json."""
    return frozenset(_entries())


def schema(torch_version: str, overload: str) -> str | None:
    """The text of an overload's schema in a release ("1.13.1+cpu" is 1.13.1); None where that release has none."""
    return (_schemas(_release(torch_version)) or {}).get(overload)


def problem(torch_version: str, overload: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """One sentence on why this call, captured with torch 2.13, is none that a release has; None where it is one.

    args, kwargs: what the operator is called with; for a tensor stands anything but None. Whether the operator is
    `allowed` is another question; what its entry in operators.json demands of the arguments is checked here.
    """
    release = _release(torch_version)
    if _schemas(release) is None:
        known = ", ".join(sorted(path.stem.removeprefix("torch-") for path in _HERE.glob("schemas/torch-*.json")))
        return f"The operators of torch {release} are not known here, only those of {known}."
    theirs, ours = _arguments(release, overload), _arguments(CAPTURED_WITH, overload)
    if theirs is None:
        return f"torch {release} has no {overload}."
    places = [name for name, argument in theirs.items() if not argument.kwarg_only]
    if len(args) > len(places):
        return f"{overload} takes {len(places)} positional arguments in torch {release}, not {len(args)}."
    given = dict(zip(places, args, strict=False))
    found = _misplaced(list(given), list(ours or theirs)) or _misnamed(kwargs, given, list(theirs))
    given.update(kwargs)
    found = found or _left_out(given, theirs, ours or theirs) or _refused(overload, given, theirs)
    return f"{overload} {found} (torch {release})." if found else None


def _misplaced(places: list[str], captured: list[str]) -> str | None:
    for place, meant in zip(places, captured, strict=False):
        if place != meant:
            return f"takes {place} where torch {CAPTURED_WITH} takes {meant}"
    return None


def _misnamed(kwargs: Mapping[str, Any], given: Mapping[str, Any], names: list[str]) -> str | None:
    for name in kwargs:
        if name not in names:
            return f"has no argument {name}"
        if name in given:
            return f"is given the argument {name} by place and by name"
    return None


def _left_out(given: Mapping[str, Any], theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str | None:
    for name, argument in theirs.items():
        if name in given:
            continue
        if not argument.has_default_value():
            return f"needs the argument {name}"
        if name in ours and ours[name].default_value != argument.default_value:
            mine, its = ours[name].default_value, argument.default_value
            return f"takes {name}={its} where it is left out, and torch {CAPTURED_WITH} {mine}"
    return None


def _refused(overload: str, given: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """What its entry refuses of the arguments, given or by default (`about` in operators.json says why)."""
    entry = _entries().get(overload, {})
    values = {name: given.get(name, argument.default_value) for name, argument in theirs.items()}
    for name in entry.get("no_bool", []):
        if isinstance(values[name], bool):
            return f"is not read with the bool {name}={values[name]}, which torch 1.13.1 takes for a whole number"
    for name, value in entry.get("never", {}).items():
        if _same(values[name], value):
            return f"is not read with {name}={value}, because its result's size is then decided by data"
    demands = entry.get("only")
    if demands is None or any(all(_same(values[name], one[name]) for name in one) for one in demands):
        return None
    wanted = " or ".join(", ".join(f"{name}={value}" for name, value in one.items()) for one in demands)
    return f"is read with {wanted} alone, because it else draws random numbers or writes into its arguments"


def _same(value: Any, wanted: Any) -> bool:
    return type(value) is type(wanted) and bool(value == wanted)


def _release(torch_version: str) -> str:
    return torch_version.partition("+")[0]


@lru_cache(maxsize=1)
def _entries() -> dict[str, Any]:
    entries: dict[str, Any] = json.loads((_HERE / "operators.json").read_text(encoding="utf-8"))["operators"]
    return entries


@lru_cache(maxsize=8)
def _schemas(release: str) -> dict[str, str] | None:
    """By overload; None for a release whose schemas are not here."""
    path = _HERE / "schemas" / f"torch-{release}.json"
    if path not in _HERE.glob("schemas/*.json"):  # a version out of a file is no path
        return None
    operators: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["operators"]
    return operators


@lru_cache(maxsize=2048)
def _arguments(release: str, overload: str) -> dict[str, Any] | None:
    """A release's arguments of an overload by name, as torch._C parses them; None where it has no such overload."""
    text = schema(release, overload)
    if text is None:
        return None
    return {argument.name: argument for argument in torch._C.parse_schema(text).arguments}
