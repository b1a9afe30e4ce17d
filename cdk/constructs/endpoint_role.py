"""The role that the endpoint's containers run under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from constructs import Construct

from ..nag import acknowledge
from .container_policy import publishes_metrics, pulls_image

# SageMaker publishes an endpoint's instance metrics and invocation metrics in these two.
# https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
METRIC_NAMESPACES = ("/aws/sagemaker/Endpoints", "AWS/SageMaker")


@dataclass(frozen=True, kw_only=True)
class Reports:
    """What the role may say and ask of monitoring.

    log_group: where logs go. reads_alarms: may describe alarms, which a rollout with automatic rollback needs.
    namespaces: of CloudWatch, to which the container may write metrics beside SageMaker's own.
    """

    log_group: logs.ILogGroup
    reads_alarms: bool = False
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
        statements = [
            *self._reads_model(bucket, artifact_key, encryption_key),
            *pulls_image(repository_arn),
            *self._reports(reports),
        ]
        # The policy is part of the role, so that SageMaker never meets the role without it.
        self.role = iam.Role(
            self,
            "Role",
            description="Runs an Inferentia endpoint: reads its model, pulls its image, writes its logs",
            assumed_by=iam.ServicePrincipal("sagemaker.amazonaws.com"),
            inline_policies={"Endpoint": iam.PolicyDocument(statements=statements)},
        )
        self._acknowledge()

    def _reads_model(self, bucket: s3.IBucket, key: str, encryption_key: kms.IKey) -> list[iam.PolicyStatement]:
        region = Stack.of(self).region
        return [
            iam.PolicyStatement(sid="ReadModel", actions=["s3:GetObject"], resources=[bucket.arn_for_objects(key)]),
            iam.PolicyStatement(
                sid="DecryptModel",
                actions=["kms:Decrypt"],
                resources=[encryption_key.key_arn],
                conditions={"StringEquals": {"kms:ViaService": f"s3.{region}.{Stack.of(self).url_suffix}"}},
            ),
        ]

    @staticmethod
    def _reports(reports: Reports) -> list[iam.PolicyStatement]:
        write_logs = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
        statements = [
            iam.PolicyStatement(sid="WriteLogs", actions=write_logs, resources=[reports.log_group.log_group_arn]),
            publishes_metrics([*METRIC_NAMESPACES, *reports.namespaces]),
        ]
        if reports.reads_alarms:
            statements.append(
                iam.PolicyStatement(sid="ReadAlarms", actions=["cloudwatch:DescribeAlarms"], resources=["*"])
            )
        return statements

    def _acknowledge(self) -> None:
        acknowledge(
            self.role,
            finding="AwsSolutions-IAM5[Resource::*]",
            reason="ecr:GetAuthorizationToken, cloudwatch:PutMetricData and cloudwatch:DescribeAlarms take no "
            "resource; PutMetricData is limited to SageMaker's namespaces and the endpoint's own by a condition.",
        )
