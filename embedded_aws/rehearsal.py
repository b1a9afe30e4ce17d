"""`inferentia rehearsal`: start, steer and end an AWS on this machine."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from .__main__ import clock, environment, fail, faults, running, stop
from .access import AccessError, private_directory

app = typer.Typer(
    help="AWS on this machine, for rehearsals. It proves nothing about AWS: docs/rehearsing.md says what it shows.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
DIRECTORY = Path("build/aws")
START_SECONDS = 60
Directory = Annotated[Path, typer.Option(help="Folder of the server's files.")]


@app.command()
def up(directory: Directory = DIRECTORY) -> None:
    """Start it in the background. Then: eval "$(inferentia rehearsal env)", cdk bootstrap, cdk deploy."""
    found = running(directory)
    if found is None:
        try:
            private_directory(directory)
        except (AccessError, OSError) as error:
            raise fail(f"--directory: {error}", 2) from None
        found = _start(directory)
    typer.echo(f"AWS on this machine: {found['url']} (pid {found['pid']}, log {directory}/server.log)", err=True)


def _start(directory: Path) -> dict[str, object]:
    log = directory / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603  (our own server)
            [sys.executable, "-m", "embedded_aws", "serve", "--directory", str(directory.resolve())],
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
def down(directory: Directory = DIRECTORY) -> None:
    """End it, and with it every worker, job and instance."""
    stop(directory)


@app.command()
def env(directory: Directory = DIRECTORY) -> None:
    """Print what points boto3 and the CDK CLI to it: eval "$(inferentia rehearsal env)"."""
    environment(directory)


@app.command("clock")
def clock_command(
    directory: Directory = DIRECTORY,
    wait_speed: Annotated[float | None, typer.Option(min=1.0, help="Waits pass that many times faster.")] = None,
    limit_speed: Annotated[float | None, typer.Option(min=1.0, help="Limits are reached so much faster.")] = None,
) -> None:
    """Let waits and limits pass faster, for what starts from now on; print both."""
    clock(directory, wait_speed, limit_speed)


app.add_typer(faults, name="fault")


def run(command: Callable[[], object]) -> int:
    """Run a command; its errors end it by themselves."""
    command()
    return 0
