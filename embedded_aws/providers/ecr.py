"""ECR types.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-ecr-repository.html
"""

from __future__ import annotations

from .resource import Context, Created, Properties, ResourceType, document, gone, retag


def _described(context: Context, name: str) -> Created:
    uri = f"{context.account}.dkr.ecr.{context.region}.amazonaws.com/{name}"
    return Created(name, {"Arn": context.arn("ecr", f"repository/{name}"), "RepositoryUri": uri})


def _encryption(properties: Properties) -> dict[str, str] | None:
    given = properties.get("EncryptionConfiguration")
    names = {"EncryptionType": "encryptionType", "KmsKey": "kmsKey"}
    return {names[key]: value for key, value in given.items()} if given else None


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
        encryptionConfiguration=_encryption(properties),
        tags=properties.get("Tags"),
    )
    _set_policies(context, name, {}, properties)
    return _described(context, name)


def _set_policies(context: Context, name: str, old: Properties, new: Properties) -> None:
    before = (old.get("LifecyclePolicy") or {}).get("LifecyclePolicyText")
    after = (new.get("LifecyclePolicy") or {}).get("LifecyclePolicyText")
    if after and after != before:
        context.call("ecr", "put_lifecycle_policy", repositoryName=name, lifecyclePolicyText=after)
    elif before and not after:
        context.call("ecr", "delete_lifecycle_policy", repositoryName=name)
    policy = new.get("RepositoryPolicyText")
    if policy and policy != old.get("RepositoryPolicyText"):
        context.call("ecr", "set_repository_policy", repositoryName=name, policyText=document(policy))
    elif old.get("RepositoryPolicyText") and not policy:
        context.call("ecr", "delete_repository_policy", repositoryName=name)


def _update(context: Context, name: str, old: Properties, new: Properties) -> Created:
    if old.get("ImageTagMutability") != new.get("ImageTagMutability"):
        mutability = new.get("ImageTagMutability", "MUTABLE")
        context.call("ecr", "put_image_tag_mutability", repositoryName=name, imageTagMutability=mutability)
    if _scanning(old) != _scanning(new):
        scanning = _scanning(new)
        context.call(
            "ecr", "put_image_scanning_configuration", repositoryName=name, imageScanningConfiguration=scanning
        )
    _set_policies(context, name, old, new)
    arn = context.arn("ecr", f"repository/{name}")
    retag(context, "ecr", old, new, members=("tags", "tagKeys"), resourceArn=arn)
    return _described(context, name)


def _delete(context: Context, name: str, properties: Properties) -> None:
    """A repository with images stays, unless EmptyOnDelete is set."""
    gone(context, "ecr", "delete_repository", repositoryName=name, force=properties.get("EmptyOnDelete", False))


TYPES = [
    ResourceType(
        "AWS::ECR::Repository",
        frozenset(
            {
                "RepositoryName",
                "ImageTagMutability",
                "ImageScanningConfiguration",
                "EncryptionConfiguration",
                "LifecyclePolicy",
                "RepositoryPolicyText",
                "EmptyOnDelete",
                "Tags",
            }
        ),
        _create,
        _delete,
        _update,
    )
]
