"""The state of each server of this process, found by the server's account.

moto keeps its own state by account, so a server has an account of its own: application.py names it in each request,
and moto hands it to everything that it makes (responses, backends, executions). `of` finds the rest by it.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

from moto.cloudwatch.models import cloudwatch_backends
from moto.core.base_backend import BackendDict
from moto.utilities.tagging_service import TaggingService

from .clients import Clients
from .cloudformation.store import Store
from .codebuild.builds import Build
from .control.clock import Clock
from .ec2.instances import Instances
from .host import Host
from .hosting.hosted import Hosted
from .monitoring.series import Recorder
from .sagemaker_jobs.jobs import Jobs
from .sagemaker_jobs.processing import RUNNING

# the first is moto's default; none is used again, since threads of an ended server may still look for theirs
_accounts = map(str, itertools.count(123456789012))
_contexts: dict[str, ServerContext] = {}
_lock = threading.Lock()


class ServerContext:
    """Everything that one server keeps besides moto's backends of its account."""

    def __init__(self, host: Host, processing_quota: int) -> None:
        self.host = host
        self.stacks: dict[str, Store] = {}  # by region
        self.hosted: dict[str, Hosted] = defaultdict(Hosted)  # by region
        self.jobs = Jobs(processing_quota)
        self.instances = Instances()
        self.projects: dict[tuple[str, str], dict[str, Any]] = {}  # CodeBuild's, by region and name
        self.builds: dict[tuple[str, str], Build] = {}  # by region and id
        self.quotas: dict[tuple[str, str, str], float] = {}  # by region, service and code, where they were changed
        self.recorder = Recorder()
        self.scaling_tags = TaggingService()

    def record_invocation(self, region: str, endpoint: str, variant: str, values: dict[str, float]) -> None:
        """Keep the metrics of one InvokeEndpoint."""
        dimensions = {"EndpointName": endpoint, "VariantName": variant}
        self.recorder.record(cloudwatch_backends[self.host.account][region], "AWS/SageMaker", dimensions, values)

    @classmethod
    def open(cls, directory: Path, clients: Clients, clock: Clock, processing_quota: int) -> ServerContext:
        """A new server's, under the next account."""
        with _lock:
            account = next(_accounts)
            _contexts[account] = cls(Host(account, directory, clients, clock), processing_quota)
            return _contexts[account]

    def stop(self) -> None:
        """End every job, instance and worker; returns when they are gone."""
        jobs = [job.kill for job in list(self.jobs.processing.values()) if job.status in RUNNING]
        machines = [machine.kill for machine in list(self.instances.machines.values())]
        endpoints = [one.delete for hosted in list(self.hosted.values()) for one in list(hosted.endpoints.values())]
        builds = [build.stop for build in list(self.builds.values())]
        threads = [threading.Thread(target=end) for end in (*jobs, *machines, *endpoints, *builds)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def close(self) -> None:
        """Forget the account, moto's part of it too."""
        with _lock:
            for backends in list(BackendDict._instances):  # type: ignore[misc]
                backends.pop(self.host.account, None)
            del _contexts[self.host.account]


def of(account: str) -> ServerContext:
    """The context of the server that has this account. Raises LookupError when no server of this process has it."""
    found = _contexts.get(account)
    if found is None:
        raise LookupError(f"no embedded AWS of this process has the account {account}")
    return found


class WithContext:
    """A request of moto's that knows its server."""

    current_account: str

    @property
    def context(self) -> ServerContext:
        """The server's state."""
        return of(self.current_account)

    @property
    def host(self) -> Host:
        """The server's clients, clock and faults."""
        return self.context.host
