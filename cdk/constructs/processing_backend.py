"""Compiling in SageMaker Processing jobs: the image, the jobs' role, and what the state machines may do with jobs."""

from __future__ import annotations

from typing import Any

from aws_cdk import Aws, Stack
from constructs import Construct

from endpoint_spec.endpoint import Job
from endpoint_spec.platforms import Image

from ..permissions import allow, pass_role
from ..states.job import JobContext, job_name_pattern
from ..states.processing import ProcessingMachine, processing_states, stop_states
from ..states.run import Workflow
from .backend import ComputeBackend
from .job_files import JobFiles
from .job_role import JOB_LOGS, JobRole
from .registry_image import RegistryImage


class ProcessingBackend(Construct):
    """backend: what a compile stack takes from here."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        context: JobContext,
        job: Job,
        image: Image,
        files: JobFiles,
    ) -> None:
        """image: what AWS serves the target from, which has the versions that the artifact will meet again."""
        super().__init__(scope, construct_id)
        registry = RegistryImage(self, "Image", image=image)
        role = JobRole(self, "Permissions", files=files, repository_arn=registry.repository_arn).role
        machine = ProcessingMachine(
            image=registry.uri,
            instance_type=str(job.instance_type),
            volume=job.volume,
            role=role.role_arn,
        )
        stack = Stack.of(self)
        own = f"arn:{Aws.PARTITION}:sagemaker:{stack.region}:{stack.account}"
        jobs = f"{own}:processing-job/{job_name_pattern(files.name)}"
        patterns = {jobs: "Jobs are named for each run; the pattern is this endpoint's alone."}
        # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsagemaker.html
        only_such: dict[str, Any] = {
            "ForAllValues:StringEquals": {"sagemaker:InstanceTypes": [machine.instance_type]},
            "NumericLessThanEquals": {"sagemaker:MaxRuntimeInSeconds": str(context.limit)},
            "ArnEquals": {"sagemaker:OutputKmsKey": context.kms_key},
        }
        self.backend = ComputeBackend(
            workflow=Workflow(job=processing_states(context, machine)),
            stop=stop_states(context, "All stopped"),
            run_statements=[
                # Without a network, on the machine and for the time that the cost limit was reckoned with.
                allow(
                    "StartJobs",
                    "sagemaker:CreateProcessingJob",
                    jobs,
                    Bool={"sagemaker:NetworkIsolation": "true"},
                    **only_such,
                ),
                allow("LookAtJobs", ["sagemaker:AddTags", "sagemaker:DescribeProcessingJob"], jobs),
                pass_role("GiveRoleToJobs", role, "sagemaker"),
            ],
            stop_statements=[
                allow("FindJobs", "sagemaker:ListProcessingJobs", "*"),
                allow("StopJobs", "sagemaker:StopProcessingJob", jobs),
            ],
            log_group=JOB_LOGS,
            stop_any_resource="ListProcessingJobs takes no resource.",
            run_patterns=patterns,
            stop_patterns=patterns,
        )
