"""The role of the SageMaker Processing jobs that compile."""

from __future__ import annotations

from aws_cdk import Aws, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from endpoint_spec import jobs

from ..nag import acknowledge, acknowledge_pattern
from ..states.job import job_name_pattern
from .container_policy import publishes_metrics, pulls_image
from .job_files import JobFiles

# SageMaker's fixed log group (https://docs.aws.amazon.com/sagemaker/latest/dg/logging-cloudwatch.html). It is the
# account's, made by its first job and shared by all, so that no stack can own, encrypt or expire it.
JOB_LOGS = "/aws/sagemaker/ProcessingJobs"
# https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html#cloudwatch-metrics-jobs
METRIC_NAMESPACE = "/aws/sagemaker/ProcessingJobs"


class JobRole(Construct):
    """Fetches a job's inputs, stores its outputs, pulls its image, writes its log streams, and nothing else.

    SageMaker uses it on behalf of the job: the container itself has neither a network nor credentials.
    https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html#sagemaker-roles-createprocessingjob-perms
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        files: JobFiles,
        repository_arn: str,
        volume_key: kms.IKey,
    ) -> None:
        """repository_arn: the image's. volume_key: of the jobs' disks."""
        super().__init__(scope, construct_id)
        statements = [
            *files.for_job(),
            *self._writes_logs(files.name),
            *pulls_image(repository_arn),
            self._encrypts_disk(volume_key),
        ]
        self.role = iam.Role(
            self,
            "Role",
            description=f"Compiles endpoint {files.name}: reads and writes below {jobs.base_prefix(files.name)}",
            assumed_by=iam.ServicePrincipal(
                "sagemaker.amazonaws.com", conditions={"StringEquals": {"aws:SourceAccount": Stack.of(self).account}}
            ),
            inline_policies={"Job": iam.PolicyDocument(statements=statements)},
        )
        files.acknowledge_job(self.role)
        self._acknowledge(files.name)

    def _log_group(self) -> str:
        stack = Stack.of(self)
        return f"arn:{Aws.PARTITION}:logs:{stack.region}:{stack.account}:log-group:{JOB_LOGS}"

    def _writes_logs(self, name: str) -> list[iam.PolicyStatement]:
        group = self._log_group()
        write = ["logs:CreateLogStream", "logs:PutLogEvents"]
        streams = f"{group}:log-stream:{job_name_pattern(name)}"
        return [
            # The account's first job makes the group.
            iam.PolicyStatement(
                sid="FindLogs", actions=["logs:CreateLogGroup", "logs:DescribeLogStreams"], resources=[f"{group}:*"]
            ),
            iam.PolicyStatement(sid="WriteLogs", actions=write, resources=[streams]),
            publishes_metrics([METRIC_NAMESPACE]),
        ]

    @staticmethod
    def _encrypts_disk(key: kms.IKey) -> iam.PolicyStatement:
        # SageMaker grants the disk's service the use of the key, for as long as the job takes.
        return iam.PolicyStatement(
            sid="EncryptDisk",
            actions=["kms:CreateGrant"],
            resources=[key.key_arn],
            conditions={"Bool": {"kms:GrantIsForAWSResource": "true"}},
        )

    def _acknowledge(self, name: str) -> None:
        acknowledge(
            self.role,
            finding="AwsSolutions-IAM5[Resource::*]",
            reason="ecr:GetAuthorizationToken and cloudwatch:PutMetricData take no resource; a condition limits the "
            "latter to SageMaker's namespace.",
        )
        acknowledge_pattern(
            self.role,
            resource=f"{self._log_group()}:*",
            reason="CloudWatch Logs wants a log group written so for every action but those on its tags.",
        )
        acknowledge_pattern(
            self.role,
            resource=f"{self._log_group()}:log-stream:{job_name_pattern(name)}",
            reason="A log stream has its job's name, which is made for each run; the pattern is this endpoint's.",
        )
