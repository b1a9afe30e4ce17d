"""SageMaker's job operations in place of moto's: Processing jobs run, Neo's compilation jobs are refused.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Operations_Amazon_SageMaker_Service.html
"""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import ClientError
from moto.core.responses import ActionResult, EmptyResult

from ...errors import AwsError
from ...sagemaker_jobs.processing import RUNNING, ProcessingJob
from ...sagemaker_jobs.requests import refusal, request_faults, unsupported
from .request import RequestError, SageMakerRequest

NEO = (
    "the embedded AWS does not rehearse Neo: no compiler runs here. Use the processing or ec2 kind of "
    "job to rehearse, or an AWS account for Neo."
)
PAGE = 10  # MaxResults when none is given


class Jobs(SageMakerRequest):
    """Processing jobs."""

    def create_processing_job(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateProcessingJob.html"""
        faults = request_faults("sagemaker", "CreateProcessingJob", self.params) or unsupported(self.params)
        if faults:
            raise RequestError(refusal(faults))
        _check_role(self, self.params["RoleArn"])
        name = self.params["ProcessingJobName"]
        arn = self.arn("processing-job", name)
        with self.jobs.lock:
            if (self.region, name) in self.jobs.processing:
                raise AwsError(
                    "ResourceInUse",
                    "Job name must be unique within an AWS account and region, and a job with this name already "
                    f"exists ({arn})",
                )
            job = ProcessingJob(self.host, self.region, dict(self.params), arn)
            _check_quota(self, job.instance_type)
            self.jobs.processing[self.region, name] = job
        job.start()
        return ActionResult({"ProcessingJobArn": arn})

    def describe_processing_job(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeProcessingJob.html"""
        return ActionResult(_job(self).described())

    def stop_processing_job(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_StopProcessingJob.html"""
        job = _job(self)
        if job.status not in RUNNING:
            raise RequestError(f"The request was rejected because the processing job is in status {job.status}.")
        job.stop()
        return EmptyResult()

    def list_processing_jobs(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListProcessingJobs.html"""
        rows = [job.listed() for (region, _), job in list(self.jobs.processing.items()) if region == self.region]
        wanted = self.params.get("StatusEquals")
        part = self.params.get("NameContains") or ""
        rows = [
            row
            for row in rows
            if part in row["ProcessingJobName"] and wanted in {None, row["ProcessingJobStatus"]} and _in_time(row, self)
        ]
        keys = {"Name": "ProcessingJobName", "Status": "ProcessingJobStatus"}
        key = keys.get(str(self.params.get("SortBy")), "CreationTime")
        rows.sort(key=lambda row: row[key], reverse=self.params.get("SortOrder") != "Ascending")
        start = int(self.params.get("NextToken") or 0)
        end = start + int(self.params.get("MaxResults") or PAGE)
        more = {"NextToken": str(end)} if end < len(rows) else {}
        return ActionResult({"ProcessingJobSummaries": rows[start:end], **more})

    def create_compilation_job(self) -> ActionResult:
        """Refused: moto would say that it has compiled."""
        raise RequestError(NEO)


def _check_role(request: SageMakerRequest, arn: str) -> None:
    """The role must exist in this account and let SageMaker assume it.

    Source: https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html
    """
    try:
        role = request.host.clients.client("iam", "us-east-1").get_role(RoleName=arn.rsplit("/", 1)[-1])["Role"]
        trusts = role["Arn"] == arn and "sagemaker.amazonaws.com" in json.dumps(role["AssumeRolePolicyDocument"])
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchEntity":
            raise
        trusts = False
    if not trusts:
        raise RequestError(
            f"Could not assume role {arn}. Please ensure that the role exists and allows principal "
            "'sagemaker.amazonaws.com' to assume the role."
        )


def _check_quota(request: SageMakerRequest, instance_type: str) -> None:
    """The wording is SageMaker's, as in https://github.com/aws/amazon-sagemaker-examples/issues/1543."""
    used = sum(
        job.status in RUNNING and job.instance_type == instance_type
        for (region, _), job in request.jobs.processing.items()
        if region == request.region
    )
    if used >= request.jobs.quota:
        raise AwsError(
            "ResourceLimitExceeded",
            f"The account-level service limit '{instance_type} for processing job usage' is {request.jobs.quota} "
            f"Instances, with current utilization of {used} Instances and a request delta of 1 Instances. Please "
            "use AWS Service Quotas to request an increase for this quota. If AWS Service Quotas is not "
            "available, contact AWS support to request an increase for this quota.",
        )


def _job(request: SageMakerRequest) -> ProcessingJob:
    name = request.params["ProcessingJobName"]
    found = request.jobs.processing.get((request.region, name))
    if found is None:
        raise AwsError("ResourceNotFound", f"Could not find requested job with name: {name}")
    return found


def _in_time(row: dict[str, Any], request: SageMakerRequest) -> bool:
    """The four time filters of a list."""
    for stem in ("CreationTime", "LastModifiedTime"):
        after, before = request.params.get(f"{stem}After"), request.params.get(f"{stem}Before")
        if (after is not None and row[stem] <= after) or (before is not None and row[stem] >= before):
            return False
    return True
