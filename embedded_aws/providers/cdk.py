"""AWS::CDK::Metadata: what CDK apps add for analytics. It creates nothing, on AWS as here.

Source: "CDK usage data reporting", https://docs.aws.amazon.com/cdk/v2/guide/usage-data.html
"""

# ruff: noqa: ARG001 - create, update and delete have one signature each for all types
from __future__ import annotations

from .resource import Context, Created, Properties, ResourceType


def _create(context: Context, properties: Properties) -> Created:
    return Created(context.name(64, stack=False))


def _update(context: Context, physical_id: str, old: Properties, new: Properties) -> Created:
    return Created(physical_id)


def _delete(context: Context, physical_id: str, properties: Properties) -> None:
    """Nothing was created."""


TYPES = [ResourceType("AWS::CDK::Metadata", frozenset({"Analytics", "Modules"}), _create, _delete, _update)]
