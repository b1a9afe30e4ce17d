"""AWS::CDK::Metadata: what CDK apps add for analytics. It creates nothing, on AWS as here.

Source: "CDK usage data reporting", https://docs.aws.amazon.com/cdk/v2/guide/usage-data.html
"""

# ruff: noqa: ARG005 - create, change and delete have one signature each for all types
from __future__ import annotations

from .resource import Created, ResourceType, names

TYPES = [
    ResourceType(
        "AWS::CDK::Metadata",
        names("Analytics Modules"),
        create=lambda context, properties: Created(context.name(64, stack=False)),
        delete=lambda context, physical_id, properties: None,
        change=lambda context, physical_id, old, new: None,
    )
]
