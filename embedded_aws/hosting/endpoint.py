"""The life of an endpoint: created, updated to another configuration, weights changed, deleted.

Sources: CreateEndpoint, UpdateEndpoint and DescribeEndpoint of the SageMaker API Reference,
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpoint.html ("deploys to a new fleet of
instances ... then deletes the old instances ... there is no availability loss").
A failed update leaves the old configuration serving, with the FailureReason of the new one.
"""

from __future__ import annotations

import logging
import random
import shutil
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..control.clock import now
from ..host import Host
from .artifact import ArtifactError, fetch
from .logs import LogShipper, log_group
from .worker import Worker, WorkerError, worker_environment

log = logging.getLogger(__name__)

# "containers ... have 8 minutes to pass health checks" unless the variant says otherwise,
# https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-algo-ping-requests.html
STARTUP_SECONDS = 480
DRAIN_SECONDS = 65.0  # the longest invocation, 60 s, and a little


@dataclass
class Variant:
    """One production variant: its configuration, its model and its worker."""

    configuration: dict[str, Any]
    model: dict[str, Any]
    weight: float
    count: int
    worker: Worker | None = None
    folder: Path | None = None
    stream: str = ""
    in_flight: int = 0
    idle: threading.Condition = field(default_factory=threading.Condition)

    @property
    def name(self) -> str:
        """The variant's name."""
        return str(self.configuration["VariantName"])

    def enter(self) -> None:
        """An invocation begins."""
        with self.idle:
            self.in_flight += 1

    def leave(self) -> None:
        """An invocation has ended."""
        with self.idle:
            self.in_flight -= 1
            self.idle.notify_all()

    def drain(self) -> None:
        """Wait until nothing runs on it any more."""
        with self.idle:
            self.idle.wait_for(lambda: self.in_flight == 0, DRAIN_SECONDS)


class Endpoint:
    """One endpoint. `status` is DescribeEndpoint's EndpointStatus."""

    def __init__(
        self, host: Host, region: str, name: str, arn: str, config: dict[str, Any], tags: list[dict[str, str]]
    ) -> None:
        self.host, self.region, self.name, self.arn, self.tags = host, region, name, arn, tags
        self.config = config
        self.status = "Creating"
        self.failure: str | None = None
        self.created = self.modified = now()
        self.variants: dict[str, Variant] = {}
        self.deployment: dict[str, Any] | None = None
        self.lock = threading.RLock()
        self._gone = threading.Event()
        self._starting: list[Variant] = []

    # -- operations -----------------------------------------------------------------------------------------------

    def create(self, variants: list[Variant]) -> None:
        """Start in the background: InService, or Failed with the reason."""
        self._in_background(lambda: self._create(variants))

    def _create(self, variants: list[Variant]) -> None:
        failure = self._start_all(variants)
        with self.lock:
            if failure is not None or self._gone.is_set():
                self.status, self.failure = "Failed", failure
            else:
                self.variants = {variant.name: variant for variant in variants}
                self.status = "InService"
            self.modified = now()
        if self.status == "Failed":
            self._stop_all(variants)

    def update(self, config: dict[str, Any], variants: list[Variant]) -> None:
        """Start the new variants beside the old ones, then exchange them."""
        self.status, self.failure = "Updating", None
        self._in_background(lambda: self._update(config, variants))

    def _update(self, config: dict[str, Any], variants: list[Variant]) -> None:
        failure = self._start_all(variants)
        if failure is not None or self._gone.is_set():
            self._stop_all(variants)
            with self.lock:
                self.status, self.failure, self.modified = "InService", failure, now()
            return
        for variant in variants:
            if self.deployment and variant.worker is not None:
                variant.worker.logs.say("DeploymentConfig is kept, not carried out: all traffic moves at once")
        with self.lock:
            old = list(self.variants.values())
            self.variants = {variant.name: variant for variant in variants}
            self.config = config
        for variant in old:
            variant.drain()
        self._stop_all(old)
        with self.lock:
            self.status, self.modified = "InService", now()

    def delete(self) -> None:
        """Stop everything; returns when the workers are gone."""
        self._gone.set()
        with self.lock:
            self.status = "Deleting"
            variants = [*self.variants.values(), *self._starting]
        self._stop_all(variants)

    def change(self, wanted: list[dict[str, Any]]) -> None:
        """UpdateEndpointWeightsAndCapacities; a count is kept, one worker serves all the same."""
        with self.lock:
            for item in wanted:
                variant = self.variants[item["VariantName"]]
                variant.weight = item.get("DesiredWeight", variant.weight)
                variant.count = item.get("DesiredInstanceCount", variant.count)
            self.modified = now()

    def choose(self, target: str | None) -> Variant | None:
        """A variant by name, or one drawn by weight, entered. Weights that are all 0 are drawn evenly."""
        with self.lock:  # also for entering: an update that exchanges the variants must see who is inside
            variants = list(self.variants.values())
            weights = [variant.weight for variant in variants]
            if target is not None:
                found = self.variants.get(target)
            elif variants:
                found = random.choices(variants, weights if any(weights) else None)[0]  # noqa: S311 - no secret
            else:
                found = None
            if found is not None:
                found.enter()
            return found

    # -- workers --------------------------------------------------------------------------------------------------

    def _start_all(self, variants: list[Variant]) -> str | None:
        """Start every variant; returns the reason of the first that fails."""
        for variant in variants:
            with self.lock:
                self._starting.append(variant)
            try:
                self._start(variant)
            except (ArtifactError, WorkerError) as error:
                return str(error)
            except Exception as error:
                log.exception("endpoint %s", self.name)
                return f"internal error of the embedded AWS: {error!r}"
            finally:
                with self.lock:
                    self._starting.remove(variant)
        return None

    def _start(self, variant: Variant) -> None:
        container = variant.model["PrimaryContainer"]
        variant.folder = self.host.directory / "endpoints" / self.name / uuid.uuid4().hex
        model = fetch(self.host.clients, self.region, _data_url(container), variant.folder)
        variant.stream = f"{variant.name}/i-{uuid.uuid4().hex[:17]}"
        logs = LogShipper(self.host.clients, self.region, log_group(self.name), variant.stream)
        environment = worker_environment(model, container.get("Environment") or {}, self.region, self.host.clients.url)
        variant.worker = Worker(model, environment, logs)
        logs.say("runs with the native server, python -m inference_code.server, whatever the image would start")
        if self._gone.is_set():
            raise WorkerError("deleted while it started")
        within = variant.configuration.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_SECONDS)
        try:
            variant.worker.start(within)
        except WorkerError as error:
            raise WorkerError(
                f"The primary container for production variant {variant.name} did not pass the ping health check. "
                f"Please check CloudWatch logs for this endpoint. The worker: {error}"
            ) from error

    def _stop_all(self, variants: list[Variant]) -> None:
        for variant in variants:
            if variant.worker is not None:
                variant.worker.stop()
            if variant.folder is not None:
                shutil.rmtree(variant.folder, ignore_errors=True)

    def _in_background(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name=f"endpoint {self.name}", daemon=True).start()

    # -- what DescribeEndpoint shows ------------------------------------------------------------------------------

    def described(self) -> dict[str, Any]:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeEndpoint.html"""
        with self.lock:
            shown: dict[str, Any] = {
                "EndpointName": self.name,
                "EndpointArn": self.arn,
                "EndpointConfigName": self.config["EndpointConfigName"],
                "EndpointStatus": self.status,
                "CreationTime": self.created,
                "LastModifiedTime": self.modified,
                "ProductionVariants": [_summary(variant) for variant in self.variants.values()],
            }
            if self.failure:
                shown["FailureReason"] = self.failure[:1024]
            if self.deployment:
                shown["LastDeploymentConfig"] = self.deployment
            return shown

    def listed(self) -> dict[str, Any]:
        """One row of ListEndpoints."""
        names = ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")
        described = self.described()
        return {name: described[name] for name in names}


def _summary(variant: Variant) -> dict[str, Any]:
    return {
        "VariantName": variant.name,
        "DeployedImages": [{"SpecifiedImage": variant.model["PrimaryContainer"].get("Image")}],
        "CurrentWeight": variant.weight,
        "DesiredWeight": variant.weight,
        "CurrentInstanceCount": variant.count,
        "DesiredInstanceCount": variant.count,
    }


def _data_url(container: dict[str, Any]) -> str:
    if container.get("ModelDataUrl"):
        return str(container["ModelDataUrl"])
    return str(container["ModelDataSource"]["S3DataSource"]["S3Uri"])
