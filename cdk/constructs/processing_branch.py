"""Compiling in SageMaker Processing jobs: the image, the jobs' role, and what the state machines may do with jobs."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Aws, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from cdk.constructs.branch import Branch
from cdk.constructs.job_files import JobFiles
from cdk.constructs.job_role import PROCESSING_LOGS, JobRole
from cdk.constructs.registry_image import RegistryImage
from cdk.states.job import GATHER, VARIANT, Place, job_name_pattern, naming, stop_sagemaker_jobs
from cdk.states.processing import ProcessingMachine, processing_states
from cdk.states.run import MADE, READ_RESULT, Course, variant_key
from endpoint_spec import platforms
from endpoint_spec.endpoint import Job

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
            log_group_name=PROCESSING_LOGS,
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
        self.branch = Branch(
            course=Course(
                variant=processing_states(place, machine, VARIANT, MADE),
                enter=naming(VARIANT)("First try"),
                made=variant_key(place),
                gather=processing_states(place, machine, GATHER, READ_RESULT),
            ),
            stop=stop_sagemaker_jobs(place, "Processing", "InProgress", "All stopped"),
            run_statements=[
                *self._may_start(files.name, machine),
                pass_role(role, "sagemaker.amazonaws.com"),
            ],
            stop_statements=may_stop(self, files.name, "Processing"),
            log_group=PROCESSING_LOGS,
            stop_any_resource="ListProcessingJobs takes no resource.",
            run_patterns=job_patterns(self, files.name, "Processing"),
            stop_patterns=job_patterns(self, files.name, "Processing"),
        )

    def _may_start(self, name: str, machine: ProcessingMachine) -> list[iam.PolicyStatement]:
        jobs = job_arns(self, name, "Processing")
        return [
            # Only such jobs: without a network, and on the machine that the cost limit was reckoned with.
            iam.PolicyStatement(
                sid="StartJobs",
                actions=["sagemaker:CreateProcessingJob"],
                resources=jobs,
                conditions={
                    "Bool": {"sagemaker:NetworkIsolation": "true"},
                    "ForAllValues:StringEquals": {"sagemaker:InstanceTypes": [machine.instance_type]},
                },
            ),
            iam.PolicyStatement(
                sid="LookAtJobs", actions=["sagemaker:AddTags", "sagemaker:DescribeProcessingJob"], resources=jobs
            ),
        ]


def job_arns(scope: Construct, name: str, kind: str) -> list[str]:
    """The ARNs of an endpoint's jobs, as a pattern. kind: Processing or Compilation."""
    stack = Stack.of(scope)
    own = f"arn:{Aws.PARTITION}:sagemaker:{stack.region}:{stack.account}"
    return [f"{own}:{kind.lower()}-job/{job_name_pattern(name)}"]


def job_patterns(scope: Construct, name: str, kind: str) -> dict[str, str]:
    """The pattern of an endpoint's jobs, with the reason for it."""
    return dict.fromkeys(
        job_arns(scope, name, kind), "Jobs are named for each run; the pattern is this endpoint's alone."
    )


def may_stop(scope: Construct, name: str, kind: str) -> Sequence[iam.PolicyStatement]:
    """What a role needs to find jobs, and to stop those of an endpoint."""
    return [
        iam.PolicyStatement(sid="FindJobs", actions=[f"sagemaker:List{kind}Jobs"], resources=["*"]),
        iam.PolicyStatement(
            sid="StopJobs", actions=[f"sagemaker:Stop{kind}Job"], resources=job_arns(scope, name, kind)
        ),
    ]


def pass_role(role: iam.IRole, service: str) -> iam.PolicyStatement:
    """One role, to one service."""
    return iam.PolicyStatement(
        sid="GiveRoleToJobs",
        actions=["iam:PassRole"],
        resources=[role.role_arn],
        conditions={"StringEquals": {"iam:PassedToService": service}},
    )
