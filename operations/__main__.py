"""`python -m operations`: compile in an account, publish an artifact, try an endpoint, empty the bucket."""

from __future__ import annotations

import signal

# Until a command runs there is nothing to clean up: Ctrl-C ends it at once.
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys
from collections.abc import Callable
from typing import Any

import typer

import endpoint_spec as specs
from endpoint_spec.lock import LockError

from .account import translate_aws_errors
from .commands import artifacts, conformance, images, jobs, policies, preflight, smoke, status
from .commands.common import console, say
from .errors import OperationError, WrongUseError

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
for group in (status, preflight, jobs, artifacts, policies, smoke, conformance):  # the order is that of --help
    for name, command in group.COMMANDS.items():
        app.command(name)(command)
app.add_typer(images.app, name="image")


def main() -> int:
    """`python -m operations`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return run(app)


def run(command: Callable[[], Any]) -> int:
    """Run a command; 0 done, 1 the work failed, 2 wrong use, 130 stopped following a run with Ctrl-C."""
    try:
        with translate_aws_errors():
            command()
    except (WrongUseError, specs.ProjectError) as error:
        return _ended("wrong use", error, 2)
    except (OperationError, specs.SpecErrors, LockError, OSError) as error:
        return _ended("failed", error, 1)
    return 0


def _ended(how: str, error: Exception, code: int) -> int:
    console.print(f"[bold red]{how}:[/]", end=" ")
    say(str(error))
    return code


if __name__ == "__main__":
    sys.exit(main())
