"""What depends on what in a template, and the order that follows.

Source: AWS CloudFormation User Guide, "DependsOn attribute" and "Ref", "Fn::GetAtt", "Fn::Sub" (implicit dependencies),
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-attribute-dependson.html
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from .template import Template, TemplateError

SUBSTITUTION = re.compile(r"\$\{(!?[^{}]*)\}")


def references(node: Any) -> Iterator[str]:
    """Every logical name that a piece of template refers to by Ref, Fn::GetAtt or Fn::Sub (parameters included)."""
    if isinstance(node, list):
        for item in node:
            yield from references(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "Ref" and isinstance(value, str):
                yield value
            elif key == "Fn::GetAtt":
                yield value.split(".", 1)[0] if isinstance(value, str) else str(value[0])
            elif key == "Fn::Sub":
                yield from _substituted(value)
            else:
                yield from references(value)


def _substituted(value: Any) -> Iterator[str]:
    text, own = (value, {}) if isinstance(value, str) else (value[0], value[1])
    for name in SUBSTITUTION.findall(text):
        if not name.startswith("!") and name.strip() not in own:
            yield name.strip().split(".", 1)[0]
    yield from references(own)


def dependencies(template: Template, active: Collection[str]) -> dict[str, set[str]]:
    """For every active resource, the active resources that it needs first.

    Raises TemplateError when a name is neither a resource, a parameter nor a pseudo parameter.
    """
    known = set(template["Resources"]) | set(template.get("Parameters") or {})
    result: dict[str, set[str]] = {}
    unknown: set[str] = set()
    for logical_id, resource in template["Resources"].items():
        named = resource.get("DependsOn") or []
        named = {named} if isinstance(named, str) else set(named)
        found = set(references(resource.get("Properties") or {})) | named
        unknown |= {name for name in found if name not in known and not name.startswith("AWS::")}
        if logical_id in active:
            result[logical_id] = (found & set(active)) - {logical_id}
    if unknown:
        names = ", ".join(sorted(unknown))
        raise TemplateError(
            f"Template format error: Unresolved resource dependencies [{names}] in the Resources block of the template"
        )
    return result


def creation_order(needs: Mapping[str, Collection[str]]) -> list[str]:
    """Resources so that each comes after what it needs; deletion is the reverse. Raises TemplateError on a cycle."""
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        cycle = ", ".join(dict.fromkeys(error.args[1]))
        raise TemplateError(f"Circular dependency between resources: [{cycle}]") from error
