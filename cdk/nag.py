"""Acknowledged findings of cdk-nag: each names one finding at one construct, and why it is meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws_cdk import Acknowledgment, Stack, Validations
from constructs import IConstruct


def acknowledge(construct: IConstruct, *, finding: str, reason: str) -> None:
    """Accept one AwsSolutions finding at one construct.

    finding: the rule's id, with its detail in brackets where it has one ("AwsSolutions-IAM5[Resource::*]").
    reason: why this is right here, in a sentence.
    """
    Validations.of(construct).acknowledge(Acknowledgment(id=finding, reason=reason))


def acknowledge_any_resource(role: IConstruct, reason: str) -> None:
    """Accept that a role's policy has actions on every resource."""
    acknowledge(role, finding="AwsSolutions-IAM5[Resource::*]", reason=reason)


def acknowledge_pattern(construct: IConstruct, *, resource: str, reason: str) -> None:
    """Accept that a role's policy names a resource by a pattern. resource: as the policy has it, with its tokens."""
    written = _written(Stack.of(construct).resolve(resource))
    acknowledge(construct, finding=f"AwsSolutions-IAM5[Resource::{written}]", reason=reason)


def acknowledge_patterns(construct: IConstruct, patterns: Mapping[str, str]) -> None:
    """The same of several resources, each with its reason."""
    for resource, reason in patterns.items():
        acknowledge_pattern(construct, resource=resource, reason=reason)


def _written(value: Any) -> str:
    """Intrinsic functions as cdk-nag writes them into the ids of its findings."""
    if not isinstance(value, dict):
        return str(value)
    ((function, argument),) = value.items()
    if function == "Fn::Join":
        return str(argument[0].join(_written(part) for part in argument[1]))
    if function == "Fn::GetAtt":
        return f"<{'.'.join(argument)}>"
    return f"<{argument}>" if function == "Ref" else _written(argument)
