"""`inferentia rehearsal up | stop | environment | clock | fault`: AWS on this machine, for rehearsals."""

from __future__ import annotations

import http.client
import json
import logging
import os
import shlex
import signal
import socket
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from .access import HOSTS, LOOPBACK, STATE_FILE, AccessError, private_directory
from .control import CLOCK_PATH, FAULTS_PATH

app = typer.Typer(
    help="AWS on this machine, for rehearsals: moto with a CloudFormation engine and SageMaker hosting that runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
faults = typer.Typer(help="Make calls, jobs and instances fail, on purpose.", no_args_is_help=True)
app.add_typer(faults, name="fault")
Directory = Annotated[Path, typer.Option(help="Folder of the server's files; server.json in it says where it listens.")]
REGION = "us-east-1"


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


def is_server(pid: int) -> bool:
    """Whether that process is a server; a zombie has ended, only its parent has not asked for it yet."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "embedded_aws" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def port_is_free(port: int) -> bool:
    """Whether the loopback port can be bound."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def alone() -> None:
    """Keep the caller's own AWS profile, credentials and proxies out of this process."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower() in {"http_proxy", "https_proxy", "all_proxy"}:
            del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"


@app.command()
def serve(
    directory: Directory,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="Only a loopback address is possible.")] = LOOPBACK,
    wait_speed: Annotated[
        float,
        typer.Option(
            min=1.0, envvar="EMBEDDED_AWS_WAIT_SPEED", help="Step Functions waits and retries that many times faster."
        ),
    ] = 1.0,
    limit_speed: Annotated[
        float,
        typer.Option(
            min=1.0, envvar="EMBEDDED_AWS_LIMIT_SPEED", help="Time limits of jobs are reached that many times faster."
        ),
    ] = 1.0,
    processing_quota: Annotated[
        int,
        typer.Option(
            min=0, envvar="EMBEDDED_AWS_PROCESSING_QUOTA", help="Processing jobs at once on one instance type."
        ),
    ] = 4,
    verbose: Annotated[bool, typer.Option(help="Log every request to stderr.")] = False,
) -> None:
    """Serve in the foreground until SIGTERM or Ctrl-C; every worker ends with it."""
    if host not in HOSTS:
        raise fail(f"--host {host}: this is no AWS to be reached from elsewhere; only 127.0.0.1 is possible.", 2)
    found = running(directory)
    if found:
        raise fail(
            f"already running at {found['url']} (pid {found['pid']}); stop it with: stop --directory {directory}"
        )
    try:
        private_directory(directory)
    except AccessError as error:
        raise fail(f"--directory: {error}", 2) from None
    except OSError as error:
        raise fail(f"--directory {directory} cannot be made: {error.strerror}; name another folder", 2) from None
    if not port_is_free(port):
        raise fail(f"port {port} is taken; choose another with --port, or 0 for a free one")
    alone()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("embedded_aws").setLevel(logging.DEBUG if verbose else logging.INFO)
    # moto takes a while; the other commands do not need it
    from .server import Server, Settings  # noqa: PLC0415

    server = Server(directory, port, Settings(wait_speed, limit_speed, processing_quota))
    typer.echo(f"AWS on this machine: {server.url} (files under {server.directory})", err=True)
    server.run()


@app.command()
def stop(directory: Directory) -> None:
    """End the server of a directory and wait until it and its workers are gone."""
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
def environment(directory: Directory) -> None:
    """Print the export lines that point boto3 and the CDK CLI to the server: eval "$(... environment ...)"."""
    found = running(directory)
    if found is None:
        raise fail(f"nothing runs for {directory}; start it with: inferentia rehearsal up --directory {directory}")
    for name, value in variables(found).items():
        typer.echo(f"export {name}={shlex.quote(value)}")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        if name in os.environ:  # it would win over the keys above
            typer.echo(f"unset {name}")


def armed(directory: Path, method: str, fault: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The faults that are armed after one request to a running server."""
    faults: list[dict[str, Any]] = control(directory, FAULTS_PATH, method, fault)["faults"]
    return faults


def control(directory: Path, path: str, method: str, given: dict[str, Any] | None) -> dict[str, Any]:
    """What a running server answers to one of its own calls."""
    found = running(directory)
    if found is None:
        raise fail(f"nothing runs for {directory}; start it with: inferentia rehearsal up --directory {directory}")
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
def clock(
    directory: Directory,
    wait_speed: Annotated[float | None, typer.Option(min=1.0, help="As with serve.")] = None,
    limit_speed: Annotated[float | None, typer.Option(min=1.0, help="As with serve.")] = None,
) -> None:
    """Let waits and limits of a running server pass faster or slower, for what starts from now on; print both."""
    given = {"waits": wait_speed, "limits": limit_speed}
    set_now = {key: value for key, value in given.items() if value is not None}
    typer.echo(json.dumps(control(directory, CLOCK_PATH, "POST" if set_now else "GET", set_now or None)))


Times = Annotated[int, typer.Option(min=1, help="How often it acts before it is gone.")]
Where = Annotated[str, typer.Option(help="A regular expression that must be found; empty fits everything.")]
After = Annotated[float, typer.Option(min=0, help="Seconds after the start.")]


@faults.command("call")
def fault_call(
    operation: Annotated[str, typer.Argument(help="service:Operation, such as s3:PutObject or sagemaker:*")],
    error: Annotated[str, typer.Argument(help="The error's code, or `drop` to close the connection.")],
    directory: Directory,
    where: Where = "",
    message: Annotated[str, typer.Option(help="The error's message.")] = "",
    status: Annotated[int, typer.Option(help="The HTTP status; the usual one of the code when left out.")] = 0,
    times: Times = 1,
) -> None:
    """Refuse calls of an operation; `where` is searched in the path and query (S3) or in the request's body."""
    action = "drop" if error == "drop" else "error"
    code = "" if action == "drop" else error
    asked = {"kind": "call", "action": action, "operation": operation, "error": code, "where": where, "times": times}
    armed(directory, "POST", {**asked, "message": message, "status": status})


@faults.command("job")
def fault_job(
    action: Annotated[str, typer.Argument(help="fail, kill, hang, stop, no-capacity or internal-error")],
    directory: Directory,
    where: Where = "",
    after: After = 0.0,
    message: Annotated[str, typer.Option(help="What a failing job says in its log.")] = "",
    times: Times = 1,
) -> None:
    """Let Processing jobs end badly; `where` is searched in the job's name."""
    asked = {
        "kind": "job",
        "action": action,
        "where": where,
        "after_seconds": after,
        "message": message,
        "times": times,
    }
    armed(directory, "POST", asked)


@faults.command("instance")
def fault_instance(
    action: Annotated[str, typer.Argument(help="crash, hang or interrupt (the spot interruption)")],
    directory: Directory,
    where: Where = "",
    after: After = 0.0,
    times: Times = 1,
) -> None:
    """Let EC2 instances end badly; `where` is searched in the lines KEY=VALUE of the instance's tags."""
    asked = {"kind": "instance", "action": action, "where": where, "after_seconds": after, "times": times}
    armed(directory, "POST", asked)


@faults.command("list")
def fault_list(directory: Directory) -> None:
    """Print the armed faults, one JSON object a line."""
    for fault in armed(directory, "GET"):
        typer.echo(json.dumps(fault))


@faults.command("clear")
def fault_clear(directory: Directory) -> None:
    """Disarm all faults."""
    armed(directory, "DELETE")


def proxied() -> bool:
    """Whether the caller reaches the network through a proxy, which must not be asked for loopback addresses."""
    return any(name.lower() in {"http_proxy", "https_proxy", "all_proxy"} for name in os.environ)


def variables(found: dict[str, Any]) -> dict[str, str]:
    """The environment of a client; `localhost` by name, since the CDK CLI's S3 client wants a host name."""
    return {
        "AWS_ENDPOINT_URL": found["url"],
        "AWS_ACCESS_KEY_ID": found["access_key"],
        "AWS_SECRET_ACCESS_KEY": found["secret_key"],
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        **({"NO_PROXY": "localhost,127.0.0.1"} if proxied() else {}),
    }


if __name__ == "__main__":
    app()
