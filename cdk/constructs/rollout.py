"""How an endpoint goes from one model to the next."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sagemaker as sagemaker

ALL_AT_ONCE = "all-at-once"
# Two steps at most of each: a share of the instances first, the rest when the alarms stayed quiet.
STEP_PERCENT = {"canary": 10, "linear": 25}
# SageMaker watches the alarms for this long after each step; the alarms need five minutes of data.
BAKE_SECONDS = 600
TERMINATION_WAIT_SECONDS = 300
LIMIT_SECONDS = 3600 * 4


class RolloutError(ValueError):
    """The strategy does not exist, or not for this instance family."""


def deployment_config(
    *, strategy: str, guardrails: bool, alarms: Sequence[cloudwatch.IAlarm]
) -> sagemaker.CfnEndpoint.DeploymentConfigProperty | None:
    """The endpoint's deployment configuration, or None for SageMaker's own all-at-once update.

    guardrails: whether the instance family has SageMaker's deployment guardrails. Inf1 has not: there SageMaker
    ignores canary, linear and alarm rollback without a word, so anything but all-at-once is refused
    (https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails-exclusions.html).
    alarms: a ringing one rolls the update back; at most ten.
    """
    if strategy != ALL_AT_ONCE and strategy not in STEP_PERCENT:
        raise RolloutError(f"rollout.strategy {strategy}: use {ALL_AT_ONCE}, {' or '.join(STEP_PERCENT)}.")
    if not guardrails:
        if strategy != ALL_AT_ONCE:
            raise RolloutError(f"rollout.strategy {strategy}: Inf1 has no deployment guardrails; use {ALL_AT_ONCE}.")
        return None
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
    if strategy == ALL_AT_ONCE:
        return sagemaker.CfnEndpoint.TrafficRoutingConfigProperty(
            type="ALL_AT_ONCE", wait_interval_in_seconds=BAKE_SECONDS
        )
    step = sagemaker.CfnEndpoint.CapacitySizeProperty(type="CAPACITY_PERCENT", value=STEP_PERCENT[strategy])
    if strategy == "canary":
        return sagemaker.CfnEndpoint.TrafficRoutingConfigProperty(
            type="CANARY", canary_size=step, wait_interval_in_seconds=BAKE_SECONDS
        )
    return sagemaker.CfnEndpoint.TrafficRoutingConfigProperty(
        type="LINEAR", linear_step_size=step, wait_interval_in_seconds=BAKE_SECONDS
    )
