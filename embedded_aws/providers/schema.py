"""What AWS itself says about a resource type: its properties, and which of them force a replacement.

The CloudFormation resource provider schemas come with cfn-lint. Source: CloudFormation CLI User Guide, "Resource type
schema", https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-schema.html
(`properties`, `required`, `createOnlyProperties`, `tagging`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from cfnlint.schema import ResourceNotFoundError  # type: ignore[import-untyped]
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER  # type: ignore[import-untyped]


@functools.cache
def schema(resource_type: str, region: str) -> dict[str, Any] | None:
    """The schema, or None when AWS has no such type in that region."""
    try:
        found: dict[str, Any] = PROVIDER_SCHEMA_MANAGER.get_resource_schema(region, resource_type).schema
    except ResourceNotFoundError:
        return None
    return found


def create_only(resource_type: str, region: str) -> frozenset[str]:
    """The top-level properties whose change needs a replacement."""
    pointers = (schema(resource_type, region) or {}).get("createOnlyProperties") or []
    return frozenset(pointer.split("/")[2] for pointer in pointers)


def tag_property(resource_type: str, region: str) -> str | None:
    """The property that takes stack-level tags, if the type has one."""
    found = schema(resource_type, region) or {}
    tagging = found.get("tagging") or {}
    if tagging.get("taggable") is False or tagging.get("tagOnCreate") is False:
        return None
    name = str(tagging.get("tagProperty", "/properties/Tags")).rsplit("/", 1)[-1]
    return name if name in found.get("properties", {}) else None


def tags_are_a_map(resource_type: str, region: str) -> bool:
    """Whether the type's tags are a map instead of a list of Key and Value (AWS::SSM::Parameter)."""
    found = schema(resource_type, region) or {}
    name = tag_property(resource_type, region)
    return name is not None and _follow(found, found["properties"][name]).get("type") == "object"


def property_faults(resource_type: str, properties: dict[str, Any], region: str) -> list[str]:
    """Properties and values that AWS does not know, at any depth, and required top-level ones that are missing."""
    found = schema(resource_type, region)
    if found is None:
        return [f"Unrecognized resource type {resource_type}"]
    faults = [f"#: required key [{name}] not found" for name in found.get("required") or [] if name not in properties]
    read_only = set(found.get("readOnlyProperties") or [])
    faults += [f"#/{name}: read-only property" for name in properties if f"/properties/{name}" in read_only]
    return faults + list(_deep_faults(found, found, properties, ""))


def _follow(root: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in part:
        target: Any = root
        for step in part["$ref"].lstrip("#/").split("/"):
            target = target[step]
        part = target
    return part


def _scalar_faults(part: dict[str, Any], value: Any, path: str) -> Iterator[str]:
    """A value outside the schema's enum or range; numbers may come as text, as everywhere in CloudFormation."""
    allowed = part.get("enum")
    if allowed and str(value) not in {str(item) for item in allowed}:
        yield f"#{path}: {value} is not a valid enum value; allowed are {', '.join(map(str, allowed))}"
    if part.get("type") in ("integer", "number") and str(value).replace(".", "", 1).isdigit():
        if float(value) < part.get("minimum", float("-inf")):
            yield f"#{path}: {value} is not greater or equal to {part['minimum']}"
        if float(value) > part.get("maximum", float("inf")):
            yield f"#{path}: {value} is not less or equal to {part['maximum']}"


def _deep_faults(root: dict[str, Any], part: dict[str, Any], value: Any, path: str) -> Iterator[str]:
    part = _follow(root, part)
    if not isinstance(value, (list, dict)):
        yield from _scalar_faults(part, value, path)
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _deep_faults(root, part.get("items") or {}, item, f"{path}/{index}")
    elif isinstance(value, dict) and "properties" in part:
        for name, inner in value.items():
            if name in part["properties"]:
                yield from _deep_faults(root, part["properties"][name], inner, f"{path}/{name}")
            elif not part.get("patternProperties"):
                yield f"Encountered unsupported property {name} (at #{path or '/'})"
