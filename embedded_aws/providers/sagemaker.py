"""SageMaker hosting types.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_SageMaker.html
Ref of these three gives the ARN; the name is an attribute.
"""

# ruff: noqa: ARG001 - create, update and delete have one signature each for all types
from __future__ import annotations

import time
from typing import Any

from .resource import Context, Created, Properties, ProviderError, ResourceType, gone, retag

_TAG_CALLS = ("add_tags", "delete_tags")
_MODEL = ("Containers", "EnableNetworkIsolation", "ExecutionRoleArn", "PrimaryContainer", "Tags", "VpcConfig")
_CONFIG = (
    "DataCaptureConfig",
    "KmsKeyId",
    "ProductionVariants",
    "Tags",
    "VpcConfig",
    "EnableNetworkIsolation",
    "ExecutionRoleArn",
)
_ENDPOINT = (
    "DeploymentConfig",
    "EndpointConfigName",
    "ExcludeRetainedVariantProperties",
    "RetainAllVariantProperties",
    "RetainDeploymentConfig",
    "Tags",
)
_POLL_SECONDS = 0.2


def _name(arn_or_name: str) -> str:
    return arn_or_name.rsplit("/", 1)[-1]


def _create_model(context: Context, properties: Properties) -> Created:
    name = properties.get("ModelName") or context.name(63, stack=False)
    given = {key: properties.get(key) for key in _MODEL}
    arn = context.call("sagemaker", "create_model", ModelName=name, **given)["ModelArn"]
    return Created(arn, {"ModelName": name, "ModelArn": arn})


def _delete_model(context: Context, arn: str, properties: Properties) -> None:
    gone(context, "sagemaker", "delete_model", ModelName=_name(arn))


def _create_config(context: Context, properties: Properties) -> Created:
    name = properties.get("EndpointConfigName") or context.name(63, stack=False)
    given = {key: properties.get(key) for key in _CONFIG}
    arn = context.call("sagemaker", "create_endpoint_config", EndpointConfigName=name, **given)["EndpointConfigArn"]
    return Created(arn, {"EndpointConfigName": name, "EndpointConfigArn": arn})


def _delete_config(context: Context, arn: str, properties: Properties) -> None:
    gone(context, "sagemaker", "delete_endpoint_config", EndpointConfigName=_name(arn))


def _update_model(context: Context, arn: str, old: Properties, new: Properties) -> Created:
    retag(context, "sagemaker", old, new, calls=_TAG_CALLS, ResourceArn=arn)
    return Created(arn, {"ModelName": _name(arn), "ModelArn": arn})


def _update_config(context: Context, arn: str, old: Properties, new: Properties) -> Created:
    retag(context, "sagemaker", old, new, calls=_TAG_CALLS, ResourceArn=arn)
    return Created(arn, {"EndpointConfigName": _name(arn), "EndpointConfigArn": arn})


def _settled(context: Context, name: str) -> dict[str, Any]:
    """The endpoint once its work is over; hosting itself bounds the time."""
    while True:
        described = context.call("sagemaker", "describe_endpoint", EndpointName=name)
        if described["EndpointStatus"] not in {"Creating", "Updating", "SystemUpdating", "RollingBack"}:
            return described
        time.sleep(_POLL_SECONDS)


def _create_endpoint(context: Context, properties: Properties) -> Created:
    name = properties.get("EndpointName") or context.name(63, stack=False)
    config = properties["EndpointConfigName"]
    given = {key: properties.get(key) for key in ("DeploymentConfig", "Tags")}
    arn = context.call("sagemaker", "create_endpoint", EndpointName=name, EndpointConfigName=config, **given)[
        "EndpointArn"
    ]
    described = _settled(context, name)
    if described["EndpointStatus"] != "InService":
        gone(context, "sagemaker", "delete_endpoint", EndpointName=name)
        raise ProviderError(described.get("FailureReason", f"endpoint {name} is {described['EndpointStatus']}"))
    return Created(arn, {"EndpointName": name, "EndpointArn": arn})


def _update_endpoint(context: Context, arn: str, old: Properties, new: Properties) -> Created:
    name, config = _name(arn), new["EndpointConfigName"]
    if context.call("sagemaker", "describe_endpoint", EndpointName=name)["EndpointConfigName"] != config:
        keys = (
            "RetainAllVariantProperties",
            "ExcludeRetainedVariantProperties",
            "DeploymentConfig",
            "RetainDeploymentConfig",
        )
        given = {key: new.get(key) for key in keys}
        context.call("sagemaker", "update_endpoint", EndpointName=name, EndpointConfigName=config, **given)
        described = _settled(context, name)
        if described["EndpointStatus"] != "InService" or described["EndpointConfigName"] != config:
            raise ProviderError(described.get("FailureReason", f"endpoint {name} is {described['EndpointStatus']}"))
    retag(context, "sagemaker", old, new, calls=_TAG_CALLS, ResourceArn=arn)
    return Created(arn, {"EndpointName": name, "EndpointArn": arn})


def _delete_endpoint(context: Context, arn: str, properties: Properties) -> None:
    gone(context, "sagemaker", "delete_endpoint", EndpointName=_name(arn))


TYPES = [
    ResourceType(
        "AWS::SageMaker::Model",
        frozenset({"ModelName", *_MODEL}),
        _create_model,
        _delete_model,
        _update_model,
        replace=frozenset({"ModelName", *_MODEL}) - {"Tags"},
    ),
    ResourceType(
        "AWS::SageMaker::EndpointConfig",
        frozenset({"EndpointConfigName", *_CONFIG}),
        _create_config,
        _delete_config,
        _update_config,
    ),
    ResourceType(
        "AWS::SageMaker::Endpoint",
        frozenset({"EndpointName", *_ENDPOINT}),
        _create_endpoint,
        _delete_endpoint,
        _update_endpoint,
    ),
]
