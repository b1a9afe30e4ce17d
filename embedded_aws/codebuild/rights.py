"""What the service role of a build may do, by its policies in IAM.

An explicit Deny wins, then an Allow; what nothing allows is denied:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
Honoured are Action, Resource, and StringEquals and StringLike of what a check is given; a statement with anything else
is an error. Permissions boundaries and policies of resources and organisations are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

HONOURED = {"Sid", "Effect", "Action", "Resource", "Condition"}


class DeniedError(Exception):
    """The text is AWS's: https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html"""


class Rights:
    """Of one role's session. iam: a client."""

    def __init__(self, iam: Any, role: str, session: str) -> None:
        self.name = role.rpartition("/")[2]
        self.user = f"arn:aws:sts::{role.split(':')[4]}:assumed-role/{self.name}/{session}"
        self._statements = list(_statements(iam, self.name))

    def check(self, action: str, resource: str, **context: str) -> None:
        """context: condition keys such as s3_prefix, with _ for the colon. Raises DeniedError."""
        given = {key.replace("_", ":", 1): value for key, value in context.items()}
        found = {one["Effect"] for one in self._statements if _applies(one, action, resource, given)}
        if found != {"Allow"}:
            reason = "with an explicit deny in an" if found else "because no"
            allows = "" if found else f" allows the {action} action"
            raise DeniedError(
                f"User: {self.user} is not authorized to perform: {action} on resource: {resource} "
                f"{reason} identity-based policy{allows}"
            )


def _statements(iam: Any, role: str) -> Iterator[dict[str, Any]]:
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        yield from _listed(iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]["Statement"])
    for one in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        version = iam.get_policy(PolicyArn=one["PolicyArn"])["Policy"]["DefaultVersionId"]
        policy = iam.get_policy_version(PolicyArn=one["PolicyArn"], VersionId=version)["PolicyVersion"]
        yield from _listed(policy["Document"]["Statement"])


def _applies(statement: Mapping[str, Any], action: str, resource: str, given: Mapping[str, str]) -> bool:
    if extra := statement.keys() - HONOURED:
        raise ValueError(f"the embedded AWS does not evaluate {', '.join(sorted(extra))} of a statement")
    return (
        any(_like(one.lower(), action.lower()) for one in _listed(statement["Action"]))  # letter case does not count
        and any(_like(one, resource) for one in _listed(statement["Resource"]))
        and all(_met(name, wanted, given) for name, wanted in statement.get("Condition", {}).items())
    )


def _met(operator: str, wanted: Mapping[str, Any], given: Mapping[str, str]) -> bool:
    """Every key has one of its values; a key that is not given has none."""
    if operator not in ("StringEquals", "StringLike"):
        raise ValueError(f"the embedded AWS does not evaluate {operator} of a condition")
    same = _like if operator == "StringLike" else str.__eq__
    return all(key in given and any(same(one, given[key]) for one in _listed(values)) for key, values in wanted.items())


def _like(pattern: str, text: str) -> bool:
    """* is any text, ? any character."""
    parts = (".*" if one == "*" else "." if one == "?" else re.escape(one) for one in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
