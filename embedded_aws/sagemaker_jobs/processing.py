"""The life of a SageMaker Processing job: inputs, the entry point as a process group, outputs.

Sources: "How Amazon SageMaker Processing Runs Your Processing Container Image",
https://docs.aws.amazon.com/sagemaker/latest/dg/byoc-run-image.html;
"How Amazon SageMaker Processing Configures Your Processing Container",
https://docs.aws.amazon.com/sagemaker/latest/dg/byoc-config.html (/opt/ml/config, environment);
"Save and Access Metadata Information About Your Processing Job",
https://docs.aws.amazon.com/sagemaker/latest/dg/byoc-metadata.html (/opt/ml/output/message, 1 KB, UTF-8);
StopProcessingJob and ProcessingStoppingCondition of the API Reference (the job is stopped after MaxRuntimeInSeconds).
AWS does not say what becomes of outputs when the container fails or is stopped. Here EndOfJob outputs are stored after
success only; Continuous ones also hold the last state of a job that failed.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..control.clock import now
from ..control.faults import Fault
from ..host import Host
from ..hosting.logs import LogShipper
from ..keys import session
from ..process import isolation
from ..process.group import KILL_AFTER_SECONDS, ProcessGroup, basics
from .image import image_fault
from .transfer import TransferError, Upload, download

log = logging.getLogger(__name__)

GROUP = "/aws/sagemaker/ProcessingJobs"  # https://docs.aws.amazon.com/sagemaker/latest/dg/logging-cloudwatch.html
CONTAINER_ROOT = "/opt/ml"
# "The default value is 1 day. The maximum is 7 days" (ProcessingStoppingCondition)
DEFAULT_SECONDS = 86400
CONTINUOUS_EVERY_SECONDS = 1.0
POLL_SECONDS = 0.1
MESSAGE_BYTES = 1024
RUNNING = frozenset({"InProgress", "Stopping"})


class JobError(Exception):
    """The job failed; the text is its FailureReason."""


@dataclass
class Scratch:
    """The folder that stands for the container's disk."""

    root: Path

    @property
    def opt_ml(self) -> Path:
        """/opt/ml."""
        return self.root / "opt" / "ml"

    def inner(self, path: str) -> Path:
        """A path of the container under /opt/ml, here."""
        return self.root / path.lstrip("/")

    def moved(self, text: str) -> str:
        """A text in which /opt/ml is this folder's."""
        return text.replace(CONTAINER_ROOT, str(self.opt_ml))


class ProcessingJob:
    """One job. `status` is DescribeProcessingJob's ProcessingJobStatus."""

    def __init__(self, host: Host, region: str, request: dict[str, Any], arn: str) -> None:
        self.host, self.region, self.request, self.arn = host, region, request, arn
        self.name = str(request["ProcessingJobName"])
        self.tags: list[dict[str, str]] = list(request.get("Tags") or [])
        self.status = "InProgress"
        self.failure: str | None = None
        self.message: str | None = None
        self.created = self.modified = now()
        self.started: datetime | None = None
        self.ended: datetime | None = None
        self.lock = threading.RLock()
        self._stopping = threading.Event()
        self._done = threading.Event()
        self._process: ProcessGroup | None = None
        self._uploads: dict[str, list[Upload]] = {}
        stream = f"{self.name}/algo-1-{int(self.created.timestamp())}"
        self._logs = LogShipper(host.clients, region, GROUP, stream)

    @property
    def instance_type(self) -> str:
        """The type of the one instance."""
        return str(self.request["ProcessingResources"]["ClusterConfig"]["InstanceType"])

    # -- operations -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Run in the background."""
        threading.Thread(target=self._run, name=f"processing job {self.name}", daemon=True).start()

    def stop(self) -> None:
        """Ask it to end; Stopping until it has."""
        with self.lock:
            if self.status == "InProgress":
                self.status, self.modified = "Stopping", now()
        self._stopping.set()

    def kill(self) -> None:
        """The server ends: leave nothing behind."""
        self._stopping.set()
        if self._process is not None:
            self._process.signal(signal.SIGKILL)
        self._done.wait(10)

    # -- its life -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        scratch = Scratch(self.host.directory / "jobs" / self.name / uuid.uuid4().hex)
        status, failure = "Failed", None
        try:
            status = self._work(scratch)
        except (JobError, TransferError) as error:
            failure = str(error)
        except Exception as error:
            log.exception("processing job %s", self.name)
            failure = f"InternalServerError: the embedded AWS failed: {error!r}"
        finally:
            self._logs.shipped(10)
            shutil.rmtree(scratch.root, ignore_errors=True)
            with self.lock:
                self.status, self.failure = status, failure
                self.ended = self.modified = now()
            self._done.set()

    def _work(self, scratch: Scratch) -> str:
        """From the request to the last upload; the final status. Raises JobError or TransferError."""
        fault = self.host.faults.take("job", self.name)
        self._before_it_starts(fault)
        self._prepare(scratch)
        if self._stopping.is_set():
            return "Stopped"
        code = self._execute(scratch, fault)
        try:
            self._upload("Continuous")
        finally:
            self._read_message(scratch)
        if code is None:
            return "Stopped"
        if code != 0:
            raise JobError(f"AlgorithmError: , exit code: {code}")
        self._upload("EndOfJob")
        return "Completed"

    def _before_it_starts(self, fault: Fault | None) -> None:
        if fault is not None and fault.action == "no-capacity":
            text = "Unable to provision requested ML compute capacity. Please retry using a different ML instance type."
            raise JobError(f"CapacityError: {text}")
        if fault is not None and fault.action == "internal-error":
            raise JobError("InternalServerError: We encountered an internal error. Please try again.")
        missing = image_fault(self.host.clients, self.host.account, self.request["AppSpecification"]["ImageUri"])
        if missing:
            raise JobError(missing)

    def _prepare(self, scratch: Scratch) -> None:
        """Inputs, output folders and the two configuration files."""
        s3 = self.host.clients.client("s3", self.region)
        for item in self.request.get("ProcessingInputs") or []:
            download(s3, item["S3Input"], scratch.inner(item["S3Input"]["LocalPath"]))
        for item in (self.request.get("ProcessingOutputConfig") or {}).get("Outputs") or []:
            target = item["S3Output"]
            folder = scratch.inner(target["LocalPath"])
            folder.mkdir(parents=True, exist_ok=True)
            self._uploads.setdefault(target["S3UploadMode"], []).append(Upload(s3, folder, target["S3Uri"]))
        for name in ("config", "output"):
            (scratch.opt_ml / name).mkdir(parents=True, exist_ok=True)
        (scratch.root / "tmp").mkdir()
        config = {"ProcessingJobArn": self.arn, **self.request}
        (scratch.opt_ml / "config" / "processingjobconfig.json").write_text(json.dumps(config, default=str))
        hosts = {"current_host": "algo-1", "hosts": ["algo-1"]}
        (scratch.opt_ml / "config" / "resourceconfig.json").write_text(json.dumps(hosts))

    def _environment(self, scratch: Scratch, isolated: bool) -> dict[str, str]:
        """The container's environment: without a network it has neither this AWS nor its role's credentials."""
        return {
            **basics(self.host.programs),
            "HOME": str(scratch.root),
            "TMPDIR": str(scratch.root / "tmp"),
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            **({} if isolated else self._credentials()),
            **{key: scratch.moved(value) for key, value in (self.request.get("Environment") or {}).items()},
        }

    def _credentials(self) -> dict[str, str]:
        """This AWS, and a session of the job's role."""
        role = session(self.host.account, str(self.request["RoleArn"]), "SageMaker", self.region)
        return {
            "AWS_ENDPOINT_URL": self.host.clients.url,
            "AWS_ACCESS_KEY_ID": role.access_key_id,
            "AWS_SECRET_ACCESS_KEY": role.secret_access_key,
            "AWS_SESSION_TOKEN": role.session_token,
        }

    def _execute(self, scratch: Scratch, fault: Fault | None) -> int | None:
        """Run the entry point to its end; its exit code, or None when it was stopped."""
        isolated = bool((self.request.get("NetworkConfig") or {}).get("EnableNetworkIsolation"))
        cut = isolated and isolation.possible()
        if isolated and not cut:
            self._logs.say("no network namespace can be made here: the job has no credentials, but a network")
        app = self.request["AppSpecification"]
        command = [*app["ContainerEntrypoint"], *(app.get("ContainerArguments") or [])]
        if fault is not None and fault.action == "fail":
            command = ["/bin/sh", "-c", f"echo '[host] an injected fault: {fault.message or 'it fails'}' >&2; exit 1"]
        try:
            self._process = ProcessGroup(
                [scratch.moved(part) for part in command],
                scratch.root,
                self._environment(scratch, isolated),
                isolated=cut,
            )
        except OSError as error:
            raise JobError(f"AlgorithmError: the entry point cannot be started: {error}") from error
        self._logs.follow(self._process.output)
        with self.lock:
            self.started = self.modified = now()
        try:
            return self._watch(self._process, fault)
        finally:
            self._process.end(0)

    def _watch(self, process: ProcessGroup, fault: Fault | None) -> int | None:
        allowed = (self.request.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds", DEFAULT_SECONDS)
        began = time.monotonic()
        deadline, next_upload = began + self.host.clock.limit(allowed), began
        while True:
            code = process.wait(POLL_SECONDS)
            if code is not None:
                return None if self._stopping.is_set() else code
            if time.monotonic() >= deadline:
                self._logs.say(f"MaxRuntimeInSeconds ({allowed}) is over: the job is stopped")
                self.stop()
            if self._stopping.is_set():
                process.end(self.host.clock.limit(KILL_AFTER_SECONDS))
                return None
            if fault is not None and time.monotonic() >= began + fault.after_seconds:
                self._hurt(process, fault)
                fault = None
            if time.monotonic() >= next_upload:
                self._upload("Continuous")
                next_upload = time.monotonic() + CONTINUOUS_EVERY_SECONDS

    def _hurt(self, process: ProcessGroup, fault: Fault) -> None:
        """Carry out an injected fault on a job that runs."""
        if fault.action == "kill":
            process.signal(signal.SIGKILL)
        elif fault.action == "hang":
            process.signal(signal.SIGSTOP)
        elif fault.action == "stop":
            self.stop()

    def _upload(self, mode: str) -> None:
        for upload in self._uploads.get(mode, []):
            upload.once()

    def _read_message(self, scratch: Scratch) -> None:
        file = scratch.opt_ml / "output" / "message"
        if not file.is_file():
            return
        with file.open("rb") as stream:
            begin = stream.read(MESSAGE_BYTES)
        try:
            file.read_bytes().decode()
        except UnicodeDecodeError as error:
            raise JobError(f"ClientError: /opt/ml/output/message is not UTF-8: {error}") from error
        self.message = begin.decode(errors="ignore")  # a character may be cut at 1 KB

    # -- what is shown --------------------------------------------------------------------------------------------

    def described(self) -> dict[str, Any]:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeProcessingJob.html"""
        kept = {key: value for key, value in self.request.items() if key != "Tags"}
        with self.lock:
            return {**kept, **self._times(), "ProcessingJobArn": self.arn}

    def listed(self) -> dict[str, Any]:
        """One row of ListProcessingJobs."""
        with self.lock:
            return {"ProcessingJobName": self.name, "ProcessingJobArn": self.arn, **self._times(start=False)}

    def _times(self, *, start: bool = True) -> dict[str, Any]:
        shown = {
            "ProcessingJobStatus": self.status,
            "CreationTime": self.created,
            "LastModifiedTime": self.modified,
            "ProcessingStartTime": self.started if start else None,
            "ProcessingEndTime": self.ended,
            "FailureReason": self.failure[:1024] if self.failure else None,
            "ExitMessage": self.message,
        }
        return {key: value for key, value in shown.items() if value is not None}
