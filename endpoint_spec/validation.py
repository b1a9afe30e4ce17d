"""pydantic's faults in our form: file, line, key, value, what is wrong and the way out."""

from __future__ import annotations

import re
import types
import typing
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .errors import SpecError, SpecErrors, dotted, near, shown
from .strict_yaml import Document

_MISSING = {
    "name": "Write name: and the file's name without .yaml",
    "model": "Write model: {family: ..., variant: ..., weights: ...}; the files in zoo/ are examples",
    "model.weights": 'Say where the weights come from, such as weights: "random:0" or {file: ..., sha256: ...}',
}
_KINDS = {
    "string_type": ("is not text", "Write text; quote it if it looks like a number."),
    "int_type": ("is not a whole number", "Write a whole number."),
    "int_from_float": ("is not a whole number", "Write a whole number."),
    "float_type": ("is not a number", "Write a number, without quotes or unit."),
    "finite_number": ("is not a finite number", "Write an ordinary number."),
    "dict_type": ("is not a mapping", "Write keys and values, such as {key: value}."),
    "model_type": ("is not a mapping", "Write its keys below it, or leave it out."),
    "tuple_type": ("is not a list", "Write a list, such as [1, 4]."),
}
_BOUNDS = {
    "greater_than_equal": ("is too small", "Write {ge} or more."),
    "greater_than": ("is too small", "Write a number above {gt}."),
    "less_than_equal": ("is too large", "Write {le} or less."),
    "less_than": ("is too large", "Write a number below {lt}."),
}
_Model = TypeVar("_Model", bound=BaseModel)


def validate(model: type[_Model], document: Document) -> _Model:
    """A document as a model. Raises SpecErrors with all its faults, and those that reading it found."""
    try:
        checked = model.model_validate(document.data)
    except ValidationError as failure:
        faults = [error_of(details, document, model) for details in failure.errors(include_url=False)]
        raise SpecErrors([*document.errors, *faults]) from None
    if document.errors:
        raise SpecErrors(document.errors)
    return checked


def error_of(details: ErrorDetails, document: Document, model: type[BaseModel]) -> SpecError:
    """One fault that pydantic found in a document, as an error of its file."""
    path = tuple(part for part in details["loc"] if part != "[key]")
    problem, remedy = _sentences(details, path, model)
    value = "" if details["type"] == "missing" else shown(details["input"])
    if details["type"] == "extra_forbidden":
        value = ""
    return SpecError(document.file, dotted(path), value, problem, remedy, document.line(path))


def _sentences(details: ErrorDetails, path: tuple[int | str, ...], model: type[BaseModel]) -> tuple[str, str]:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "missing":
        return "is missing", _MISSING.get(dotted(path), "Write it") + "."
    if kind == "extra_forbidden":
        return "is not a known key", _known_keys(path, model)
    return _of_the_value(kind, context, details)


def _of_the_value(kind: str, context: dict[str, Any], details: ErrorDetails) -> tuple[str, str]:
    if kind == "spec":
        return str(context["problem"]), str(context["remedy"])
    if details["input"] is None and kind in _KINDS:
        return "has no value", "Write one, or leave the key out for its default."
    if kind == "literal_error":
        words = re.findall(r"'([^']*)'", str(context["expected"]))
        return "is not possible here", f"{near(str(details['input']), words)}Write one of {', '.join(words)}."
    if kind in _BOUNDS:
        problem, remedy = _BOUNDS[kind]
        return problem, remedy.format(**{name: f"{bound:g}" for name, bound in context.items()})
    if kind in _KINDS:
        return _KINDS[kind]
    return f"is refused: {details['msg']}", "Correct the value."


def _known_keys(path: tuple[int | str, ...], model: type[BaseModel]) -> str:
    *above, key = path
    here = _fields(model, above)
    elsewhere = [
        section for section in (None, *model.model_fields) if key in _fields(model, [section] if section else [])
    ]
    meant = near(str(key), list(here))
    if not meant and elsewhere:
        meant = f"It belongs under {elsewhere[0]}. " if elsewhere[0] else "It belongs at the top. "
    return f"{meant}The keys here are {', '.join(here)}."


def _fields(model: type[BaseModel], path: list[Any]) -> list[str]:
    """The keys of the section at `path`; none where that is not a section."""
    current: Any = model
    for part in path:
        field = current.model_fields.get(part)
        candidates = _classes(field.annotation) if field else []
        if not candidates:
            return []
        current = candidates[0]
    return list(current.model_fields)


def _classes(annotation: Any) -> list[type[BaseModel]]:
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
