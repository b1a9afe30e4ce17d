"""How an endpoint goes from one model to the next."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sagemaker as sagemaker

ALL_AT_ONCE = "all-at-once"
# A canary is one instance, whatever their number: what SageMaker makes of 10 % of two is not documented. Linear steps
# are a share, since they have to stay between 10 and 50 % of a number that scaling changes.
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_TrafficRoutingConfig.html
STEPS = {"canary": ("INSTANCE_COUNT", 1), "linear": ("CAPACITY_PERCENT", 25)}
STRATEGIES = (ALL_AT_ONCE, "blue-green", *STEPS)
# SageMaker watches the alarms for this long after each step; the alarms need five minutes of data.
BAKE_SECONDS = 600
TERMINATION_WAIT_SECONDS = 300
LIMIT_SECONDS = 4 * 3600


class RolloutError(ValueError):
    """The strategy does not exist, or not for this instance family."""


def deployment_config(
    *, strategy: str, guardrails: bool, alarms: Sequence[cloudwatch.IAlarm]
) -> sagemaker.CfnEndpoint.DeploymentConfigProperty | None:
    """The endpoint's deployment configuration; None for all-at-once, which watches no alarm and takes nothing back.

    strategy: blue-green moves all requests in one step, canary one instance first, linear a quarter at a time.
    guardrails: whether the instance family has SageMaker's deployment guardrails. Inf1 has not: there SageMaker
    ignores them and the rollback by alarms without a word, so RolloutError is raised
    (https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails-exclusions.html).
    alarms: a ringing one takes the update back; at most ten.
    """
    if strategy not in STRATEGIES:
        raise RolloutError(f"rollout.strategy {strategy} is not known: use one of {', '.join(STRATEGIES)}.")
    if strategy == ALL_AT_ONCE:
        return None
    if not guardrails:
        raise RolloutError(f"rollout.strategy {strategy}: Inf1 has no deployment guardrails; use {ALL_AT_ONCE}.")
    return sagemaker.CfnEndpoint.DeploymentConfigProperty(
        blue_green_update_policy=sagemaker.CfnEndpoint.BlueGreenUpdatePolicyProperty(
            traffic_routing_configuration=_traffic(strategy),
            termination_wait_in_seconds=TERMINATION_WAIT_SECONDS,
            maximum_execution_timeout_in_seconds=LIMIT_SECONDS,
        ),
        auto_rollback_configuration=sagemaker.CfnEndpoint.AutoRollbackConfigProperty(
            alarms=[sagemaker.CfnEndpoint.AlarmProperty(alarm_name=alarm.alarm_name) for alarm in alarms]
        ),
    )


def _traffic(strategy: str) -> sagemaker.CfnEndpoint.TrafficRoutingConfigProperty:
    if strategy not in STEPS:
        return sagemaker.CfnEndpoint.TrafficRoutingConfigProperty(
            type="ALL_AT_ONCE", wait_interval_in_seconds=BAKE_SECONDS
        )
    kind, size = STEPS[strategy]
    step = sagemaker.CfnEndpoint.CapacitySizeProperty(type=kind, value=size)
    if strategy == "canary":
        return sagemaker.CfnEndpoint.TrafficRoutingConfigProperty(
            type="CANARY", canary_size=step, wait_interval_in_seconds=BAKE_SECONDS
        )
    return sagemaker.CfnEndpoint.TrafficRoutingConfigProperty(
        type="LINEAR", linear_step_size=step, wait_interval_in_seconds=BAKE_SECONDS
    )
