"""The intrinsic functions, pseudo parameters and dynamic references of a template.

Source: AWS CloudFormation User Guide, "Intrinsic function reference",
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/intrinsic-function-reference.html
and "Get values stored in other services using dynamic references",
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/dynamic-references.html
A function that is not in the table FUNCTIONS fails the stack by its name.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .graph import SUBSTITUTION
from .template import Template, TemplateError

DYNAMIC_REFERENCE = re.compile(r"\{\{resolve:([^{}]*)\}\}")


class _NoValue:
    """What `Ref: AWS::NoValue` stands for: the property, or the place in a list, is left out."""


NO_VALUE = _NoValue()


@dataclass
class Scope:
    """Everything that a template may refer to.

    `ref` and `get_att` answer for resources, `import_value` for exports of other stacks, `ssm` for
    `{{resolve:ssm:NAME[:VERSION]}}` and `zones` for the availability zones of a region; each raises TemplateError when
    it has no answer.
    """

    template: Template
    pseudo: Mapping[str, Any]
    parameters: Mapping[str, Any]
    ref: Callable[[str], Any]
    get_att: Callable[[str, str], Any]
    import_value: Callable[[str], Any]
    ssm: Callable[[str], str]
    zones: Callable[[str], list[str]] = lambda region: [f"{region}{letter}" for letter in "abc"]
    _conditions: dict[str, bool] = field(default_factory=dict)

    def resolve(self, node: Any) -> Any:
        """The value of any piece of the template."""
        if isinstance(node, str):
            return self._dynamic(node)
        if isinstance(node, list):
            return [value for value in map(self.resolve, node) if value is not NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            [(name, argument)] = node.items()
            if name in FUNCTIONS:
                return FUNCTIONS[name](self, argument)
            if name.startswith("Fn::"):
                raise TemplateError(f"Template error: the embedded AWS does not know the function {name}")
        resolved = {key: self.resolve(value) for key, value in node.items()}
        return {key: value for key, value in resolved.items() if value is not NO_VALUE}

    def condition(self, name: str) -> bool:
        """The value of a named condition."""
        if name not in self._conditions:
            conditions = self.template.get("Conditions") or {}
            if name not in conditions:
                raise TemplateError(f"Template error: unresolved condition {name}")
            self._conditions[name] = self.truth(conditions[name])
        return self._conditions[name]

    def truth(self, node: Any) -> bool:
        """The value of a condition function."""
        if isinstance(node, dict) and set(node) == {"Condition"}:
            return self.condition(node["Condition"])
        value = self.resolve(node)
        if value in (True, "true"):
            return True
        if value in (False, "false"):
            return False
        raise TemplateError(f"Template error: {node} is not a condition")

    def active(self) -> list[str]:
        """The resources whose condition holds."""
        return [
            logical_id
            for logical_id, resource in self.template["Resources"].items()
            if not resource.get("Condition") or self.condition(resource["Condition"])
        ]

    def _dynamic(self, text: str) -> str:
        return DYNAMIC_REFERENCE.sub(lambda match: self._dynamic_value(match.group(1)), text)

    def _dynamic_value(self, reference: str) -> str:
        service, _, key = reference.partition(":")
        if service != "ssm":
            raise TemplateError(
                f"Dynamic reference {{{{resolve:{reference}}}}}: the embedded AWS resolves only {{{{resolve:ssm:...}}}}"
            )
        return self.ssm(key)


def _ref(scope: Scope, name: Any) -> Any:
    if name == "AWS::NoValue":
        return NO_VALUE
    if name in scope.pseudo:
        return scope.pseudo[name]
    if name in scope.parameters:
        return scope.parameters[name]
    if name in scope.template["Resources"]:
        return scope.ref(name)
    raise TemplateError(f"Template error: unresolved reference {name}")


def _get_att(scope: Scope, argument: Any) -> Any:
    logical_id, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
    if logical_id not in scope.template["Resources"]:
        raise TemplateError(f"Template error: instance of Fn::GetAtt references undefined resource {logical_id}")
    return scope.get_att(logical_id, scope.resolve(attribute))


def _sub(scope: Scope, argument: Any) -> str:
    text, own = (argument, {}) if isinstance(argument, str) else (argument[0], scope.resolve(argument[1]))

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name.startswith("!"):  # ${!Literal} stays as ${Literal}
            return "${" + name[1:] + "}"
        name = name.strip()
        if name in own:
            return str(own[name])
        found = _get_att(scope, name) if "." in name else _ref(scope, name)
        return _text(found)

    return scope._dynamic(SUBSTITUTION.sub(value, text))


def _join(scope: Scope, argument: Any) -> str:
    separator, items = argument
    values = scope.resolve(items)
    if not isinstance(values, list):
        raise TemplateError(f"Template error: Fn::Join needs a list, not {values!r}")
    return scope._dynamic(str(scope.resolve(separator)).join(map(_text, values)))


def _select(scope: Scope, argument: Any) -> Any:
    index, items = scope.resolve(argument[0]), scope.resolve(argument[1])
    try:
        return items[int(index)]
    except (IndexError, ValueError, TypeError) as error:
        raise TemplateError(f"Template error: Fn::Select cannot select value at index {index}") from error


def _find_in_map(scope: Scope, argument: Any) -> Any:
    keys = [scope.resolve(key) for key in argument[:3]]
    value: Any = scope.template.get("Mappings") or {}
    try:
        for key in keys:
            value = value[str(key)]
    except (KeyError, TypeError) as error:
        if len(argument) > 3 and isinstance(argument[3], dict) and "DefaultValue" in argument[3]:
            return scope.resolve(argument[3]["DefaultValue"])
        raise TemplateError(f"Template error: Unable to get mapping for {'::'.join(map(str, keys))}") from error
    return scope.resolve(value)


def _if(scope: Scope, argument: Any) -> Any:
    name, if_true, if_false = argument
    chosen = scope.condition(name) if isinstance(name, str) else scope.truth(name)
    return scope.resolve(if_true if chosen else if_false)


def _contains(scope: Scope, argument: Any) -> bool:
    """Only in Rules: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/rules-section-structure.html"""
    items, wanted = scope.resolve(argument[0]), scope.resolve(argument[1])
    return wanted in items


def _base64(scope: Scope, argument: Any) -> str:
    return base64.b64encode(_text(scope.resolve(argument)).encode()).decode()


def _equals(scope: Scope, argument: Any) -> bool:
    left, right = (scope.resolve(side) for side in argument)
    return _text(left) == _text(right) if not isinstance(left, (dict, list)) else left == right


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        raise TemplateError(f"Template error: {value!r} is not a string")
    return str(value)


FUNCTIONS: dict[str, Callable[[Scope, Any], Any]] = {
    "Ref": _ref,
    "Fn::GetAtt": _get_att,
    "Fn::Sub": _sub,
    "Fn::Join": _join,
    "Fn::Select": _select,
    "Fn::Split": lambda scope, a: _text(scope.resolve(a[1])).split(scope.resolve(a[0])),
    "Fn::FindInMap": _find_in_map,
    "Fn::Base64": _base64,
    "Fn::ImportValue": lambda scope, a: scope.import_value(_text(scope.resolve(a))),
    "Fn::GetAZs": lambda scope, a: scope.zones(_text(scope.resolve(a)) or str(scope.pseudo["AWS::Region"])),
    "Fn::If": _if,
    "Fn::Equals": _equals,
    "Fn::And": lambda scope, a: all(scope.truth(item) for item in a),
    "Fn::Or": lambda scope, a: any(scope.truth(item) for item in a),
    "Fn::Not": lambda scope, a: not scope.truth(a[0]),
    "Fn::Contains": _contains,
}


def check_rules(scope: Scope) -> None:
    """The template's Rules: raises TemplateError with the description of each assertion that does not hold."""
    broken = []
    for name, rule in (scope.template.get("Rules") or {}).items():
        if "RuleCondition" in rule and not scope.truth(rule["RuleCondition"]):
            continue
        for assertion in rule["Assertions"]:
            if not scope.truth(assertion["Assert"]):
                broken.append(f"{assertion.get('AssertDescription', 'assertion failed')} (rule {name})")
    if broken:
        raise TemplateError("Template error: " + "; ".join(broken))
