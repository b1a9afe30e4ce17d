"""The role that the endpoint's containers run under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aws_cdk import Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from constructs import Construct

from ..nag import acknowledge_any_resource, acknowledge_pattern
from ..permissions import allow, role_of
from .container_policy import publishes_metrics, pulls_image

# SageMaker publishes an endpoint's instance metrics and invocation metrics in these two.
# https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
METRIC_NAMESPACES = ("/aws/sagemaker/Endpoints", "AWS/SageMaker")


@dataclass(frozen=True, kw_only=True)
class Reports:
    """What the role may say and ask of monitoring.

    log_group: where logs go. alarms: which it may describe, as a rollout that they take back needs.
    namespaces: of CloudWatch, to which the container may write metrics beside SageMaker's own.
    """

    log_group: logs.ILogGroup
    alarms: Sequence[cloudwatch.IAlarm] = ()
    namespaces: Sequence[str] = ()


class EndpointRole(Construct):
    """May read one object, decrypt with one key, pull one image, write one log group, and nothing else.

    The actions are those that SageMaker names for CreateModel, narrowed to this endpoint's resources; listing the
    bucket is left out because the model is one object, not a prefix.
    https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html#sagemaker-roles-createmodel-perms
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        bucket: s3.IBucket,
        artifact_key: str,
        encryption_key: kms.IKey,
        repository_arn: str,
        reports: Reports,
    ) -> None:
        """bucket, artifact_key: the object with the model. encryption_key: the bucket's.

        repository_arn: the image's.
        """
        super().__init__(scope, construct_id)
        stack = Stack.of(self)
        through_s3 = {"kms:ViaService": f"s3.{stack.region}.{stack.url_suffix}"}
        write_logs = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
        statements = [
            allow("ReadModel", "s3:GetObject", bucket.arn_for_objects(artifact_key)),
            allow("DecryptModel", "kms:Decrypt", encryption_key.key_arn, StringEquals=through_s3),
            *pulls_image(repository_arn),
            allow("WriteLogs", write_logs, reports.log_group.log_group_arn),
            publishes_metrics([*METRIC_NAMESPACES, *reports.namespaces]),
        ]
        if reports.alarms:
            statements.append(
                allow("ReadAlarms", "cloudwatch:DescribeAlarms", [alarm.alarm_arn for alarm in reports.alarms])
            )
        self.role = role_of(
            self,
            "sagemaker",
            "Runs an Inferentia endpoint: reads its model, pulls its image, writes its logs",
            {"Endpoint": statements},
            # Exactly so: for endpoints SageMaker names no single resource.
            # https://docs.aws.amazon.com/sagemaker/latest/dg/security-confused-deputy-prevention.html
            source="*",
        )
        acknowledge_pattern(
            self.role, resource=reports.log_group.log_group_arn, reason="The streams of one log group, by its ARN."
        )
        acknowledge_any_resource(
            self.role,
            "ecr:GetAuthorizationToken and cloudwatch:PutMetricData take no resource; the latter is limited to "
            "SageMaker's namespaces and the endpoint's own by a condition.",
        )
