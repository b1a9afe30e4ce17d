"""Compiling with SageMaker Neo: the role that Neo assumes, and what the state machines may do with its jobs."""

from __future__ import annotations

from dataclasses import replace

from aws_cdk import aws_iam as iam
from constructs import Construct

from cdk.constructs.branch import Branch
from cdk.constructs.job_files import JobFiles
from cdk.constructs.job_role import NEO_LOGS, JobRole
from cdk.constructs.processing_branch import job_arns, job_patterns, may_stop, pass_role
from cdk.states.job import VARIANT, Place, naming, stop_sagemaker_jobs
from cdk.states.neo import made_key, neo_states
from cdk.states.run import MADE, Course

# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_StoppingCondition.html: a day is the most for Neo.
LONGEST = 86_400


class NeoBranch(Construct):
    """branch: what a compile stack takes from here. Nothing is gathered: what Neo makes is no artifact of ours."""

    def __init__(self, scope: Construct, construct_id: str, *, place: Place, files: JobFiles) -> None:
        super().__init__(scope, construct_id)
        role = JobRole(self, "Permissions", files=files, log_group_name=NEO_LOGS).role
        bounded = replace(place, limit=min(place.limit, LONGEST))
        arns = job_arns(self, files.name, "Compilation")
        start = ["sagemaker:AddTags", "sagemaker:CreateCompilationJob", "sagemaker:DescribeCompilationJob"]
        self.branch = Branch(
            course=Course(
                variant=neo_states(bounded, role.role_arn, VARIANT, MADE),
                enter=naming(VARIANT)("Read shapes"),
                made=made_key(place),
                gather=None,
            ),
            stop=stop_sagemaker_jobs(place, "Compilation", "INPROGRESS", "All stopped"),
            run_statements=[
                iam.PolicyStatement(sid="StartJobs", actions=start, resources=arns),
                pass_role(role, "sagemaker.amazonaws.com"),
            ],
            stop_statements=may_stop(self, files.name, "Compilation"),
            log_group=NEO_LOGS,
            stop_any_resource="ListCompilationJobs takes no resource.",
            run_patterns=job_patterns(self, files.name, "Compilation"),
            stop_patterns=job_patterns(self, files.name, "Compilation"),
        )
