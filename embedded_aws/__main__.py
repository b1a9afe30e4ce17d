"""`python -m embedded_aws serve | stop | environment`: AWS on this machine, for rehearsals."""

from __future__ import annotations

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

from embedded_aws.clients import ACCESS_KEY, SECRET_KEY

app = typer.Typer(
    help="AWS on this machine, for rehearsals: moto with a CloudFormation engine and SageMaker hosting that runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Directory = Annotated[Path, typer.Option(help="Folder of the server's files; server.json in it says where it listens.")]
STATE_FILE = "server.json"
LOOPBACK = {"127.0.0.1", "localhost"}
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
            probe.bind(("127.0.0.1", port))
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
    host: Annotated[str, typer.Option(help="Only a loopback address is possible.")] = "127.0.0.1",
    verbose: Annotated[bool, typer.Option(help="Log every request to stderr.")] = False,
) -> None:
    """Serve in the foreground until SIGTERM or Ctrl-C; every worker ends with it."""
    if host not in LOOPBACK:
        raise fail(f"--host {host}: this is no AWS to be reached from elsewhere; only 127.0.0.1 is possible.", 2)
    found = running(directory)
    if found:
        raise fail(
            f"already running at {found['url']} (pid {found['pid']}); stop it with: stop --directory {directory}"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise fail(f"--directory {directory} cannot be made: {error.strerror}; name another folder", 2) from None
    if not port_is_free(port):
        raise fail(f"port {port} is taken; choose another with --port, or 0 for a free one")
    alone()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("embedded_aws").setLevel(logging.DEBUG if verbose else logging.INFO)
    from embedded_aws.server import Server  # noqa: PLC0415 - moto takes a while; the other commands do not need it

    server = Server(directory, port)
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
        raise fail(f"nothing runs for {directory}; start it with: python -m embedded_aws serve --directory {directory}")
    for name, value in variables(found["url"]).items():
        typer.echo(f"export {name}={shlex.quote(value)}")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        if name in os.environ:  # it would win over the keys above
            typer.echo(f"unset {name}")


def proxied() -> bool:
    """Whether the caller reaches the network through a proxy, which must not be asked for loopback addresses."""
    return any(name.lower() in {"http_proxy", "https_proxy", "all_proxy"} for name in os.environ)


def variables(url: str) -> dict[str, str]:
    """The environment of a client; `localhost` by name, since the CDK CLI's S3 client wants a host name."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        **({"NO_PROXY": "localhost,127.0.0.1"} if proxied() else {}),
    }


if __name__ == "__main__":
    app()
