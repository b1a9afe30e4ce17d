"""Compiling in SageMaker Processing jobs: the image, the jobs' role, and what the state machines may do with jobs."""

from __future__ import annotations

from functools import partial

from aws_cdk import Aws, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from endpoint_spec import platforms
from endpoint_spec.endpoint import Job

from ..states.job import Place, job_name_pattern
from ..states.processing import ProcessingMachine, processing_states, stop_states
from ..states.run import Course
from .branch import Branch
from .job_files import JobFiles
from .job_role import JOB_LOGS, JobRole
from .registry_image import RegistryImage

# The image that AWS serves the target from has the versions that the artifact will meet again.
SERVER = "torchserve"


class ProcessingBranch(Construct):
    """branch: what a compile stack takes from here."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        place: Place,
        job: Job,
        target: str,
        files: JobFiles,
        volume_key: kms.IKey,
    ) -> None:
        super().__init__(scope, construct_id)
        image = RegistryImage(self, "Image", image=platforms.image(target, SERVER))
        role = JobRole(
            self,
            "Permissions",
            files=files,
            repository_arn=image.repository_arn,
            volume_key=volume_key,
        ).role
        machine = ProcessingMachine(
            image=image.uri,
            instance_type=str(job.instance_type),
            volume=job.volume,
            volume_key=volume_key.key_arn,
            role=role.role_arn,
        )
        stack = Stack.of(self)
        own = f"arn:{Aws.PARTITION}:sagemaker:{stack.region}:{stack.account}"
        jobs = f"{own}:processing-job/{job_name_pattern(files.name)}"
        patterns = {jobs: "Jobs are named for each run; the pattern is this endpoint's alone."}
        self.branch = Branch(
            course=Course(job=partial(processing_states, place, machine)),
            stop=stop_states(place, "All stopped"),
            run_statements=[*_may_start(jobs, machine.instance_type), _may_pass(role)],
            stop_statements=_may_stop(jobs),
            log_group=JOB_LOGS,
            stop_any_resource="ListProcessingJobs takes no resource.",
            run_patterns=patterns,
            stop_patterns=patterns,
        )


def _may_start(jobs: str, instance_type: str) -> list[iam.PolicyStatement]:
    return [
        # Only such jobs: without a network, and on the machine that the cost limit was reckoned with.
        iam.PolicyStatement(
            sid="StartJobs",
            actions=["sagemaker:CreateProcessingJob"],
            resources=[jobs],
            conditions={
                "Bool": {"sagemaker:NetworkIsolation": "true"},
                "ForAllValues:StringEquals": {"sagemaker:InstanceTypes": [instance_type]},
            },
        ),
        iam.PolicyStatement(
            sid="LookAtJobs", actions=["sagemaker:AddTags", "sagemaker:DescribeProcessingJob"], resources=[jobs]
        ),
    ]


def _may_stop(jobs: str) -> list[iam.PolicyStatement]:
    return [
        iam.PolicyStatement(sid="FindJobs", actions=["sagemaker:ListProcessingJobs"], resources=["*"]),
        iam.PolicyStatement(sid="StopJobs", actions=["sagemaker:StopProcessingJob"], resources=[jobs]),
    ]


def _may_pass(role: iam.IRole) -> iam.PolicyStatement:
    return iam.PolicyStatement(
        sid="GiveRoleToJobs",
        actions=["iam:PassRole"],
        resources=[role.role_arn],
        conditions={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
    )
