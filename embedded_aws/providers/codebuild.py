"""CodeBuild types.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-codebuild-project.html
"""

from __future__ import annotations

from typing import Any

from .resource import Context, Created, Properties, ResourceType, deleting, names

# The members whose name is not CloudFormation's with a small first letter.
_NAMED = {"BuildSpec": "buildspec"}


def _small(value: Any) -> Any:
    """Members of a structure as the API writes them."""
    if isinstance(value, list):
        return [_small(item) for item in value]
    if isinstance(value, dict):
        return {_NAMED.get(key, key[0].lower() + key[1:]): _small(item) for key, item in value.items()}
    return value


def _create(context: Context, properties: Properties) -> Created:
    name = properties.get("Name") or context.name(150)
    context.call("codebuild", "create_project", **{**_small(properties), "name": name})
    return Created(name, {"Arn": context.arn("codebuild", f"project/{name}")})


def _change(context: Context, name: str, old: Properties, new: Properties) -> None:  # noqa: ARG001 - the signature
    context.call("codebuild", "update_project", **{**_small(new), "name": name})


TYPES = [
    ResourceType(
        "AWS::CodeBuild::Project",
        names(
            "Name Description ServiceRole Source Artifacts Environment LogsConfig TimeoutInMinutes Tags EncryptionKey"
        ),
        _create,
        deleting("codebuild", "delete_project", "name"),
        _change,
    )
]
