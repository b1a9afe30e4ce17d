"""ECR types.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-ecr-repository.html
"""

from __future__ import annotations

from typing import Any

from .resource import Context, Created, Properties, ResourceType, Tagging, document, gone, names


def _small(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """Members of a structure as the API writes them: first letter small."""
    return value and {key[0].lower() + key[1:]: item for key, item in value.items()}


def _scanning(properties: Properties) -> dict[str, object]:
    return {"scanOnPush": (properties.get("ImageScanningConfiguration") or {}).get("ScanOnPush", False)}


def _create(context: Context, properties: Properties) -> Created:
    name = properties.get("RepositoryName") or context.name(256, lower=True)
    context.call(
        "ecr",
        "create_repository",
        repositoryName=name,
        imageTagMutability=properties.get("ImageTagMutability"),
        imageScanningConfiguration=_scanning(properties),
        encryptionConfiguration=_small(properties.get("EncryptionConfiguration")),
        tags=properties.get("Tags"),
    )
    _set_policies(context, name, {}, properties)
    uri = f"{context.account}.dkr.ecr.{context.region}.amazonaws.com/{name}"
    return Created(name, {"Arn": context.arn("ecr", f"repository/{name}"), "RepositoryUri": uri})


def _set_policies(context: Context, name: str, old: Properties, new: Properties) -> None:
    before, after = ((side.get("LifecyclePolicy") or {}).get("LifecyclePolicyText") for side in (old, new))
    if after and after != before:
        context.call("ecr", "put_lifecycle_policy", repositoryName=name, lifecyclePolicyText=after)
    elif before and not after:
        context.call("ecr", "delete_lifecycle_policy", repositoryName=name)
    before, after = old.get("RepositoryPolicyText"), new.get("RepositoryPolicyText")
    if after and after != before:
        context.call("ecr", "set_repository_policy", repositoryName=name, policyText=document(after))
    elif before and not after:
        context.call("ecr", "delete_repository_policy", repositoryName=name)


def _change(context: Context, name: str, old: Properties, new: Properties) -> None:
    if old.get("ImageTagMutability") != new.get("ImageTagMutability"):
        mutability = new.get("ImageTagMutability", "MUTABLE")
        context.call("ecr", "put_image_tag_mutability", repositoryName=name, imageTagMutability=mutability)
    if _scanning(old) != _scanning(new):
        asked = {"repositoryName": name, "imageScanningConfiguration": _scanning(new)}
        context.call("ecr", "put_image_scanning_configuration", **asked)
    _set_policies(context, name, old, new)


def _delete(context: Context, name: str, properties: Properties) -> None:
    """A repository with images stays, unless EmptyOnDelete is set."""
    gone(context, "ecr", "delete_repository", repositoryName=name, force=properties.get("EmptyOnDelete", False))


TYPES = [
    ResourceType(
        "AWS::ECR::Repository",
        names(
            "RepositoryName ImageTagMutability ImageScanningConfiguration EncryptionConfiguration LifecyclePolicy "
            "RepositoryPolicyText EmptyOnDelete Tags"
        ),
        _create,
        _delete,
        _change,
        Tagging("ecr", lambda made: {"resourceArn": made.attributes["Arn"]}, members=("tags", "tagKeys")),
    )
]
