"""The server: moto's WSGI application with our answers in it, on a loopback address only."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from moto.cloudwatch.models import cloudwatch_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from embedded_aws import patches
from embedded_aws.clients import ACCOUNT, Clients
from embedded_aws.cloudformation.api import CloudFormation
from embedded_aws.cloudformation.api import State as StackState
from embedded_aws.hosting.api import State as HostingState
from embedded_aws.hosting.runtime import PATH, Runtime
from embedded_aws.jobs import states
from embedded_aws.jobs.api import Jobs, SageMakerWithJobs
from embedded_aws.jobs.clock import CLOCK
from embedded_aws.jobs.faults import FAULTS, CutOffError, FaultError, refuse, s3_operation
from embedded_aws.jobs.instances import Ec2, Instances
from embedded_aws.monitoring.alarms import evaluate_all
from embedded_aws.monitoring.api import CloudWatch
from embedded_aws.monitoring.series import Recorder

log = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"
STATE_FILE = "server.json"
FAULTS_PATH, CLOCK_PATH = "/_embedded_aws/faults", "/_embedded_aws/clock"
EVALUATE_ALARMS_EVERY_SECONDS = 10.0
CREDENTIAL = re.compile(r"Credential=[^/]+/\d+/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request")


class QuietHandler(MotoRequestHandler):
    """HTTP/1.1, so that a client's `Expect: 100-continue` is answered at once; requests go to the debug log."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's signature
        """One line of werkzeug's log."""
        log.debug("%s %s", type, message % args if args else message)


@dataclass(frozen=True)
class Settings:
    """What a server may be told: how much shorter waits and limits are than on AWS, and the quota of jobs."""

    wait_speed: float = 1.0
    limit_speed: float = 1.0
    processing_quota: int = 4


class Application:
    """The WSGI application: InvokeEndpoint is answered here, everything else by moto with our parts in it."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """One request."""
        credential = CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
        region, service = credential.groups() if credential else ("us-east-1", "")
        invocation = PATH.fullmatch(environ.get("PATH_INFO", ""))
        if environ.get("PATH_INFO") == FAULTS_PATH:
            return _faults(Request(environ))(environ, start_response)
        if environ.get("PATH_INFO") == CLOCK_PATH:
            return _clock(Request(environ))(environ, start_response)
        try:
            refused = _refused(environ, service)
            if refused is not None:
                return refused(environ, start_response)
            if invocation and service == "sagemaker" and environ["REQUEST_METHOD"] == "POST":
                response = self.runtime.invoke(Request(environ), invocation.group(1), region)
                return response(environ, start_response)
            return self.moto(environ, start_response)  # type: ignore[no-any-return]
        except CutOffError:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise
        except Exception as error:
            log.exception("%s %s", service, environ.get("PATH_INFO"))
            return _failure(error, service, "HTTP_X_AMZ_TARGET" in environ)(environ, start_response)


def _faults(request: Request) -> Response:
    """The armed faults: GET lists them, POST arms one, DELETE disarms all."""
    try:
        if request.method == "POST":
            FAULTS.arm(json.loads(request.get_data()))
        elif request.method == "DELETE":
            FAULTS.clear()
    except (FaultError, ValueError, TypeError) as error:
        return Response(json.dumps({"message": str(error)}), 400, content_type="application/json")
    return Response(json.dumps({"faults": FAULTS.listed()}), content_type="application/json")


def _clock(request: Request) -> Response:
    """How fast waits and limits pass: GET tells, POST sets for everything that starts from now on."""
    try:
        if request.method == "POST":
            told = {key: float(value) for key, value in json.loads(request.get_data()).items()}
            if set(told) - {"waits", "limits"} or any(value < 1 for value in told.values()):
                raise ValueError(f"the clock has waits and limits, each at least 1, not {told}")
            CLOCK.waits, CLOCK.limits = told.get("waits", CLOCK.waits), told.get("limits", CLOCK.limits)
    except (ValueError, TypeError, AttributeError) as error:
        return Response(json.dumps({"message": str(error)}), 400, content_type="application/json")
    return Response(json.dumps({"waits": CLOCK.waits, "limits": CLOCK.limits}), content_type="application/json")


def _refused(environ: dict[str, Any], service: str) -> Response | None:
    """The answer of an injected fault to this call, or None."""
    if not FAULTS.armed("call"):
        return None
    size = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(size) if size else b""
    environ["wsgi.input"] = io.BytesIO(body)
    path, query = environ.get("PATH_INFO", ""), environ.get("QUERY_STRING", "")
    target = environ.get("HTTP_X_AMZ_TARGET")
    text = body.decode("utf-8", "replace")
    if service == "s3":
        operation, text = s3_operation(environ["REQUEST_METHOD"], path, query, environ), f"{path}?{query}"
    elif target:
        operation = target.rsplit(".", 1)[-1]
    else:
        operation = parse_qs(text).get("Action", [environ["REQUEST_METHOD"]])[0]
    fault = FAULTS.take("call", text, f"{service}:{operation}")
    if fault is None:
        return None
    code, message, status = refuse(fault)
    return _error(code, message, status, service, bool(target))


def _failure(error: Exception, service: str, json_protocol: bool) -> Response:
    """An operation that does not exist here, or a fault of this server: status 400, because clients retry a 500."""
    kind = "NotImplemented" if isinstance(error, NotImplementedError) else "EmbeddedAwsFailure"
    text = f"the embedded AWS ({service or 'unknown service'}): {error or type(error).__name__}"
    return _error(kind, text, 400, service, json_protocol)


def _error(kind: str, text: str, status: int, service: str, json_protocol: bool) -> Response:
    """An error in the protocol of the service."""
    if json_protocol:
        body = json.dumps({"__type": kind, "message": text})
        return Response(body, status, {"x-amzn-ErrorType": kind}, content_type="application/json")
    inner = f"<Error><Type>Sender</Type><Code>{kind}</Code><Message>{escape(text)}</Message></Error>"
    if service == "ec2":
        body = f"<Response><Errors>{inner}</Errors><RequestID>{uuid.uuid4()}</RequestID></Response>"
    else:
        body = inner if service == "s3" else f"<ErrorResponse>{inner}</ErrorResponse>"
    return Response(body, status, content_type="text/xml")


class Server:
    """One embedded AWS with its state under `directory`. Use `start` and `stop`, or `run` in the foreground."""

    def __init__(self, directory: Path, port: int = 0, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        CLOCK.waits, CLOCK.limits = settings.wait_speed, settings.limit_speed
        self.directory = directory.resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
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
        self.clients = Clients(f"http://{LOOPBACK}:{self.port}")
        self.hosting = HostingState(self.clients, self.directory)
        CloudFormation.state = StackState(self.clients)
        SageMakerWithJobs.state = self.hosting
        self.jobs = SageMakerWithJobs.jobs = Jobs(self.clients, self.directory / "jobs", settings.processing_quota)
        self.instances = Ec2.runs = Instances(self.clients, self.directory / "instances")
        states.use(self.clients)
        CloudWatch.clients = self.clients
        patches.install()
        application.inner = Application(Runtime(self.hosting, self._record))

    def _record(self, region: str, endpoint: str, variant: str, values: dict[str, float]) -> None:
        dimensions = {"EndpointName": endpoint, "VariantName": variant}
        self._recorder.record(cloudwatch_backends[ACCOUNT][region], "AWS/SageMaker", dimensions, values)

    def start(self) -> None:
        """Serve in the background and write the state file."""
        threading.Thread(target=self._http.serve_forever, name="http", daemon=True).start()
        threading.Thread(target=self._watch_alarms, name="alarms", daemon=True).start()
        state = {"url": self.url, "pid": os.getpid(), "port": self.port}
        draft = self.directory / f"{STATE_FILE}.tmp"
        draft.write_text(json.dumps(state) + "\n")
        draft.replace(self.directory / STATE_FILE)

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
