"""The server: moto's WSGI application with our answers in it, on a loopback address only."""

from __future__ import annotations

import json
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moto.cloudwatch.models import cloudwatch_backends
from werkzeug.serving import make_server

from embedded_aws import patches
from embedded_aws.access import AccessKeys, Secrets, private_directory, write_private
from embedded_aws.application import Application
from embedded_aws.clients import ACCOUNT, Clients
from embedded_aws.cloudformation.api import CloudFormation
from embedded_aws.cloudformation.api import State as StackState
from embedded_aws.connection import QuietHandler
from embedded_aws.control.calls import Control
from embedded_aws.control.clock import CLOCK
from embedded_aws.ec2.instances import Ec2, Instances
from embedded_aws.hosting.api import State as HostingState
from embedded_aws.hosting.runtime import Runtime
from embedded_aws.keys import issued
from embedded_aws.monitoring.alarms import evaluate_all
from embedded_aws.monitoring.api import CloudWatch
from embedded_aws.monitoring.series import Recorder
from embedded_aws.sagemaker_jobs.api import Jobs, SageMakerWithJobs
from embedded_aws.stepfunctions import states

log = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"
STATE_FILE = "server.json"
EVALUATE_ALARMS_EVERY_SECONDS = 10.0


@dataclass(frozen=True)
class Settings:
    """What a server may be told: how much shorter waits and limits are than on AWS, and the quota of jobs."""

    wait_speed: float = 1.0
    limit_speed: float = 1.0
    processing_quota: int = 4


class Server:
    """One embedded AWS with its state under `directory`. Use `start` and `stop`, or `run` in the foreground.

    Raises AccessError when the folder cannot be kept from other users, OSError when it cannot be made.
    """

    def __init__(self, directory: Path, port: int = 0, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        CLOCK.waits, CLOCK.limits = settings.wait_speed, settings.limit_speed
        self.directory = directory.resolve()
        private_directory(self.directory)
        self.secrets = Secrets.random()
        scratch = self.directory / "tmp"
        scratch.mkdir(exist_ok=True)
        tempfile.tempdir = str(scratch)  # moto keeps large objects in temporary files
        os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
        self._recorder = Recorder()
        self._ended = threading.Event()
        application = _Late()
        self._http = make_server(LOOPBACK, port, application, threaded=True, request_handler=QuietHandler)
        self.port = self._http.server_port
        self.url = f"http://localhost:{self.port}"
        os.environ["MOTO_PORT"] = str(self.port)
        self.clients = Clients(f"http://{LOOPBACK}:{self.port}", self.secrets.access_key, self.secrets.secret_key)
        self.hosting = HostingState(self.clients, self.directory)
        CloudFormation.state = StackState(self.clients)
        SageMakerWithJobs.state = self.hosting
        self.jobs = SageMakerWithJobs.jobs = Jobs(self.clients, self.directory / "jobs", settings.processing_quota)
        self.instances = Ec2.runs = Instances(self.clients, self.directory / "instances")
        states.use(self.clients)
        CloudWatch.clients = self.clients
        patches.install()
        keys = AccessKeys(self.secrets.access_key, issued)
        application.inner = Application(Runtime(self.hosting, self._record), keys, Control(self.secrets.token))

    def _record(self, region: str, endpoint: str, variant: str, values: dict[str, float]) -> None:
        dimensions = {"EndpointName": endpoint, "VariantName": variant}
        self._recorder.record(cloudwatch_backends[ACCOUNT][region], "AWS/SageMaker", dimensions, values)

    def start(self) -> None:
        """Serve in the background and write the state file."""
        threading.Thread(target=self._http.serve_forever, name="http", daemon=True).start()
        threading.Thread(target=self._watch_alarms, name="alarms", daemon=True).start()
        state = {"url": self.url, "pid": os.getpid(), "port": self.port, **asdict(self.secrets)}
        write_private(self.directory / STATE_FILE, json.dumps(state) + "\n")

    def stop(self) -> None:
        """Stop every worker, then the server, and take the state file away."""
        self._ended.set()
        self.jobs.stop()
        self.instances.stop()
        self.hosting.stop()
        self._http.shutdown()
        self._http.server_close()
        (self.directory / STATE_FILE).unlink(missing_ok=True)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        asked = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: asked.set())
        self.start()
        asked.wait()
        self.stop()

    def _watch_alarms(self) -> None:
        while not self._ended.wait(EVALUATE_ALARMS_EVERY_SECONDS):
            for backend in list(cloudwatch_backends[ACCOUNT].values()):
                try:
                    evaluate_all(backend, self.clients)
                except Exception:
                    log.exception("alarms of %s", backend.region_name)


class _Late:
    """The application, known only after the port is."""

    inner: Application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return self.inner(environ, start_response)
