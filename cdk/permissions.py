"""A statement of a policy, and the role of a service, in one form each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aws_cdk import Aws, Stack
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
    *,
    source: str | None,
) -> iam.Role:
    """The role that a service assumes, its policies part of it, so that nobody meets the role without them.

    source: the service's resources for which it may, as the end of their ARN (see `only_from`); None: it names none.
    """
    return iam.Role(
        scope,
        "Role",
        description=description,
        assumed_by=iam.ServicePrincipal(
            f"{service}.amazonaws.com", conditions=None if source is None else only_from(scope, service, source)
        ),
        inline_policies={name: iam.PolicyDocument(statements=list(rows)) for name, rows in policies.items()},
    )


def deny(sid: str, actions: str, resources: str, **conditions: Any) -> iam.PolicyStatement:
    """Deny everybody actions on resources, in a resource's policy. conditions: by operator."""
    return iam.PolicyStatement(
        sid=sid,
        effect=iam.Effect.DENY,
        actions=[actions],
        resources=[resources],
        principals=[iam.AnyPrincipal()],
        conditions=conditions,
    )


def only_from(scope: Construct, service: str, source: str) -> dict[str, Any]:
    """Conditions against a confused deputy: the service acts for this account, and for its resources ending so.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html#cross-service-confused-deputy-prevention
    """
    stack = Stack.of(scope)
    return {
        "StringEquals": {"aws:SourceAccount": stack.account},
        "ArnLike": {"aws:SourceArn": f"arn:{Aws.PARTITION}:{service}:{stack.region}:{stack.account}:{source}"},
    }


def pass_role(sid: str, role: iam.IRole, service: str) -> iam.PolicyStatement:
    """Allow to hand a role to a service, and to no other."""
    return allow(sid, "iam:PassRole", role.role_arn, StringEquals={"iam:PassedToService": f"{service}.amazonaws.com"})
