"""IAM types.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_IAM.html
"""

# ruff: noqa: ARG001 - create, change and delete have one signature each for all types
from __future__ import annotations

from .resource import Context, Created, Properties, ResourceType, Tagging, difference, document, gone, names, picked

# The three kinds of principal that a policy is put on: property, parameter of the calls, infix of their names
PRINCIPALS = (("Roles", "RoleName", "role"), ("Users", "UserName", "user"), ("Groups", "GroupName", "group"))


def _create_role(context: Context, properties: Properties) -> Created:
    name, trust = properties.get("RoleName") or context.name(64), document(properties["AssumeRolePolicyDocument"])
    given = picked(properties, ("Path", "Description", "MaxSessionDuration", "PermissionsBoundary", "Tags"))
    role = context.call("iam", "create_role", RoleName=name, AssumeRolePolicyDocument=trust, **given)["Role"]
    try:
        _set_policies(context, name, {}, properties)
    except Exception:
        _delete_role(context, name, properties)
        raise
    return Created(name, picked(role, ("Arn", "RoleId")))


def _set_policies(context: Context, name: str, old: Properties, new: Properties) -> None:
    added, removed = difference(old.get("ManagedPolicyArns"), new.get("ManagedPolicyArns"))
    for arn in added:
        context.call("iam", "attach_role_policy", RoleName=name, PolicyArn=arn)
    for arn in removed:
        gone(context, "iam", "detach_role_policy", RoleName=name, PolicyArn=arn)
    inline = {policy["PolicyName"]: policy["PolicyDocument"] for policy in new.get("Policies", [])}
    for policy, body in inline.items():
        context.call("iam", "put_role_policy", RoleName=name, PolicyName=policy, PolicyDocument=document(body))
    for policy in {policy["PolicyName"] for policy in old.get("Policies", [])} - set(inline):
        gone(context, "iam", "delete_role_policy", RoleName=name, PolicyName=policy)


def _change_role(context: Context, name: str, old: Properties, new: Properties) -> None:
    trust = document(new["AssumeRolePolicyDocument"])
    context.call("iam", "update_assume_role_policy", RoleName=name, PolicyDocument=trust)
    settings = {"Description": new.get("Description", ""), "MaxSessionDuration": new.get("MaxSessionDuration", 3600)}
    context.call("iam", "update_role", RoleName=name, **settings)
    boundary = new.get("PermissionsBoundary")
    if boundary and boundary != old.get("PermissionsBoundary"):
        context.call("iam", "put_role_permissions_boundary", RoleName=name, PermissionsBoundary=boundary)
    elif old.get("PermissionsBoundary") and not boundary:
        context.call("iam", "delete_role_permissions_boundary", RoleName=name)
    _set_policies(context, name, old, new)


def _delete_role(context: Context, name: str, properties: Properties) -> None:
    _set_policies(context, name, properties, {})
    gone(context, "iam", "delete_role", RoleName=name)


def _holders(properties: Properties) -> set[tuple[str, str, str]]:
    """Parameter of the calls, infix of their names and name of each principal that a policy is put on."""
    return {(parameter, kind, name) for key, parameter, kind in PRINCIPALS for name in properties.get(key, [])}


def _create_policy(context: Context, properties: Properties) -> Created:
    return _put_policy(context, context.name(128), {}, properties)


def _put_policy(context: Context, physical_id: str, old: Properties, new: Properties) -> Created:
    policy, body = new["PolicyName"], document(new["PolicyDocument"])
    for parameter, kind, name in sorted(_holders(new)):
        context.call("iam", f"put_{kind}_policy", **{parameter: name, "PolicyName": policy, "PolicyDocument": body})
    _take_off(context, old, _holders(old) - (_holders(new) if old.get("PolicyName") == policy else set()))
    return Created(physical_id, {"Id": policy})


def _take_off(context: Context, properties: Properties, holders: set[tuple[str, str, str]]) -> None:
    for parameter, kind, name in sorted(holders):
        gone(context, "iam", f"delete_{kind}_policy", **{parameter: name, "PolicyName": properties["PolicyName"]})


def _delete_policy(context: Context, physical_id: str, properties: Properties) -> None:
    _take_off(context, properties, _holders(properties))


def _create_managed(context: Context, properties: Properties) -> Created:
    name, body = properties.get("ManagedPolicyName") or context.name(128), document(properties["PolicyDocument"])
    given = picked(properties, ("Description", "Path"))
    arn = context.call("iam", "create_policy", PolicyName=name, PolicyDocument=body, **given)["Policy"]["Arn"]
    _attach(context, arn, {}, properties)
    return Created(arn, {"PolicyArn": arn})


def _attach(context: Context, arn: str, old: Properties, new: Properties) -> None:
    added, removed = difference(_holders(old), _holders(new))
    for parameter, kind, name in added:
        context.call("iam", f"attach_{kind}_policy", **{parameter: name, "PolicyArn": arn})
    for parameter, kind, name in removed:
        gone(context, "iam", f"detach_{kind}_policy", **{parameter: name, "PolicyArn": arn})


def _spare_versions(context: Context, arn: str) -> list[str]:
    versions = context.call("iam", "list_policy_versions", PolicyArn=arn)["Versions"]
    return [version["VersionId"] for version in versions if not version["IsDefaultVersion"]]


def _change_managed(context: Context, arn: str, old: Properties, new: Properties) -> None:
    if old["PolicyDocument"] != new["PolicyDocument"]:
        spare = _spare_versions(context, arn)
        if len(spare) >= 4:  # IAM keeps at most five versions of a policy
            context.call("iam", "delete_policy_version", PolicyArn=arn, VersionId=spare[-1])
        body = document(new["PolicyDocument"])
        context.call("iam", "create_policy_version", PolicyArn=arn, PolicyDocument=body, SetAsDefault=True)
    _attach(context, arn, old, new)


def _delete_managed(context: Context, arn: str, properties: Properties) -> None:
    _attach(context, arn, properties, {})
    for version in _spare_versions(context, arn):
        context.call("iam", "delete_policy_version", PolicyArn=arn, VersionId=version)
    gone(context, "iam", "delete_policy", PolicyArn=arn)


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
    added, removed = difference(old.get("Roles"), new.get("Roles"))
    for role in removed:  # first: a profile holds one role
        gone(context, "iam", "remove_role_from_instance_profile", InstanceProfileName=name, RoleName=role)
    for role in added:
        context.call("iam", "add_role_to_instance_profile", InstanceProfileName=name, RoleName=role)


def _delete_profile(context: Context, name: str, properties: Properties) -> None:
    _set_profile_roles(context, name, properties, {})
    gone(context, "iam", "delete_instance_profile", InstanceProfileName=name)


_HOLDERS = frozenset(key for key, _, _ in PRINCIPALS)
TYPES = [
    ResourceType(
        "AWS::IAM::InstanceProfile",
        names("InstanceProfileName Path Roles"),
        _create_profile,
        _delete_profile,
        _set_profile_roles,
    ),
    ResourceType(
        "AWS::IAM::Role",
        names(
            "AssumeRolePolicyDocument Description ManagedPolicyArns MaxSessionDuration Path PermissionsBoundary "
            "Policies RoleName Tags"
        ),
        _create_role,
        _delete_role,
        _change_role,
        Tagging("iam", lambda made: {"RoleName": made.physical_id}, calls=("tag_role", "untag_role")),
    ),
    ResourceType(
        "AWS::IAM::Policy", _HOLDERS | {"PolicyDocument", "PolicyName"}, _create_policy, _delete_policy, _put_policy
    ),
    ResourceType(
        "AWS::IAM::ManagedPolicy",
        _HOLDERS | {"Description", "ManagedPolicyName", "Path", "PolicyDocument"},
        _create_managed,
        _delete_managed,
        _change_managed,
    ),
]
