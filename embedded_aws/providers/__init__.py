"""The table of CloudFormation types that can be created here. A type that is not in it fails the stack by its name."""

from __future__ import annotations

from . import autoscaling, cdk, cloudwatch, codebuild, ec2, ecr, events, iam, kms, logs, s3, sagemaker, sns, ssm, states
from .resource import Context, Created, ProviderError, ResourceType
from .schema import property_faults, schema

_MODULES = (
    *(autoscaling, cdk, cloudwatch, codebuild, ec2, ecr, events, iam),
    *(kms, logs, s3, sagemaker, sns, ssm, states),
)
TYPES: dict[str, ResourceType] = {row.name: row for module in _MODULES for row in module.TYPES}


def type_fault(name: str, region: str) -> str | None:
    """Why a type cannot be created, or None."""
    if name in TYPES:
        return None
    if schema(name, region) is None:
        return f"Unrecognized resource types: [{name}]"
    return f"the embedded AWS does not create {name} (it exists on AWS)"


def faults_of_properties(name: str, properties: dict[str, object], region: str) -> list[str]:
    """Unknown and missing properties of a resource, and those that AWS knows and this table does not honour."""
    faults = property_faults(name, properties, region)
    known = TYPES[name].properties
    declared = (schema(name, region) or {}).get("properties", {})
    faults += [
        f"the embedded AWS does not honour property {key} of {name}"
        for key in properties
        if key in declared and key not in known
    ]
    return faults


__all__ = ["TYPES", "Context", "Created", "ProviderError", "ResourceType", "faults_of_properties", "type_fault"]
