"""The values of a template's parameters.

Source: AWS CloudFormation User Guide, "Parameters section syntax reference",
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/parameters-section-structure.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .template import Template, TemplateError

SSM_VALUE = re.compile(r"AWS::SSM::Parameter::Value<(.+)>")
NO_ECHO = "****"


def given_values(template: Template, given: Sequence[Mapping[str, Any]], previous: Mapping[str, str]) -> dict[str, str]:
    """The raw value of every parameter: as given, or the previous one (UsePreviousValue), or its default.

    Raises TemplateError naming every parameter that has no value, or that the template does not have.
    """
    declared: dict[str, Any] = template.get("Parameters") or {}
    unknown = sorted({item["ParameterKey"] for item in given} - set(declared))
    if unknown:
        raise TemplateError(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    values = {name: _scalar(item["Default"]) for name, item in declared.items() if "Default" in item}
    for item in given:
        name = item["ParameterKey"]
        if item.get("UsePreviousValue"):
            if "ParameterValue" in item:
                raise TemplateError(
                    f"Invalid input for parameter key {name}. "
                    "Cannot specify usePreviousValue as true and non empty value for a parameter"
                )
            if name not in previous:
                raise TemplateError(f"Parameter {name} has no previous value: it is new in this template")
            values[name] = previous[name]
        elif "ParameterValue" in item:
            values[name] = item["ParameterValue"]
    missing = [name for name in declared if name not in values]
    if missing:
        raise TemplateError(f"Parameters: [{', '.join(missing)}] must have values")
    return values


def resolved_values(template: Template, raw: Mapping[str, str], ssm: Callable[[str], str]) -> dict[str, Any]:
    """What `Ref` gives for each parameter: lists split, SSM parameters read. Raises TemplateError on a bad value."""
    result: dict[str, Any] = {}
    for name, declaration in (template.get("Parameters") or {}).items():
        value, kind = raw[name], declaration.get("Type", "String")
        _check(name, declaration, value)
        inner = SSM_VALUE.fullmatch(kind)
        if inner:
            value, kind = ssm(value), inner.group(1)
        listed = kind == "CommaDelimitedList" or kind.startswith("List<")
        result[name] = [item.strip() for item in value.split(",")] if listed else value
    return result


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _check(name: str, declaration: Mapping[str, Any], value: str) -> None:
    if declaration.get("Type") == "Number" and not _is_number(value):
        raise TemplateError(f"Parameter '{name}' must be a number, not {value!r}")
    fault = next(_faults(declaration, value), None)
    if fault is not None:
        raise TemplateError(f"Parameter '{name}' {declaration.get('ConstraintDescription') or fault}")


def _faults(declaration: Mapping[str, Any], value: str) -> Iterator[str]:
    """Constraints that a value does not keep."""
    allowed = [_scalar(item) for item in declaration.get("AllowedValues", [])]
    if allowed and value not in allowed:
        yield f"must be one of AllowedValues [{', '.join(allowed)}], not {value}"
    pattern = declaration.get("AllowedPattern")
    if pattern and not re.fullmatch(pattern, value):
        yield f"must match pattern {pattern}, and {value!r} does not"
    if len(value) < int(declaration.get("MinLength", 0)):
        yield f"must contain at least {declaration['MinLength']} characters"
    if "MaxLength" in declaration and len(value) > int(declaration["MaxLength"]):
        yield f"must contain at most {declaration['MaxLength']} characters"
    if "MinValue" in declaration and float(value) < float(declaration["MinValue"]):
        yield f"must be a number not less than {declaration['MinValue']}"
    if "MaxValue" in declaration and float(value) > float(declaration["MaxValue"]):
        yield f"must be a number not greater than {declaration['MaxValue']}"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def shown_values(template: Template, raw: Mapping[str, str], resolved: Mapping[str, Any]) -> list[dict[str, str]]:
    """The parameters as DescribeStacks shows them: NoEcho ones hidden, SSM ones with what they resolved to."""
    shown = []
    for name, declaration in (template.get("Parameters") or {}).items():
        hidden = str(declaration.get("NoEcho", "false")).lower() == "true"
        row = {"ParameterKey": name, "ParameterValue": NO_ECHO if hidden else raw[name]}
        if SSM_VALUE.fullmatch(declaration.get("Type", "String")) and name in resolved:
            value = resolved[name]
            row["ResolvedValue"] = ",".join(value) if isinstance(value, list) else str(value)
        shown.append(row)
    return shown
