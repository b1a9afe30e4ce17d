"""A statement of a policy, and the role of a service, in one form each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aws_cdk import aws_iam as iam
from constructs import Construct


def allow(
    sid: str, actions: str | Iterable[str], resources: str | Iterable[str], principal: str = "", **conditions: Any
) -> iam.PolicyStatement:
    """Allow actions on resources. principal: the service that may, in a resource's policy. conditions: by operator."""
    return iam.PolicyStatement(
        sid=sid,
        actions=[actions] if isinstance(actions, str) else list(actions),
        resources=[resources] if isinstance(resources, str) else list(resources),
        principals=[iam.ServicePrincipal(principal)] if principal else None,
        conditions=conditions or None,
    )


def role_of(
    scope: Construct,
    service: str,
    description: str,
    policies: Mapping[str, Iterable[iam.PolicyStatement]],
    **conditions: Any,
) -> iam.Role:
    """The role that a service assumes, its policies part of it, so that nobody meets the role without them."""
    return iam.Role(
        scope,
        "Role",
        description=description,
        assumed_by=iam.ServicePrincipal(f"{service}.amazonaws.com", conditions=conditions or None),
        inline_policies={name: iam.PolicyDocument(statements=list(rows)) for name, rows in policies.items()},
    )


def pass_role(sid: str, role: iam.IRole, service: str) -> iam.PolicyStatement:
    """Allow to hand a role to a service, and to no other."""
    return allow(sid, "iam:PassRole", role.role_arn, StringEquals={"iam:PassedToService": f"{service}.amazonaws.com"})
