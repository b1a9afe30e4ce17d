"""`inferentia rehearsal up | down | env | clock | fault`: AWS on this machine, for rehearsals."""

from __future__ import annotations

import http.client
import json
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from .access import HOSTS, LOOPBACK, STATE_FILE, AccessError, private_directory
from .control import CLOCK_PATH, FAULTS_PATH
from .control.clock import Clock

app = typer.Typer(
    help="AWS on this machine, for rehearsals. It proves nothing about AWS: docs/rehearsing.md says what it shows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
faults = typer.Typer(help="Make calls, jobs and instances fail, on purpose.", no_args_is_help=True)
app.add_typer(faults, name="fault")
DIRECTORY = Path("build/aws")
START_SECONDS = 60
REGION = "us-east-1"
PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy"})
Directory = Annotated[Path, typer.Option(help="Folder of the server's files; server.json in it says where it listens.")]
WAITS = "Waits and retries of Step Functions pass that many times faster."
LIMITS = "Time limits of jobs are reached that many times faster."
QUOTA = "Processing jobs at once on one instance type."
STDIN = "Also end when standard input ends: with the process that holds its other end, even if that is killed."
JOB_PYTHON = "The Python of jobs and instances, such as one with torch 1.13.1; by default the one that serves."
JobPython = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help=JOB_PYTHON)]
WaitSpeed = Annotated[float | None, typer.Option(min=1.0, help=WAITS)]
LimitSpeed = Annotated[float | None, typer.Option(min=1.0, help=LIMITS)]


def fail(message: str, code: int = 1) -> typer.Exit:
    """One clear line on stderr and the exit code to raise."""
    typer.echo(f"embedded_aws: {message}", err=True)
    return typer.Exit(code)


def running(directory: Path) -> dict[str, Any] | None:
    """The running server of a directory, or None."""
    file = directory / STATE_FILE
    if not file.exists():
        return None
    try:
        state: dict[str, Any] = json.loads(file.read_text())
        return state if is_server(state["pid"]) else None
    except (OSError, ValueError, TypeError, KeyError):  # not a file that a server wrote
        return None


def required(directory: Path) -> dict[str, Any]:
    """The running server of a directory. Raises typer.Exit when there is none."""
    found = running(directory)
    if found is None:
        raise fail(f"nothing runs for {directory}; start it with: inferentia rehearsal up --directory {directory}")
    return found


def is_server(pid: int) -> bool:
    """Whether that process is a server; a zombie has ended, only its parent has not asked for it yet."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "embedded_aws" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def make_private(directory: Path) -> None:
    """Make the folder of a server. Raises typer.Exit when it cannot be."""
    try:
        private_directory(directory)
    except AccessError as error:
        raise fail(f"--directory: {error}", 2) from None
    except OSError as error:
        raise fail(f"--directory {directory} cannot be made: {error.strerror}; name another folder", 2) from None


def port_is_free(port: int) -> bool:
    """Whether the loopback port can be bound."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def isolate_environment() -> None:
    """Keep the caller's own AWS profile, credentials and proxies out of this process."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower() in PROXIES:
            del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"


@app.command()
def up(directory: Directory = DIRECTORY, job_python: JobPython = None) -> None:
    """Start it in the background. Then: eval "$(inferentia rehearsal env)", cdk bootstrap, cdk deploy."""
    found = running(directory)
    if found is None:
        make_private(directory)
        found = _start(directory, [] if job_python is None else ["--job-python", str(job_python.absolute())])
    elif job_python is not None:
        raise fail(
            f"--job-python {job_python}: the server of {directory} runs already, with the Python that it was started "
            f"with; end it first: inferentia rehearsal down --directory {directory}",
            2,
        )
    typer.echo(f"AWS on this machine: {found['url']} (pid {found['pid']}, log {directory}/server.log)", err=True)


def _start(directory: Path, options: Sequence[str]) -> dict[str, Any]:
    log = directory / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603  (our own server)
            [sys.executable, "-m", "embedded_aws", "serve", "--directory", str(directory.resolve()), *options],
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while (found := running(directory)) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            process.wait()
            raise fail(f"it did not start:\n{log.read_text().strip()}")
        time.sleep(0.1)
    return found


@app.command()
def serve(  # noqa: PLR0913, PLR0917 (one parameter an option)
    directory: Directory = DIRECTORY,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="Only a loopback address is possible.")] = LOOPBACK,
    wait_speed: Annotated[float, typer.Option(min=1.0, envvar="EMBEDDED_AWS_WAIT_SPEED", help=WAITS)] = 1.0,
    limit_speed: Annotated[float, typer.Option(min=1.0, envvar="EMBEDDED_AWS_LIMIT_SPEED", help=LIMITS)] = 1.0,
    processing_quota: Annotated[int, typer.Option(min=0, envvar="EMBEDDED_AWS_PROCESSING_QUOTA", help=QUOTA)] = 4,
    job_python: JobPython = None,
    verbose: Annotated[bool, typer.Option(help="Log every request to stderr.")] = False,
    until_stdin_ends: Annotated[bool, typer.Option("--until-stdin-ends", help=STDIN)] = False,
) -> None:
    """Serve in the foreground until SIGTERM or Ctrl-C; every worker ends with it."""
    if host not in HOSTS:
        raise fail(f"--host {host}: this is no AWS to be reached from elsewhere; only 127.0.0.1 is possible.", 2)
    found = running(directory)
    if found:
        where = f"at {found['url']} (pid {found['pid']})"
        raise fail(f"already running {where}; end it with: inferentia rehearsal down --directory {directory}")
    make_private(directory)
    if not port_is_free(port):
        raise fail(f"port {port} is taken; choose another with --port, or 0 for a free one")
    isolate_environment()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("embedded_aws").setLevel(logging.DEBUG if verbose else logging.INFO)
    # moto takes a while; the other commands do not need it
    from .server import Server  # noqa: PLC0415

    server = Server(
        directory, port, Clock(wait_speed, limit_speed), processing_quota, job_python or Path(sys.executable)
    )
    typer.echo(f"AWS on this machine: {server.url} (files under {server.directory})", err=True)
    server.run(until_stdin_ends=until_stdin_ends)


@app.command()
@app.command("stop", hidden=True)
def down(directory: Directory = DIRECTORY) -> None:
    """End it, and with it every worker, job and instance; returns when they are gone."""
    found = running(directory)
    if found is None:
        (directory / STATE_FILE).unlink(missing_ok=True)
        typer.echo(f"embedded_aws: nothing runs for {directory}", err=True)
        return
    os.kill(found["pid"], signal.SIGTERM)
    deadline = time.monotonic() + 60
    while is_server(found["pid"]):
        if time.monotonic() > deadline:
            raise fail(f"pid {found['pid']} did not end within 60 s; kill it by hand")
        time.sleep(0.1)
    typer.echo(f"embedded_aws: stopped (pid {found['pid']})", err=True)


@app.command()
@app.command("environment", hidden=True)
def env(directory: Directory = DIRECTORY) -> None:
    """Print what points boto3 and the CDK CLI to it: eval "$(inferentia rehearsal env)"."""
    for name, value in variables(required(directory)).items():
        typer.echo(f"export {name}={shlex.quote(value)}")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        if name in os.environ:  # it would win over the keys above
            typer.echo(f"unset {name}")


def call_server(directory: Path, path: str, method: str, given: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a running server answers to one of its own calls."""
    found = required(directory)
    body = None if given is None else json.dumps(given)
    connection = http.client.HTTPConnection(LOOPBACK, found["port"], timeout=30)
    headers = {"Authorization": f"Bearer {found['token']}", "Content-Type": "application/json"}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    text: dict[str, Any] = json.loads(answer.read())
    if answer.status != http.client.OK:
        raise fail(text["message"], 2)
    return text


@app.command()
def clock(directory: Directory = DIRECTORY, wait_speed: WaitSpeed = None, limit_speed: LimitSpeed = None) -> None:
    """Let waits and limits pass faster or slower, for what starts from now on; print both."""
    given = {"waits": wait_speed, "limits": limit_speed}
    set_now = {key: value for key, value in given.items() if value is not None}
    typer.echo(json.dumps(call_server(directory, CLOCK_PATH, "POST" if set_now else "GET", set_now or None)))


def arm(directory: Path, **fault: Any) -> None:
    """Arm a fault of a running server."""
    call_server(directory, FAULTS_PATH, "POST", fault)


Times = Annotated[int, typer.Option(min=1, help="How often it acts before it is gone.")]
Where = Annotated[str, typer.Option(help="A regular expression that must be found; empty fits everything.")]
After = Annotated[float, typer.Option(min=0, help="Seconds after the start.")]


@faults.command("call")
def fault_call(
    operation: Annotated[str, typer.Argument(help="service:Operation, such as s3:PutObject or sagemaker:*")],
    error: Annotated[str, typer.Argument(help="The error's code, or `drop` to close the connection.")],
    directory: Directory = DIRECTORY,
    where: Where = "",
    message: Annotated[str, typer.Option(help="The error's message.")] = "",
    status: Annotated[int, typer.Option(help="The HTTP status; the usual one of the code when left out.")] = 0,
    times: Times = 1,
) -> None:
    """Refuse calls of an operation; `where` is searched in the path and query (S3) or in the request's body."""
    kind: dict[str, str] = {"action": "drop"} if error == "drop" else {"action": "error", "error": error}
    more = {"operation": operation, "where": where, "times": times, "message": message, "status": status}
    arm(directory, kind="call", **kind, **more)


@faults.command("job")
def fault_job(
    action: Annotated[str, typer.Argument(help="fail, kill, hang, stop, no-capacity or internal-error")],
    directory: Directory = DIRECTORY,
    where: Where = "",
    after: After = 0.0,
    message: Annotated[str, typer.Option(help="What a failing job says in its log.")] = "",
    times: Times = 1,
) -> None:
    """Let Processing jobs end badly; `where` is searched in the job's name."""
    arm(directory, kind="job", action=action, where=where, after_seconds=after, message=message, times=times)


@faults.command("instance")
def fault_instance(
    action: Annotated[str, typer.Argument(help="crash, hang or interrupt (the spot interruption)")],
    directory: Directory = DIRECTORY,
    where: Where = "",
    after: After = 0.0,
    times: Times = 1,
) -> None:
    """Let EC2 instances end badly; `where` is searched in the lines KEY=VALUE of the instance's tags."""
    arm(directory, kind="instance", action=action, where=where, after_seconds=after, times=times)


@faults.command("list")
def fault_list(directory: Directory = DIRECTORY) -> None:
    """Print the armed faults, one JSON object a line."""
    for fault in call_server(directory, FAULTS_PATH, "GET")["faults"]:
        typer.echo(json.dumps(fault))


@faults.command("clear")
def fault_clear(directory: Directory = DIRECTORY) -> None:
    """Disarm all faults."""
    call_server(directory, FAULTS_PATH, "DELETE")


def variables(found: dict[str, Any]) -> dict[str, str]:
    """The environment of a client; `localhost` by name, since the CDK CLI's S3 client wants a host name."""
    proxied = any(name.lower() in PROXIES for name in os.environ)
    return {
        "AWS_ENDPOINT_URL": found["url"],
        "AWS_ACCESS_KEY_ID": found["access_key"],
        "AWS_SECRET_ACCESS_KEY": found["secret_key"],
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        **({"NO_PROXY": "localhost,127.0.0.1"} if proxied else {}),  # loopback addresses are no proxy's
    }


def run(command: Callable[[], object]) -> int:
    """Run a command; its errors end it by themselves."""
    command()
    return 0
