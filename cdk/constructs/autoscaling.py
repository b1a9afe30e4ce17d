"""Scaling of an endpoint's instances by Application Auto Scaling."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_applicationautoscaling as autoscaling
from aws_cdk import aws_events as events
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from endpoint_spec.endpoint import Scale

# The spec's policy -> the metric that Application Auto Scaling keeps at the target.
# https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-add-code-define.html
PREDEFINED_METRICS = {
    # Published every 10 seconds, per model copy: it reacts fastest.
    "concurrency": "SageMakerVariantConcurrentRequestsPerModelHighResolution",
    # Requests a minute and instance.
    "invocations": "SageMakerVariantInvocationsPerInstance",
}
# Adding instances may follow quickly; taking them away waits, because a new one needs minutes to start.
SCALE_OUT_COOLDOWN_SECONDS = 60
SCALE_IN_COOLDOWN_SECONDS = 300


class EndpointScaling(Construct):
    """A scalable target and one target-tracking policy; rule: what Application Auto Scaling reports at its maximum.

    The target uses the service-linked role of Application Auto Scaling, so it needs no role of its own. It depends on
    the endpoint, so CloudFormation deletes it first: SageMaker does not delete an endpoint that is still registered.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        endpoint: sagemaker.CfnEndpoint,
        variant_name: str,
        scale: Scale,
        target_value: float,
        topics: Sequence[str],
        runbook: str,
    ) -> None:
        """scale: the spec's section. target_value: for one instance: concurrent requests, or requests a minute.

        topics: ARNs; they get a sentence when the maximum is reached, with the place of the runbook.
        """
        super().__init__(scope, construct_id)
        resource = f"endpoint/{endpoint.endpoint_name}/variant/{variant_name}"
        self.target = autoscaling.CfnScalableTarget(
            self,
            "Target",
            service_namespace="sagemaker",
            scalable_dimension="sagemaker:variant:DesiredInstanceCount",
            resource_id=resource,
            min_capacity=scale.min,
            max_capacity=scale.max,
        )
        self.target.add_resource_dependency(endpoint)
        self.rule = self._at_maximum(resource, scale.max, topics, runbook)
        configuration = autoscaling.CfnScalingPolicy.TargetTrackingScalingPolicyConfigurationProperty(
            target_value=round(target_value, 9),
            predefined_metric_specification=autoscaling.CfnScalingPolicy.PredefinedMetricSpecificationProperty(
                predefined_metric_type=PREDEFINED_METRICS[scale.policy]
            ),
            scale_in_cooldown=SCALE_IN_COOLDOWN_SECONDS,
            scale_out_cooldown=SCALE_OUT_COOLDOWN_SECONDS,
        )
        self.policy = autoscaling.CfnScalingPolicy(
            self,
            "Policy",
            policy_name=f"keep-{scale.policy}",
            policy_type="TargetTrackingScaling",
            scaling_target_id=self.target.ref,
            target_tracking_scaling_policy_configuration=configuration,
        )

    def _at_maximum(self, resource: str, most: int, topics: Sequence[str], runbook: str) -> events.CfnRule:
        """https://docs.aws.amazon.com/autoscaling/application/userguide/monitoring-eventbridge.html"""
        sentence = f'"{resource} is at its maximum of {most} instances. What to do: {runbook}#maximum"'
        return events.CfnRule(
            self,
            "AtMaximum",
            description=f"{resource} has scaled to its maximum",
            event_pattern={
                "source": ["aws.application-autoscaling"],
                "detail-type": ["Application Auto Scaling Scaling Activity State Change"],
                "detail": {"resourceId": [resource], "scaledToMax": [True]},
            },
            state="ENABLED",
            targets=[
                events.CfnRule.TargetProperty(id=f"Topic{index}", arn=topic, input=sentence)
                for index, topic in enumerate(topics)
            ],
        )
