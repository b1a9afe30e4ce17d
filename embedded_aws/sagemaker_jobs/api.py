"""SageMaker's job operations in place of moto's: Processing jobs run, Neo's compilation jobs fail and say why.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Operations_Amazon_SageMaker_Service.html
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from moto.core.responses import ActionResult, EmptyResult

from embedded_aws.clients import Clients
from embedded_aws.cloudformation.store import now
from embedded_aws.errors import AwsError
from embedded_aws.hosting.api import RequestError, SageMaker
from embedded_aws.hosting.endpoint import Host
from embedded_aws.sagemaker_jobs.processing import RUNNING, ProcessingJob
from embedded_aws.sagemaker_jobs.requests import refusal, request_faults, unsupported

NEO = (
    "ClientError: the embedded AWS does not rehearse Neo: no compiler runs here. Use the processing or ec2 kind of "
    "job to rehearse, or an AWS account for Neo."
)
PAGE = 10  # MaxResults when none is given


@dataclass
class Jobs:
    """The jobs of every region of a server; `quota` is how many Processing jobs an instance type may run at once."""

    clients: Clients
    directory: Path
    quota: int
    lock: threading.RLock = field(default_factory=threading.RLock)
    processing: dict[tuple[str, str], ProcessingJob] = field(default_factory=dict)
    compilation: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def stop(self) -> None:
        """End every job that runs."""
        with self.lock:
            running = [job for job in self.processing.values() if job.status in RUNNING]
        threads = [threading.Thread(target=job.kill) for job in running]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


class SageMakerWithJobs(SageMaker):
    """One request to SageMaker's control plane."""

    jobs: Jobs

    # -- Processing -----------------------------------------------------------------------------------------------

    def create_processing_job(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateProcessingJob.html"""
        faults = request_faults("sagemaker", "CreateProcessingJob", self.params) or unsupported(self.params)
        if faults:
            raise RequestError(refusal(faults))
        self._check_role(self.params["RoleArn"])
        name = self.params["ProcessingJobName"]
        arn = self._arn("processing-job", name)
        with self.jobs.lock:
            if (self.region, name) in self.jobs.processing:
                raise AwsError(
                    "ResourceInUse",
                    "Job name must be unique within an AWS account and region, and a job with this name already "
                    f"exists ({arn})",
                )
            host = Host(self.jobs.clients, self.current_account, self.region, self.jobs.directory)
            job = ProcessingJob(host, dict(self.params), arn)
            self._check_quota(job.instance_type)
            self.jobs.processing[self.region, name] = job
        job.start()
        return ActionResult({"ProcessingJobArn": arn})

    def _check_role(self, arn: str) -> None:
        """The role must exist and let SageMaker assume it.

        Source: https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html
        """
        try:
            role = self.jobs.clients.client("iam", "us-east-1").get_role(RoleName=arn.rsplit("/", 1)[-1])["Role"]
            trusts = "sagemaker.amazonaws.com" in json.dumps(role["AssumeRolePolicyDocument"])
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchEntity":
                raise
            trusts = False
        if not trusts:
            raise RequestError(
                f"Could not assume role {arn}. Please ensure that the role exists and allows principal "
                "'sagemaker.amazonaws.com' to assume the role."
            )

    def _check_quota(self, instance_type: str) -> None:
        """The wording is SageMaker's, as in https://github.com/aws/amazon-sagemaker-examples/issues/1543."""
        used = sum(
            job.status in RUNNING and job.instance_type == instance_type
            for (region, _), job in self.jobs.processing.items()
            if region == self.region
        )
        if used >= self.jobs.quota:
            raise AwsError(
                "ResourceLimitExceeded",
                f"The account-level service limit '{instance_type} for processing job usage' is {self.jobs.quota} "
                f"Instances, with current utilization of {used} Instances and a request delta of 1 Instances. Please "
                "use AWS Service Quotas to request an increase for this quota. If AWS Service Quotas is not "
                "available, contact AWS support to request an increase for this quota.",
            )

    def _job(self) -> ProcessingJob:
        name = self.params["ProcessingJobName"]
        found = self.jobs.processing.get((self.region, name))
        if found is None:
            raise AwsError("ResourceNotFound", f"Could not find requested job with name: {name}")
        return found

    def describe_processing_job(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeProcessingJob.html"""
        return ActionResult(self._job().described())

    def stop_processing_job(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_StopProcessingJob.html"""
        job = self._job()
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

    # -- Neo ------------------------------------------------------------------------------------------------------

    def create_compilation_job(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateCompilationJob.html"""
        faults = request_faults("sagemaker", "CreateCompilationJob", self.params)
        if faults:
            raise RequestError(refusal(faults))
        name = self.params["CompilationJobName"]
        arn = self._arn("compilation-job", name)
        with self.jobs.lock:
            if (self.region, name) in self.jobs.compilation:
                raise AwsError("ResourceInUse", f"A compilation job with this name already exists ({arn})")
            self.jobs.compilation[self.region, name] = {
                **self.params,
                "CompilationJobArn": arn,
                "CompilationJobStatus": "FAILED",
                "FailureReason": NEO,
                "CreationTime": now(),
                "LastModifiedTime": now(),
                "ModelArtifacts": {"S3ModelArtifacts": ""},
            }
        return ActionResult({"CompilationJobArn": arn})

    def _compilation(self) -> dict[str, Any]:
        name = self.params["CompilationJobName"]
        found = self.jobs.compilation.get((self.region, name))
        if found is None:
            raise AwsError("ResourceNotFound", f"Could not find requested job with name: {name}")
        return found

    def describe_compilation_job(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeCompilationJob.html"""
        return ActionResult({key: value for key, value in self._compilation().items() if key != "Tags"})

    def stop_compilation_job(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_StopCompilationJob.html"""
        job = self._compilation()
        raise RequestError(
            f"The request was rejected because the compilation job is in status {job['CompilationJobStatus']}."
        )

    # -- tags -----------------------------------------------------------------------------------------------------

    def _tags(self) -> list[dict[str, str]] | None:
        kind, _, name = self.params["ResourceArn"].rsplit(":", 1)[-1].partition("/")
        if kind == "processing-job" and (self.region, name) in self.jobs.processing:
            return self.jobs.processing[self.region, name].tags
        if kind == "compilation-job" and (self.region, name) in self.jobs.compilation:
            tags: list[dict[str, str]] = self.jobs.compilation[self.region, name].setdefault("Tags", [])
            return tags
        return super()._tags()


def _in_time(row: dict[str, Any], request: SageMakerWithJobs) -> bool:
    """The four time filters of a list."""
    for stem in ("CreationTime", "LastModifiedTime"):
        after, before = request.params.get(f"{stem}After"), request.params.get(f"{stem}Before")
        if (after is not None and row[stem] <= after) or (before is not None and row[stem] >= before):
            return False
    return True
