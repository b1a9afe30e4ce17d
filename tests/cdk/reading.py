"""Reading templates: resources by type, and intrinsic functions as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def resources(template: dict[str, Any], type_: str) -> dict[str, dict[str, Any]]:
    """Logical id -> resource, of one type."""
    return {name: body for name, body in template["Resources"].items() if body["Type"] == type_}


def only(template: dict[str, Any], type_: str) -> dict[str, Any]:
    """The properties of the only resource of a type."""
    (resource,) = resources(template, type_).values()
    properties: dict[str, Any] = resource.get("Properties", {})
    return properties


def text(value: Any) -> Any:
    """Intrinsic functions as Fn::Sub would write them (${Name}, ${Name.Attribute}), everything else as it is."""
    if isinstance(value, list):
        return [text(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((function, argument),) = value.items()
        if function in _WRITTEN:
            return _WRITTEN[function](argument)
    return {key: text(item) for key, item in value.items()}


_WRITTEN: dict[str, Callable[[Any], str]] = {
    "Ref": lambda name: "${" + name + "}",
    "Fn::GetAtt": lambda path: "${" + ".".join(path) + "}",
    "Fn::ImportValue": lambda name: "${import " + name + "}",
    "Fn::FindInMap": lambda path: "${map " + " ".join(text(path)) + "}",
    "Fn::Select": lambda argument: "${select " + f"{argument[0]} {text(argument[1])}" + "}",
    "Fn::GetAZs": lambda region: "zones",
    "Fn::Base64": lambda argument: str(text(argument)),
    "Fn::Join": lambda argument: argument[0].join(str(text(part)) for part in argument[1]),
}


def statements(template: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every policy statement with the logical id that holds it: roles, key policies, bucket and topic policies."""
    for name, resource in template["Resources"].items():
        for document in _documents(resource.get("Properties", {})):
            for statement in document["Statement"]:
                yield name, text(statement)


def _documents(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "Statement" in value:
            yield value
        else:
            for item in value.values():
                yield from _documents(item)
    elif isinstance(value, list):
        for item in value:
            yield from _documents(item)


def as_list(value: Any) -> list[Any]:
    """A policy's fields may be one value or a list."""
    return value if isinstance(value, list) else [value]
