"""S3 types.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_S3.html
CloudFormation's names differ from the API's in places; the tables below hold the differences.
"""

# ruff: noqa: ARG001 - create, change and delete have one signature each for all types
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore import xform_name
from botocore.exceptions import ClientError

from .resource import (
    Context,
    Created,
    Properties,
    ProviderError,
    ResourceType,
    document,
    gone,
    names,
    putting,
    refuse_existing,
)


def _create_bucket(context: Context, properties: Properties) -> Created:
    name = properties.get("BucketName") or context.name(63, lower=True)
    refuse_existing(context, name, "s3", "head_bucket", Bucket=name)
    # us-east-1 takes no location constraint: https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html
    where = None if context.region == "us-east-1" else {"LocationConstraint": context.region}
    context.call(
        "s3",
        "create_bucket",
        Bucket=name,
        ACL=xform_name(properties.get("AccessControl", "Private"), "-"),
        CreateBucketConfiguration=where,
        ObjectLockEnabledForBucket=properties.get("ObjectLockEnabled"),
    )
    try:
        _apply(context, name, {}, properties)
    except Exception:
        gone(context, "s3", "delete_bucket", Bucket=name)
        raise
    attributes = {
        "Arn": f"arn:{context.partition}:s3:::{name}",
        "DomainName": f"{name}.s3.amazonaws.com",
        "RegionalDomainName": f"{name}.s3.{context.region}.amazonaws.com",
        "DualStackDomainName": f"{name}.s3.dualstack.{context.region}.amazonaws.com",
        "WebsiteURL": f"http://{name}.s3-website-{context.region}.amazonaws.com",
    }
    return Created(name, attributes)


def _encryption(value: Any) -> dict[str, Any]:
    rules = []
    for rule in value["ServerSideEncryptionConfiguration"]:
        by_default = rule.get("ServerSideEncryptionByDefault")
        renamed = {"ServerSideEncryptionByDefault": "ApplyServerSideEncryptionByDefault"}
        rules.append({renamed.get(key, key): by_default if key in renamed else item for key, item in rule.items()})
    return {"Rules": rules}


def _lifecycle_rule(rule: dict[str, Any]) -> dict[str, Any]:
    rest = dict(rule)
    made: dict[str, Any] = {"ID": rest.pop("Id", None), "Status": rest.pop("Status")}
    filters: dict[str, Any] = {
        key: rest.pop(key) for key in ("Prefix", "ObjectSizeGreaterThan", "ObjectSizeLessThan") if key in rest
    }
    tags = rest.pop("TagFilters", [])
    if len(filters) + len(tags) > 1:
        made["Filter"] = {"And": {**filters, **({"Tags": tags} if tags else {})}}
    elif tags:
        made["Filter"] = {"Tag": tags[0]}
    else:
        made["Filter"] = filters or {"Prefix": ""}
    made.update(_lifecycle_actions(rest))
    if rest:
        raise ProviderError(f"the embedded AWS does not honour {', '.join(sorted(rest))} of a lifecycle rule")
    return {key: value for key, value in made.items() if value is not None}


def _lifecycle_actions(rest: dict[str, Any]) -> dict[str, Any]:
    """The actions of a rule under the API's names; takes them out of `rest`."""
    names = {
        "ExpirationInDays": "Days",
        "ExpirationDate": "Date",
        "ExpiredObjectDeleteMarker": "ExpiredObjectDeleteMarker",
    }
    expiration = {names[key]: rest.pop(key) for key in names if key in rest}
    noncurrent = rest.pop("NoncurrentVersionExpiration", None)
    if "NoncurrentVersionExpirationInDays" in rest:
        noncurrent = {"NoncurrentDays": rest.pop("NoncurrentVersionExpirationInDays")}
    made: dict[str, Any] = {
        "Expiration": expiration or None,
        "AbortIncompleteMultipartUpload": rest.pop("AbortIncompleteMultipartUpload", None),
        "NoncurrentVersionExpiration": _renamed(noncurrent),
    }
    transitions = [_renamed(item) for item in rest.pop("Transitions", [])]
    noncurrent_transitions = [_renamed(item) for item in rest.pop("NoncurrentVersionTransitions", [])]
    return {
        **made,
        "Transitions": transitions or None,
        "NoncurrentVersionTransitions": noncurrent_transitions or None,
    }


def _renamed(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """Transition and expiration members under the API's names."""
    if value is None:
        return None
    names = {"TransitionInDays": "Days", "TransitionDate": "Date"}
    if "StorageClass" in value and "NewerNoncurrentVersions" in value:
        names = {"TransitionInDays": "NoncurrentDays"}
    return {names.get(key, key): item for key, item in value.items()}


def _logging(value: dict[str, Any]) -> dict[str, Any]:
    target = {"TargetBucket": value["DestinationBucketName"], "TargetPrefix": value.get("LogFilePrefix", "")}
    return {"LoggingEnabled": target}


def _as_it_is(value: Any) -> Any:
    return value


# property: (what it is called in the operations, its parameter, how the value is turned into it)
_SETTINGS: dict[str, tuple[str, str, Callable[[Any], Any]]] = {
    "BucketEncryption": ("bucket_encryption", "ServerSideEncryptionConfiguration", _encryption),
    "PublicAccessBlockConfiguration": ("public_access_block", "PublicAccessBlockConfiguration", _as_it_is),
    "VersioningConfiguration": ("bucket_versioning", "VersioningConfiguration", _as_it_is),
    "LifecycleConfiguration": (
        "bucket_lifecycle_configuration",
        "LifecycleConfiguration",
        lambda value: {"Rules": [_lifecycle_rule(rule) for rule in value["Rules"]]},
    ),
    "OwnershipControls": ("bucket_ownership_controls", "OwnershipControls", _as_it_is),
    "LoggingConfiguration": ("bucket_logging", "BucketLoggingStatus", _logging),
    "Tags": ("bucket_tagging", "Tagging", lambda value: {"TagSet": value}),
}
# what has no deleting operation: versioning can only be suspended, never taken away
_EMPTY: dict[str, Any] = {"VersioningConfiguration": {"Status": "Suspended"}, "LoggingConfiguration": {}}


def _apply(context: Context, name: str, old: Properties, new: Properties) -> None:
    for key, (setting, parameter, convert) in _SETTINGS.items():
        if key in new and new[key] != old.get(key):
            context.call("s3", f"put_{setting}", Bucket=name, **{parameter: convert(new[key])})
        elif key in old and key not in new and key in _EMPTY:
            context.call("s3", f"put_{setting}", Bucket=name, **{parameter: _EMPTY[key]})
        elif key in old and key not in new:
            gone(context, "s3", f"delete_{setting.removesuffix('_configuration')}", Bucket=name)


def _delete_bucket(context: Context, name: str, properties: Properties) -> None:
    """A bucket that is not empty stays, as on AWS, also when only old versions are in it."""
    try:
        held = context.call("s3", "list_object_versions", Bucket=name, MaxKeys=1)
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchBucket":
            return
        raise
    if held.get("Versions") or held.get("DeleteMarkers"):
        raise ProviderError(
            "The bucket you tried to delete is not empty. You must delete all versions in the bucket. "
            f"(Service: S3, Status Code: 409, Bucket: {name})"
        )
    gone(context, "s3", "delete_bucket", Bucket=name)


def _put_policy(context: Context, properties: Properties) -> Created:
    bucket = properties["Bucket"]
    context.call("s3", "put_bucket_policy", Bucket=bucket, Policy=document(properties["PolicyDocument"]))
    return Created(bucket)


def _delete_policy(context: Context, physical_id: str, properties: Properties) -> None:
    gone(context, "s3", "delete_bucket_policy", Bucket=properties["Bucket"])


TYPES = [
    ResourceType(
        "AWS::S3::Bucket",
        frozenset({"BucketName", "AccessControl", "ObjectLockEnabled", *_SETTINGS}),
        _create_bucket,
        _delete_bucket,
        _apply,
        replace=names("AccessControl ObjectLockEnabled"),
    ),
    ResourceType(
        "AWS::S3::BucketPolicy", names("Bucket PolicyDocument"), _put_policy, _delete_policy, putting(_put_policy)
    ),
]
