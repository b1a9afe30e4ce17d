"""`python -m compile`: from a spec to an artifact and its lock."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

import typer
from rich.markup import escape

from compile.cli.options import err
from compile.errors import CompileError, UsageError, described
from endpoint_spec import SpecErrors
from endpoint_spec.lock import LockError
from inference_code.artifact.manifest import ManifestError

# Each has COMMANDS, by name. The order is that of --help.
COMMAND_MODULES = (
    "compile.cli.new",
    "compile.cli.weights",
    "compile.cli.buckets",
    "compile.cli.build",
    "compile.cli.cache",
    "compile.cli.jobs",
    "compile.cli.verify",
    "compile.cli.analyze",
    "compile.cli.graph",
    "compile.cli.serve",
    "compile.cli.measure",
    "compile.cli.report",
)

_TRACEBACK = "COMPILE_TRACEBACK"
_HELP = (
    "Turn a PyTorch model into an artifact for Inferentia, and prove that it equals the original.\n\n"
    "The usual order: new, build --rehearse, verify, serve. A build writes model.tar.gz and a lock; "
    "`inferentia publish` and the CDK app take it from there."
)


def make_app() -> typer.Typer:
    """The command line with every module's commands."""
    app = typer.Typer(
        help=_HELP,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    for module in COMMAND_MODULES:
        for name, command in importlib.import_module(module).COMMANDS.items():
            if isinstance(command, typer.Typer):
                app.add_typer(command, name=name)
            else:
                app.command(name)(command)
    return app


def main() -> NoReturn:
    """`python -m compile`: run its arguments, and exit."""
    app = make_app()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on there may be something to clean up
    sys.exit(run(lambda: app(prog_name="python -m compile")))


def run(command: Callable[[], object]) -> int:
    """Runs a command line. Exit codes: 0 done, 1 the work failed, 2 wrong use, 130 Ctrl-C.

    With COMPILE_TRACEBACK=1 in the environment an unexpected exception is shown whole.
    """
    # transformers warns of defaults that a build sets on purpose.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", module=r"torch\..*|transformers\..*")
    try:
        command()
    except UsageError as error:
        return _fail(error, 2)
    except (CompileError, SpecErrors, LockError, ManifestError) as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        err.print("interrupted")
        return 130
    except OSError as error:
        where = error.filename or "no file named"
        return _fail(CompileError(f"{error.strerror or error}: {where}", "Nothing was changed."), 1)
    except Exception as error:  # a fault of ours, or of a library under an unusual model
        if os.environ.get(_TRACEBACK):
            raise
        remedy = f"Set {_TRACEBACK}=1 to see where it came from."
        return _fail(CompileError(f"unexpected {described(error)}.", remedy), 1)
    return 0


def _fail(error: Exception, code: int) -> int:
    err.print(f"[bold red]error[/bold red] {escape(str(error))}", highlight=False, soft_wrap=True)
    return code
