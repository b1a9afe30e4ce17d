"""Application Auto Scaling types. The policies are kept and can be read back; nothing here scales by them.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_ApplicationAutoScaling.html
"""

# ruff: noqa: ARG001 - create, change and delete have one signature each for all types
from __future__ import annotations

from .resource import Context, Created, Properties, ProviderError, ResourceType, Tagging, gone, picked, putting, tag_map

_SERVICE = "application-autoscaling"
_WHERE = ("ServiceNamespace", "ResourceId", "ScalableDimension")
_CONFIGURATIONS = ("TargetTrackingScalingPolicyConfiguration", "StepScalingPolicyConfiguration")


def _put_target(context: Context, properties: Properties) -> Created:
    _must_exist(context, properties)
    asked = {**properties, "Tags": tag_map(properties.get("Tags")) or None}
    arn = context.call(_SERVICE, "register_scalable_target", **asked)["ScalableTargetARN"]
    physical_id = "|".join(properties[key] for key in ("ResourceId", "ScalableDimension", "ServiceNamespace"))
    return Created(physical_id, {"Id": physical_id, "Arn": arn})


def _must_exist(context: Context, properties: Properties) -> None:
    """A SageMaker variant can be registered only while its endpoint is there.

    Source: "Register a model",
    https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-add-code-register.html
    """
    if properties["ServiceNamespace"] != "sagemaker":
        return
    _, endpoint, _, variant = properties["ResourceId"].split("/")
    described = context.call("sagemaker", "describe_endpoint", EndpointName=endpoint)
    if variant not in {item["VariantName"] for item in described.get("ProductionVariants", [])}:
        raise ProviderError(f"ValidationException: endpoint {endpoint} has no variant {variant}")


def _delete_target(context: Context, physical_id: str, properties: Properties) -> None:
    gone(context, _SERVICE, "deregister_scalable_target", **picked(properties, _WHERE))


def _where(properties: Properties) -> dict[str, str]:
    """The target of a policy: named outright, or by ScalingTargetId (what Ref of the target gives)."""
    if "ScalingTargetId" in properties:
        resource, dimension, service = properties["ScalingTargetId"].split("|")
        return {"ServiceNamespace": service, "ResourceId": resource, "ScalableDimension": dimension}
    return picked(properties, _WHERE)


def _put_policy(context: Context, properties: Properties) -> Created:
    where = _where(properties)
    asked = {"ServiceNamespace": where["ServiceNamespace"], "ResourceIds": [where["ResourceId"]]}
    if not context.call(_SERVICE, "describe_scalable_targets", **asked)["ScalableTargets"]:
        raise ProviderError(f"ObjectNotFoundException: no scalable target is registered for {where['ResourceId']}")
    given = picked(properties, ("PolicyName", "PolicyType", *_CONFIGURATIONS))
    arn = context.call(_SERVICE, "put_scaling_policy", **where, **given)["PolicyARN"]
    return Created(arn, {"Arn": arn})


def _delete_policy(context: Context, arn: str, properties: Properties) -> None:
    gone(context, _SERVICE, "delete_scaling_policy", PolicyName=properties["PolicyName"], **_where(properties))


TYPES = [
    ResourceType(
        "AWS::ApplicationAutoScaling::ScalableTarget",
        frozenset({"MaxCapacity", "MinCapacity", "RoleARN", "SuspendedState", "Tags", *_WHERE}),
        _put_target,
        _delete_target,
        putting(_put_target),
        Tagging(_SERVICE, lambda made: {"ResourceARN": made.attributes["Arn"]}, shape=tag_map),
    ),
    ResourceType(
        "AWS::ApplicationAutoScaling::ScalingPolicy",
        frozenset({"PolicyName", "PolicyType", "ScalingTargetId", *_WHERE, *_CONFIGURATIONS}),
        _put_policy,
        _delete_policy,
        putting(_put_policy),
    ),
]
