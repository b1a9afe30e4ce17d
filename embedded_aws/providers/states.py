"""Step Functions types.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-stepfunctions-statemachine.html
"""

from __future__ import annotations

import json
import re
from typing import Any

from .resource import (
    Context,
    Created,
    Properties,
    ProviderError,
    ResourceType,
    Tagging,
    deleting,
    names,
    refuse_existing,
)


def _definition(properties: Properties) -> str:
    """DefinitionString or Definition with every ${name} of DefinitionSubstitutions filled in."""
    given = [properties[key] for key in ("DefinitionString", "Definition") if key in properties]
    if len(given) != 1:
        raise ProviderError("exactly one of DefinitionString and Definition must be there")
    text = given[0] if isinstance(given[0], str) else json.dumps(given[0])
    substitutions = properties.get("DefinitionSubstitutions") or {}

    def filled(found: re.Match[str]) -> str:
        if found[1] not in substitutions:
            raise ProviderError(f"DefinitionSubstitutions has no {found[1]}")
        return str(substitutions[found[1]])

    return re.sub(r"\$\{([A-Za-z0-9_-]+)\}", filled, text) if substitutions else text


def _small(value: Any) -> Any:
    """Members of a structure as the API writes them: first letter small."""
    if isinstance(value, list):
        return [_small(item) for item in value]
    if isinstance(value, dict):
        return {key[0].lower() + key[1:]: _small(item) for key, item in value.items()}
    return value


def _configuration(properties: Properties) -> dict[str, Any]:
    names = ("EncryptionConfiguration", "LoggingConfiguration", "TracingConfiguration")
    return {name[0].lower() + name[1:]: _small(properties.get(name)) for name in names}


def _create(context: Context, properties: Properties) -> Created:
    kind = properties.get("StateMachineType", "STANDARD")
    if kind != "STANDARD":
        raise ProviderError(f"the embedded AWS honours StateMachineType STANDARD, not {kind}")
    name = properties.get("StateMachineName") or context.name(80)
    arn = context.arn("states", f"stateMachine:{name}")
    refuse_existing(context, name, "stepfunctions", "describe_state_machine", stateMachineArn=arn)
    context.call(
        "stepfunctions",
        "create_state_machine",
        name=name,
        definition=_definition(properties),
        roleArn=properties["RoleArn"],
        type=kind,
        tags=_small(properties.get("Tags")),
        **_configuration(properties),
    )
    return Created(arn, {"Arn": arn, "Name": name})


def _change(context: Context, arn: str, old: Properties, new: Properties) -> None:  # noqa: ARG001 - the signature
    asked = {"definition": _definition(new), "roleArn": new["RoleArn"], **_configuration(new)}
    context.call("stepfunctions", "update_state_machine", stateMachineArn=arn, **asked)


TYPES = [
    ResourceType(
        "AWS::StepFunctions::StateMachine",
        names(
            "Definition DefinitionString DefinitionSubstitutions EncryptionConfiguration LoggingConfiguration RoleArn "
            "StateMachineName StateMachineType Tags TracingConfiguration"
        ),
        _create,
        deleting("stepfunctions", "delete_state_machine", "stateMachineArn"),
        _change,
        Tagging(
            "stepfunctions",
            lambda made: {"resourceArn": made.physical_id},
            members=("tags", "tagKeys"),
            shape=_small,
        ),
    )
]
