"""SageMaker hosting types.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_SageMaker.html
Ref of these three gives the ARN; the name is an attribute.
"""

# ruff: noqa: ARG001 - create, change and delete have one signature each for all types
from __future__ import annotations

import time
from functools import partial
from typing import Any

from botocore import xform_name

from .resource import Context, Created, Properties, ProviderError, ResourceType, Tagging, deleting, gone, names, picked

_MODEL = names("Containers EnableNetworkIsolation ExecutionRoleArn ModelName PrimaryContainer VpcConfig")
_CONFIG = names(
    "DataCaptureConfig EndpointConfigName KmsKeyId MetricsConfig ProductionVariants VpcConfig EnableNetworkIsolation "
    "ExecutionRoleArn"
)
_RETAINED = names("ExcludeRetainedVariantProperties RetainAllVariantProperties RetainDeploymentConfig")
_ENDPOINT = names("DeploymentConfig EndpointConfigName EndpointName") | _RETAINED
_POLL_SECONDS = 0.2


def _name(arn: str) -> str:
    return arn.rsplit("/", 1)[-1]


def _create(kind: str, context: Context, properties: Properties) -> Created:
    name = properties.get(f"{kind}Name") or context.name(63, stack=False)
    asked = {**properties, f"{kind}Name": name}
    arn = context.call("sagemaker", f"create_{xform_name(kind)}", **asked)[f"{kind}Arn"]
    return Created(arn, {f"{kind}Name": name, f"{kind}Arn": arn})


def _settled(context: Context, name: str) -> dict[str, Any]:
    """The endpoint once its work is over; hosting itself bounds the time."""
    while True:
        described = context.call("sagemaker", "describe_endpoint", EndpointName=name)
        if described["EndpointStatus"] not in {"Creating", "Updating", "SystemUpdating", "RollingBack"}:
            return described
        time.sleep(_POLL_SECONDS)


def _create_endpoint(context: Context, properties: Properties) -> Created:
    made = _create("Endpoint", context, {key: value for key, value in properties.items() if key not in _RETAINED})
    name = made.attributes["EndpointName"]
    described = _settled(context, name)
    if described["EndpointStatus"] != "InService":
        gone(context, "sagemaker", "delete_endpoint", EndpointName=name)
        raise ProviderError(described.get("FailureReason", f"endpoint {name} is {described['EndpointStatus']}"))
    return made


def _change_endpoint(context: Context, arn: str, old: Properties, new: Properties) -> None:
    name, config = _name(arn), new["EndpointConfigName"]
    if context.call("sagemaker", "describe_endpoint", EndpointName=name)["EndpointConfigName"] != config:
        context.call("sagemaker", "update_endpoint", **{**picked(new, _ENDPOINT), "EndpointName": name})
        described = _settled(context, name)
        if described["EndpointStatus"] != "InService" or described["EndpointConfigName"] != config:
            raise ProviderError(described.get("FailureReason", f"endpoint {name} is {described['EndpointStatus']}"))


_TAGGING = Tagging("sagemaker", lambda made: {"ResourceArn": made.physical_id}, calls=("add_tags", "delete_tags"))
TYPES = [
    ResourceType(
        "AWS::SageMaker::Model",
        _MODEL | {"Tags"},
        partial(_create, "Model"),
        deleting("sagemaker", "delete_model", "ModelName", _name),
        tagging=_TAGGING,
        replace=_MODEL,
    ),
    ResourceType(
        "AWS::SageMaker::EndpointConfig",
        _CONFIG | {"Tags"},
        partial(_create, "EndpointConfig"),
        deleting("sagemaker", "delete_endpoint_config", "EndpointConfigName", _name),
        tagging=_TAGGING,
    ),
    ResourceType(
        "AWS::SageMaker::Endpoint",
        _ENDPOINT | {"Tags"},
        _create_endpoint,
        deleting("sagemaker", "delete_endpoint", "EndpointName", _name),
        _change_endpoint,
        _TAGGING,
    ),
]
