"""The role of the SageMaker Processing jobs that compile."""

from __future__ import annotations

from aws_cdk import Aws, Stack
from constructs import Construct

from endpoint_spec import jobs

from ..nag import acknowledge_any_resource, acknowledge_pattern, acknowledge_patterns
from ..permissions import allow, role_of
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

    def __init__(self, scope: Construct, construct_id: str, *, files: JobFiles, repository_arn: str) -> None:
        """repository_arn: the image's."""
        super().__init__(scope, construct_id)
        stack = Stack.of(self)
        group = f"arn:{Aws.PARTITION}:logs:{stack.region}:{stack.account}:log-group:{JOB_LOGS}"
        streams = f"{group}:log-stream:{job_name_pattern(files.name)}"
        statements = [
            *files.for_job(),
            # The account's first job makes the group.
            allow("FindLogs", ["logs:CreateLogGroup", "logs:DescribeLogStreams"], f"{group}:*"),
            allow("WriteLogs", ["logs:CreateLogStream", "logs:PutLogEvents"], streams),
            publishes_metrics([METRIC_NAMESPACE]),
            *pulls_image(repository_arn),
        ]
        self.role = role_of(
            self,
            "sagemaker",
            f"Compiles endpoint {files.name}: reads and writes below {jobs.base_prefix(files.name)}",
            {"Job": statements},
            # https://docs.aws.amazon.com/sagemaker/latest/dg/security-confused-deputy-prevention.html
            source=f"processing-job/{job_name_pattern(files.name)}",
        )
        acknowledge_patterns(self.role, files.job_patterns())
        acknowledge_any_resource(
            self.role,
            "ecr:GetAuthorizationToken and cloudwatch:PutMetricData take no resource; a condition limits the latter to "
            "SageMaker's namespace.",
        )
        acknowledge_pattern(
            self.role,
            resource=f"{group}:*",
            reason="CloudWatch Logs wants a log group written so for every action but those on its tags.",
        )
        acknowledge_pattern(
            self.role,
            resource=streams,
            reason="A log stream has its job's name, which is made for each run; the pattern is this endpoint's.",
        )
