"""IAM types.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_IAM.html
"""

# ruff: noqa: ARG001 - create, update and delete have one signature each for all types
from __future__ import annotations

from collections.abc import Iterable

from .resource import Context, Created, Properties, ResourceType, document, gone, retag

# The three kinds of principal that a policy is put on: property, parameter of the calls, infix of their names
PRINCIPALS = (("Roles", "RoleName", "role"), ("Users", "UserName", "user"), ("Groups", "GroupName", "group"))


def _create_role(context: Context, properties: Properties) -> Created:
    name = properties.get("RoleName") or context.name(64)
    role = context.call(
        "iam",
        "create_role",
        RoleName=name,
        AssumeRolePolicyDocument=document(properties["AssumeRolePolicyDocument"]),
        Path=properties.get("Path"),
        Description=properties.get("Description"),
        MaxSessionDuration=properties.get("MaxSessionDuration"),
        PermissionsBoundary=properties.get("PermissionsBoundary"),
        Tags=properties.get("Tags"),
    )["Role"]
    try:
        _set_policies(context, name, {}, properties)
    except Exception:
        _delete_role(context, name, properties)
        raise
    return Created(name, {"Arn": role["Arn"], "RoleId": role["RoleId"]})


def _set_policies(context: Context, name: str, old: Properties, new: Properties) -> None:
    before, after = set(old.get("ManagedPolicyArns", [])), set(new.get("ManagedPolicyArns", []))
    for arn in sorted(after - before):
        context.call("iam", "attach_role_policy", RoleName=name, PolicyArn=arn)
    for arn in sorted(before - after):
        context.call("iam", "detach_role_policy", RoleName=name, PolicyArn=arn)
    inline = {policy["PolicyName"]: policy["PolicyDocument"] for policy in new.get("Policies", [])}
    for policy, body in inline.items():
        context.call("iam", "put_role_policy", RoleName=name, PolicyName=policy, PolicyDocument=document(body))
    for policy in old.get("Policies", []):
        if policy["PolicyName"] not in inline:
            context.call("iam", "delete_role_policy", RoleName=name, PolicyName=policy["PolicyName"])


def _update_role(context: Context, name: str, old: Properties, new: Properties) -> Created:
    trust = document(new["AssumeRolePolicyDocument"])
    context.call("iam", "update_assume_role_policy", RoleName=name, PolicyDocument=trust)
    seconds = new.get("MaxSessionDuration", 3600)
    context.call(
        "iam", "update_role", RoleName=name, Description=new.get("Description", ""), MaxSessionDuration=seconds
    )
    boundary = new.get("PermissionsBoundary")
    if boundary and boundary != old.get("PermissionsBoundary"):
        context.call("iam", "put_role_permissions_boundary", RoleName=name, PermissionsBoundary=boundary)
    elif old.get("PermissionsBoundary") and not boundary:
        context.call("iam", "delete_role_permissions_boundary", RoleName=name)
    _set_policies(context, name, old, new)
    retag(context, "iam", old, new, calls=("tag_role", "untag_role"), RoleName=name)
    role = context.call("iam", "get_role", RoleName=name)["Role"]
    return Created(name, {"Arn": role["Arn"], "RoleId": role["RoleId"]})


def _delete_role(context: Context, name: str, properties: Properties) -> None:
    for arn in properties.get("ManagedPolicyArns", []):
        gone(context, "iam", "detach_role_policy", RoleName=name, PolicyArn=arn)
    for policy in properties.get("Policies", []):
        gone(context, "iam", "delete_role_policy", RoleName=name, PolicyName=policy["PolicyName"])
    gone(context, "iam", "delete_role", RoleName=name)


def _holders(properties: Properties) -> Iterable[tuple[str, str, str]]:
    for key, parameter, kind in PRINCIPALS:
        for name in properties.get(key, []):
            yield parameter, kind, name


def _create_policy(context: Context, properties: Properties) -> Created:
    _put_policy(context, properties)
    return Created(context.name(128), {"Id": properties["PolicyName"]})


def _put_policy(context: Context, properties: Properties) -> None:
    body = document(properties["PolicyDocument"])
    for parameter, kind, name in _holders(properties):
        given = {parameter: name, "PolicyName": properties["PolicyName"], "PolicyDocument": body}
        context.call("iam", f"put_{kind}_policy", **given)


def _update_policy(context: Context, physical_id: str, old: Properties, new: Properties) -> Created:
    _put_policy(context, new)
    kept = {(*holder, new["PolicyName"]) for holder in _holders(new)}
    for parameter, kind, name in _holders(old):
        if (parameter, kind, name, old["PolicyName"]) not in kept:
            gone(context, "iam", f"delete_{kind}_policy", **{parameter: name, "PolicyName": old["PolicyName"]})
    return Created(physical_id, {"Id": new["PolicyName"]})


def _delete_policy(context: Context, physical_id: str, properties: Properties) -> None:
    for parameter, kind, name in _holders(properties):
        gone(context, "iam", f"delete_{kind}_policy", **{parameter: name, "PolicyName": properties["PolicyName"]})


def _create_managed(context: Context, properties: Properties) -> Created:
    arn = context.call(
        "iam",
        "create_policy",
        PolicyName=properties.get("ManagedPolicyName") or context.name(128),
        PolicyDocument=document(properties["PolicyDocument"]),
        Description=properties.get("Description"),
        Path=properties.get("Path"),
    )["Policy"]["Arn"]
    for parameter, kind, name in _holders(properties):
        context.call("iam", f"attach_{kind}_policy", **{parameter: name, "PolicyArn": arn})
    return Created(arn, {"PolicyArn": arn})


def _update_managed(context: Context, arn: str, old: Properties, new: Properties) -> Created:
    if old["PolicyDocument"] != new["PolicyDocument"]:
        versions = context.call("iam", "list_policy_versions", PolicyArn=arn)["Versions"]
        spare = [version["VersionId"] for version in versions if not version["IsDefaultVersion"]]
        if len(versions) >= 5:  # IAM keeps at most five versions of a policy
            context.call("iam", "delete_policy_version", PolicyArn=arn, VersionId=spare[-1])
        body = document(new["PolicyDocument"])
        context.call("iam", "create_policy_version", PolicyArn=arn, PolicyDocument=body, SetAsDefault=True)
    before, after = set(_holders(old)), set(_holders(new))
    for parameter, kind, name in sorted(after - before):
        context.call("iam", f"attach_{kind}_policy", **{parameter: name, "PolicyArn": arn})
    for parameter, kind, name in sorted(before - after):
        gone(context, "iam", f"detach_{kind}_policy", **{parameter: name, "PolicyArn": arn})
    return Created(arn, {"PolicyArn": arn})


def _delete_managed(context: Context, arn: str, properties: Properties) -> None:
    for parameter, kind, name in _holders(properties):
        gone(context, "iam", f"detach_{kind}_policy", **{parameter: name, "PolicyArn": arn})
    versions = context.call("iam", "list_policy_versions", PolicyArn=arn)["Versions"]
    for version in versions:
        if not version["IsDefaultVersion"]:
            context.call("iam", "delete_policy_version", PolicyArn=arn, VersionId=version["VersionId"])
    gone(context, "iam", "delete_policy", PolicyArn=arn)


_HOLDERS = {"Roles", "Users", "Groups"}


def _create_profile(context: Context, properties: Properties) -> Created:
    name = properties.get("InstanceProfileName") or context.name(128)
    made = context.call("iam", "create_instance_profile", InstanceProfileName=name, Path=properties.get("Path"))
    try:
        _set_profile_roles(context, name, {}, properties)
    except Exception:
        _delete_profile(context, name, properties)
        raise
    return Created(name, {"Arn": made["InstanceProfile"]["Arn"]})


def _set_profile_roles(context: Context, name: str, old: Properties, new: Properties) -> None:
    before, after = set(old.get("Roles", [])), set(new.get("Roles", []))
    for role in sorted(before - after):
        gone(context, "iam", "remove_role_from_instance_profile", InstanceProfileName=name, RoleName=role)
    for role in sorted(after - before):
        context.call("iam", "add_role_to_instance_profile", InstanceProfileName=name, RoleName=role)


def _update_profile(context: Context, name: str, old: Properties, new: Properties) -> Created:
    _set_profile_roles(context, name, old, new)
    found = context.call("iam", "get_instance_profile", InstanceProfileName=name)["InstanceProfile"]
    return Created(name, {"Arn": found["Arn"]})


def _delete_profile(context: Context, name: str, properties: Properties) -> None:
    _set_profile_roles(context, name, properties, {})
    gone(context, "iam", "delete_instance_profile", InstanceProfileName=name)


TYPES = [
    ResourceType(
        "AWS::IAM::InstanceProfile",
        frozenset({"InstanceProfileName", "Path", "Roles"}),
        _create_profile,
        _delete_profile,
        _update_profile,
    ),
    ResourceType(
        "AWS::IAM::Role",
        frozenset(
            {
                "AssumeRolePolicyDocument",
                "Description",
                "ManagedPolicyArns",
                "MaxSessionDuration",
                "Path",
                "PermissionsBoundary",
                "Policies",
                "RoleName",
                "Tags",
            }
        ),
        _create_role,
        _delete_role,
        _update_role,
    ),
    ResourceType(
        "AWS::IAM::Policy",
        frozenset({"PolicyDocument", "PolicyName", *_HOLDERS}),
        _create_policy,
        _delete_policy,
        _update_policy,
    ),
    ResourceType(
        "AWS::IAM::ManagedPolicy",
        frozenset({"Description", "ManagedPolicyName", "Path", "PolicyDocument", *_HOLDERS}),
        _create_managed,
        _delete_managed,
        _update_managed,
    ),
]
