"""Reading a CloudFormation template (JSON or YAML) and checking its shape before anything runs.

Source: AWS CloudFormation User Guide, "Template sections",
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/template-anatomy.html
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from ..errors import ValidationError
from ..providers.resource import names

Template = dict[str, Any]

SECTIONS = names(
    "AWSTemplateFormatVersion Description Metadata Parameters Rules Mappings Conditions Transform Resources Outputs "
    "Hooks"
)
RESOURCE_KEYS = names(
    "Type Properties DependsOn Condition Metadata DeletionPolicy UpdateReplacePolicy CreationPolicy UpdatePolicy"
)
# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
MOST_RESOURCES = 500
RETAINING = {"Delete", "Retain", "RetainExceptOnCreate", "Snapshot"}


class TemplateError(ValidationError):
    """The template cannot be used; the text says what is wrong and where."""


class _Loader(yaml.SafeLoader):
    """YAML without dates (a policy's Version "2012-10-17" is a string) and with the short forms of the functions."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _short_form(loader: Any, suffix: str, node: yaml.Node) -> dict[str, Any]:
    """`!Sub x` is `{"Fn::Sub": x}`; `!GetAtt a.b` is split at its first dot; Ref and Condition have no prefix."""
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _short_form)


def parse(body: str) -> Template:
    """The template as plain data; raises TemplateError naming every fault of its shape.

    A `Transform` and the attributes `CreationPolicy` and `UpdatePolicy` are refused: nothing here would honour them.
    """
    try:
        # S506: _Loader derives from SafeLoader
        template = json.loads(body) if body.lstrip().startswith("{") else yaml.load(body, Loader=_Loader)  # noqa: S506
    except (ValueError, yaml.YAMLError) as error:
        raise TemplateError(f"Template format error: {error}") from error
    if not isinstance(template, dict):
        raise TemplateError("Template format error: unsupported structure.")
    faults = list(_faults(template))
    if faults:
        raise TemplateError("Template format error: " + "; ".join(faults))
    return template


def _faults(template: Template) -> Any:
    for section in sorted(set(template) - SECTIONS):
        yield f"Invalid template property or properties [{section}]"
    if template.get("Transform"):
        yield f"the embedded AWS runs no transform ({template['Transform']})"
    resources = template.get("Resources")
    if not isinstance(resources, dict) or not resources:
        yield "At least one Resources member must be defined."
        return
    if len(resources) > MOST_RESOURCES:
        yield f"Number of resources, {len(resources)}, is greater than maximum allowed, {MOST_RESOURCES}"
        return
    for logical_id, resource in resources.items():
        yield from _resource_faults(template, logical_id, resource)
    for name, output in (template.get("Outputs") or {}).items():
        if not isinstance(output, dict) or "Value" not in output:
            yield f"Output {name} is malformed: every output needs a Value"


def _resource_faults(template: Template, logical_id: str, resource: Any) -> Any:
    if not logical_id.isalnum():
        yield f"Resource name {logical_id} is non alphanumeric."
    if not isinstance(resource, dict) or not isinstance(resource.get("Type"), str):
        yield f"[/Resources/{logical_id}] Every Resources object must contain a Type member."
        return
    for key in sorted(set(resource) - RESOURCE_KEYS):
        yield f"Invalid template resource property '{key}' in {logical_id}"
    for key in sorted({"CreationPolicy", "UpdatePolicy"} & set(resource)):
        yield f"the embedded AWS does not honour {key} ({logical_id})"
    for key in ("DeletionPolicy", "UpdateReplacePolicy"):
        if resource.get(key, "Delete") not in RETAINING:
            yield f"Unrecognized {key} {resource[key]} for {logical_id}"
    condition = resource.get("Condition")
    if condition and condition not in (template.get("Conditions") or {}):
        yield f"Unresolved condition dependency {condition} in the Resources block ({logical_id})"
